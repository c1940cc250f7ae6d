"""Prompt Set: captions and their embeddings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..trainer.device import training_on
from ..trainer.errors import UserError
from ..trainer.prompt_files import prompt_lines, read_prompt_file
from ..trainer.settings.paths import absolute_path
from . import host, policies
from .newer import searched_by
from .wires import CATEGORY, POLICY, PROMPTS, Prompts

if TYPE_CHECKING:
    from ..trainer.models.conditioning import Conditioning
    from ..trainer.settings.config import ModelSettings

KEPT = 8  # sets of embeddings


class PromptSet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOPromptSet",
            display_name="Prompt Set",
            category=CATEGORY,
            **searched_by("captions"),
            description="The prompts that the LoRA is trained on, encoded once. Chain several sets by 'more'.",
            inputs=[
                POLICY.Input(
                    "policy", tooltip="The model the prompts are for. Its own text encoders are used if it has any."
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="red apple on a blue background\npanda on a pink background",
                    tooltip="One prompt a line. Lines that begin with # are left out.",
                ),
                io.String.Input(
                    "file",
                    default="",
                    tooltip="A file used instead of the text: .txt (one prompt a line), .jsonl or .json (texts, or "
                    "objects with 'prompt', 'text' or 'caption'), .csv (a column of such a name). Empty: the text.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The prompts as CLIPTextEncode made them (join several with "
                    "Conditioning (Combine)); the text "
                    "then says, in the same order, what they were. Needed if the model is a single file.",
                ),
                PROMPTS.Input("more", optional=True, tooltip="Another Prompt Set, put before this one."),
            ],
            outputs=[
                PROMPTS.Output("prompts", display_name="prompts", tooltip="For Rollout and Train."),
                io.Int.Output("count", display_name="count", tooltip="How many prompts there are."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        try:
            return not file.strip() or bool(read_file(file))
        except UserError as error:
            return f"file: {error}"

    @classmethod
    def execute(
        cls,
        policy: policies.Policy,
        text: str,
        file: str,
        conditioning: list[list[Any]] | None = None,
        more: Prompts | None = None,
    ) -> io.NodeOutput:
        texts = tuple(read_file(file) if file.strip() else prompt_lines(text))
        if not texts:
            raise UserError("Prompt Set has no prompt: write one a line")
        with host.training_mode():
            encoded = from_comfy(conditioning, texts, policy) if conditioning else encode(policy.wanted.model, texts)
            prompts = Prompts(texts, encoded)
            if more:
                prompts = joined(more, prompts)
        return io.NodeOutput(prompts, len(prompts.texts))


def read_file(file: str) -> list[str]:
    """Prompts of a file, as the command line reads it."""
    return read_prompt_file(absolute_path(file.strip(), Path(), "file"))


@lru_cache(KEPT)
def encode(model: ModelSettings, texts: tuple[str, ...]) -> Conditioning:
    """By the text encoders of a diffusers folder; kept, as a moving policy asks again and again."""
    from ..trainer.models.families import family_of
    from ..trainer.models.files.source import resolve
    from ..trainer.models.storage.placement import DTYPES, Placement

    source = resolve(model.path)
    if source.file:
        raise UserError(
            "the model is a single file without text encoders: connect CLIPTextEncode "
            "(on DualCLIPLoader) to 'conditioning'"
        )
    host.free_models(model.device)
    left = host.left_free(model.device)
    placement = Placement(model.device, DTYPES[model.dtype], model.memory, model.offload, reserve=left)
    with training_on(model.device):
        return family_of(source).encode(source, [texts], placement, tokens=model.text_tokens)[0]


def from_comfy(conditioning: list[list[Any]], texts: tuple[str, ...], policy: policies.Policy) -> Conditioning:
    """ComfyUI's CONDITIONING as ours: T5's tokens and CLIP's pooled vector of every prompt.

    It is a list of [tensor, dict].
    """
    import torch

    from ..trainer.models.flux1.conditions import conditioning as told

    if len(conditioning) != len(texts):
        raise UserError(
            f"{len(conditioning)} conditionings but {len(texts)} captions: write one "
            "caption a line for each, in their order"
        )
    pooled = [extra.get("pooled_output") for _, extra in conditioning]
    config = policy.flux.network.config
    for tokens, vector in zip([c[0] for c in conditioning], pooled, strict=True):
        widths = (tokens.shape[-1], None if vector is None else vector.shape[-1])
        if widths != (config.joint_attention_dim, config.pooled_projection_dim):
            raise UserError(
                f"the conditioning is not for this FLUX (it is {widths[0]} and {widths[1]} wide, "
                f"{config.joint_attention_dim} and {config.pooled_projection_dim} are "
                "needed): encode with DualCLIPLoader, "
                "type flux"
            )
    lengths = sorted({c[0].shape[1] for c in conditioning})
    if len(lengths) > 1:
        raise UserError(
            f"the prompts have {lengths[0]} to {lengths[-1]} tokens: use prompts of one length, or a Prompt Set each"
        )
    both = torch.cat([c[0] for c in conditioning]), torch.cat(pooled)
    # all wait on the host, as in `encode_sets`
    return told(*(part.to("cpu", policy.flux.dtype, copy=True) for part in both))


def joined(first: Prompts, second: Prompts) -> Prompts:
    """The prompts of both, one after the other.

    Raises:
        UserError: they were encoded to different lengths.
    """
    try:
        return Prompts(first.texts + second.texts, first.conditioning.then(second.conditioning))
    except ValueError as error:
        raise UserError(f"these Prompt Sets cannot be joined ({error}): encode both alike") from None
