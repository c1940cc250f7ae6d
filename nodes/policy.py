"""Load FLUX Policy: the model that will be trained."""

from typing import Any

import folder_paths
from comfy_api.latest import io

from ..trainer.choices import AUTO
from ..trainer.device import devices, usual_dtype
from ..trainer.errors import brief
from ..trainer.models.files.source import GGUF
from ..trainer.settings.config import LoraSettings, ModelSettings
from ..trainer.settings.run import SEEDS
from ..trainer.tiny import MODELS as SMALL
from . import host, policies
from .inputs import setting_input, setting_inputs
from .newer import rare, searched_by
from .wires import CATEGORY, POLICY

NO_LORA = "none"
MODELS, LORAS = "diffusion_models", "loras"
EMBEDDED = tuple(SMALL)


class LoadPolicy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOLoadPolicy",
            display_name="Load FLUX Policy",
            category=CATEGORY,
            **searched_by("rlhf", "lora training"),
            description="The FLUX that is trained, with a new LoRA on it (GRPO, RLHF, LoRA training by reward).",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[*EMBEDDED, *model_files()],
                    default=EMBEDDED[0],
                    tooltip="A FLUX.1 file in models/diffusion_models, or one of the small models that come with "
                    "this pack (64 x 64 pixels, for trying things out). A file has no text encoders and no VAE: "
                    "connect them. GGUF needs the package gguf.",
                ),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A diffusers folder such as /models/FLUX.1-dev, used instead of the model above. "
                    "It brings its text encoders and its VAE along. Empty: the model above.",
                ),
                *setting_inputs(LoraSettings, "rank", "alpha", "targets"),
                setting_input(
                    LoraSettings,
                    "start",
                    "start_from",
                    options=[NO_LORA, *folder_paths.get_filename_list(LORAS)],
                    default=NO_LORA,
                ),
                setting_input(ModelSettings, "guidance"),
                setting_input(ModelSettings, "dtype", "precision"),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEEDS,
                    control_after_generate=False,
                    tooltip="Of the LoRA's random start. Another seed is another policy: it begins untrained.",
                ),
                *rare(
                    setting_input(
                        ModelSettings,
                        "device",
                        optional=True,
                        options=[AUTO, *devices()],
                        tooltip="Where the model is trained. auto: the device that ComfyUI uses.",  # not any CUDA
                    ),
                    setting_input(ModelSettings, "memory", optional=True),
                    setting_input(ModelSettings, "offload", optional=True),
                    io.String.Input(
                        "target_pattern",
                        optional=True,
                        default="",
                        tooltip="Layers with a LoRA by a regular expression, used instead of targets: it must match "
                        r"their whole paths, such as .+\.attn\.to_[qkv]. Empty: targets.",
                    ),
                    setting_input(LoraSettings, "variant", optional=True),
                    io.Boolean.Input(
                        "compile",
                        optional=True,
                        default=True,
                        tooltip="torch.compile makes the blocks faster, on a GPU with Triton, if nothing is offloaded. "
                        "The first iteration takes minutes. If it does not work, the log says so and the training goes "
                        "on without.",
                    ),
                ),
            ],
            outputs=[POLICY.Output("policy", display_name="policy", tooltip="For Prompt Set, Rollout and Train.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> object:
        """A policy that has moved is another input for everything behind it."""
        return policies.version(wanted(**inputs))

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        if model in EMBEDDED or folder_paths.get_full_path(MODELS, model):
            return True
        return f"there is no {brief(model)} in models/{MODELS}: choose another, or put it there and press R"

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        return io.NodeOutput(policies.get(wanted(**inputs)))


def model_files() -> list[str]:
    """What ComfyUI lists in models/diffusion_models, and the GGUF files there, which it leaves to other packs."""
    files = list(folder_paths.get_filename_list(MODELS))
    for folder in folder_paths.get_folder_paths(MODELS):
        found, _ = folder_paths.recursive_search(folder, excluded_dir_names=[".git"])
        files += [name for name in found if name.endswith(GGUF) and name not in files]
    return sorted(files)


def wanted(
    model: str,
    folder: str,
    rank: int,
    alpha: float,
    targets: str,
    start_from: str,
    guidance: float,
    precision: str,
    seed: int,
    device: str = AUTO,
    memory: str = ModelSettings.memory,
    offload: float = ModelSettings.offload,
    target_pattern: str = "",
    variant: str = LoraSettings.variant,
    compile: bool = True,
) -> policies.Wanted:
    """The widgets' values as settings."""
    device = host.device() if device == AUTO else device
    dtype = usual_dtype(device) if precision == AUTO else precision
    path = folder.strip() or (model if model in EMBEDDED else folder_paths.get_full_path_or_raise(MODELS, model))
    start = "" if start_from == NO_LORA else folder_paths.get_full_path_or_raise(LORAS, start_from)
    return policies.Wanted(
        ModelSettings(
            path=path,
            device=device,
            dtype=dtype,
            guidance=guidance,
            memory=memory,
            offload=offload,
            compile=AUTO if compile else False,
            checkpointing=path not in EMBEDDED,  # so small that its activations are nothing
        ),
        LoraSettings(rank=rank, alpha=alpha, targets=target_pattern.strip() or targets, start=start, variant=variant),
        seed,
    )
