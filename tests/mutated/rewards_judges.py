"""Mistakes in the rewards that read, and in those that ask a judge."""

from .target import Target

TARGETS = [
    Target(
        "trainer/rewards/quoted.py",
        ("test_ocr_reward.py",),
        {
            "apostrophes are quotes": (
                """r'["“”„«»「]([^"“”„«»「」]*)["“”«»」]'""",
                """r'["\\'“]([^"\\'”]*)["\\'”]'""",
            ),
            "last quoted part": ("QUOTED.search(prompt)", "([None, *QUOTED.finditer(prompt)])[-1]"),
            "nothing between quotes": ("if not found or not plain(found[1]):", "if not found:"),
            "the whole prompt in the message": ("if len(prompt) <= 80 else", "if prompt else"),
            "upper case counts": (".lower()", ""),
            "spaces count": ('"".join(text.split()).lower()', "text.lower()"),
        },
    ),
    Target(
        "trainer/rewards/ocr.py",
        ("test_ocr_reward.py",),
        {
            "red first": ("torch.uint8).flip(1).permute", "torch.uint8).permute"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "every picture for the first prompt": (
                "zip(pixels, targets, strict=True)",
                "((p, targets[0]) for p in pixels)",
            ),
            "nothing read is an error": (".txts or ())", ".txts)"),
            "more text around it counts": ("if target in read:", "if target == read:"),
            "below 0": ("min(levenshtein(read, target), len(target))", "levenshtein(read, target)"),
            "of the longer text": ("len(target)) / len(target)", "len(target)) / max(len(read), len(target))"),
            "replacement costs two": ("diagonal + (x != y)", "diagonal + 2 * (x != y)"),
            "no insertions": ("row[j - 1] + 1, diagonal", "diagonal"),
        },
    ),
    Target(
        "trainer/rewards/image_reward.py",
        ("test_image_reward.py",),
        {
            "text model as a decoder": ("is_decoder=False", "is_decoder=True"),
            "padding counts": ("self.text(tokens, mask, ", "self.text(tokens, mask | True, "),
            "state of the last token": ("h = states[:, 0].float()", "h = states[:, -1].float()"),
            "without the mean": ("tokens, mask) - MEAN) / STD", "tokens, mask)) / STD"),
            "without the standard deviation": (" - MEAN) / STD)", " - MEAN))"),
            "another length": ("LENGTH = 35", "LENGTH = 34"),
            "transformers' vision epsilon": ("layer_norm_eps=1e-6,", "layer_norm_eps=1e-2,"),
            "transformers' text heads": ("text_width // HEAD_WIDTH", "8"),
            "vision heads of another width": ("=width // HEAD_WIDTH", "=width // 32"),
            "norms swapped": (r".layer_norm\2.", r".layer_norm1."),
            "weights of any kind": ("assign=True)\n    except", "assign=True, strict=False)\n    except"),
            "positions left on the meta device": (
                "model.text.embeddings.position_ids = torch",
                "positions = torch",
            ),
            "upper case is another word": ("lowercase=True", "lowercase=False"),
            "tokens of BLIP in another order": ('["[DEC]", "[ENC]"]', '["[ENC]", "[DEC]"]'),
            "vocabulary unchecked": ("tokenizer.get_vocab_size() != words", "False"),
            "head in half precision": (
                "F.linear(h, self.weight.float(), self.bias.float())",
                "F.linear(h.to(self.weight.dtype), self.weight, self.bias)",
            ),
            "dropout at work": ("model.eval().requires_grad_(False)", "model.train().requires_grad_(False)"),
        },
    ),
    Target(
        "trainer/rewards/vlm.py",
        ("test_vlm_judge.py",),
        {
            "the same question again": ("TEMPERATURES = (0.0, 1.0)", "TEMPERATURES = (0.0, 0.0)"),
            "asked three times": ("TEMPERATURES = (0.0, 1.0)", "TEMPERATURES = (0.0, 1.0, 1.0)"),
            "told every time": ("self.warned = True", "self.warned = False"),
            "braces in a prompt are fields": (
                "self.template.replace(PROMPT, prompt)",
                "self.template.format(prompt=prompt)",
            ),
            "the first number counts": ("numbers[-1]", "numbers[0]"),
            "not divided": ("return value / self.scale if", "return value if"),
            "above the best": ("if 0 <= value <= self.scale else", "if 0 <= value else"),
            "below 0": ("if 0 <= value <= self.scale else", "if value <= self.scale else"),
            "no score is 0": ("            return math.nan", "            return 0.0"),
            "one at a time": ("asyncio.Semaphore(self.concurrency)", "asyncio.Semaphore(1)"),
            "all at once": ("asyncio.Semaphore(self.concurrency)", "asyncio.Semaphore(256)"),
            "a refusal leaves the others asking": ("                one.cancel()\n", "                pass\n"),
            "squashed to a square": ("tuple(max(round(n * size / longest), 1) for n", "tuple(size for n"),
            "shortest edge": ("longest = max(image", "longest = min(image"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "overshoot wraps around": (")[0].clamp(0, 1)", ")[0]"),
            "two groups": ("compiled.groups == 1", "compiled.groups >= 1"),
            "true is a number": ("type(number) in kind", "isinstance(number, kind)"),
            "v1 twice": ('.removesuffix("/v1")', ""),
        },
    ),
    Target(
        "trainer/rewards/preprocess.py",
        ("test_image_reward.py",),
        {"ImageReward's crop rounded down": ("round(m / 2) if", "m // 2 if")},
    ),
]
