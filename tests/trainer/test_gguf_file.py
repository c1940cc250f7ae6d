"""A GGUF file is the model with the weights that its blocks stand for."""

import sys

import numpy as np
import pytest
import torch
from flux_files import original_transformer, write, write_gguf

from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.transformer import load_transformer


def load(path):
    return load_transformer(resolve(str(path)), dtype=torch.float32).state_dict()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_a_gguf_file_is_its_dequantised_weights(kind, flux_dev, tmp_path):
    gguf = pytest.importorskip("gguf")
    quantisation = gguf.GGMLQuantizationType[kind]
    stored, meant = {}, {}
    for name, tensor in original_transformer(flux_dev).items():
        unblocked = kind in ("F16", "BF16")  # the others are for matrices; vectors are F32 beside them
        its = quantisation if tensor.ndim == 2 or unblocked else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(tensor.numpy(), its)
        stored[name] = (data, its)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(data, its).astype(np.float32))
    found, expected = (
        load(write_gguf(tmp_path / "flux.gguf", stored)),
        load(write(tmp_path / "meant.safetensors", meant)),
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    exact = load(write(tmp_path / "exact.safetensors", original_transformer(flux_dev)))
    assert (kind == "F32") == all(torch.equal(found[name], exact[name]) for name in exact)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_gguf_file_that_is_cut_short_is_told_in_one_line(share, tmp_path):
    path = write_gguf(tmp_path / "flux.gguf", {"img_in.weight": (np.zeros((64, 64), np.float32), None)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=r"flux.gguf is not a whole GGUF file \(.*\): download it again") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_kind_that_the_package_cannot_read_is_named(flux_dev, tmp_path):
    pytest.importorskip("gguf")
    tensors = {name: (tensor.numpy(), None) for name, tensor in original_transformer(flux_dev).items()}
    tensors["img_in.weight"] = (np.ones(tensors["img_in.weight"][0].shape, np.int8), None)
    with pytest.raises(ModelError, match=r"it keeps 'img_in.weight' as GGUF I8, which is not read: take one in"):
        load(write_gguf(tmp_path / "flux.gguf", tensors))


def test_without_the_package_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"flux.gguf is a GGUF file: `pip install gguf` to read it"):
        load(tmp_path / "flux.gguf")
