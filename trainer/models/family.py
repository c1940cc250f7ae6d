"""What is particular to a kind of model: the protocols that each folder of `models/` such as `flux1` fulfils."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..stages.inpainting import Init
from ..stages.rollout import BatchVelocity
from .conditioning import Conditioning
from .files.source import ModelSource
from .lora.names import LayerNames
from .storage.placement import Placement


class Geometry(Protocol):
    """A picture's size, and the two shapes of its latent: as noise is drawn, and packed as the model takes it."""

    @property
    def width(self) -> int: ...  # pixels

    @property
    def height(self) -> int: ...  # pixels

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape that noise is drawn in."""

    def pack(self, latent: Tensor) -> Tensor:
        """[N, *latent_shape] -> x [N, *latent]."""

    def pack_mask(self, mask: Tensor) -> Tensor:
        """A mask over the latent's area -> [*latent], the same for all channels."""


G = TypeVar("G", bound=Geometry)


Place = tuple[int, int]  # the number of a call of the velocity, and the candidate


class Keeper(Protocol):
    """What a model keeps of its passes in the rollout, so that the first update need not make them again."""

    def filling(self, call: int, first: int, size: int) -> AbstractContextManager[None]:
        """Inside, the candidates `first` to `first + size` pass the network once, without gradient."""

    def used(self, places: Sequence[Place]) -> AbstractContextManager[None]:
        """Inside, the candidates at these places pass it once, in this order, with gradient."""

    def clear(self) -> None:
        """Let go of all."""


class PolicyOf(Protocol[G]):
    """A loaded model: the velocity that is trained, and the way between latents and pictures.

    A dataclass, so that `dataclasses.replace` gives another policy on the same network.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    network: nn.Module  # frozen, and the LoRA on it
    adapter: str  # which LoRA of the network is the policy's; empty if there is one at most
    before_call: Callable[[], None]  # called before every model call; may raise Stopped

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; x and v are float32."""

    @property
    def lora_targets(self) -> Mapping[str, str]:
        """Presets of `lora.targets`: expressions that match whole module paths."""

    @property
    def layer_names(self) -> LayerNames: ...

    def geometry(self, width: int, height: int) -> G: ...

    def shift(self, geometry: G) -> float:
        """The time shift of the sigmas that the model was made for, see `sigma_grid`."""

    def velocity(self, conditioning: Conditioning, geometry: G) -> BatchVelocity:
        """v(x, sigma, rows) for packed x [N, *latent], sigma [N] in [0, 1], rows [N] into `conditioning`."""

    def reference(self) -> AbstractContextManager[None]:
        """The base model: inside, the LoRA is off."""

    def decoding(self) -> AbstractContextManager[None]:
        """Inside, `decode` is called many times: what it needs stays on the device."""
        return nullcontext()

    def keep(self, wanted: Collection[Place]) -> Keeper | None:
        """A keeper for these places; None if it would spare nothing."""
        return None

    def decode(self, x_0: Tensor, geometry: G) -> Tensor:
        """Packed latents [N, *latent] -> images [N, 3, height, width], float32 in [0, 1]."""

    def begin_from(self, images: Tensor, mask: Tensor | None, geometry: G, *, reference: bool) -> Init:
        """What trajectories begin from, of images [N, 3, height, width] and a mask [height, width], in [0, 1] both.

        Args:
            reference: whether the model sees the pictures while it draws.
        """

    def check(self, inits: Sequence[Init]) -> None:
        """Raises ConfigError if the model cannot draw from these; none is drawing from noise."""


Policy = PolicyOf[Any]  # whichever; its geometries are its own


class Family(Protocol):
    """A kind of model: how its files are told from others', and loaded."""

    planned: bool  # whether `planning` knows its sizes; if not, `model.memory = "auto"` goes by the weights alone

    def recognises(self, source: ModelSource) -> bool:
        """Whether the model is of this kind, by its folder's or file's own words; loads nothing."""

    def load(self, source: ModelSource, placement: Placement, *, guidance: float) -> Policy:
        """The frozen model. Raises ModelError: a missing file, folder or part, or a model of another kind."""

    def encode(
        self, source: ModelSource, sets: Sequence[Sequence[str]], placement: Placement, *, tokens: int | str
    ) -> list[Conditioning]:
        """Several sets of prompts, with the text encoders loaded once and let go.

        Args:
            tokens: of a prompt, padding included; "auto" is what the model was made for.
        """
