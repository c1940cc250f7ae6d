"""What experiments are done on: a config, its prompts, and others to test on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import tiny
from ..errors import ConfigError
from ..settings.config import Config
from ..settings.config_file import load_config
from ..tiny import captions, scene_captions

FOLDER = Path(tiny.__file__).parent
WORST = "spider butterfly octopus tennis monkey_face umbrella".split()  # the lowest scores of both emoji CLIPs


@dataclass(frozen=True)
class Task:
    name: str
    file: Path  # the config
    trained: tuple[str, ...] = ()  # prompts; empty: the config's
    tested: tuple[str, ...] = ()  # prompts not trained on; empty: those of the config's evaluation
    pictures: int = 6  # of each tested prompt
    steps: int = 0  # of the solver, for the tested pictures; 0: the config's
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)  # learning rates that are tried
    settings: tuple[str, ...] = ()  # other than the file's

    def config(self, overrides: Sequence[str] = ()) -> Config:
        """The file's settings under an arm's, with the task's prompts, and nothing stored.

        Raises:
            ConfigError: a setting is wrong, or there is nothing to test on.
        """
        prompts = [f"prompts={list(self.trained)!r}"] if self.trained else []
        config = load_config(self.file, [*self.settings, *prompts, *overrides])
        tested = self.tested or config.evaluation.prompts
        if not tested:
            raise ConfigError("evaluation.prompts = []: prompts to test on are needed")
        run = replace(config.run, tiles_every=0, base_every=0)
        evaluation = replace(config.evaluation, prompts=tuple(tested))
        return replace(config, run=run, evaluation=evaluation)


def emoji_prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the embedded model draws worst: on half of the backgrounds, and on the other half."""
    taught = [c for c in captions.COMBINATIONS if captions.EMOJI[c[0]] in WORST]
    trained, tested = (tuple(captions.caption(*c) for c in taught if sum(c) % 2 == half) for half in (0, 1))
    return trained, tested


def scene_prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Half of the scenes, and some of the other half: nothing in them is new, but all of it together."""
    facts = [(s.number, s.colour, s.thing, s.place) for s in scene_captions.SCENES]
    trained, others = (
        [scene_captions.caption(s) for s, f in zip(scene_captions.SCENES, facts, strict=True) if sum(f) % 2 == half]
        for half in (0, 1)
    )
    return tuple(trained), tuple(others[::TESTED])


TESTED = 7  # every so many of the other half: 43 scenes
CHEATED = "rewards=[{kind='sharpness'}, {kind='tiny-clip', held_out=true}]"  # trained on, it ruins the pictures
TASKS = {
    "scenes": Task("scenes", FOLDER / "scenes.toml", *scene_prompts(), pictures=4, steps=8, rates=(3e-4, 1e-3, 3e-3)),
    "emoji": Task("emoji", FOLDER / "emoji.toml", *emoji_prompts()),
    "cheated": Task("cheated", FOLDER / "emoji.toml", *emoji_prompts(), settings=(CHEATED,)),
}


def preset(name: str) -> str:
    """As an override: the task's own preset is not used then. What the task's file says itself counts more."""
    return f"preset={toml(name)}"


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)
