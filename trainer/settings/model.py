"""The model that is trained, and its LoRA."""

import re
from dataclasses import dataclass

from ..choices import AUTO, FAMILIES, REFERENCE
from .described import Section, described, require, setting


@dataclass(frozen=True)
class ModelSettings(Section, section="model"):
    path: str = setting(
        help='"embedded", a diffusers folder, a file (.safetensors or .gguf), or "hub:owner/name" of a model hub.'
    )
    device: str = setting(
        AUTO,
        "Where the model is trained. auto: a CUDA GPU if there is one, the CPU if not.",
        choices=(AUTO,),
        others="a torch device such as cuda:1",
    )
    dtype: str = setting(
        AUTO,
        "Of the frozen model. auto: bfloat16 on a GPU, float16 on one that lacks it, float32 on the CPU. "
        "The LoRA is float32.",
        choices=(AUTO, "bfloat16", "float32", "float16"),
    )
    guidance: float = setting(
        3.5,
        "Guidance scale fed to FLUX.1-dev, as in FluxGuidance. FLUX.1-schnell ignores it.",
        least=0,
        highest=100.0,
        step=0.1,
    )
    text_tokens: int | str = setting(
        AUTO,
        "T5 tokens of a prompt, padding included; more are cut off. auto: 256, as ComfyUI pads, so that a LoRA is used "
        "as it is trained. reference: FluxPipeline's, 512 for FLUX.1-dev, 256 for FLUX.1-schnell.",
        unit="token",
        least=1,
        most=512,
        choices=(AUTO, REFERENCE),
    )
    vae: str = setting("", "A file such as ae.safetensors. Empty: the model's own autoencoder.")
    text_encoders: tuple[str, ...] = setting((), "Files of CLIP-L and T5-XXL, in any order. Empty: the model's own.")
    memory: str = setting(
        AUTO,
        "How the frozen weights are kept. fp8 needs half of bf16's memory, nf4 a quarter (with bitsandbytes). "
        "auto: the first of bf16, fp8 and fp8 with offload that fits.",
        choices=(AUTO, "bf16", "fp8", "nf4"),
        may_change=True,
    )
    offload: float = setting(
        0.0,
        "Share of the blocks whose frozen weights wait in host memory: slower, less GPU memory.",
        least=0,
        most=1,
        step=0.05,
        may_change=True,
    )
    matmul: str = setting(
        AUTO,
        "How fp8 weights are multiplied. bf16: widened at each use. fp8: in 8 bits, which rounds the activations too; "
        "for cards from the RTX 40 on. auto: bf16.",
        choices=(AUTO, "bf16", "fp8"),
        may_change=True,
        omit_default=True,
    )
    compile: bool | str = setting(
        AUTO,
        "torch.compile makes the blocks faster, if none of their weights are offloaded. The first iteration takes "
        "minutes. auto: on a GPU with Triton, if nothing is offloaded. If it does not work, the log says so and the "
        "training goes on without.",
        choices=(AUTO,),
        flag=True,
        may_change=True,
    )
    checkpointing: bool = setting(
        True,
        "The update keeps the blocks' inputs alone and computes the rest again: slower, less GPU memory.",
        may_change=True,
    )
    keep_inputs: bool | str = setting(
        AUTO,
        "With checkpointing: the rollout keeps the blocks' inputs of the trained candidates, so that the update begins "
        "with its backward pass. Faster, for about 0.4 GiB a pair at 512 px. auto: if there is room for it on a GPU.",
        choices=(AUTO,),
        flag=True,
        may_change=True,
        omit_default=True,
    )
    family: str = setting(
        AUTO,
        "Which kind of model it is. auto: what its files say.",
        choices=(AUTO, *FAMILIES),
        own=True,
        omit_default=True,
    )

    def check(self) -> None:
        remedy = "compiled blocks need their weights on the device: use model.compile = false, or offload = 0"
        require(not (self.compile is True and self.offload), "model.offload", self.offload, remedy)
        require(self.matmul != "fp8" or self.memory == "fp8", "model.matmul", self.matmul, "needs memory = 'fp8'")
        only_resident = self.memory == "nf4" and self.offload
        require(
            not only_resident, "model.offload", self.offload, "4-bit weights stay on the device: use memory = 'fp8'"
        )


@dataclass(frozen=True)
class LoraSettings(Section, section="lora"):
    rank: int = setting(
        16, "Rank of the LoRA: its capacity and its file's size. 8 to 32 is usual.", least=1, highest=512
    )
    alpha: float = setting(
        16.0,
        "The LoRA is scaled by alpha / rank. Leave it equal to the rank if in doubt.",
        above=0,
        highest=1024.0,
        step=0.1,
    )
    targets: str = setting(
        "all-linear",
        "Layers with a LoRA: all linear layers of the blocks, or those of the attention only.",
        choices=("all-linear", "attention"),
        others="a regular expression over module paths",
    )
    start: str = setting(
        "",
        "A FLUX LoRA to go on from, of any program that ComfyUI knows. The rank must be at least its own.",
    )
    variant: str = setting(
        "lora",
        "rslora: scaled by alpha / sqrt(rank), for high ranks. dora: trains each row's length apart; slower, and it "
        "needs more memory.",
        choices=("lora", "rslora", "dora"),
    )
    format: str = setting(
        "diffusers",
        "Names in the exported file. diffusers: for ComfyUI and diffusers. kohya: for programs that know kohya's "
        "alone; larger, and the same LoRA.",
        choices=("diffusers", "kohya"),
    )

    def check(self) -> None:
        require(_compiles(self.targets), "lora.targets", self.targets, described(LoraSettings, "targets").remedy)
        kept = (self.variant, self.format) != ("dora", "kohya")
        require(kept, "lora.format", self.format, "a DoRA is exported in the diffusers layout only")


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return bool(pattern)
