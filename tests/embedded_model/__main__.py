"""Build an embedded model: `python -m tests.embedded_model emoji|scenes FOLDER [--output FOLDER] [--threads N]`.

About an hour and a half on one CPU core. FOLDER keeps the download and the progress; a second call goes on from there.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from trainer import tiny

from . import autoencoder, card, clip, emoji_card, flux, scenes_card
from .emoji import Compositions
from .pictures import Pictures
from .scenes import Scenes
from .sprites import fetch
from .text import save_clip_tokenizer, save_t5_tokenizer

PREFIX = "text_model."


@dataclass(frozen=True)
class Recipe:
    data: Callable[[Path], Pictures]  # of the unpacked emoji
    output: Path
    clips: tuple[clip.Recipe, ...]
    autoencoder: autoencoder.Recipe
    flow: flux.Recipe
    card: str
    measure: Callable[[Path, Pictures], tuple[Mapping[str, object], Image.Image]]


RECIPES = {
    "emoji": Recipe(
        Compositions,
        tiny.FLUX.parent,
        (clip.TRAINED, clip.HELD_OUT),
        autoencoder.Recipe(3000, 3000),
        flux.Recipe(4300, varied_steps=1500, last_steps=0, pictures=8),
        emoji_card.CARD,
        emoji_card.measure,
    ),
    "scenes": Recipe(
        Scenes,
        tiny.SCENES.parent,
        (clip.OF_SCENES,),
        autoencoder.Recipe(1500, 2000, start=tiny.FLUX / "vae"),
        flux.Recipe(6000, varied_steps=6000, last_steps=2500, pictures=24),
        scenes_card.CARD,
        scenes_card.measure,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.embedded_model", description=__doc__)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("folder", type=Path, help="where the download and the progress are kept")
    parser.add_argument("--output", type=Path, help="default: the model's own place in the project")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.model]
    output: Path = arguments.output or recipe.output
    work = arguments.folder / arguments.model
    build(recipe, recipe.data(fetch(arguments.folder)), work, output)


def build(recipe: Recipe, data: Pictures, work: Path, output: Path) -> None:
    losses: dict[str, float] = {}
    vae, losses["autoencoder"] = autoencoder.train_autoencoder(data, work, recipe.autoencoder)
    models, losses["flow"] = flux.train(vae, data, work, recipe.flow)
    losses["decoder"] = autoencoder.train_decoder(vae, data, work, recipe.autoencoder)
    psnr = autoencoder.psnr(vae, data)
    clips = {}
    for each in recipe.clips:
        clips[each.name], losses[each.name] = clip.train(data, work, each)

    for name, model in clips.items():
        save_clip(data.captions, model, output / name)
    flux.assemble(data.captions, vae, models).to(torch.bfloat16).save_pretrained(output / "flux")
    save_clip_tokenizer(data.captions, output / "flux" / "tokenizer")
    save_t5_tokenizer(data.captions, output / "flux" / "tokenizer_2")
    name_fast_tokenizer(output / "flux" / "model_index.json")
    prefix_clip_weights(output / "flux" / "text_encoder" / "model.safetensors")
    for part in ("flux/text_encoder", "flux/text_encoder_2", *clips):
        load_as_float32(output / part)

    values, samples = recipe.measure(output, data)
    samples.save(output / "samples.png")
    card.write(output, recipe.card, {"psnr": psnr, **values}, {**models, "vae": vae, **clips}, losses)
    print(json.dumps({"psnr_unseen_db": psnr, **values, **losses}, indent=2))


def save_clip(captions: list[str], model: CLIPModel, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    save_clip_tokenizer(captions, folder, clip.TEXT_LENGTH)
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
