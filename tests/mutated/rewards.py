"""Mistakes in the rewards."""

from .target import Target

TARGETS = [
    Target(
        "trainer/stages/combine.py",
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
            "bounds ignored": ("s.clamp(*clips[name]) if name in clips else s", "s"),
            "bounds hide infinity": (
                "finite = torch.stack([s.isfinite().all(-1) for s in trained.values()])",
                "finite = torch.stack([s.clamp(*clips.get(n, (-9,))).isfinite().all(-1) for n, s in trained.items()])",
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
            "large files are better": ("JpegSize(-1 / 500)", "JpegSize(1 / 500)"),
            "kibibytes": ("/ 1000 for p", "/ 1024 for p"),
            "another quality": ("quality = 95", "quality = 94"),
            "pixels cut off, not rounded": (".round().to(torch.uint8)", ".to(torch.uint8)"),
            "width for height": ("permute(0, 2, 3, 1)", "permute(0, 3, 2, 1)"),
        },
    ),
    Target(
        "trainer/rewards/base.py",
        ("test_placement.py",),
        {
            "models stay where they are": ("        move(rewards, device)  # which", "        pass  # which"),
            "half-way is where they stay": (
                "    try:\n        move(rewards, device)  # which may run out of room half-way\n",
                "    move(rewards, device)\n    try:\n",
            ),
            "models leave unasked": ("        if not stay:\n            move", "        move"),
            "models never leave": ("        if not stay:", "        if stay and not stay:"),
        },
    ),
    Target(
        "trainer/engine/drawing.py",
        ("test_placement.py",),
        {
            "rewards are offloaded unasked": (
                "setup.policy.device, not setup.config.run.offload_rewards",
                "setup.policy.device, False",
            )
        },
    ),
    Target(
        "trainer/training/waiting.py",
        ("test_placement.py",),
        {"a patient reward stays where it is": ("        move([self.reward], device)", "        pass")},
    ),
]
