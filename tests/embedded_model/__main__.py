"""Build the embedded model: `python -m tests.embedded_model FOLDER [--output FOLDER] [--threads N]`.

About an hour and a half on one CPU core. FOLDER keeps the download and the progress; a second call goes on from there.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from trainer import tiny

from . import autoencoder, card, clip, flux
from .data import Compositions, fetch
from .text import save_clip_tokenizer, save_t5_tokenizer

PREFIX = "text_model."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.embedded_model", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the download and the progress are kept")
    parser.add_argument("--output", type=Path, default=tiny.FLUX.parent, help="default: the project's own place")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, output = arguments.folder, arguments.output

    data = Compositions(fetch(work))
    clips, losses = {}, {}
    for recipe in (clip.TRAINED, clip.HELD_OUT):
        clips[recipe.name], losses[recipe.name] = clip.train(data, work, recipe)
    vae, losses["autoencoder"] = autoencoder.train_autoencoder(data, work)
    models, losses["flow"] = flux.train(vae, data, work)
    losses["decoder"] = autoencoder.train_decoder(vae, data, work)
    psnr = autoencoder.psnr(vae, data)

    for name, model in clips.items():
        save_clip(model, output / name)
    flux.assemble(vae, models).to(torch.bfloat16).save_pretrained(output / "flux")
    save_clip_tokenizer(output / "flux" / "tokenizer")
    save_t5_tokenizer(output / "flux" / "tokenizer_2")
    name_fast_tokenizer(output / "flux" / "model_index.json")
    prefix_clip_weights(output / "flux" / "text_encoder" / "model.safetensors")
    for part in ("flux/text_encoder", "flux/text_encoder_2", *clips):
        load_as_float32(output / part)

    shares, samples = card.measure(output, data, tokens=tiny.TEXT_TOKENS)
    samples.save(output / "samples.png")
    card.write(output, {"psnr": psnr, **shares}, {**models, "vae": vae, **clips}, losses)
    print(json.dumps({"psnr_unseen_db": psnr, **shares, **losses}, indent=2))


def save_clip(model: CLIPModel, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    save_clip_tokenizer(folder, clip.TEXT_LENGTH)
    clip.image_processor().save_pretrained(folder)


def name_fast_tokenizer(path: Path) -> None:
    """transformers 5 writes T5Tokenizer, which in transformers 4 is another class that wants other files."""
    index = json.loads(path.read_text("utf-8"))
    index["tokenizer_2"] = ["transformers", "T5TokenizerFast"]
    path.write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def prefix_clip_weights(path: Path) -> None:
    """transformers 4 knows the weights by names with a prefix that transformers 5 leaves out, and reads either way."""
    tensors = {f"{PREFIX}{name.removeprefix(PREFIX)}": t for name, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load_as_float32(folder: Path) -> None:
    """Stored in half the bytes, but transformers 5 would compute in them too: ask for float32."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
