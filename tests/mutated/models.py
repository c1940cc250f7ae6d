"""Mistakes around FLUX: geometry, LoRA, decoding."""

from .target import Target

TARGETS = [
    Target(
        "trainer/models/encode_image.py",
        ("test_encode_image.py",),
        {
            "a sample in place of the mode": (".mode().float()", ".sample().float()"),
            "shift after the scale": (
                "(z - (config.shift_factor or 0)) * config.scaling_factor",
                "z * config.scaling_factor - (config.shift_factor or 0)",
            ),
            "stretched, not cut": (
                "ImageOps.fit(picture, (geometry.width, geometry.height),",
                "picture.resize((geometry.width, geometry.height),",
            ),
            "a camera's turn ignored": ("return ImageOps.exif_transpose(picture)", "return picture.copy()"),
            "any masked pixel masks": ("avg_pool2d(mask[None], 8)[0] >= 0.5", "max_pool2d(mask[None], 8)[0] >= 0.5"),
            "the hole is black": ("torch.where(hole.bool(), 0.5, images)", "torch.where(hole.bool(), 0.0, images)"),
            "mask's pixels in another order": (".permute(1, 3, 0, 2)", ".permute(3, 1, 0, 2)"),
            "digest of the first picture": (
                "for picture in pictures:\n        total",
                "for picture in pictures[:1]:\n        total",
            ),
        },
    ),
    Target(
        "trainer/models/geometry.py",
        ("test_geometry.py",),
        {
            "channels last in a token": ("permute(0, 2, 4, 1, 3, 5)", "permute(0, 2, 4, 3, 5, 1)"),
            "unpacked columns for rows": ("permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 1, 5, 2, 4)"),
            "column before row": ("(rows), rows, columns]", "(rows), columns, rows]"),
            "latents lie on their side": ("2 * self.rows, 2 * self.columns)", "2 * self.columns, 2 * self.rows)"),
            "any multiple of 8 allowed": ("pixels % PIXELS_PER_TOKEN:", "pixels % 8:"),
            "suggests 0": ("max(1, pixels // PIXELS_PER_TOKEN)", "(pixels // PIXELS_PER_TOKEN)"),
        },
    ),
    Target(
        "trainer/models/source.py",
        ("test_source.py",),
        {
            "damaged weights uncaught": ("RuntimeError, SafetensorError)", "RuntimeError)"),
            "missing weights are random": ("        if missing:", "        if False:"),
        },
    ),
    Target(
        "trainer/models/lora.py",
        ("test_lora.py",),
        {
            "alpha always 1": ("torch.tensor(float(alpha))", "torch.tensor(1.0)"),
            "bare names": ('tensors = {f"transformer.{name}": w.', 'tensors = {f"{name}": w.'),
            "last layer trained too": (
                "single_transformer_blocks\\.\\d+\\.(proj_mlp|proj_out)",
                "(.+\\.)?(proj_mlp|proj_out)",
            ),
            "LoRA in the model's precision": ("[adapter].to(device, torch.float32)", "[adapter].to(device)"),
            "one LoRA's parameters for all": ("[adapter].weight\n", "[sorted(getattr(layer, half))[0]].weight\n"),
            "seed ignored": ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
        },
    ),
    Target(
        "trainer/models/flux.py",
        ("test_flux.py", "test_lora.py"),
        {
            "latents multiplied by the scale": ("/ config.scaling_factor", "* config.scaling_factor"),
            "no shift of the latents": ("+ (config.shift_factor or 0)", ""),
            "every model's sigmas shift": ("scheduler.config.use_dynamic_shifting", "True"),
            "pictures not centred": ("/ 2 + 0.5", "/ 2"),
            "guidance forgotten": ("self.guidance) if guided", "1.0) if guided"),
            "reference keeps the LoRA": ("self.transformer.disable_adapters()", "pass"),
            "whichever LoRA came last": ("        self.activate()\n", ""),
            "conditions in the wrong order": ("conditioning.pooled[rows]", "conditioning.pooled[rows.flip(0)]"),
        },
    ),
    Target(
        "trainer/models/single_file.py",
        ("test_single_file.py",),
        {
            "scale and shift stay": ("torch.cat(tensor.chunk(2)[::-1])", "tensor"),
            "keys before queries": ('QKV = ("q", "k", "v")', 'QKV = ("k", "q", "v")'),
            "text and picture swapped": ('block[3].startswith("img")', 'block[3].startswith("txt")'),
            "prefix kept": ("name.removeprefix(PREFIX): name", "name: name"),
            "axes of equal size": ("[head - 2 * side, side, side]", "[side, side, head - 2 * side]"),
            "strange tensors ignored": (
                "odd = [*wrong.missing_keys, *wrong.unexpected_keys]",
                "odd = wrong.missing_keys",
            ),
        },
    ),
]
