"""Save LoRA, and the LoRA as ComfyUI's LORA_MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..trainer.errors import UserError, brief
from ..trainer.settings.config import LoraSettings
from . import host, policies
from .inputs import setting_input
from .newer import rare
from .wires import CATEGORY, LORA, LoraFile

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


class SaveLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOSaveLora",
            display_name="Save LoRA (Neighbor GRPO)",
            category=CATEGORY,
            description="Writes the trained LoRA into models/loras, for Load LoRA and for diffusers.",
            is_output_node=True,
            inputs=[
                LORA.Input("lora", tooltip="The LoRA of Neighbor GRPO Train or Step."),
                io.String.Input(
                    "name", default="neighbor_grpo", tooltip="Name of the file in models/loras; folder/name works."
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: a file of this name is replaced. Off: it stays, and name-2, name-3, ... is written.",
                ),
                *rare(setting_input(LoraSettings, "format", "layout", optional=True)),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def validate_inputs(cls, name: str) -> bool | str:
        return valid(name) or f"name {brief(name)} must be a file's name, or folder/name, inside models/loras"

    @classmethod
    def execute(
        cls, lora: Mapping[str, Tensor], name: str, overwrite: bool, layout: str = LoraSettings.format
    ) -> io.NodeOutput:
        from safetensors.torch import save_file

        from ..trainer.files import written_whole
        from ..trainer.models.flux1 import lora_names
        from ..trainer.models.lora.export import kohya_layout

        if not valid(name):
            raise UserError(f"name {brief(name)} must be a file's name, or folder/name, inside models/loras")
        path = target(host.loras_folder() / (name.strip().removesuffix(SUFFIX) + SUFFIX), overwrite)
        metadata = {"format": "pt", **getattr(lora, "metadata", {})}
        tensors = kohya_layout(lora, lora_names) if layout == "kohya" else lora
        with written_whole(path) as partial:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial, metadata=metadata)
        return io.NodeOutput(str(path), ui={"text": (str(path),)})


def valid(name: str) -> bool:
    path = Path(name.strip())
    return bool(name.strip()) and not path.is_absolute() and ".." not in path.parts and ":" not in name


def target(path: Path, overwrite: bool) -> Path:
    free, n = path, 2
    while free.exists() and not overwrite:
        free, n = path.with_stem(f"{path.stem}-{n}"), n + 1
    return free


def lora_file(policy: policies.Policy, metadata: Mapping[str, object]) -> LoraFile:
    """A policy's LoRA as ComfyUI and diffusers name it."""
    from ..trainer.models.lora.export import file_metadata, file_tensors

    settings = policy.wanted.lora
    base = policy.flux.network
    tensors = file_tensors(policy.lora, settings.alpha, variant=settings.variant, network=base)
    return LoraFile(tensors, file_metadata(metadata))


def read_lora_file(path: Path) -> LoraFile:
    """A LoRA that a run exported, with what its header may say to others."""
    from ..trainer.models.files.safe_file import read_file
    from ..trainer.training.lora_header import cleaned

    tensors, metadata = read_file(path)
    return LoraFile(tensors, cleaned(metadata))
