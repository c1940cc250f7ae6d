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
            "crop rounded down": ("round((n - size) / 2)", "(n - size) // 2"),
            "long edge rounded": ("size * n // shortest", "round(size * n / shortest)"),
            "without antialias": ("antialias=True", "antialias=False"),
            "without the clamp": (".clamp(0, 1)", ""),
            "not normalised": ("return (images - mean) / std", "return images"),
            "weights of any kind": ("assign=True)\n    except", "assign=True, strict=False)\n    except"),
            "positions left on the meta device": (
                "model.text.embeddings.position_ids = torch",
                "positions = torch",
            ),
            "upper case is another word": ("lowercase=True", "lowercase=False"),
            "tokens of BLIP in another order": ('["[DEC]", "[ENC]"]', '["[ENC]", "[DEC]"]'),
            "vocabulary unchecked": ("tokenizer.get_vocab_size() != words", "False"),
            "head in half precision": (
                "F.linear(h, layer.weight.float(), layer.bias.float())",
                "F.linear(h.to(layer.weight.dtype), layer.weight, layer.bias)",
            ),
            "dropout at work": ("model.eval().requires_grad_(False)", "model.train().requires_grad_(False)"),
        },
    ),
]
