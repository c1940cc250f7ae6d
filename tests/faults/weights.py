"""LoRA and model files of strangers: bytes, headers and metadata, changed at random, and what becomes of them."""

import argparse
import json
import logging
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from gguf import GGUFWriter
from lora_files import write as lora_tensors
from original_names import original_layout
from rows import Row
from safetensors.torch import save
from small_flux import build_flux

from trainer.cli import sample
from trainer.errors import UserError
from trainer.models.files.gguf_file import gguf_file
from trainer.models.files.source import resolve
from trainer.models.flux1 import lora_names
from trainer.models.flux1.family import Flux1
from trainer.models.flux1.transformer import load_transformer
from trainer.models.lora.export import export_lora
from trainer.models.lora.start import read_factors
from trainer.models.lora.targets import linear_layers
from trainer.rewards import KINDS
from trainer.rewards.tensor_files import read_tensors
from trainer.settings.config import Config, RewardSettings
from trainer.settings.config_file import parse
from trainer.training.lora_header import cleaned, lora_metadata

TIMES = {"lora": 7000, "model": 3000, "gguf": 4000, "pt": 3000, "metadata": 2500, "headers": 500}
SECONDS = 20  # of the processor for one input: far above the slowest
LINE = 2000  # characters of what is told
ABSURD = (-1, 0, 1, 2**31, 2**40, 2**53, 2**63 - 1, 10**30, 1.5, "4", None, [], True)
NAMES = (
    "double_blocks.999999999.img_attn.qkv.weight", "transformer_blocks.x.attn.to_q.weight", "single_blocks.7.linear1",
    "lora_unet_double_blocks_0_img_mlp_0.lokr_w1", "a" * 5000, "\ud800", "\x1b[2J", "", "x.alpha", "emb_params",
    "text_model.encoder.layers.0", "transformer.transformer_blocks.0.attn.to_q.lora_B.bias", "img_in.weight",
)  # fmt: skip
MARK = "xyzzy"


def rows(share: float) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, without_warnings("trainer.models.lora.start"):  # of text encoders
        place, chance = Path(folder), random.Random(14)
        flux = build_flux(place / "flux", guidance_embeds=True)
        model = FluxTransformer2DModel.from_pretrained(flux, subfolder="transformer")
        times = {name: max(1, round(share * n)) for name, n in TIMES.items()}
        yield loras(place, model, times["lora"], chance)
        yield models(place, model, times["model"], chance)
        yield ggufs(place, times["gguf"], chance)
        yield checkpoints(place, times["pt"], chance)
        yield metadata(place, times["metadata"], chance)
        yield headers(place, times["headers"], chance)


@contextmanager
def without_warnings(logger: str) -> Iterator[None]:
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(logging.NOTSET)


def tried(row: Row, what: Callable[[], object]) -> None:
    """One more input: read, refused in a line, or a traceback; what takes long or tells much is lost."""
    began = time.process_time()
    try:
        what()
        outcome, told = "read", ""
    except UserError as error:
        outcome, told = "refused in one line", str(error)
    except Exception as error:  # noqa: BLE001  that is what is counted
        row.add(f"{type(error).__name__}: {str(error)[:80]}", traceback=True)
        return
    slow, long = time.process_time() - began > SECONDS, len(told) > LINE or "\n" in told or "\x1b" in told
    row.add("too slow" if slow else "too much is told" if long else outcome, lost=slow or long)


# ---- files


def loras(place: Path, model: FluxTransformer2DModel, times: int, chance: random.Random) -> Row:
    row, path = Row("a LoRA to start from, its bytes or header changed"), place / "lora.safetensors"
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in linear_layers(model)}
    adapter = json.dumps({"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"to_q": 2}})
    whole = [save(lora_tensors(k, model, 2)[0], {"lora_adapter_metadata": adapter}) for k in ("diffusers", "kohya")]
    for _ in range(times):
        path.write_bytes(changed(chance.choice(whole), chance))
        tried(row, lambda: read_factors(path, sizes, lora_names))
    return row


def models(place: Path, model: FluxTransformer2DModel, times: int, chance: random.Random) -> Row:
    row, path = Row("a model in one file, its bytes or header changed"), place / "flux.safetensors"
    layouts = (original_layout(model), model.state_dict())
    whole = [save({name: tensor.contiguous() for name, tensor in tensors.items()}) for tensors in layouts]

    def read() -> None:
        source = resolve(str(path))
        Flux1().recognises(source)
        load_transformer(source, dtype=torch.float32)

    for _ in range(times):
        path.write_bytes(changed(chance.choice(whole), chance))
        tried(row, read)
    return row


def ggufs(place: Path, times: int, chance: random.Random) -> Row:
    row, path = Row("a GGUF file, its bytes changed"), place / "flux.gguf"
    writer = GGUFWriter(path, arch="flux")
    writer.add_array("words", ["a", "b", "c"])
    writer.add_uint32("general.alignment", 32)
    for name, shape in (("img_in.weight", (8, 64)), ("double_blocks.0.a", (4,))):
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = path.read_bytes()
    for _ in range(times):
        path.write_bytes(numbers_changed(whole, chance) if chance.random() < 0.5 else bytes_changed(whole, chance))
        tried(row, lambda: [tensor.read() for tensor in gguf_file(path).values()])
    return row


def checkpoints(place: Path, times: int, chance: random.Random) -> Row:
    row, path = Row("a PyTorch checkpoint, its bytes changed"), place / "weights.pt"
    torch.save({"state_dict": {"module.a": torch.ones(4, 4), "b": torch.ones(3).half()}, "epoch": 3}, path)
    whole = path.read_bytes()
    for _ in range(times):
        path.write_bytes(bytes_changed(whole, chance))
        tried(row, lambda: read_tensors(path))
    return row


def changed(whole: bytes, chance: random.Random) -> bytes:
    """A safetensors file with a fault: somewhere in its bytes, or in what its header says."""
    if chance.random() < 0.3:
        return bytes_changed(whole, chance)
    length = int.from_bytes(whole[:8], "little")
    header, values = json.loads(whole[8 : 8 + length]), bytearray(whole[8 + length :])
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry, kind = header[name], chance.randrange(10)
    if kind == 0:
        header[chance.choice(NAMES)] = header.pop(name)
    elif kind == 1 and entry["shape"]:
        entry["shape"][chance.randrange(len(entry["shape"]))] = chance.choice(ABSURD)
    elif kind == 2:
        entry["dtype"] = chance.choice(["I32", "F64", "F8_E4M3", "BF16", "C64", "X", None, "F" * 5000])
    elif kind == 3:
        entry["data_offsets"][chance.randrange(2)] = chance.choice(ABSURD)
    elif kind == 4:
        entry["shape"] = chance.choice([[], [0], [1] * 100, [2**40, 0], [2**62, 0, 2**62], entry["shape"][::-1]])
        entry["data_offsets"][1] = entry["data_offsets"][0]
    elif kind == 5:
        del header[name]
    elif kind == 6:
        start, end = entry["data_offsets"]
        values[start:end] = struct.pack("<f", chance.choice([float("nan"), float("inf"), 3e38])) * ((end - start) // 4)
    elif kind == 7:
        text = chance.choice(
            ["[" * 10**5, "{", "null", '{"lora_alpha": 1e999}', json.dumps({"lora_alpha": [1]}), "9" * 10**4]
        )
        header["__metadata__"] = {"lora_adapter_metadata": text, "ss_network_alpha": text}
    elif kind == 8:
        header["__metadata__"] = chance.choice([[], 3, {"a": {"b": 1}}, {"a": "x" * 10**5}])
    else:
        extra = {
            f"{chance.choice(('double', 'single'))}_blocks.{n}.img_attn.qkv.weight"
            for n in range(chance.randrange(500))
        }
        header |= {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in extra}
    text = json.dumps(header).encode()
    if chance.random() < 0.1:
        text = text.replace(b'":', b'": ' + chance.choice([b"[" * 2000, b"1,", b'{"a":']), 1)
    return len(text).to_bytes(8, "little") + text + values


def bytes_changed(whole: bytes, chance: random.Random) -> bytes:
    """Flipped, cut, doubled or filled somewhere, at its beginning as often as anywhere else."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(min(len(data), chance.choice((16, 400, len(data)))) or 1)
        kind = chance.randrange(6)
        if kind <= 2:
            data[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 3:
            del data[place : place + chance.choice((1, 8, 10**9))]
        elif kind == 4:
            data[place:place] = chance.choice((b"\xff" * 8, b"\0" * 8, data[place : place + 64]))
        else:
            data[place : place + 8] = b"\xff" * 8
    return bytes(data)


def numbers_changed(whole: bytes, chance: random.Random) -> bytes:
    """Some 8 bytes, which begin anywhere in the first 400, are another number."""
    data = bytearray(whole)
    place = chance.randrange(4, min(400, len(data) - 8))
    struct.pack_into("<Q", data, place, chance.choice((0, 1, 2**16, 2**31, 2**40, 2**60, 2**64 - 1)))
    return bytes(data)


# ---- what they say of themselves


def metadata(place: Path, times: int, chance: random.Random) -> Row:
    """Through `sample`: whatever a LoRA says, nothing of it is read, sent, fetched or run."""
    row, path = Row("a LoRA's metadata, through `sample`"), place / "stranger.safetensors"
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    words = parser.parse_args([str(path), "--prompts", "a", "-o", str(place / "grid.png")])
    tensors = {"transformer.a.lora_A.weight": torch.zeros(2, 4), "transformer.a.lora_B.weight": torch.zeros(4, 2)}
    for _ in range(times):
        settings, rewards = stranger(chance)
        said = {
            "settings": json.dumps(settings),
            "rewards": json.dumps(rewards),
            "base_model": chance.choice(["embedded", "", MARK]),
        }
        path.write_bytes(save(tensors, said))

        def read() -> None:
            config = json.dumps(replace(sample.checked(words), prompts=("a",)).to_dict())
            if MARK in config:
                raise RuntimeError("it took a word of the file's")

        tried(row, read)
    return row


def stranger(chance: random.Random) -> tuple[object, object]:
    """Settings as those of a run, some of which are a stranger's."""
    config = parse({"model": {"path": "embedded"}, "prompts": ["a"], "rewards": [{"kind": "tiny-clip"}]}).to_dict()
    odd = (
        f"hub:{MARK}/m", f"http://{MARK}", f"//{MARK}/share", f"/home/{MARK}", f"{MARK}:Class", f"({MARK}+)+$",
        f"\x1b{MARK}\n", 10**30, -1, 1e308, None, [MARK], {"a": MARK}, [[MARK]], True, MARK * 10**4,
    )  # fmt: skip
    for _ in range(chance.choice((1, 1, 2, 5))):
        section = chance.choice([name for name in config if name not in ("prompts", "rewards")])
        if isinstance(config[section], dict) and config[section]:
            config[section][chance.choice(list(config[section]))] = chance.choice(odd)
        if chance.random() < 0.1:
            config[section] = chance.choice(odd)
    kind = chance.choice([*KINDS, f"{MARK}:Own", MARK])
    options = {
        "url": f"http://{MARK}",
        "token_env": "PATH",
        "path": f"/home/{MARK}",
        "wanted": [MARK],
        "pattern": f"({MARK}+)+",
    }
    used = {name: value for name, value in options.items() if chance.random() < 0.3}
    rewards = chance.choice(
        [[{"kind": kind, "options": used}], [{"kind": "tiny-clip"}], chance.choice(odd), [chance.choice(odd)]]
    )
    return (config if chance.random() < 0.95 else chance.choice(odd)), rewards


def headers(place: Path, times: int, chance: random.Random) -> Row:
    """Secrets in the headers of exported LoRAs are what is lost."""
    row, path = Row("an exported LoRA of settings full of secrets: those in its header"), place / "exported.safetensors"
    for _ in range(times):
        export_lora(path, {"a": torch.zeros(1)}, lora_metadata(secretive(chance), 3, [{"iteration": 1, "by": MARK}]))
        found = path.read_bytes().count(MARK.encode())
        again = json.dumps(cleaned({"settings": json.dumps(secretive(chance).to_dict()), MARK: MARK})).count(MARK)
        row.add(f"{found + again} secrets", lost=found + again > 0)
    return row


def secretive(chance: random.Random) -> Config:
    config = parse({"model": {"path": "embedded"}, "prompts": [MARK], "rewards": [{"kind": "tiny-clip"}]})
    kind = chance.choice([*KINDS, f"{MARK}.{MARK}:Own"])
    word = chance.choice([f"/home/{MARK}/a", f"http://{MARK}:80", f"hub:{MARK}/m", MARK.upper().lower()])
    reward = RewardSettings(kind, name=word, options=dict.fromkeys((*options_of(kind), MARK), word))
    return replace(
        config,
        model=replace(config.model, path=word, vae=word, text_encoders=(word, word)),
        lora=replace(config.lora, start=word, targets=MARK),
        run=replace(config.run, folder=word),
        init=replace(config.init, image=(word,), mask=word, digest=MARK),
        evaluation=replace(config.evaluation, prompts=(word,)),
        sampling=replace(config.sampling, solver=f"{MARK}:Solver"),
        rewards=(reward,),
        holds={"model.path": {"digest": "0" * 64, "beside": word}},
    )


def options_of(kind: str) -> tuple[str, ...]:
    return KINDS[kind].options if kind in KINDS else ()
