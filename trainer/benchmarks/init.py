"""Whether image-to-image and inpainting learn: a reward before and after, on noises that were not trained on."""

import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..pictures.convert import to_pictures
from ..settings.config import Config, InitSettings
from ..training.evaluate import UNSEEN, Difference, both, compare, sample
from ..training.prepare import prepare
from ..training.run import start_run

BEGINNING = "spider on a white background"  # what both begin from, drawn by the base model
DENOISE = {"image-to-image": 0.7, "inpainting": 0.9}
MASKED = 0.75  # of each edge, in the middle: what inpainting draws anew


def measure(config: Config, seeds: int) -> dict[str, Difference]:
    """A run of `config` each way, then the first reward on `seeds` pictures of each prompt, paired."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, mask = folder / "init.png", folder / "mask.png"
        drawn(config).save(image)
        middle(config.sampling.width, config.sampling.height).save(mask)
        masks = {"image-to-image": "", "inpainting": str(mask)}
        inits = {way: InitSettings((str(image),), denoise, masks[way]) for way, denoise in DENOISE.items()}
        return {way: difference(config, init, folder / way, seeds) for way, init in inits.items()}


def drawn(config: Config) -> Image.Image:
    setup = prepare(replace(config, prompts=(BEGINNING,)))
    return next(to_pictures(sample(setup, setup.conditioning, [BEGINNING], [UNSEEN]).images))


def middle(width: int, height: int) -> Image.Image:
    """White in the middle of black."""
    inside = round(MASKED * width), round(MASKED * height)
    mask = Image.new("L", (width, height))
    mask.paste(Image.new("L", inside, "white"), ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return mask


def difference(config: Config, init: InitSettings, folder: Path, seeds: int) -> Difference:
    _, setup = start_run(replace(config, init=init, run=replace(config.run, folder=str(folder))))
    prompts = [prompt for prompt in config.prompts for _ in range(seeds)]
    before, after = both(setup, prompts, range(UNSEEN, UNSEEN + len(prompts)))
    reward = config.rewards[0].label
    return compare(before.scores[reward], after.scores[reward])


def table(differences: dict[str, Difference]) -> str:
    return "\n".join(
        f"{way}: {d.before:.1f} -> {d.after:.1f} ({d.difference:+.1f} +- {d.standard_error:.1f}, {d.rise:.1f} SE)"
        for way, d in differences.items()
    )
