"""The memory of every phase of a run, predicted by running its own stages at their real size on the `meta` device."""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from ..choices import AUTO
from ..engine.drawing import Clock
from ..engine.grpo import (
    Candidates,
    around_of,
    drawn_pairs,
    gradient,
    places_of,
    sample_candidates,
    score,
    trained_steps,
)
from ..engine.keeping import Keeping
from ..engine.micro_batch import MicroBatch
from ..engine.setup import add_lora, assemble
from ..engine.state import Setup, State, new_state
from ..models.conditioning import Conditioning
from ..models.flux1.checkpointing import checkpoint_blocks
from ..models.flux1.conditions import EMBEDDINGS, POOLED
from ..models.flux1.conditions import conditioning as told
from ..models.flux1.text import BATCH
from ..models.lora.attach import ADAPTER
from ..models.lora.fused import FusedLora
from ..models.storage.frozen import FrozenLinear
from ..models.storage.memory import MemoryPlan, Storage
from ..models.storage.modulation import Modulator, modulation_of
from ..models.storage.placement import DTYPES
from ..objectives.objective import objective_of
from ..rewards.base import move
from ..settings.config import Config
from . import models
from .kernels import PAIRS, Kernels, Work
from .models import META
from .rewards import counted
from .stand_ins import PlannedAttention, PlannedFetcher, PlannedPolicy, PlannedStorage, PlannedVae
from .tracker import DEVICE, HOST, MemoryTracker, fused_attention

ROLLOUT = "rollout"  # the one that `run.rollout_batch` counts in
PHASES = ("encode", "load", ROLLOUT, "decode", "reward", "update")
FIXED = ("encode", "load", "reward")  # those of them that are the same for every micro-batch
OF_ITERATION = ("rollout", "decode", "reward", "update")


@dataclass(frozen=True)
class Peak:
    """Most bytes that a phase holds at once."""

    device: int
    host: int


@dataclass(frozen=True)
class Measured:
    """What a run asks of its card."""

    peaks: dict[str, Peak]  # of each of PHASES
    work: dict[str, Work]  # the kernels of each of PHASES, and of FORWARD and PAIRS


class Meter(Clock):
    """The loop's clock, which reads the memory and the kernels of each phase instead of the time."""

    def __init__(self, tracker: MemoryTracker):
        super().__init__(META)
        self.tracker = tracker
        self.peaks: dict[str, Peak] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        gc.collect()  # what waits in reference cycles is not memory that the phase needs
        self.tracker.restart()
        with self.tracker, fused_attention(), self.tracker.kernels.counting(name):
            yield
        self.peaks[name] = Peak(self.tracker.peak[DEVICE], self.tracker.peak[HOST])


def predict(config: Config, plan: MemoryPlan) -> dict[str, Peak]:
    """The peak of each of PHASES, see `measure`."""
    return measure(config, plan).peaks


def measure(config: Config, plan: MemoryPlan) -> Measured:
    """Peaks and kernels of an iteration of a run that has done its first update. Needs no weights and no GPU."""
    return Planned(config, plan).measure(config.run.micro_batch, config.run.drawn_at_once)


class Planned:
    """A run under a memory plan, loaded on `meta`: what its micro-batch does not change is counted once."""

    def __init__(self, config: Config, plan: MemoryPlan):
        self.plan, self.meter = plan, Meter(MemoryTracker())
        self.setup, self.policy = _load(config, plan, _encode(config, plan, self.meter), self.meter)
        with self.meter.tracker:
            self.state = _started(self.setup)

    @property
    def loaded(self) -> int:
        """Bytes on the device at the peak of the loading."""
        return self.meter.peaks["load"].device

    def measure(self, micro_batch: int, rollout_batch: int, *, keeps: bool | None = None) -> Measured:
        """Rollout and update are evaluated for the micro-batches that hold most; every stage is the run's own.

        Args:
            keeps: whether the rollout keeps the blocks' inputs; None for what the settings say.
        """
        meter, kernels = self.meter, self.meter.tracker.kernels
        kernels.work.clear()
        if modulation := modulation_of(self.policy.network):
            modulation.forget()  # the table of the measure before: every iteration has prompts of its own
        config = self.setup.config
        config = replace(config, run=replace(config.run, micro_batch=micro_batch, rollout_batch=rollout_batch))
        batches = MicroBatch(micro_batch, META), MicroBatch(rollout_batch, META)
        keeping = self.setup.keeping if keeps is None else Keeping(keeps)
        setup = replace(self.setup, config=config, micro_batch=batches[0], rollout_batch=batches[1], keeping=keeping)
        self.policy.only, self.policy.calls = _last_call(config)
        candidates = sample_candidates(setup, 0, trained_steps(setup, 0), meter)
        with meter.phase("reward"):
            score(setup, candidates)
        self.policy.only = None
        with meter.phase("update"):
            _update(setup, self.state, candidates, kernels)
        return Measured(dict(meter.peaks), dict(kernels.work))


def dtype_of(config: Config) -> torch.dtype:
    """What the run computes in; left to "auto", what it is on a GPU."""
    return DTYPES["bfloat16" if config.model.dtype == AUTO else config.model.dtype]


@torch.no_grad()
def _encode(config: Config, plan: MemoryPlan, meter: Meter) -> list[Conditioning]:
    dtype, tokens = dtype_of(config), models.tokens(config.model)
    encoders = models.text_encoders(config.model.path)
    storages = [prepared(encoder, plan, dtype, meter.tracker) for encoder in encoders]
    with meter.phase("encode"):
        for encoder, storage in zip(encoders, storages, strict=True):
            fill(encoder, storage, meter.tracker)
            encoder.tie_weights()
        clip, t5 = encoders
        encoded = []
        for prompts in filter(None, (config.prompts, config.evaluation.prompts)):
            # the batches before hold their results alone
            done = max(0, len(prompts) - BATCH)
            before = torch.empty(done, tokens, t5.config.d_model, dtype=dtype, device=META)
            ids = [torch.zeros(min(BATCH, len(prompts)), n, dtype=torch.int64, device=META) for n in (77, tokens)]
            ids[0] = ids[0][:, : clip.config.max_position_embeddings]
            pooled, embeddings = clip(ids[0]).pooler_output, t5(ids[1])[0]
            pooled = torch.cat([pooled.new_empty(done, pooled.shape[1]), pooled])
            encoded.append(told(torch.cat([before, embeddings]).to(dtype), pooled.to(dtype)))
            del before, embeddings, pooled
    return encoded


def _load(config: Config, plan: MemoryPlan, encoded: list[Conditioning], meter: Meter) -> tuple[Setup, PlannedPolicy]:
    dtype, tracker = dtype_of(config), meter.tracker
    transformer = models.transformer(config.model.path)
    transformer.set_attn_processor(PlannedAttention(config.model.device))
    encoded = [_as_wide_as(transformer, conditioning) for conditioning in encoded]
    vae = models.autoencoder(config.model.path)
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(dtype)
    rewards = counted(config.rewards, tracker)
    in_8_bits = config.model.matmul == "fp8" and plan.precision == "fp8"
    storage = prepared(transformer, plan, dtype, tracker, in_8_bits=in_8_bits)
    with meter.phase("load"):
        fill(transformer, storage, tracker)
        if config.model.checkpointing:
            checkpoint_blocks(transformer)
        tracker.place([*vae.parameters(), *vae.buffers()], HOST)
        shifted = bool(transformer.config.guidance_embeds)
        vae = PlannedVae(vae)
        policy = PlannedPolicy(transformer, vae, config.model.guidance, shifted, ADAPTER)
        policy.kernels = tracker.kernels
        lora = add_lora(policy, replace(config.lora, start=""), config.run.seed)
        if config.init.image:
            width, height = config.sampling.largest
            vae.encode(torch.empty(1, 3, height, width, device=META))
        for reward in rewards.values():
            reward.to(META)
            if config.run.offload_rewards:
                move([reward], "cpu")
    _fetch_ahead(transformer, tracker)
    inits = models.inits(config, policy)
    setup = assemble(config, policy, lora, encoded[0], rewards, inits, evaluation=encoded[1] if encoded[1:] else None)
    canvas = setup.canvases[config.sampling.all_sizes.index(config.sampling.largest)]
    return replace(setup, canvas=canvas), policy


def _fetch_ahead(network: nn.Module, tracker: MemoryTracker) -> None:
    """Count what is copied ahead all the time; modulators copy for a moment, before a model is called."""
    layers = [m for m in network.modules() if isinstance(m, FrozenLinear) and not isinstance(m, Modulator)]
    layers = [layer for layer in layers if layer.fetcher is not None]
    if layers:
        fetcher = PlannedFetcher(sum(layer.weight.nbytes for layer in layers), tracker)
        for layer in layers:
            layer.fetcher = fetcher


def _as_wide_as(transformer: FluxTransformer2DModel, conditioning: Conditioning) -> Conditioning:
    """The prompts as the transformer takes them: a file tells its own widths, but not those of its text encoders."""
    settings = transformer.config
    embeddings, pooled = conditioning.tensors[EMBEDDINGS], conditioning.tensors[POOLED]
    return told(
        embeddings.new_empty(*embeddings.shape[:-1], settings.joint_attention_dim),
        # on the host, where modulation compares it: the update takes the rollout's table
        torch.zeros(len(pooled), settings.pooled_projection_dim, dtype=pooled.dtype),
    )


def prepared(
    module: nn.Module, plan: MemoryPlan, dtype: torch.dtype, tracker: MemoryTracker, *, in_8_bits: bool = False
) -> Storage:
    """The plan's storage of a model on meta, whose layers are made ready for it."""
    storage = PlannedStorage(plan, dtype, tracker, in_8_bits=in_8_bits)
    storage.prepare(module)
    return storage


def fill(module: nn.Module, storage: Storage, tracker: MemoryTracker) -> None:
    """Fill a prepared model as a loader does: each tensor is read on the host and goes where the plan says."""
    for name, parameter in list(module.named_parameters()):
        with tracker.making(HOST):
            read = torch.empty(parameter.shape, dtype=storage.dtype, device=META)
        storage.put(module, name, read)
        owner, _, leaf = name.rpartition(".")
        layer = module.get_submodule(owner)
        offloaded = leaf == "weight" and isinstance(layer, FrozenLinear) and layer.fetcher is not None
        tracker.place([getattr(layer, leaf)], HOST if offloaded else DEVICE)
    tracker.place(module.buffers(), DEVICE)


def _started(setup: Setup) -> State:
    """Optimiser and average as the first update leaves them, and the rounded copies of the LoRA that it used."""
    state = new_state(setup)
    _step(setup, state)
    return state


def _step(setup: Setup, state: State) -> None:
    """A step of the optimiser, and the rounding that the next use of the LoRA begins with."""
    for group in state.optimizer.param_groups:
        group["foreach"] = True  # as torch chooses on CUDA: faster, for a copy of the LoRA
    for parameter in setup.lora.values():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    nn.utils.clip_grad_norm_(setup.lora.values(), math.inf)
    state.optimizer.step()
    torch.autograd.graph.increment_version(list(setup.lora.values()))
    state.optimizer.zero_grad(set_to_none=True)
    state.average.update(setup.lora)
    for layer in setup.policy.network.modules():
        if isinstance(layer, FusedLora):
            layer.rounded(setup.policy.dtype)


def _update(setup: Setup, state: State, candidates: Candidates, kernels: Kernels) -> None:
    """One micro-batch of pairs, on top of the gradients of others if there are any, for which it counts; and a step."""
    grpo, prompts = setup.config.grpo, len(candidates.prompts)
    size = setup.config.run.micro_batch
    pairs = drawn_pairs(setup, 0, prompts)
    shares = setup.objective.shares(pairs, grpo.updates_per_rollout)
    micro_batches = [math.ceil(len(share) / size) for share in shares]
    loss_of = setup.objective.prepare(candidates.trajectories, torch.zeros(prompts, grpo.group_size, device=META))
    if max(micro_batches) > 1:
        for parameter in setup.lora.values():
            parameter.grad = torch.zeros_like(parameter)
    with kernels.counting(PAIRS, times=sum(micro_batches)):
        kept = around_of(candidates.keeper, places_of(pairs, candidates.trajectories.steps, grpo.group_size), size)
        gradient(setup, candidates, pairs.part(0, size), loss_of, size, kept)
    with kernels.counting("step", times=len(shares)):
        _step(setup, state)


def _last_call(config: Config) -> tuple[int, int]:
    """Of the rollout's model calls the last with a whole batch, where the solver's own states are all in place, and
    how many there are."""
    candidates, size = config.grpo.prompts_per_iteration * config.grpo.group_size, config.run.drawn_at_once
    solver, parts = objective_of(config).solver([]), math.ceil(candidates / size)
    steps = solver.evaluations(config.sampling.steps)
    return (steps - 1) * parts + max(1, candidates // size) - 1, steps * parts
