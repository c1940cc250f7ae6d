"""LoRA Strength: after a training, how strong its LoRA is best."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.errors import Stopped, UserError
from ..trainer.history.strengths import keep
from ..trainer.settings.config import Config, LoraSettings, RunSettings, SamplingSettings
from ..trainer.store.database import StoreError
from ..trainer.training.run_folder import LORA
from . import host, policies
from .latents import ready
from .newer import searched_by
from .rewards import by_label
from .rollout import POLICY_INPUT, PROMPTS_INPUT, VAE_INPUT, counting
from .wires import CATEGORY, REWARD, RUN, NamedReward, Prompts, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..trainer.rewards.base import Reward
    from ..trainer.training.strengths import AtStrength


log = logging.getLogger(__name__)


class LoraStrength(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOLoraStrength",
            display_name="LoRA Strength",
            category=CATEGORY,
            **searched_by("lora weight", "strength_model"),
            description="Draws with a run's LoRA at strengths from 0.4 to 1.2, scores the pictures and names the best "
            "strength, by the held-out rewards if there are some: a better LoRA for nothing. The panel shows "
            "the table.",
            is_output_node=True,
            inputs=[
                POLICY_INPUT,
                RUN.Input("run", tooltip="The run of Neighbor GRPO Train, whose LoRA it is."),
                PROMPTS_INPUT,
                REWARD.Input("reward", tooltip="As for the training. Held-out rewards decide, if there are some."),
                io.Int.Input(
                    "pictures", default=4, min=1, max=64, tooltip="Pictures of each prompt, at each of ten strengths."
                ),
                VAE_INPUT,
            ],
            outputs=[
                io.Float.Output("strength", display_name="strength", tooltip="For Load LoRA: the recommended one."),
                io.String.Output("table", display_name="table", tooltip="Every reward at each strength."),
            ],
        )

    @classmethod
    def execute(
        cls,
        policy: policies.Policy,
        run: Run,
        prompts: Prompts,
        reward: tuple[NamedReward, ...],
        pictures: int,
        vae: object | None = None,
    ) -> io.NodeOutput:
        from ..trainer.training.brought import iteration_of
        from ..trainer.training.strengths import recommended, table, told

        if len(prompts.texts) * pictures < 2:
            raise UserError(f"LoRA Strength: pictures = {pictures}: two pictures at least are needed to compare")
        config = config_of(run, policy, prompts, reward)
        found = drawn_at_each(config, policy, prompts, by_label(reward), pictures, vae)
        best = recommended(found, list(config.weights), config.held_out)
        try:
            keep(run.folder, told(found, best, len(prompts.texts) * pictures), iteration_of(run.folder / LORA))
        except StoreError as error:  # what was measured is not to be lost with it
            log.warning("the panel will not show these strengths: %s", error)
        text = table(config, found, best)
        return io.NodeOutput(best.strength, text, ui={"text": (text,)})


def config_of(run: Run, policy: policies.Policy, prompts: Prompts, reward: tuple[NamedReward, ...]) -> Config:
    """The run's own solver, sizes and batches, and its LoRA to begin from."""
    from ..trainer.settings.typed import parse_section
    from ..trainer.training.brought import brought_by
    from ..trainer.training.taken import lora_section, taken

    brought = brought_by(run.folder)
    table = taken(brought)
    return Config(
        model=policy.wanted.model,
        lora=parse_section(LoraSettings, lora_section(brought.lora), "lora"),
        prompts=prompts.texts,
        rewards=tuple(r.settings for r in reward),
        sampling=parse_section(SamplingSettings, table["sampling"], "sampling"),
        run=parse_section(RunSettings, table["run"], "run"),
    )


def drawn_at_each(
    config: Config,
    policy: policies.Policy,
    prompts: Prompts,
    rewards: Mapping[str, Reward],
    pictures: int,
    vae: object | None,
) -> list[AtStrength]:
    from ..trainer.engine.setup import assemble
    from ..trainer.rewards.base import move
    from ..trainer.training.evaluate import UNSEEN
    from ..trainer.training.strengths import STRENGTHS, measure

    drawn = [text for text in prompts.texts for _ in range(pictures)]
    seeds = range(UNSEEN, UNSEEN + len(drawn))
    with policy.at_work(config, stay=False):
        base = ready(policy.flux, vae, host.stop_if_cancelled)
        flux, lora = policies.fresh_lora(base, policies.Wanted(config.model, config.lora, config.run.seed))
        try:
            setup = assemble(config, flux, lora, prompts.conditioning, rewards, ())
            moved = counting(len(STRENGTHS))
            return measure(setup, drawn, seeds, on_done=lambda found: moved())
        except Stopped:
            host.raise_if_cancelled()
            raise
        finally:
            move(rewards.values(), "cpu")
            policies.drop_lora(flux)
