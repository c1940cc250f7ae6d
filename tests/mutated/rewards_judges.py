"""Mistakes in the rewards that read, and in those that ask a judge."""

from .target import Target

TARGETS = [
    Target(
        "trainer/rewards/ocr.py",
        ("test_ocr_reward.py",),
        {
            "apostrophes are quotes": (
                """r'["“”„«»「]([^"“”„«»「」]*)["“”«»」]'""",
                """r'["\\'“]([^"\\'”]*)["\\'”]'""",
            ),
            "last quoted part": ("QUOTED.search(prompt)", "([None, *QUOTED.finditer(prompt)])[-1]"),
            "nothing between quotes": ("if not found or not plain(found[1]):", "if not found:"),
            "the whole prompt in the message": ("if len(prompt) <= 80 else", "if prompt else"),
            "red first": ("torch.uint8).flip(1).permute", "torch.uint8).permute"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "every picture for the first prompt": (
                "zip(pixels, targets, strict=True)",
                "((p, targets[0]) for p in pixels)",
            ),
            "nothing read is an error": (".txts or ())", ".txts)"),
            "upper case counts": (".lower()", ""),
            "spaces count": ('"".join(text.split()).lower()', "text.lower()"),
            "more text around it counts": ("if target in read:", "if target == read:"),
            "below 0": ("min(levenshtein(read, target), len(target))", "levenshtein(read, target)"),
            "of the longer text": ("len(target)) / len(target)", "len(target)) / max(len(read), len(target))"),
            "replacement costs two": ("diagonal + (x != y)", "diagonal + 2 * (x != y)"),
            "no insertions": ("row[j - 1] + 1, diagonal", "diagonal"),
        },
    ),
]
