"""Mistakes around FLUX: geometry, LoRA, decoding."""

from .target import Target

TARGETS = [
    Target(
        "trainer/models/flux1/encode_image.py",
        ("test_encode_image.py",),
        {
            "any masked pixel masks": ("avg_pool2d(mask[None], 8)[0] >= 0.5", "max_pool2d(mask[None], 8)[0] >= 0.5"),
            "the hole is black": ("torch.where(hole.bool(), 0.5, images)", "torch.where(hole.bool(), 0.0, images)"),
            "mask's pixels in another order": (".permute(1, 3, 0, 2)", ".permute(3, 1, 0, 2)"),
        },
    ),
    Target(
        "trainer/picture_files.py",
        ("test_picture_files.py", "test_picture_transparency.py", "test_encode_image.py"),
        {
            "a camera's turn ignored": ("    ImageOps.exif_transpose(picture, in_place=True)\n", ""),
            "transparent parts on black": ('"RGBA", picture.size, "white"', '"RGBA", picture.size, "black"'),
            "transparent parts keep their colours": ("if not picture.has_transparency_data:", "if True:"),
            "16 bits cut": ("np.rint(values * np.float32(255 / white))", "values"),
            "12 bits are 16": ("_tag(picture, BITS_PER_SAMPLE, 16)", "16"),
            "signs ignored": (" - (_tag(picture, SAMPLE_FORMAT, 1) == SIGNED)", ""),
            "any values": ("if not -TOLERANCE * white <= low <= high", "if not low <= high"),
            "white is white": ("== WHITE_IS_ZERO:", "== -1:"),
            "a transparent grey of 16 bits is seen": ("    if key is not None:", "    if False:"),
            "a transparent grey of 4 bits is seen": ('raw in ("L;2", "L;4"):', 'raw == "L;2":'),
            "a transparent colour of 16 bits is seen": ('raw == "RGB;16B":', "False:"),
            "a mask's opacity ignored": ("        return alpha\n", "        return picture.convert('L')\n"),
            "colours for a mask": ("if np.ptp(seen, axis=1).max() > LEVELS:", "if False:"),
            "any pixels": ("if width * height > self.pixels:", "if False:"),
            "any format": ("formats=self.formats)", "formats=None)"),
            "a pipe is waited for": ("if not stat.S_ISREG(mode):", "if False:"),
            "digest of the first picture": (
                "for picture in pictures:\n        total",
                "for picture in pictures[:1]:\n        total",
            ),
        },
    ),
    Target(
        "trainer/models/flux1/geometry.py",
        ("test_geometry.py",),
        {
            "channels last in a token": ("permute(0, 2, 4, 1, 3, 5)", "permute(0, 2, 4, 3, 5, 1)"),
            "unpacked columns for rows": ("permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 1, 5, 2, 4)"),
            "column before row": ("picture), rows, columns]", "picture), columns, rows]"),
            "latents lie on their side": ("2 * self.rows, 2 * self.columns)", "2 * self.columns, 2 * self.rows)"),
            "any multiple of 8 allowed": ("pixels % PIXELS_PER_TOKEN:", "pixels % 8:"),
            "suggests 0": ("max(1, pixels // PIXELS_PER_TOKEN)", "(pixels // PIXELS_PER_TOKEN)"),
        },
    ),
    Target(
        "trainer/models/files/source.py",
        ("test_source.py",),
        {
            "damaged weights uncaught": ("RuntimeError, SafetensorError)", "RuntimeError)"),
            "missing weights are random": ("        if missing:", "        if False:"),
        },
    ),
    Target(
        "trainer/models/lora/fused.py",
        ("test_lora_fused.py",),
        {
            "scale forgotten": ("rounded_b.T, alpha=scale)", "rounded_b.T)"),
            "scale forgotten on the way back": ("rounded_a, alpha=ctx.scale)", "rounded_a)"),
            "A learns unscaled": ("@ rows).float().mul_(ctx.scale)", "@ rows).float()"),
            "never rounded anew": ("self.version == weight._version", "True"),
            "a new one is the old one": ("self.weight is weight and", "True and"),
            "rounded at every use": ("if known is None or not known.is_of(weight, dtype):", "if True:"),
            "made in inference mode": ("with torch.inference_mode(False):", "with torch.inference_mode(True):"),
            "copies stay behind": ("        self._rounded.clear()  #", "        pass  #"),
            "copies outlive their LoRA": ("        self._rounded.clear()\n", "        pass\n"),
            "float16 too": ("or dtype == torch.float16", ""),
            "DoRA too": (" and adapter not in self.lora_variant", ""),
            "never off": ("self.disable_adapters or self.merged", "self.merged"),
            "x is sent for in vain": ("if ctx.needs_input_grad[0]:", "if True:"),
            "A for B": ('("lora_A", "lora_B")]', '("lora_A", "lora_A")]'),
        },
    ),
    Target(
        "trainer/models/lora/attach.py",
        ("test_lora_precision.py", "test_lora.py", "test_lora_variants.py"),
        {
            "float32 copies of the inputs": ("dtype == torch.bfloat16 and", "False and"),
            "float16 not widened": ("dtype == torch.bfloat16 and", "dtype != torch.float32 and"),
            "DoRA not widened": ('torch.bfloat16 and variant != "dora":', "torch.bfloat16:"),
            "casts as the last LoRA wanted them": ("    activate_lora(network, adapter)\n", "    pass\n"),
            "casts stay": ("layer.cast_input_dtype_enabled = not (", "layer.cast_input_dtype_enabled = True or ("),
            "LoRA in the model's precision": ("half[adapter].to(device, torch.float32)", "half[adapter].to(device)"),
            "one LoRA's parameters for all": ("[adapter].weight\n", "[sorted(getattr(layer, part))[0]].weight\n"),
            "seed ignored": ("torch.manual_seed(seed)", "torch.manual_seed(0)"),
            "lengths in the model's precision": (".data = row_norms(layer.weight)", ".data.clone()"),
            "rsLoRA scaled as LoRA": ('use_rslora=variant == "rslora"', "use_rslora=False"),
            "DoRA on packed weights": ("if type(layer) is not nn.Linear", "if not isinstance(layer, nn.Linear)"),
        },
    ),
    Target(
        "trainer/models/lora/targets.py",
        ("test_lora.py", "test_lora_variants.py"),
        {
            "part of a path is enough": ("pattern.fullmatch(path)", "pattern.search(path)"),
            "a LoRA's own layers are targets": ("isinstance(module, LoraLayer)", "False"),
        },
    ),
    Target(
        "trainer/models/lora/export.py",
        ("test_lora.py", "test_lora_variants.py", "test_lora_start.py"),
        {
            "alpha always 1": ("torch.tensor(float(alpha) * factor)", "torch.tensor(factor)"),
            "bare names": ("tensors = {PREFIX + name: w", "tensors = {name: w"),
            "rsLoRA's scale forgotten": ("math.sqrt(rank) if", "1.0 if"),
            "lengths as they are trained": ("(magnitude * ratio)", "magnitude"),
            "parts side by side": ("torch.block_diag(*blocks)", "torch.block_diag(*blocks[::-1])"),
            "alpha of one part": ("len(present) * tensors", "tensors"),
            "last layer not turned": ("turned(module, tensors[PREFIX + module + B])", "tensors[PREFIX + module + B]"),
        },
    ),
    Target(
        "trainer/models/lora/start.py",
        ("test_lora_start.py", "test_lora_variants.py"),
        {
            "scale of the file ignored": ("* (file.scale / scales[module])", "/ scales[module]"),
            "scale of the settings ignored": ("(file.scale / scales[module])", "file.scale"),
            "a file without alpha is scaled by its rank": (
                "scales.of(module, rank) if alpha is None",
                "1.0 / rank if alpha is None",
            ),
            "last layer not turned": ("            names.turned(module, part),\n", "            part,\n"),
            "what is larger is cut": ("used = up.any(0)", "used = torch.arange(len(down)) < rank"),
            "a LoRA's lengths are the model's": ("row_norms(w + scales[module] * b @ a)", "row_norms(w)"),
            "the file's lengths ignored": ("magnitude *= file.dora.to(w.device) / row_norms(w)", "pass"),
            "layers left out in silence": ("    if outside:", "    if False:"),
        },
    ),
    Target(
        "trainer/models/lora/start.py",
        ("test_lora_headers.py",),
        {
            "the header's alpha ignored": ("scales.of(module, rank) if alpha is None", "1.0 if alpha is None"),
            "NaN passes": ("        if odd:\n", "        if False:\n"),
            "infinity by its scale passes": ("if not b.isfinite().all():", "if False:"),
        },
    ),
    Target(
        "trainer/models/lora/scales.py",
        ("test_lora_headers.py",),
        {
            "the last pattern counts": ("alpha = next(named, self.alpha)", "alpha = [self.alpha, *named][-1]"),
            "a stranger's expression": ("if not PLAIN.fullmatch(plain):", "if False:"),
            "rsLoRA is a LoRA": ('"rslora" if config', '"lora" if config'),
        },
    ),
    Target(
        "trainer/models/flux1/lora_names.py",
        ("test_lora_start.py",),
        {
            "feed-forward first": ('"linear1": (*QKV, MLP)', '"linear1": (MLP, *QKV)'),
            "text and picture swapped": (
                '{"img_attn.qkv": QKV, "txt_attn.qkv": ADDED_QKV',
                '{"txt_attn.qkv": QKV, "img_attn.qkv": ADDED_QKV',
            ),
            "XLabs' streams swapped": ('"qkv_lora1": QKV', '"qkv_lora1": ADDED_QKV'),
            "feed-forward of another width": ("MLP_RATIO = 4", "MLP_RATIO = 3"),
        },
    ),
    Target(
        "trainer/models/flux1/tokens.py",
        ("test_tokens.py",),
        {
            "schnell as long as dev": ("DEV, SCHNELL = 512, 256", "DEV, SCHNELL = 512, 512"),
            "embedded as long as schnell": ("        return MODELS[source.name].text_tokens", "        return SCHNELL"),
        },
    ),
    Target(
        "trainer/models/flux1/policy.py",
        ("test_reference.py", "test_flux.py", "test_lora.py"),
        {
            "guidance forgotten": ("guidance = self.guidance if", "guidance = 1.0 if"),
            "a reference is part of the picture": ("geometry.position_ids(self.device, picture=1)", "image_ids"),
            "reference tokens are drawn": ("v[:, : geometry.tokens]", "v[:, -geometry.tokens :]"),
            "reference keeps the LoRA": ("enable_loras(self.network, False)", "pass"),
            "whichever LoRA came last": ("        self.activate()\n", ""),
            "conditions in the wrong order": ("told[POOLED][rows]", "told[POOLED][rows.flip(0)]"),
        },
    ),
    Target(
        "trainer/models/flux1/kept.py",
        ("test_kept.py",),
        {
            "another candidate's": ("rows = {n - first: (call, n)", "rows = {0: (call, n)"),
            "another block's": ("kept.of(places, number + 1).x", "kept.of(places, number).x"),
            "gradients end here": ("tensor.requires_grad_(needed)", "pass"),
            "for ever": ("            self.transformer._gradient_checkpointing_func = usual\n", "            pass\n"),
            "nothing is let go": ("        self._inputs.clear()\n", "        pass\n"),
            "shown for ever": ("            block._compiled_call_impl = call\n", "            pass\n"),
        },
    ),
    Target(
        "trainer/models/flux1/embedding.py",
        ("test_flux.py", "test_modulation.py"),
        {
            "times rounded to the model's precision": ("return (*times(sigma, guidance), inputs[-1])", "return inputs"),
            "times in the unit of sigma": ("1000 * t.float()", "t.float()"),
            "a hook for each call": ("            hook.remove()", "            pass"),
            "another guidance is the same question": ("(*told.sigmas, guidance))", "told.sigmas)"),
            "the first prompt's for all": ("table[rows, places(sigma, grid)]", "table[0 * rows, places(sigma, grid)]"),
        },
    ),
    Target(
        "trainer/models/flux1/single_file.py",
        ("test_single_file.py", "test_transformer_files.py"),
        {
            "scale and shift stay": ("slice(hidden, 2 * hidden), slice(0, hidden)", "slice(0, 2 * hidden)"),
            "keys before queries": ('QKV = ("q", "k", "v")', 'QKV = ("k", "q", "v")'),
            "text and picture swapped": ('block[3].startswith("img")', 'block[3].startswith("txt")'),
            "prefix kept": ("under(tensors, TRANSFORMER_PREFIX) or tensors", "tensors"),
            "axes of equal size": ("[head - 2 * side, side, side]", "[side, side, head - 2 * side]"),
            "every model has guidance": (
                '"time_text_embed.guidance_embedder.linear_1.weight" in pieces',
                "True",
            ),
            "diffusers' names unknown": ("if DIFFUSERS_MARK in tensors else {}", "if False else {}"),
        },
    ),
    Target(
        "trainer/models/flux1/transformer.py",
        ("test_transformer_files.py",),
        {
            "other channels trained": ("known = channels in (4 * CHANNELS, FILL_CHANNELS)", "known = True"),
            "only the first shard": ('["weight_map"].values()))', '["weight_map"].values()))[:1]'),
            "misfits ignored": ("    if reason and source.file:\n", "    if False:\n"),
            "nobody is asked how to keep them": ("ready(transformer) if ready else", "widened(dtype) if keep else"),
        },
    ),
    Target(
        "trainer/models/files/weights.py",
        ("test_transformer_files.py",),
        {
            "scales forgotten": ("tensor if scale is None else", "tensor if True else"),
            "newer names of scales unknown": ('("scale_weight", "weight_scale")', '("scale_weight",)'),
            "tensors of other shapes": ("wanted.get(name) != piece.shape", "name not in wanted"),
            "strange tensors ignored": ("    if odd:\n", "    if False:\n"),
            "codes taken for numbers": ("if self.stored.dtype in FLOATING else kind", "if True else kind"),
            "scales of any shape": ("if not is_plain(self.scale.shape, self.stored.shape):", "if False:"),
        },
    ),
    Target(
        "trainer/benchmarks/storage.py",
        ("test_memory_plans.py",),
        {
            "the exact prompt for both": (
                '"with_text_encoders": setup.conditioning',
                '"with_text_encoders": exact.conditioning',
            ),
            "every plan is exact": ("memory=memory", 'memory="bf16"'),
        },
    ),
    Target(
        "trainer/models/files/gguf_file.py",
        ("test_gguf_file.py",),
        {
            "all rows for some": ("[quantised[r] for r in rows] or [quantised]", "[quantised]"),
            "from the file's start": ("offset=self.offset", "offset=0"),
            "kinds that are not read": ('return f"GGUF {kind.name}"', 'return "F32"'),
        },
    ),
    Target(
        "trainer/models/files/gguf_header.py",
        ("test_model_headers.py", "test_gguf_file.py"),
        {
            "any count is believed": ("        if count > MOST:", "        if False:"),
            "one over the other": ("if start < end or start + length > size:", "if start + length > size:"),
            "beyond the end": ("if start < end or start + length > size:", "if start < end:"),
            "any alignment": ("if alignment not in [2**n for n in range(3, 21)]:", "if not alignment:"),
            "names twice": ("    if len(names) < len(told):", "    if False:"),
        },
    ),
    Target(
        "trainer/models/files/headers.py",
        ("test_model_headers.py",),
        {"models without end": ("if most and any(", "if False and any(")},
    ),
    Target(
        "trainer/models/flux1/single_file.py",
        ("test_model_headers.py",),
        {
            "counts by the largest": (
                'return len({name.split(".")[1] for name in pieces if name.startswith(f"{blocks}.")})',
                'return 1 + max(int(name.split(".")[1]) for name in pieces if name.startswith(f"{blocks}."))',
            ),
            "any number of blocks": ("if _count(pieces, blocks) > MOST_BLOCKS:", "if False:"),
        },
    ),
    Target(
        "trainer/training/identity.py",
        ("test_identity.py",),
        {
            "the beginning is enough": ("for i in range(BLOCKS):", "for i in range(0):"),
            "a size of its own is none": ('hashlib.sha256(f"{size}\\n".encode())', "hashlib.sha256()"),
            "any name goes on": ('if _last(paths.get(name, "")) == _last(dict(paths_of(new))[name])', "if True"),
            "what is beside is not looked at": (' == its.get("digest")', ""),
            "a folder's notes count": ('ELSEWHERE = (".md", ', "ELSEWHERE = ("),
        },
    ),
    Target(
        "trainer/models/files/nf4_file.py",
        ("test_nf4.py", "test_model_headers.py"),
        {
            "all rows for some": ("torch.cat([numbers[r] for r in rows]) if rows else numbers", "numbers"),
            "the parts are weights too": (
                "        if whose is None:\n            others[name]",
                "        if True:\n            others[name]",
            ),
            "parts of any size": ("            if found != count:", "            if False:"),
            "without bitsandbytes": ("        _require(state)\n", ""),
        },
    ),
    Target(
        "trainer/models/flux1/parts.py",
        ("test_part_files.py",),
        {
            "text encoders never tied": ("    t5.tie_weights()\n", ""),
            "float16 overflows": ("narrow = dtype == torch.float16 and", "narrow = False and"),
            "positions are nowhere": ('if hasattr(module, "position_ids"):', "if False:"),
            "a file's tokenizer is the folder's": ("        source = PUBLISHED\n", ""),
            "missing weights are nowhere": ("    if reason:\n", "    if False:\n"),
        },
    ),
    Target(
        "trainer/models/flux1/vae_names.py",
        ("test_part_files.py",),
        {
            "decoder upside down": ("{levels - 1 - int(found[1])}", "{int(found[1])}"),
            "convolutions for layers": ("and len(piece.shape) == 4", "and False"),
        },
    ),
    Target(
        "trainer/models/files/headers.py",
        ("test_transformer_files.py",),
        {"web pages unknown": ('b"<":', 'b"&":'), "empty files unknown": ("    if not head:", "    if False:")},
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_encode_image.py",),
        {"a sample in place of the mode": (".mode().float()", ".sample().float()")},
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_encode_image.py",),
        {
            "shift after the scale": (
                "(z - (config.shift_factor or 0)) * config.scaling_factor",
                "z * config.scaling_factor - (config.shift_factor or 0)",
            )
        },
    ),
    Target(
        "trainer/pictures/convert.py",
        ("test_pictures.py", "test_encode_image.py"),
        {
            "an alpha channel is a colour": ("if images.ndim == 4 and images.shape[-1] == 4:", "if False:"),
            "whole numbers pass": ("if not (values.is_floating_point() or", "if not (True or"),
            "any range": ("if not -OVERSHOOT <= low <= high <= 1 + OVERSHOOT:", "if False:"),
            "overshot values wrap": (".clamp(0, 1)", ""),
            "stretched, not cut": (
                "ImageOps.fit(picture, (width, height),",
                "picture.resize(size,",
            ),
        },
    ),
    Target(
        "trainer/models/flux1/lora_names.py",
        ("test_lora.py", "test_lora_variants.py"),
        {
            "last layer trained too": (
                "single_transformer_blocks\\.\\d+\\.(proj_mlp|proj_out)",
                "(.+\\.)?(proj_mlp|proj_out)",
            )
        },
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_reference.py", "test_flux.py", "test_lora.py"),
        {"latents multiplied by the scale": ("/ config.scaling_factor", "* config.scaling_factor")},
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_reference.py", "test_flux.py", "test_lora.py"),
        {"no shift of the latents": ("+ (config.shift_factor or 0)", "")},
    ),
    Target(
        "trainer/models/flux1/family.py",
        ("test_reference.py", "test_flux.py", "test_lora.py"),
        {
            "every model's sigmas shift": (
                'return source.load(FlowMatchEulerDiscreteScheduler, "scheduler").config.use_dynamic_shifting',
                "return True",
            )
        },
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_reference.py", "test_flux.py", "test_lora.py"),
        {"pictures not centred": ("/ 2 + 0.5", "/ 2")},
    ),
]
