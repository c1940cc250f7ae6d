"""Mistakes in the rewards."""

from .target import Target

TARGETS = [
    Target(
        "trainer/rewards/combine.py",
        ("test_combine.py",),
        {
            "held-out reward enters the sum": (
                "weights[name] * s.double() for name, s in trained.items()",
                "weights.get(name, 1.0) * s.double() for name, s in {**scores, **trained}.items()",
            ),
            "held-out NaN silences": ("for s in trained.values()", "for s in scores.values()"),
            "weights ignored": ("weights[name] * s.double()", "s.double()"),
            "weight's sign ignored": ("weights[name] * s.double()", "abs(weights[name]) * s.double()"),
            "raw is normalised too": ('if normalisation == "advantage":', "if normalisation in NORMALISATIONS:"),
            "NaN in one of two rewards passes": (
                "informative = informative & finite",
                "informative = informative.clone()",
            ),
            "what cancels becomes noise": ("torch.where(cancelled[:, None], 0, total)", "total.clone()"),
        },
    ),
    Target(
        "trainer/rewards/pixels.py",
        ("test_pixel_rewards.py",),
        {
            "spread of the sample": ("std(-1, correction=0)", "std(-1, correction=1)"),
            "yellow-blue without the half": ("(red + green) / 2 - blue", "(red + green) - blue"),
            "offset at full weight": ("0.3 * offset", "offset"),
            "spreads added, not in quadrature": ("correction=0).norm(dim=1)", "correction=0).sum(dim=1)"),
            "large files are better": ("/ -500", "/ 500"),
            "kibibytes": ("/ 1000 for p", "/ 1024 for p"),
            "another quality": ("quality = 95", "quality = 94"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "width for height": ("permute(0, 2, 3, 1)", "permute(0, 3, 2, 1)"),
        },
    ),
    Target(
        "trainer/rewards/clip.py",
        ("test_clip_reward.py",),
        {
            "the mean stays on its device": ("self.mean.to(device), self.std", "self.mean, self.std"),
            "text features stay on their device": ("vector.to(device) for", "vector for"),
            "long edge rounded": ("self.size * width // shortest)", "round(self.size * width / shortest))"),
            "squashed to a square": (
                "(self.size * height // shortest, self.size * width // shortest)",
                "(self.size, self.size)",
            ),
            "without antialias": ("antialias=True", "antialias=False"),
            "cropped at the corner": (
                "top, left = (size[0] - self.size) // 2,",
                "top, left = 0 * (size[0] - self.size) // 2,",
            ),
            "not normalised": ("return (images - self.mean) / self.std", "return images"),
            "text vector of any length": (
                "F.normalize(_tensor(self.model.get_text_features(**tokens)), dim=-1)[0]",
                "_tensor(self.model.get_text_features(**tokens))[0]",
            ),
            "every prompt encoded again": ("if prompt not in self.texts:", "if prompt:"),
            "logit scale without exp": ("self.model.logit_scale.exp()", "self.model.logit_scale"),
            "damaged weights uncaught": ("RuntimeError, SafetensorError)", "RuntimeError)"),
        },
    ),
]
