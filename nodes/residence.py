"""Where an idle policy is: on its device as long as nobody else wants the room, then in host memory.

ComfyUI's model management is told of it like of ComfyUI's own models: what it loads next, and "Unload models", send it
away. A policy at work is nobody's to send away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..trainer.device import release
from . import host

if TYPE_CHECKING:
    from torch import device as Device

HOST = torch.device("cpu")
SPARE = 2**30  # bytes of host memory that stay free


class FluxPolicy(nn.Module):
    """What ComfyUI's log calls a policy: the weights themselves are not for its patches."""


class Residence(ModelPatcher):
    """A base model with its LoRAs, in the eyes of ComfyUI: whole on its device, or not there at all.

    Args:
        network: has its weights on `device`.
        device: that computes.
        followed: told of a device, takes there what belongs to the model and is not in it.
    """

    def __init__(self, network: nn.Module, device: str, followed: Callable[[Device], None]):
        super().__init__(FluxPolicy(), load_device=torch.device(device), offload_device=HOST)
        self.network, self.followed = network, followed
        self.at_work = False
        self.model.device = self.load_device

    @contextmanager
    def in_use(self, *, stay: bool) -> Iterator[None]:
        """The model is on its device inside, and ComfyUI's own have left it. Afterwards it may be sent away.

        Args:
            stay: whether it waits on the device for its next use, which comes soon. If not, it leaves at once, unless
                host memory is short: then it is left to ComfyUI when.

        Raises:
            torch.OutOfMemoryError, or another of the device's: it has no room; the model is in host memory.
        """
        from ..trainer.models.storage.moving import settle

        if self.load_device == HOST:
            host.free_models(HOST)
            yield
            return
        self.at_work = True
        try:
            host.free_models(self.load_device, keep=self)
            self._come()
            yield
        finally:
            self.at_work = False
            settle(self.network)
            if not stay and self._host_has_room():
                self._leave()
            self.wait()

    def wait(self) -> None:
        """From now on ComfyUI may send away what is on the device."""
        if self.loaded_size() and self.load_device != HOST and self not in model_management.loaded_models():
            model_management.load_models_gpu([self], force_full_load=True)  # all that loads is there: it joins the list

    def _come(self) -> None:
        if self.model.device == self.load_device:
            return
        try:
            self._go(self.load_device)
        except BaseException:
            self._go(HOST)  # what has come already
            raise

    def _leave(self) -> None:
        if not self.at_work and self.model.device != HOST:
            self._go(HOST)
            release(self.load_device)

    def _go(self, device: Device) -> None:
        from ..trainer.models.storage.moving import move

        with host.training_mode():  # ComfyUI may send it away in inference mode, whose tensors can never be trained
            move(self.network, device)
            self.followed(device)
        self.model.device = device

    def _host_has_room(self) -> bool:
        return self.loaded_size() + SPARE < model_management.get_free_memory(HOST)

    # ---- what ComfyUI asks for

    def model_size(self) -> int:
        return self.bytes_on(self.model.device)

    def loaded_size(self) -> int:
        return self.bytes_on(self.load_device)

    def bytes_on(self, device: Device) -> int:
        from ..trainer.models.storage.moving import bytes_on

        return bytes_on(self.network, device)

    def partially_load(self, device_to: Device, extra_memory: float = 0, force_patch_weights: bool = False) -> int:
        """Room that is left over is no reason to come: it comes when it is used."""
        return 0

    def partially_unload(self, device_to: Device, memory_to_free: float = 0, force_patch_weights: bool = False) -> int:
        """All of it, or nothing while it is at work; the bytes that are free now."""
        before = self.loaded_size()
        self._leave()
        return before - self.loaded_size()

    def detach(self, unpatch_all: bool = True) -> nn.Module:
        if unpatch_all:
            self._leave()
        return self.model
