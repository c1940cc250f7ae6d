"""Captioned pictures: Noto emoji composed on plain backgrounds, 64 x 64 pixels.

The pictures come from the npm package `emoji-datasource-google` (images Apache-2.0, data MIT).
"""

import itertools
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PACKAGE = "emoji-datasource-google@16.0.0"
SIZE = 64  # pixels
BACKGROUND_JITTER = 10  # of 255, per channel


@dataclass(frozen=True)
class Placement:
    """How much size and place of the emoji vary, in pixels."""

    sizes: range
    max_shift: int  # away from the centre


VARIED = Placement(range(46, 57, 2), 3)
STEADY = Placement(range(50, 55, 2), 1)

BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (25, 25, 28),
    "red": (205, 60, 60),
    "yellow": (245, 215, 95),
    "green": (95, 175, 95),
    "blue": (80, 130, 215),
    "purple": (140, 90, 185),
    "pink": (245, 170, 195),
}

# short name in the data set -> words of the caption, where the two differ
NAMES = {
    "apple": "red apple", "green_apple": "green apple", "tangerine": "orange", "kiwifruit": "kiwi",
    "cheese_wedge": "cheese", "hot_pepper": "hot pepper", "fries": "french fries", "hotdog": "hot dog",
    "birthday": "birthday cake", "cake": "slice of cake", "icecream": "ice cream", "bug": "caterpillar",
    "honey_pot": "honey pot", "fox_face": "fox", "panda_face": "panda", "lion_face": "lion",
    "monkey_face": "monkey", "unicorn_face": "unicorn", "baby_chick": "chick", "tropical_fish": "tropical fish",
    "evergreen_tree": "pine tree", "deciduous_tree": "tree", "palm_tree": "palm tree", "four_leaf_clover": "clover",
    "maple_leaf": "maple leaf", "cherry_blossom": "cherry blossom", "oncoming_automobile": "red car",
    "oncoming_bus": "bus", "oncoming_taxi": "taxi", "boat": "sailboat", "sunny": "sun", "full_moon": "full moon",
    "crescent_moon": "crescent moon", "zap": "lightning bolt", "droplet": "water drop",
    "snowman_without_snow": "snowman", "earth_americas": "globe", "soccer": "soccer ball",
    "football": "american football", "teddy_bear": "teddy bear", "bulb": "light bulb", "closed_book": "red book",
    "gem": "diamond", "tophat": "top hat", "robot_face": "robot", "jack_o_lantern": "pumpkin", "heart": "red heart",
    "blue_heart": "blue heart", "sunglasses": "smiley with sunglasses", "slightly_smiling_face": "smiley",
    "8ball": "billiard ball", "octagonal_sign": "stop sign", "dart": "target", "art": "palette",
    "tennis": "tennis racket", "alarm_clock": "alarm clock", "rice_ball": "rice ball", "mushroom": "red mushroom",
}  # fmt: skip

EMOJI = """
apple green_apple banana lemon tangerine grapes watermelon strawberry cherries peach pear pineapple kiwifruit avocado
tomato eggplant carrot corn hot_pepper broccoli mushroom bread croissant pretzel cheese_wedge hamburger fries pizza
hotdog taco doughnut cookie cake birthday cupcake icecream lollipop honey_pot popcorn coconut rice_ball egg
dog cat mouse hamster rabbit fox_face bear panda_face koala tiger lion_face cow pig frog monkey_face chicken penguin
baby_chick owl wolf unicorn_face bee bug butterfly snail ladybug spider turtle octopus crab tropical_fish whale
evergreen_tree deciduous_tree palm_tree cactus tulip rose sunflower four_leaf_clover maple_leaf cherry_blossom
oncoming_automobile oncoming_bus oncoming_taxi rocket boat house tent sunny full_moon crescent_moon star zap fire
droplet snowman_without_snow umbrella rainbow earth_americas balloon hourglass alarm_clock cloud
soccer basketball tennis football 8ball gift teddy_bear guitar trumpet bell key lock bulb closed_book scissors crown gem
tophat robot_face ghost alien skull jack_o_lantern heart blue_heart slightly_smiling_face sunglasses dart art
octagonal_sign trophy candle magnet camera
""".split()

COMBINATIONS = list(itertools.product(range(len(EMOJI)), range(len(BACKGROUNDS))))


def fetch(folder: Path) -> Path:
    """Download the emoji package with npm into `folder` once; return the unpacked package."""
    package = folder / "package"
    if not package.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(
                f"npm is needed to download {PACKAGE}: install Node.js, or unpack the package to {package}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return package


def caption(emoji: int, background: int) -> str:
    """Caption of a combination: 'red apple on a blue background'."""
    name = NAMES.get(EMOJI[emoji], EMOJI[emoji].replace("_", " "))
    return f"{name} on a {list(BACKGROUNDS)[background]} background"


def held_out(combination: tuple[int, int]) -> bool:
    """True for the eighth of the combinations that the autoencoder never sees."""
    emoji, background = combination
    return (emoji + background) % len(BACKGROUNDS) == 0


class Compositions:
    """Draws random compositions of given (emoji, background) combinations."""

    def __init__(self, package: Path):
        index = {e["short_name"]: e["image"] for e in json.loads((package / "emoji.json").read_text("utf-8"))}
        self.sprites = []  # [emoji][size in pixels] -> premultiplied colour [s, s, 3] and alpha [s, s, 1], in [0, 1]
        for name in EMOJI:
            image = Image.open(package / "img" / "google" / "64" / index[name]).convert("RGBA")
            premultiplied = image.convert("RGBa")
            self.sprites.append({size: self._sprite(premultiplied, size) for size in VARIED.sizes})
        self.colours = np.array(list(BACKGROUNDS.values()), np.float32) / 255

    @staticmethod
    def _sprite(image: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255
        return pixels[..., :3], pixels[..., 3:]

    def draw(
        self, combinations: list[tuple[int, int]], rng: np.random.Generator, placement: Placement = VARIED
    ) -> torch.Tensor:
        """One random placement of each combination: images [N, 3, 64, 64] in [0, 1]."""
        batch = np.empty((len(combinations), SIZE, SIZE, 3), np.float32)
        for canvas, (emoji, background) in zip(batch, combinations, strict=True):
            canvas[:] = self.colours[background] + rng.uniform(-1, 1, 3) * BACKGROUND_JITTER / 255
            colour, alpha = self.sprites[emoji][int(rng.choice(placement.sizes))]
            size = len(colour)
            x, y = (SIZE - size) // 2 + rng.integers(-placement.max_shift, placement.max_shift + 1, 2)
            window = canvas[y : y + size, x : x + size]
            window[:] = window * (1 - alpha) + colour
        return torch.from_numpy(batch.clip(0, 1)).permute(0, 3, 1, 2).contiguous()

    def sample(self, n: int, rng: np.random.Generator, *, unseen: bool | None = None):
        """`n` distinct combinations and their images; `unseen` picks the held-out ones, or only the others."""
        pool = [c for c in COMBINATIONS if unseen is None or held_out(c) == unseen]
        chosen = [pool[i] for i in rng.choice(len(pool), n, replace=False)]
        return chosen, self.draw(chosen, rng)
