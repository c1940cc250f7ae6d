"""Headers of model files that ask for more than there is: told in one line, and nothing of that size is built."""

import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from flux_files import original_transformer, write, write_gguf
from raw_safetensors import with_header
from small_clip import small_clip

from trainer import tiny
from trainer.models.files.gguf_file import gguf_file
from trainer.models.files.headers import read_config
from trainer.models.files.opened import safetensors_files
from trainer.models.files.safe_file import LONGEST
from trainer.models.files.source import ModelError, resolve
from trainer.models.flux1.family import Flux1
from trainer.models.flux1.parts import load_encoders, load_vae
from trainer.models.flux1.transformer import load_transformer
from trainer.models.storage.placement import Placement
from trainer.rewards.clip_files import read_clip
from trainer.rewards.errors import RewardError
from trainer.rewards.tensor_files import read_tensors


def told(call, error=ModelError) -> str:
    """What is said, which is one line."""
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def load(path):
    Flux1().recognises(resolve(str(path)))
    return load_transformer(resolve(str(path)), dtype=torch.float32)


BLOCK = "double_blocks.0."


def blocks_moved(tensors, number):
    """The first double block has another number."""
    return {name.replace(BLOCK, f"double_blocks.{number}."): tensor.clone() for name, tensor in tensors.items()}


CASES = {
    "a block of a large number": (
        lambda t: t | {"double_blocks.999999999.img_attn.qkv.weight": torch.zeros(96, 32)},
        "lacks 32 weights, the first is transformer_blocks.1.",
    ),
    "a single block of a large number": (
        lambda t: t | {"single_blocks.999999999.linear1.bias": torch.zeros(1)},
        "lacks 14 weights, the first is single_transformer_blocks.1.",
    ),
    "a gap": (lambda t: t | blocks_moved(t, 2), "lacks 32 weights, the first is transformer_blocks.1."),
    "blocks without end": (
        lambda t: t | {f"double_blocks.{n}.img_attn.qkv.weight": torch.zeros(0) for n in range(5000)},
        "has 5000 transformer_blocks",
    ),
    "no width": (lambda t: t | {"img_in.weight": torch.zeros(0, 64)}, "has x_embedder.weight of the shape (0, 64)"),
    "a width without numbers": (lambda t: t | {"img_in.weight": torch.zeros(2**40, 0)}, "the shape (1099511627776, 0)"),
    "a vector for a matrix": (lambda t: t | {"txt_in.weight": torch.zeros(4)}, "embedder.weight of the shape (4,)"),
    "a head wider than all": (
        lambda t: t | {f"{BLOCK}img_attn.norm.query_norm.scale": torch.zeros(100)}, "has heads of 100 in a width of 32",
    ),
    "a number for a projection": (
        lambda t: t | {"single_blocks.0.linear1.weight": torch.zeros(())}, "tensors that do not fit",
    ),
    "a number for queries, keys and values": (
        lambda t: t | {f"{BLOCK}img_attn.qkv.weight": torch.zeros(())}, "tensors that do not fit",
    ),
    "a last layer without rows": (
        lambda t: t | {"final_layer.adaLN_modulation.1.weight": torch.zeros(())}, "tensors that do not fit",
    ),
    "a name of 100,000 letters": (lambda t: t | {"x" * 100_000: torch.zeros(1)}, "do not fit, the first is .xxx"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_single_file_is_counted_by_what_is_there(case, flux_dev, tmp_path):
    change, answer = CASES[case]
    path = write(tmp_path / "flux.safetensors", change(original_transformer(flux_dev)))
    assert answer in told(lambda: load(path))


def test_blocks_whose_number_is_no_number_are_told(flux_dev, tmp_path):
    model = original_transformer(flux_dev)
    tensors = write(tmp_path / "a.safetensors", model)
    whole = load(tensors).state_dict() | {"transformer_blocks.x.attn.to_q.weight": torch.zeros(1)}
    path = write(tmp_path / "flux.safetensors", whole)
    assert "lacks" in told(lambda: load(path))


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
ONE = json.dumps(ENTRY)
TWICE = f'{{"a": {ONE}, "b": {{"dtype": "F32", "shape": [0], "data_offsets": [16, 16]}}, "a": {ONE}}}'.encode()


def text_header(text: bytes, values: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + values


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (text_header(TWICE, b"\0" * 16), "it has 'a' twice"),
        (text_header(b'{"a": {"dtype": "F32", "dtype": "F32"}}', b""), "it has 'dtype' twice"),
        (with_header({"a": ENTRY | {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}, b""), "shape (0, 46116"),
        (with_header({"a": ENTRY | {"shape": [1] * 70, "data_offsets": [0, 4]}}, b"\0" * 4), "shape (1, 1, 1"),
        (with_header({"a": ENTRY | {"shape": [10**300, 1]}}, b"\0" * 16), "shape (1000"),
        (with_header({"a" * 10_000: ENTRY | {"shape": [3]}}, b"\0" * 16), "lies at the wrong place"),
        ((LONGEST + 1).to_bytes(8, "little") + b" " * 100, "and its header would have"),
        ((2**63).to_bytes(8, "little") + b" " * 100, "and its header would have"),
    ],
)
def test_a_safetensors_header_asks_for_no_more_than_there_is(data, answer, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert answer in told(lambda: safetensors_files([path]))


def test_a_header_longer_than_any_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((LONGEST + 1).to_bytes(8, "little"))
        file.truncate(10 * LONGEST)
    assert "and its header would have" in told(lambda: safetensors_files([path]))


# ---- folders


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("transformer", "num_layers", 10**9),
        ("transformer", "num_single_layers", 501),
        ("transformer", "joint_attention_dim", 2**40),
        ("vae", "layers_per_block", 10**9),
        ("vae", "latent_channels", 10**12),
        ("text_encoder", "num_hidden_layers", 10**9),
        ("text_encoder_2", "num_layers", 10**9),
    ],
)
def test_a_folders_config_asks_for_no_model_without_end(part, name, value, flux_dev, tmp_path):
    import shutil

    folder = shutil.copytree(flux_dev, tmp_path / "flux")
    config = json.loads((folder / part / "config.json").read_text())
    (folder / part / "config.json").write_text(json.dumps({**config, name: value}))
    source = resolve(str(folder))
    loaders = {
        "transformer": lambda: load_transformer(source, dtype=torch.float32),
        "vae": lambda: load_vae(source, dtype=torch.float32),
    }
    loader = loaders.get(part, lambda: load_encoders(source, Placement("cpu", torch.float32)))
    assert f"config.json has {name} = {value}: at most" in told(loader)


def test_an_index_names_files_beside_it_alone(flux_dev, tmp_path):
    import shutil

    folder = shutil.copytree(flux_dev, tmp_path / "flux")
    index = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    answer = told(lambda: load_transformer(resolve(str(folder)), dtype=torch.float32))
    assert "names '../../secret.safetensors', which is no file beside it" in answer


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "[]", "{", "\xff", " " * (2**20 + 1)])
def test_a_config_of_any_shape_is_a_value_error(text, tmp_path):
    (tmp_path / "config.json").write_text(text, "latin-1")
    with pytest.raises(ValueError, match=r".") as caught:
        read_config(tmp_path / "config.json")
    assert len(str(caught.value)) < 500


# ---- GGUF


def gguf(tensors: int = 0, values: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


GGUFS = {
    "tensors without end": (gguf(2**60), "it would have 1152921504606846976 tensors"),
    "values without end": (gguf(0, 2**60), "it would have 1152921504606846976 values"),
    "a list without end": (gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 4, 2**60)), "it ends within its header"),
    "texts without end": (gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 8, 2**60)), "it ends within its header"),
    "lists of lists": (gguf(0, 1, text(b"a") + struct.pack("<IIQ", 9, 9, 1)), "a list of values of the type 9"),
    "a text without end": (gguf(0, 1, struct.pack("<Q", 2**63)), "it ends within its header"),
    "a name that is no text": (gguf(0, 1, text(b"\xff")), "its header cannot be read"),
    "a strange alignment": (
        gguf(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 2**31)), "its alignment would be 2147483648",
    ),
    "no alignment": (gguf(0, 1, text(b"general.alignment") + struct.pack("<II", 4, 0)), "its alignment would be 0"),
    "dimensions without end": (gguf(1, 0, text(b"a") + struct.pack("<I", 2**31)), "would have 2147483648 dimensions"),
    "an absurd shape": (gguf(1, 0, tensor(b"a", (2**60, 2**60))) + bytes(99), "lies at the wrong place"),
    "no numbers": (gguf(1, 0, tensor(b"a", (0, 2**60))) + bytes(99), "would have the shape"),
    "an unknown kind": (gguf(1, 0, tensor(b"a", (4,), 999)) + bytes(99), "is of the kind 999"),
    "half a block": (gguf(1, 0, tensor(b"a", (2, 3), 8)) + bytes(99), "would have the shape"),
    "one over the other": (
        gguf(2, 0, tensor(b"a", (4,)) + tensor(b"b", (4,), 0, 8)) + bytes(99), "'b' lies at the wrong place",
    ),
    "a name twice": (gguf(2, 0, tensor(b"a", (1,)) + tensor(b"a", (1,), 0, 32)) + bytes(99), "it has a name twice"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "it does not begin as one of version 2 or 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUFS)
def test_a_gguf_header_is_believed_in_nothing(case, tmp_path):
    pytest.importorskip("gguf")
    data, answer = GGUFS[case]
    (tmp_path / "a.gguf").write_bytes(data)
    assert answer in told(lambda: gguf_file(tmp_path / "a.gguf"))


def test_a_gguf_header_is_what_the_package_reads(tmp_path):
    package = pytest.importorskip("gguf")
    arrays = {"m": np.ones((3, 64), np.float32), "v": np.ones(5, np.float16), "c": np.ones((2, 3, 4), np.int8)}
    path = write_gguf(tmp_path / "a.gguf", {name: (array, None) for name, array in arrays.items()})
    found = {name: (t.shape, t.offset, t.size) for name, t in gguf_file(path).items()}
    read = package.GGUFReader(path).tensors
    assert found == {t.name: (tuple(map(int, t.shape[::-1])), int(t.data_offset), int(t.n_bytes)) for t in read}


# ---- weights in 4 bits


def packed(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """As bitsandbytes stores it, with scales in 8 bits."""
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return {"w.weight": codes} | {f"w.weight.{name}": part for name, part in state.as_dict(packed=True).items()}


STATE = "w.weight.quant_state.bitsandbytes__nf4"


def said(parts, **changes):
    """The parts with another text beside them."""
    state = json.loads(bytes(parts[STATE].tolist())) | changes
    return parts | {STATE: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda p: said(p, shape=[64, 2**40]), "numbers of"),
        (lambda p: said(p, shape=[-1, 64]), "shape (-1, 64)"),
        (lambda p: said(p, blocksize=0), "shape (64, 64)"),
        (lambda p: said(p, dtype="no such"), "cannot be read"),
        (lambda p: p | {STATE: torch.tensor([91] * 60_000, dtype=torch.uint8)}, "cannot be read"),
        (lambda p: p | {STATE: torch.zeros(4, dtype=torch.uint8)}, "cannot be read"),
        (lambda p: p | {"w.weight.absmax": torch.zeros(2, dtype=torch.uint8)}, ".absmax has 2 numbers of 64"),
        (lambda p: p | {"w.weight.quant_map": torch.zeros(2)}, ".quant_map has 2 numbers of 16"),
        (lambda p: p | {"w.weight": torch.zeros(10, 1, dtype=torch.uint8)}, "its weight has 10 numbers of 2048"),
        (lambda p: {n: t for n, t in p.items() if n != "w.weight.absmax"}, "'w.weight.absmax'"),
    ],
)
def test_parts_of_a_weight_in_4_bits_that_do_not_fit_are_told_before_they_are_read(change, answer, tmp_path):
    whole = packed(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    (stored,) = safetensors_files([write(tmp_path / "whole.safetensors", whole)]).values()
    assert stored.read().shape == (64, 64)
    path = write(tmp_path / "w.safetensors", change(whole))
    assert answer in told(lambda: [t.read() for t in safetensors_files([path]).values()])


# ---- rewards' weights


def test_a_checkpoint_that_takes_more_than_it_holds_is_refused(tmp_path):
    torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "wide.pt")
    assert "'a' is larger than its values" in told(lambda: read_tensors(tmp_path / "wide.pt"), RewardError)
    torch.save({"a": bytearray(8)}, tmp_path / "bytes.pt")
    assert "it calls for __builtin__ bytearray" in told(lambda: read_tensors(tmp_path / "bytes.pt"), RewardError)


def test_a_checkpoint_that_is_packed_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(2**16)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert "it is compressed" in told(lambda: read_tensors(tmp_path / "bomb.pt"), RewardError)


def test_a_clip_asks_for_no_more_layers_than_models_have(tmp_path):
    import shutil

    tensors = small_clip().state_dict()
    many = {f"transformer.resblocks.{n}.ln_1.weight": torch.zeros(0) for n in range(2000)}
    path = write(tmp_path / "clip.safetensors", tensors | many)
    assert "it has 2000 layers" in told(lambda: read_clip(path, ""), RewardError)
    folder = shutil.copytree(tiny.CLIP, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    assert "num_hidden_layers = 1000000000: at most" in told(lambda: read_clip(folder, ""), RewardError)


@pytest.mark.parametrize("name", ["visual.conv1.weight", "token_embedding.weight", "text_projection", "visual.proj"])
def test_a_clip_of_other_shapes_is_told(name, tmp_path):
    path = write(tmp_path / "clip.safetensors", small_clip().state_dict() | {name: torch.zeros(())})
    assert "is no CLIP (" in told(lambda: read_clip(path, ""), RewardError)
