"""Mistakes in how frozen weights are kept, fetched and placed."""

from .target import Target

TARGETS = [
    Target(
        "trainer/models/storage/memory.py",
        ("test_nf4.py",),
        {"packed for inference": ("            layer.support_avx512bf16_for_cpu = False\n", "")},
    ),
    Target(
        "trainer/models/storage/frozen.py",
        ("test_frozen.py",),
        {
            "wrong 8 bits": ("weight.view(self.float8)", "weight.view(torch.float8_e4m3fn)"),
            "gradient doubled": ("gradient @ layer.widened", "gradient * 2 @ layer.widened"),
            "bias forgotten": ("backward=False), self.bias)", "backward=False))"),
            "moves with the model": ("        return self\n", "        return super()._apply(fn, recurse)\n"),
        },
    ),
    Target(
        "trainer/models/storage/compiling.py",
        ("test_compiling.py",),
        {
            "auto without Triton": ("return kernels_by_triton(device) and not", "return not"),
            "auto under offload": ("and not offload and not small", "and not small"),
            "auto for the embedded model": (" and not small", ""),
            "auto for all": ("if setting == AUTO:", "if False:"),
            "offload compiled": ("return bool(setting) and not offload", "return bool(setting)"),
        },
    ),
    Target(
        "trainer/models/storage/eight_bits.py",
        ("test_frozen.py",),
        {
            "scale forgotten": ("else wide.mul_(scale)", "else wide"),
            "one scale for all rows": ("torch.maximum(-low, high) /", "torch.full_like(low, wide.abs().max()) /"),
            "the weight itself is divided": (".to(torch.float32, copy=True)", ".float()"),
            "negative elements are none": ("torch.maximum(-low, high) /", "high /"),
            "a row of zeros is not a number": ("torch.where(scale > 0, scale, 1)", "scale"),
        },
    ),
    Target(
        "trainer/models/storage/eight_bits.py",
        ("test_eight_bits.py",),
        {
            "rows share a scale": ("vector_norm(x, math.inf, 1, keepdim=True)", "vector_norm(x, math.inf).view(1, 1)"),
            "zeros are not numbers": ("torch.where(largest > 0, largest / LARGEST, 1)", "largest / LARGEST"),
            "beyond the range": ("largest / LARGEST, 1)", "largest / 900, 1)"),
            "weights unscaled": ("if scale is None else scale\n", "if True else scale\n"),
            "bias forgotten": ("bias=bias, out", "bias=None, out"),
            "any sizes": ("return fits and", "return"),
            "any precision": ("and dtype == torch.bfloat16", ""),
            "any 8 bits": ("and weight.dtype == E4M3", ""),
        },
    ),
    Target(
        "trainer/models/storage/trial.py",
        ("test_eight_bits.py",),
        {"a failure ends it": ("        return False\n    return True", "        raise\n    return True")},
    ),
    Target(
        "trainer/models/storage/kernels.py",
        ("test_eight_bits.py",),
        {
            "another exponent": ("tl.float32) * 256", "tl.float32) * 128"),
            "no sign": ("((bits & 0x80) << 8) | ", ""),
            "no NaN": ("== 0x7F, float", "== 0x8F, float"),
            "first scale for all": ("scale + row * step", "scale"),
            "the last is left out": ("inside = column < columns", "inside = column < columns - 1"),
            "one block alone": ("grid = (rows, -(-columns // BLOCK))", "grid = (rows, 1)"),
        },
    ),
    Target(
        "trainer/models/storage/modulation.py",
        ("test_modulation.py",),
        {
            "without activation": ("        x = F.silu(embedding)\n", "        x = embedding\n"),
            "another one's chunks": ("torch.arange(first, first + self.chunks", "torch.arange(0, self.chunks"),
            "any question is the last one": ("self._asked != asked or not _same(self._told, told)", "False"),
            "only sigmas count": (" or not _same(self._told, told)", ""),
            "nothing is kept": ("if self._table is None or ", "if True or "),
            "prompts mixed up": ("repeat_interleave(len(sigmas), 0)", "repeat(len(sigmas), 1)"),
            "an unknown sigma is the last": ("same.int().argmax(1), len(sigmas))", "same.int().argmax(1), 0)"),
            "the last norm in 8 bits": ("layer.in_block = not isinstance(norm, AdaLayerNormContinuous)", "pass"),
            "the table stays": ("        self.owner.forget()\n", "        pass\n"),
            "norms without activation": (
                "norm.silu, norm.linear = nn.SiLU()",
                "norm.silu, norm.linear = nn.Identity()",
            ),
            "8 bits without their kind": ("weight if layer.float8 is None else weight.view(layer.float8)", "weight"),
        },
    ),
    Target(
        "trainer/models/storage/fetching.py",
        ("test_fetching.py",),
        {
            "no copy on the same device": ("_Copy(copy.copy_(weight), None)", "_Copy(weight, None)"),
            "nothing is learned": ("            self._next[self._last] = moment\n", "            pass\n"),
            "copied again though it is there": ("in coming if w not in self._copies]", "in coming]"),
            "nothing is let go of": ("in self._copies if w not in coming]", "in self._copies if False]"),
            "more than the bytes": ("if room < 0 and found:", "if False:"),
            "the first one too must fit": ("if room < 0 and found:", "if room < 0:"),
            "copies stay": (
                "        for weight in list(self._copies):\n            self._let_go(weight)\n",
                "        pass\n",
            ),
            "backward passes are like forward passes": ("torch._C._current_graph_task_id() != -1", "False"),
        },
    ),
    Target(
        "trainer/models/storage/staging.py",
        ("../card/test_card_staging.py",),
        {
            "one buffer": ("                self._buffers.reverse()\n", ""),
            "filled too early": ("                    buffer.copied.synchronize()\n", "                    pass\n"),
            "before the memory is free": ("        self._stream.wait_event(begun)\n", ""),
            "the end of another piece": ("        return buffer.copied\n", "        return self._buffers[0].copied\n"),
            "buffers that are not page-locked": ("dtype=torch.uint8, pin_memory=True", "dtype=torch.uint8"),
        },
    ),
    Target(
        "trainer/models/storage/pinned.py",
        ("test_pinned.py",),
        {
            "a chunk for each": ("next((c for c in self._chunks if c.used + size <= len(c.memory)), None) or ", ""),
            "one over the other": ("        chunk.used += size\n", ""),
            "beyond the end": ("if c.used + size <= len(c.memory)", "if c.used < len(c.memory)"),
            "large ones are cut": ("max(CHUNK, size)", "CHUNK"),
            "tried again and again": (
                "            self.pinned = False\n            return self._allocate(size)",
                "            return torch.empty(size, dtype=torch.uint8, device=self.device)",
            ),
            "not page-locked": ("pin_memory=self.pinned", "pin_memory=False"),
        },
    ),
    Target(
        "trainer/models/storage/memory.py",
        ("test_nf4.py",),
        {
            "T5 in whole numbers": ('"quant_storage": torch.int8', '"quant_storage": torch.uint8'),
            "another code": ('"quant_type": "nf4"', '"quant_type": "fp4"'),
        },
    ),
    Target(
        "trainer/models/storage/memory.py",
        ("test_pinned.py",),
        {"page-locked without CUDA": ("pinned=streams_of(self.device) is not None", "pinned=True")},
    ),
    Target(
        "trainer/models/storage/memory.py",
        ("test_memory_plans.py",),
        {
            "offloaded weights on the device": (
                "if layer.fetcher is None else self.host.copied(weight)",
                "if True else None",
            ),
            "the first blocks are offloaded": ("(i + 1) * count // total > i * count // total", "i < count"),
            "scale of a scaled file lost": (
                "self._store_weight(owner, tensor, scale)",
                "self._store_weight(owner, tensor, None)",
            ),
            "8 bits are made anew": ("elif weight.dtype not in EIGHT_BITS:", "else:"),
            "the largest plan that fits not": ("if size <= free)", "if size > free)"),
            "biases stay behind": ("linear.named_parameters() if replaced", 'linear.named_parameters("x") if replaced'),
            "the rest stays behind": ("module.to(self.device)  # of", "module.to('cpu')  # of"),
        },
    ),
    Target(
        "trainer/models/storage/visiting.py",
        ("test_memory_plans.py",),
        {
            "half-way is where it stays": (
                "    try:\n        for owner, leaf, p in home:  # which may run out of room half-way\n"
                "            owner._parameters[leaf] = nn.Parameter(p.to(device), requires_grad=False)\n",
                "    for owner, leaf, p in home:\n"
                "        owner._parameters[leaf] = nn.Parameter(p.to(device), requires_grad=False)\n    try:\n",
            ),
            "guests stay": ("            owner._parameters[leaf] = p\n", "            pass\n"),
        },
    ),
    Target(
        "trainer/models/storage/visiting.py",
        ("../card/test_card_visiting.py",),
        {
            "copied back every time": (
                "weight.home = self._at_home(weight.here) if weight.home is None else weight.home",
                "weight.home = self._at_home(weight.here)",
            ),
            "not page-locked": ("pinned=streams_of(tensor.device) is not None", "pinned=False"),
            "the host waits": ("device, non_blocking=True", "device"),
            "shared weights come apart": (
                "found.setdefault(id(tensor), _Weight([], tensor))",
                "found.setdefault(len(found), _Weight([], tensor))",
            ),
            "no parameter any more": ("kept = isinstance(self.here, nn.Parameter)", "kept = False"),
            "buffers stay behind": ("(module._parameters, module._buffers)", "(module._parameters,)"),
        },
    ),
    Target(
        "trainer/models/storage/attention.py",
        ("test_attention.py",),
        {
            "cuDNN stays": ("enable_cudnn_sdp(False)", "enable_cudnn_sdp(before)"),
            "the flag is not given back": ("        torch.backends.cuda.enable_cudnn_sdp(before)\n", "        pass\n"),
        },
    ),
    Target(
        "trainer/models/flux1/checkpointing.py",
        ("test_attention.py",),
        {"cuDNN where computed again": ("with sound_attention():", "with nullcontext():")},
    ),
    Target(
        "trainer/models/flux1/checkpointing.py",
        ("test_checkpointing.py",),
        {
            "all are computed again": ("        layer.spared = True\n", "        pass\n"),
            "those of text are computed again": ('("ff.net.2", "ff_context.net.2")', '("ff.net.2",)'),
            "for a trained gate none": ("trained = modulation.requires_grad or any(", "trained = any(() and "),
            "for trained times none": ("trained = modulation.requires_grad or any(", "trained = any("),
            "clipped sums are not kept": ("or x.dtype == torch.float16", ""),
            "spared for ever": ("            layer.spared = False\n", "            pass\n"),
        },
    ),
    Target(
        "trainer/models/flux1/policy.py",
        ("test_attention.py",),
        {"cuDNN in forward passes": ("with sound_attention(), embedded(", "with embedded(")},
    ),
    Target(
        "trainer/models/flux1/rotary_kernels.py",
        ("test_rotary.py",),
        {
            "turned the other way": ("tl.join(-second, first)", "tl.join(second, -first)"),
            "gradient turned the other way": ("a = a * c - _quarter", "a = a * c + _quarter"),
            "norm without gradient": ("a = scale * (a - value * (along * scale * scale))", "a = scale * a"),
            "no weight": (
                "value *= scale * tl.load(weight + column, mask=known, other=0).to(tl.float32)",
                "value *= scale",
            ),
            "gradient without weight": ("    a *= tl.load(weight + column, mask=known, other=0).to(tl.float32)\n", ""),
            "the text first, and the picture over it": (
                "known = column < WIDTH\n    place, inside = _place(row, heads",
                "known = column < WIDTH\n    token -= first\n    place, inside = _place(row, heads",
            ),
            "one trajectory over another": (
                "_place(row // tokens * total + token, heads, WIDTH, HEADS, BLOCK)\n    tl.store",
                "_place(token, heads, WIDTH, HEADS, BLOCK)\n    tl.store",
            ),
            "some heads are left out": ("triton.cdiv(heads, HEADS)", "heads // HEADS"),
            "gradient as it lies": ("gradient.contiguous(), []", "gradient, []"),
        },
    ),
    Target(
        "trainer/models/flux1/rotary.py",
        ("test_rotary.py",),
        {
            "weights exchanged": ("tensors[:count], cos", "tensors[:count][::-1], cos"),
            "tried each time": ("@cache\n", ""),
        },
    ),
    Target(
        "trainer/models/flux1/attention.py",
        ("test_rotary.py",),
        {
            "a trained norm too": ("return not trained and", "return"),
            "compiled blocks too": ("not torch.compiler.is_compiling() and ", ""),
            "kernel everywhere": ("        return has_kernel(device)\n", "        return True\n"),
            "the picture first": ("sides.insert(0, ", "sides.append("),
            "keys by the queries' weight": ("(side.norm_k for side", "(side.norm_q for side"),
        },
    ),
    Target(
        "trainer/models/flux1/family.py",
        ("test_rotary.py",),
        {"diffusers' attention": ("        transformer.set_attn_processor(Attention())\n", "")},
    ),
    Target(
        "trainer/planning/stand_ins.py",
        ("test_rotary.py",),
        {
            "a kernel for every device": ('device == "cpu" or kernels_by_triton(device)', "True"),
            "no kernel for another's": ('device == "cpu" or ', ""),
        },
    ),
    Target(
        "trainer/models/flux1/family.py",
        ("test_memory_plans.py",),
        {
            "checkpointing forgotten": ("checkpoint_blocks(transformer)", "pass"),
        },
    ),
    Target(
        "trainer/models/flux1/parts.py",
        ("test_memory_plans.py",),
        {
            "encoders ignore the plan": (
                "Storage(plan_for(model, placement), device=device, dtype=dtype).store(model)\n",
                "pass\n",
            ),
        },
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_memory_plans.py",),
        {
            "the decoder stays where it was": ("with self.staying(z.device):", "if True:"),
            "the encoder stays where it was": ("with self.staying(images.device):", "if True:"),
        },
    ),
    Target(
        "trainer/models/flux1/vae.py",
        ("test_memory_plans.py",),
        {"large pictures at once": ("side > SINGLY, side > TILED", "side > TILED, side > TILED")},
    ),
]
