"""The tensor of the card made of the CPU."""

import torch
from card_memory import memory

NAME = "card"


class Card(torch.Tensor):
    """A tensor on the card; `raw` holds its numbers with the same strides, `block` is its memory."""

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, raw):
        self.raw, self.block = raw, memory.block_of(raw)

    def __repr__(self):
        return f"Card({self.raw!r})"

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, new):  # as peft does to make a LoRA float32
        self.raw, self.block = new.raw, new.block
        torch.Tensor.data.__set__(self, new)

    def __deepcopy__(self, memo):
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        return memo.setdefault(id(self), copy)

    def __format__(self, spec):
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def tolist(self):  # torch refuses it for subclasses
        return self.cpu().tolist()

    def untyped_storage(self):  # safetensors asks what shares memory
        return self.raw.untyped_storage()

    def data_ptr(self):
        return self.raw.data_ptr()

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    def record_stream(self, stream):
        self.block.recorded.add(stream)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        from card_operations import run  # which makes such tensors

        return run(function, args, kwargs or {})
