"""Mistakes in reading the weights that ComfyUI quantised."""

from .target import Target

TARGETS = [
    Target(
        "trainer/models/files/comfy_formats.py",
        ("test_comfy_formats.py",),
        {
            "nvfp4's halves swapped": ("FP4, high_first=True", "FP4, high_first=False"),
            "int4's halves swapped": ("INT4, high_first=False", "INT4, high_first=True"),
            "a book's halves swapped": ("book, high_first=False", "book, high_first=True"),
            "every half is the low one": ("[high, low] if high_first", "[low, low] if high_first"),
            "no sign in nvfp4": ("torch.cat([E2M1, -E2M1])", "torch.cat([E2M1, E2M1])"),
            "no denormal in nvfp4": ("[0, 0.5, 1, 1.5, 2,", "[0, 0.25, 1, 1.5, 2,"),
            "no sign in int4": ("[*range(8), *range(-8, 0)]", "[*range(16)]"),
            "a book in the order of codes": ("INT4.sort().values", "INT4"),
            "scales not swizzled": (
                "tiles.permute(0, 3, 2, 1, 4).flatten(0, 2).flatten(1)[:rows, :columns]",
                "stored.reshape(-(-rows // 128) * 128, -1)[:rows, :columns]",
            ),
            "scales of 32 rows in order": ("tiles.permute(0, 3, 2, 1, 4)", "tiles.permute(0, 2, 3, 1, 4)"),
            "tiles in columns": (
                "stored.reshape(-(-rows // 128), -(-columns // 4), 32, 4, 4)",
                "stored.reshape(-(-columns // 4), -(-rows // 128), 32, 4, 4).transpose(0, 1)",
            ),
            "nvfp4 without its second scale": (
                'blocks * of.parts["weight_scale_2"].float().reshape(())',
                "blocks",
            ),
            "nvfp4 in blocks of 32": ("NVFP4_BLOCK, MXFP8_BLOCK = 16, 32", "NVFP4_BLOCK, MXFP8_BLOCK = 32, 32"),
            "mxfp8 in blocks of 16": ("NVFP4_BLOCK, MXFP8_BLOCK = 16, 32", "NVFP4_BLOCK, MXFP8_BLOCK = 16, 16"),
            "exponents half a bit off": ("exponents.int() << MANTISSA", "exponents.int() + 1 << MANTISSA"),
            "scales forgotten": (".mul_(scales[..., None])", ""),
            "all rows' scales for some": ("if self.ranges else of_all", "if False else of_all"),
            "tiles of one row": (".repeat_interleave(of.shape[0] // rows, 0)", ".repeat(of.shape[0] // rows, 1)"),
            "a rotation of no length": ("(h / math.isqrt(size))", "h"),
            "another rotation": ("[1, 1, -1, 1], [1, -1, 1, 1], [-1,", "[1, 1, -1, -1], [1, -1, 1, -1], [-1,"),
            "a smaller rotation": ("while len(h) < size:", "while 4 * len(h) < size:"),
            "not rounded to whole numbers": ("eight.round_().clamp_", "eight.clamp_"),
            "more than 8 bits": (".clamp_(-127, 127)", ""),
            "without the rows' scale": ("of.scales(rows.view(-1, 1)))", "torch.ones(len(eight), 1))"),
        },
    ),
    Target(
        "trainer/models/files/comfy_formats.py",
        ("test_comfy_layers.py",),
        {
            "scales of any shape": ("if math.prod(scale) != rows * columns or", "if"),
            "scales of 0": ("        if not of_all.any():\n", "        if False:\n"),
        },
    ),
    Target(
        "trainer/models/files/comfy_layers.py",
        ("test_comfy_formats.py",),
        {
            "rotated weights stay so": ("            if self.options.rotated:\n", "            if False:\n"),
            "smoothed columns stay so": ("            if SMOOTHED in parts:\n", "            if False:\n"),
            "smoothing ignored": ("or options.rotated or SMOOTHED in parts", "or options.rotated"),
            "rotation ignored": ("or options.rotated or SMOOTHED", "or SMOOTHED"),
            "older options ignored": (
                "{**inner, **told} if isinstance(inner, dict)",
                "told if isinstance(inner, dict)",
            ),
            "the header says nothing": ("    if layer in texts:\n", "    if False:\n"),
            "groups of 16 for any": ('told.get("group_size", Options.group)', "Options.group"),
        },
    ),
    Target(
        "trainer/models/files/comfy_layers.py",
        ("test_comfy_layers.py",),
        {
            "what is not a number passes": ("if not torch.stack(numbers.aminmax()).isfinite().all():", "if False:"),
            "parts are missing": ("        if name not in parts:\n", "        if False:\n"),
            "parts of other sizes": ("math.prod(part.shape) != need.numbers or", ""),
            "parts of other kinds": (" or part.dtype not in need.kinds", ""),
            "weights of other kinds": ("        if weight.dtype not in form.kinds:\n", "        if False:\n"),
            "any number of columns is rotated": ("if options.rotated and shape[1] % options.rotated:", "if False:"),
            "sizes without a rotation": ("if rotated not in (0, *(4**n for n in range(1, 9))):", "if False:"),
            "texts without end": ("or math.prod(text.shape) > LONGEST", ""),
            "texts nested without end": ("(ValueError, RecursionError) as error", "ValueError as error"),
            "8 bits are never kept": ("        if _as_it_is(weight, form, options, parts):\n", "        if False:\n"),
            "the header knows no prefix": (
                "layers | {TRANSFORMER_PREFIX + layer: told for layer, told in layers.items()}",
                "layers | {}",
            ),
            "the older name unknown": ('"weight_scale": SCALES,', '"weight_scale": SCALES[1:],'),
            "scales of any kind": ("scale.dtype in FLOATS and is_plain", "is_plain"),
        },
    ),
    Target(
        "trainer/models/files/weights.py",
        ("test_comfy_layers.py", "test_comfy_formats.py"),
        {
            "whole numbers unknown": ('in (*FLOATING, "I8") else kind', "in FLOATING else kind"),
            "all rows' scales for some": ("if self.rows else scale\n", "if False else scale\n"),
            "columns have the scales": ("reshape(-1, *(1 for _ in self.shape[1:]))", "reshape(1, -1)"),
            "scales that are none": ("if not scale.isfinite().all() or not scale.any():", "if False:"),
            "infinite scales": ("not scale.isfinite().all() or ", ""),
            "scales of 0": (" or not scale.any()", ""),
            "any list of scales is for rows": ("count == scale[0] == weight[0]", "count == scale[0]"),
            "nobody quantised it": ("if (missing or coded) and (by := quantiser(pieces)):", "if by := '':"),
        },
    ),
    Target(
        "trainer/models/files/recognise.py",
        ("test_comfy_layers.py",),
        {"Nunchaku unknown": ('        "single_transformer_blocks.0.mlp_fc1.",', '        "nothing",')},
    ),
    Target(
        "trainer/models/flux1/single_file.py",
        ("test_comfy_layers.py",),
        {
            "half a FLUX is another model": ("    if kind == FLUX1:\n", "    if False:\n"),
            "quantised is another model": ("    if quantiser(tensors):\n", "    if False:\n"),
        },
    ),
]
