"""What there is to tell of an iteration: its candidates, its numbers, its pictures."""

import torch
from torch import Tensor

from ..engine.grpo import Candidates, Group
from ..engine.state import Setup, State
from ..events import Drawn, IterationDone
from ..stages.advantages import flatness
from ..stages.surrogate import mean_pairwise_distance, pairwise_distances


def drawn(setup: Setup, state: State, candidates: Candidates) -> Drawn:
    prompts = [setup.config.prompts[p] for p in candidates.prompts]
    group_size = setup.config.grpo.group_size
    return Drawn(state.iteration, prompts, candidates.seeds, candidates.images, group_size)


def describe(group: Group) -> dict[str, float]:
    """What a person wants to know about a group of candidates; one read from the device."""
    x_0 = final_latents(group)
    values = {
        "flatness": flatness(group.combined.advantages).nanmean(),
        "diversity": mean_pairwise_distance(x_0).mean() / x_0[0, 0].numel(),
        "skipped_groups": (~group.combined.informative).sum(),
    }
    for name, scores in group.scores.items():
        values[f"reward/{name}"] = scores.mean()
        values[f"reward_std/{name}"] = scores.std(-1, correction=0).mean()
    return dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))


def final_latents(group: Group) -> Tensor:
    """Where the candidates ended, [P, G, *latent]: of what is drawn."""
    trajectories = group.candidates.trajectories
    return trajectories.inside(trajectories.x_0).unflatten(0, group.advantages.shape)


def report(
    setup: Setup, iteration: int, group: Group, anchors: Tensor, metrics: dict[str, float], base: Tensor | None
) -> IterationDone:
    candidates = group.candidates
    return IterationDone(
        iteration=iteration,
        metrics=metrics,
        prompts=[setup.config.prompts[p] for p in candidates.prompts],
        seeds=candidates.seeds,
        scores={name: s.cpu() for name, s in group.scores.items()},
        advantages=group.advantages.cpu(),
        anchors=anchors,
        images=candidates.images,
        distances=pairwise_distances(final_latents(group)).cpu(),
        base=base,
    )
