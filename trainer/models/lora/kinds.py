"""What a file of an adapter is if it is no plain LoRA, by the names of its tensors: to say so in one line."""

from collections.abc import Iterable

from ...errors import brief
from .targets import LoraError

KINDS = {  # what it is: parts of names that nothing else has
    "a LoKr": (".lokr_w1", ".lokr_w2", ".lokr_t2"),
    "a LoHa": (".hada_w1", ".hada_w2", ".hada_t"),
    "a LoCon with a Tucker core": (".lora_mid.",),
    "an OFT or BOFT": (".oft_blocks", ".oft_diag", ".oft_R", ".boft_", ".R.weight"),
    "an (IA)3": (".on_input", ".ia3_l"),
    "a GLoRA": (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"),
    "a VeRA": ("vera_lambda_", ".vera_A", ".vera_B"),
    "a DoRA in PEFT's names": ("lora_magnitude_vector",),
    "a difference of whole weights": (".diff", ".diff_b", ".set_weight", ".w_norm", ".b_norm"),
    "a LoRA of embeddings": ("lora_embedding_A", "lora_embedding_B"),
    "a LoRA with trained embeddings": ("emb_params", "bundle_emb.", "modules_to_save."),
    "a LoRA with biases": (".lora_B.bias", ".lora_A.bias", ".lora_up.bias", ".lora_down.bias", ".lora_B.default.bias"),
}
TEXT_ENCODERS = (
    "lora_te", "text_encoder", "base_model.model.text_encoder", "text_model.", "clip_l.", "t5xxl.",
)  # fmt: skip


def refuse_other_kinds(path: object, names: Iterable[str]) -> None:
    """Raises LoraError if one of the names tells an adapter of another kind: what it is, and that name."""
    for name in sorted(names):
        kind = next((k for k, marks in KINDS.items() if any(_has(name, mark) for mark in marks)), "")
        if kind:
            raise LoraError(
                f"{path} is {kind}, which cannot be gone on from: convert it to a plain LoRA; "
                f"the first tensor that tells is {shown(name)}"
            )


def _has(name: str, mark: str) -> bool:
    """The two end a name, the others may have more behind them."""
    return name.endswith(mark) if mark in (".diff", ".R.weight") else mark in name


def shown(name: str) -> str:
    """A tensor's name for a message, without quotes: on one line, cut in its middle if it is long."""
    return brief(name)[1:-1]
