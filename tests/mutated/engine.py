"""Mistakes in what drives the stages: prompts, loop, run, checkpoint, metrics."""

from .target import Target

TARGETS = [
    Target(
        "trainer/stages/prompts.py",
        ("test_prompts.py",),
        {
            "every epoch in the same order": ("default_rng([seed, epoch])", "default_rng([seed])"),
            "every seed in the same order": ("default_rng([seed, epoch])", "default_rng([epoch])"),
            "iterations overlap": ("first = iteration * per_iteration", "first = iteration"),
            "with replacement": (".permutation(count)", ".integers(count, size=count)"),
            "not shuffled": ("np.random.default_rng([seed, epoch]).permutation(count)", "np.arange(count)"),
        },
    ),
    Target(
        "trainer/engine/grpo.py",
        ("test_kept.py",),
        {
            "kept for every update": ("setup.keeping.on and not measured", "setup.keeping.on"),
            "used after it was let go": ("setup.keeping.on and not measured", "not measured"),
            "the first pairs' for all": ("keeper.used(places[start :", "keeper.used(places[0 * start :"),
        },
    ),
    Target(
        "trainer/engine/keeping.py",
        ("test_kept.py",),
        {
            "kept again": ("was, self.on = self.on, False", "was = self.on"),
            "nothing is given back": ("            self.keeper.clear()\n", "            pass\n"),
        },
    ),
    Target(
        "trainer/engine/drawing.py",
        ("test_kept.py",),
        {"kept where it did not fit": ("if keeper is not None and setup.keeping.on:", "if keeper is not None:")},
    ),
    Target(
        "trainer/engine/micro_batch.py",
        ("test_kept.py",),
        {"halved first": ("            if self.let_go(phase):\n", "            if False:\n")},
    ),
    Target(
        "trainer/engine/drawing.py",
        ("test_image_to_image.py",),
        {
            "image-to-image begins at the noise": (
                "    if setup.init is None:\n        return eps",
                "    if True:\n        return eps",
            )
        },
    ),
    Target(
        "trainer/training/self_test.py",
        ("test_self_test.py",),
        {
            "everything is tolerated": ("if not errors[-1] <= tolerance:", "if False:"),
            "nothing is tolerated": ("if not errors[-1] <= tolerance:", "if errors[-1]:"),
            "what is no number is tolerated": (
                "if not errors[-1] <= tolerance:",
                "if errors[-1] > tolerance:",
            ),
            "the ratio is compared": ("if not errors[-1] <=", "if not ratios[-1] <="),
            "the first step alone": ("[first, last]", "[first]"),
            "dropout unseen": ("    if training:\n", "    if False:\n"),
            "any gradient will do": ("if not gradient <= BROKEN_PROMISE else", "if False else"),
            "a gradient of no number will do": ("if not gradient <= BROKEN_PROMISE", "if gradient > BROKEN_PROMISE"),
            "a step to one side": ("for side in (1, -1):", "for side in (1, 1):"),
            "the LoRA stays moved": (
                "                p.copy_(start)\n                p.grad",
                "                p.grad",
            ),
            "gradients stay": ("                p.grad = None\n", "                pass\n"),
            "a step from where the last one ended": (
                "                    p.copy_(start)\n                    if",
                "                    if",
            ),
            "chance unseen": ("if not torch.equal(again, v_old)", "if False"),
            "the neighbours unseen": ("if not relative_error(alone, again).item() <= tolerance", "if False"),
        },
    ),
    Target(
        "trainer/training/self_test.py",
        ("test_rollout_batch.py",),
        {
            "the rollout by the update's batch": (
                'setup.rollout_batch.fit("self-test", lambda size: drawn(setup, size))',
                "drawn(setup, setup.micro_batch.size)",
            ),
        },
    ),
    Target(
        "trainer/engine/drawing.py",
        ("test_rollout_batch.py",),
        {
            "the rollout by the update's batch": (
                'setup.rollout_batch.fit("rollout"',
                'setup.micro_batch.fit("rollout"',
            ),
            "short batches for compiled blocks": ("filled or is_compiled(setup.policy.network)", "filled"),
            "copies without a ratio": ("full = filled and bool(kept) and", "full = filled and"),
            "copies that buy nothing": ("bool(kept) and size == setup.micro_batch.size", "bool(kept)"),
        },
    ),
    Target(
        "trainer/engine/grpo.py",
        ("test_rollout_batch.py",),
        {
            "copies in the update that buy nothing": (
                "filled = around is None and micro_batch == setup.rollout_batch.size",
                "filled = True",
            )
        },
    ),
    Target(
        "trainer/device.py",
        ("test_device.py",),
        {
            "only torch says that memory is out": ("isinstance(error, RuntimeError) and any(", "False and any("),
            "any error is out of memory": ("any(text in str(error) for text in FULL)", "True"),
            "every exception may say it": ("isinstance(error, RuntimeError) and any(", "any("),
            "spills on Windows": ('if sys.platform != "win32" or not', "if not"),
            "what torch holds is not counted": ("(free + own) / total", "free / total"),
            "a fraction for good": ("module.set_per_process_memory_fraction(1.0, number)", "pass"),
            "never TF32": ('torch.set_float32_matmul_precision("high")', "pass"),
            "TF32 everywhere": (
                "    if module_of(device) is not None:\n        torch.set_float32",
                "    if True:\n        torch.set_float32",
            ),
            "TF32 for good": ("torch.set_float32_matmul_precision(before)", "pass"),
        },
    ),
    Target(
        "trainer/models/flux1/encode_image.py",
        ("test_reference.py",),
        {
            "the first prompt's reference": (
                "{REFERENCE: geometry.pack(latents)}",
                "{REFERENCE: geometry.pack(latents[:1].expand_as(latents))}",
            ),
            "nothing is seen": ("if reference else {}", "if False else {}"),
        },
    ),
    Target(
        "trainer/engine/drawing.py",
        ("test_begun_runs.py",),
        {
            "the mask forgotten": ("unmasked = None if mask is None else", "unmasked = None if True else"),
        },
    ),
    Target(
        "trainer/engine/grpo.py",
        ("test_loop.py", "test_loop_faults.py"),
        {
            "held-out reward is trained on": (
                "combine(scores, weights, grpo",
                "combine(scores, dict.fromkeys(scores, 1.0), grpo",
            ),
            "uninformative groups are trained on": (".only(group.combined.informative.cpu())", ""),
            "every iteration has the same noise": (
                "derive_seed(NOISE, seed, iteration, slot)",
                "derive_seed(NOISE, seed, slot)",
            ),
            "every prompt has the same noise": (
                "derive_seed(NOISE, seed, iteration, slot)",
                "derive_seed(NOISE, seed, iteration)",
            ),
            "gradient not averaged over the steps": (
                "normaliser=pairs.total",
                "normaliser=pairs.total // setup.config.grpo.trained_steps",
            ),
            "plain advantages without the quasi-norm": (
                "quasi_norm_reweight(advantages, grpo.quasi_norm)",
                "advantages",
            ),
            "a stopped iteration keeps its first updates": ("            restore()\n", ""),
            "a stopped iteration leaves gradients behind": (
                "state.optimizer.zero_grad(set_to_none=True)\n        if restore",
                "if restore",
            ),
            "the average is not updated": ("state.average.update(setup.lora)", "pass"),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_loop.py", "test_loop_faults.py"),
        {
            "a good iteration does not reset the patience": (
                "state.skipped_in_row + groups if skipped else 0",
                "state.skipped_in_row + groups * bool(skipped)",
            ),
            "saves at the wrong iterations": (
                "state.iteration % run.save_every == 0",
                "state.iteration % run.save_every == 1",
            ),
            "ends without saving": (
                "        self.save_if_new()\n        if ending",
                "        if ending",
            ),
            "a stop in mid-iteration counts it as done": (
                "return self.control.ending or Ending(STOPPED)\n",
                'skipped = ""\n',
            ),
        },
    ),
    Target(
        "trainer/training/run.py",
        ("test_run.py",),
        {
            "optimiser not restored": ("restore_optimizer(state.optimizer, setup.lora, checkpoint.optimizer)", "pass"),
            "average not restored": ("set_weights(state.average.shadow, checkpoint.average)", "pass"),
            "warm-up starts again": ('state.updates = checkpoint.counters["updates"]', "state.updates = 0"),
            "ramp of the average starts again": (
                'state.average.updates = checkpoint.counters["average_updates"]',
                "state.average.updates = 0",
            ),
            "store not rewound": ("store.rewind(state.iteration)", "pass"),
            "weights exported instead of their average": (
                "state.average.shadow if config.optimizer.ema_decay else setup.lora",
                "setup.lora",
            ),
        },
    ),
    Target(
        "trainer/training/run_folder.py",
        ("test_mistakes.py",),
        {
            "other settings accepted": ("    if changed:", "    if False:"),
            "a folder is trained in twice": ("    if not resume:", "    if False:"),
        },
    ),
    Target(
        "trainer/training/checkpoint.py",
        ("test_checkpoint.py",),
        {
            "only one is kept": ("KEPT = 2", "KEPT = 1"),
            "the oldest is loaded": ("for path in reversed(checkpoints(folder)):", "for path in checkpoints(folder):"),
            "no second try": ("for path in reversed(checkpoints(folder)):", "for path in checkpoints(folder)[-1:]:"),
            "a damaged one is taken for whole": ("target.exists() and _is_whole(target)", "target.exists()"),
            "written in place": ('partial = unused(folder / f"{name}{PARTIAL}")', "partial = folder / name"),
            "only damaged ones start anew in silence": ("    if errors:", "    if False:"),
        },
    ),
    Target(
        "trainer/store/writer.py",
        ("test_metrics.py",),
        {
            "rewinds one too few": ("WHERE iteration >= ?", "WHERE iteration > ?"),
            "the first start is forgotten": ('self.info("started") or time.time()', "time.time()"),
            "distances of the first group": ("distances[slot].float()", "distances[0].float()"),
            "distances of another byte order": ('astype("<f4")', 'astype(">f4")'),
            "a pause is not told": ('{} if event.state is None else {"state": event.state}', "{}"),
            "an evaluation is rewound with its iteration": (
                'WHERE iteration > ?", (iteration,)',
                'WHERE iteration >= ?", (iteration,)',
            ),
            "only the last change is kept": ("for change in event.changes]", "for change in event.changes[-1:]]"),
        },
    ),
    Target(
        "trainer/files.py",
        ("test_modes.py",),
        {"LoRAs and checkpoints for their owner alone": ("        path.chmod(mode)", "        pass")},
    ),
    Target(
        "trainer/store/database.py",
        ("test_modes.py",),
        {"no one else of a group writes to the store": ('        path.open("ab").close()', "        pass")},
    ),
    Target(
        "trainer/store/retention.py",
        ("test_retention.py",),
        {
            "one more of the newest": ("default=0) - self.newest", "default=0) - self.newest - 1"),
            "the newest go as well": ("if i <= end and i % every]", "if i % every]"),
            "older ones all go": ("if i <= end and i % every]", "if i <= end]"),
            "the newest are never fewer": ("if self.newest > 1:", "if False:"),
            "the older ones go first": ("newest <= BUDGET // 2 and self.every", "self.every"),
            "tiny pictures weigh nothing": ("max(path.stat().st_size, LEAST)", "path.stat().st_size"),
            "how far it thinned out is forgotten": ("put(self.database, {FACT: asdict(rule)})", "pass"),
            "what an older version stored is not counted": (
                "[(i, bytes_of(_pictures(self.folder / place(i))), 1) for",
                "[(i, 0, 1) for",
            ),
            "rows promise what is gone": (
                '"UPDATE candidates SET tile = NULL WHERE',
                '"UPDATE candidates SET tile = tile WHERE',
            ),
            "the base noise's row promises what is gone": (
                '"UPDATE groups SET base = NULL WHERE',
                '"UPDATE groups SET base = base WHERE',
            ),
            "nobody remembers what is gone": ('"UPDATE tiles SET kept = 0 WHERE', '"DELETE FROM tiles WHERE'),
            "what stays is not tried again": (
                "                self.leaving[iteration] = None  # behind",
                "                pass  # behind",
            ),
            "the first are tried for ever": (
                "            del self.leaving[iteration]\n            if remove",
                "            if remove",
            ),
            "nothing is tried when the store is opened": ("WHERE NOT kept AND bytes > 0", "WHERE 0"),
            "links are followed": ("if folder.is_symlink():", "if False:"),
            "whatever lies there goes": ("if path.suffix == PICTURE]", "]"),
        },
    ),
    Target(
        "trainer/store/writer.py",
        ("test_retention.py",),
        {"the rest is left for the next time": ("        store.retention.remove(most=None)\n", "")},
    ),
    Target(
        "trainer/training/loop.py",
        ("test_drawn.py",),
        {
            "listeners take the iteration's time": (
                "time.perf_counter() - started - told",
                "time.perf_counter() - started",
            )
        },
    ),
    Target(
        "trainer/store/writer.py",
        ("test_drawn.py",),
        {
            "pictures are written twice": ("if self.unscored and self.unscored[0]", "if False and self.unscored[0]"),
            "pictures of another iteration": ("self.unscored[0] == event.iteration", "self.unscored"),
            "pictures of an iteration that is done again": ("        self.unscored = None\n", ""),
            "unscored pictures every time": ("iteration % self.tiles_every == 0", "True"),
            "whoever draws waits": (
                "                self.unscored = event.iteration, writing\n",
                "                self.unscored = event.iteration, writing\n                writing.result()\n",
            ),
            "pictures are made in the thread": (
                "write_tiles, self.folder, place(event.iteration), pictures)\n                self",
                "lambda e: write_tiles(\n"
                "    self.folder, place(e.iteration), candidate_tiles(e.images, e.group_size)), event)\n"
                "                self",
            ),
            "told before the pictures are there": (
                "        if not isinstance(event, Drawn):\n            self.settle()\n",
                "",
            ),
            "two iterations at once": (
                "            case Drawn():\n                self.settle()\n",
                "            case Drawn():\n",
            ),
            "one iteration over the other": (
                "        self.settle()\n        if self.unscored",
                "        if self.unscored",
            ),
        },
    ),
    Target(
        "trainer/store/writer.py",
        ("test_events.py",),
        {
            "a hold-up is logged as it is said": ("case Waiting() | Paused():", "case Saved():"),
            "a self-test that went well is logged": ('case SelfTested(cause="") | Evaluated():', "case Evaluated():"),
        },
    ),
    Target(
        "trainer/events.py",
        ("test_events.py",),
        {
            "an explanation is part of the kind": ('state.partition(":")[0]', "state"),
            "the last of the explanations": ('state.partition(":")[0]', 'state.rpartition(":")[0]'),
            "a cause is not told": ('f"{found}: {self.cause}" if self.cause else found', "found"),
            "means of all rewards": ("scores.mean():.4f", "scores.max():.4f"),
        },
    ),
    Target(
        "trainer/store/schema.py",
        ("test_metrics.py",),
        {
            "an old store gets no new columns": ("if name not in present:", "if False:"),
            "values in the table's own order": ("INTO {table} ({', '.join(names)}) VALUES", "INTO {table} VALUES"),
            "evaluations are kept by a rewind": (
                'BETWEEN_ITERATIONS = ("evaluations", "evaluation_scores")',
                "BETWEEN_ITERATIONS = ()",
            ),
        },
    ),
    Target(
        "trainer/store/tiles.py",
        ("test_metrics.py",),
        {
            "tiles in the order of prompts": (
                "slot, candidate = divmod(n, group_size)",
                "candidate, slot = divmod(n, len(images) // group_size)",
            ),
        },
    ),
    Target(
        "trainer/pictures/convert.py",
        ("test_metrics.py",),
        {"rows and columns swapped": (".permute(0, 2, 3, 1)", ".permute(0, 3, 2, 1)")},
    ),
    Target(
        "trainer/lock.py",
        ("test_lock.py",),
        {
            "never locked": ("            _within(end, _lock, file)\n", ""),
            "one lock for all": ("sha256(thing.encode())", "sha256()"),
        },
    ),
    Target(
        "trainer/pictures/sheets.py",
        ("test_pictures.py",),
        {
            "every candidate framed": ("            if anchors[p, i]:\n", "            if True:\n"),
            "pictures of the first prompt": ("pictures[p * group_size + i], (x, y)", "pictures[i], (x, y)"),
            "rows and columns swapped": ("GAP + (i % columns) * cell[0], p", "GAP + (i // columns) * cell[0], p"),
        },
    ),
    Target(
        "trainer/pictures/plot.py",
        ("test_pictures.py",),
        {
            "upside down": ("bottom - (v - low)", "top + (v - low)"),
            "average of the values alone": ("SMOOTHING * averages[-1] + (1 - SMOOTHING) * value", "value"),
        },
    ),
    Target(
        "trainer/training/early_stop.py",
        ("test_early_stop.py",),
        {
            "weights' signs ignored": ("value = weight * event", "value = abs(weight) * event"),
            "never patient again": ("self.waited = 0 if rose else self.waited + 1", "self.waited += 1"),
            "without smoothing": ("SMOOTHING = 0.9", "SMOOTHING = 0.0"),
            "stops with patience 0": ("0 < self.patience <=", "self.patience <="),
        },
    ),
    Target(
        "trainer/engine/micro_batch.py",
        ("test_micro_batch.py",),
        {
            "never halved": ("self.size = -(-self.size // 2)", "self.size = self.size - 1"),
            "nobody is told": ("self.on_halved(phase, self.size)", "pass"),
            "for ever": ("if self.size == 1:", "if self.size == 0:"),
            "halved to nothing": ("-(-self.size // 2)", "self.size // 2"),
        },
    ),
    Target(
        "trainer/engine/grpo.py",
        ("test_micro_batch.py",),
        {
            "half a gradient counts": (
                "state.optimizer.zero_grad(set_to_none=True)  # of an attempt that ran out of memory",
                "pass",
            ),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_micro_batch.py",),
        {"not saved when memory ends": ("                self.rescue()\n", "")},
    ),
    Target(
        "trainer/engine/state.py",
        ("test_begun_runs.py",),
        {"always the first size": ("canvas = self.canvases[place]", "canvas = self.canvases[0]")},
    ),
    Target(
        "trainer/engine/state.py",
        ("test_loop.py",),
        {"weight decay stays the first": (", weight_decay=settings.weight_decay)\n", ")\n")},
    ),
]
