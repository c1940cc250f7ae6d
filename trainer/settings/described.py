"""What a setting is, said once beside its default: validation, nodes, panel and docs read it from there."""

from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from ..errors import ConfigError, brief
from ..plugins import is_own

KEY = "setting"  # of a dataclass field's metadata


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {brief(value)}: {remedy}")


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its type and its default."""

    help: str  # whole sentences: what it does, and how to choose it
    unit: str = ""  # in the singular
    least: float | None = None  # the bounds: least <= value, above < value, value <= most, value < below
    above: float | None = None
    most: float | None = None
    below: float | None = None
    why: str = ""  # the bounds' reason
    choices: tuple[str, ...] = ()  # the words that it may be; of a number, those beside the numbers
    others: str = ""  # what else it may be than one of the choices
    flag: bool = False  # it may also be true or false
    own: bool = False  # it may also name a class of the user's own, see `plugins`
    lowest: float | None = None  # where a number field begins and ends if there are no bounds
    highest: float | None = None
    step: float | None = None  # of a number field's arrows; `finest` if None
    finest: float | None = None  # what a number field rounds to
    may_change: bool = False  # a run goes on with another value: what an iteration computes does not depend on it
    omit_default: bool = False  # stored only if it is not the default: for a setting that older versions do not have

    def check(self, name: str, value: object) -> None:
        """Raises ConfigError if the value, or one of a tuple's, is out of range."""
        for one in value if isinstance(value, tuple) else (value,):
            require(self.allows(one), name, one, self.remedy)

    def allows(self, value: Any) -> bool:
        if isinstance(value, str):
            free = not self.choices or bool(self.others) or (self.own and is_own(value))
            return free or value in self.choices
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def remedy(self) -> str:
        """What the value must be, and why."""
        return f"must be {self.range}: {self.why}" if self.why else f"must be {self.range}"

    @property
    def range(self) -> str:
        """What the value may be, as "above 0 and at most 1"; of a setting without bounds, its unit."""
        bounds = self._bounds()
        if not self.choices:
            return bounds or (f"{self.unit}s" if self.unit else "")
        if bounds:
            return f"{'' if self.unit else 'a number '}{bounds}, or {' or '.join(map(repr, self.choices))}"
        words = ", ".join(self.choices)
        if self.flag:
            return f"{words}, true or false"
        if self.own:
            return f"one of {words}, or 'package.module:Class'"
        return f"{words} or {self.others}" if self.others else f"one of {words}"

    def _bounds(self) -> str:
        named = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        given = [(word, bound) for word, bound in named.items() if bound is not None]
        if not given:
            return ""
        text = " and ".join(f"{word} {_digits(bound)}" for word, bound in given)
        if self.least is not None and self.most is not None:
            text = f"between {_digits(self.least)} and {_digits(self.most)}"
        if not self.unit:
            return text
        _, last = given[-1]
        return f"{text} {self.unit}" if last == 1 else f"{text} {self.unit}s"

    @property
    def number_field(self) -> tuple[float | None, float | None]:
        """The lowest and the highest value that a number field offers; a bound that is none itself is one step off."""
        finest = self.finest or self.step or 1
        low = self.least if self.above is None else self.above + finest
        high = self.most if self.below is None else self.below - finest
        return self.lowest if low is None else low, self.highest if high is None else high


def _digits(bound: float) -> str:
    """A whole number by all of its digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def setting(default: Any = MISSING, help: str = "", *, factory: Any = MISSING, **known: Any) -> Any:
    """The field of a `Section`: its default (needed if there is none) and what a `Setting` says of it."""
    return field(default=default, default_factory=factory, metadata={KEY: Setting(help, **known)})


def described(section: "type[Section]", name: str) -> Setting:
    """What is known of the setting `name` of a section."""
    return section.__dataclass_fields__[name].metadata[KEY]


class Section:
    """Settings that check themselves when they are made: a frozen dataclass of `setting`s."""

    section: ClassVar[str]  # its name in a TOML file
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, section: str) -> None:
        cls.section = section

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            described(type(self), name).check(f"{self.section}.{name}", getattr(self, name))
        self.check()

    def check(self) -> None:
        """Rules that hold between settings. Raises ConfigError."""


def plain(value: Any) -> Any:
    """Settings as plain data, without those of `omit_default` that have it."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if not _omitted(f, value)}
    return tuple(plain(one) for one in value) if isinstance(value, tuple) else deepcopy(value)


def _omitted(f: Field[Any], section: Any) -> bool:
    known: Setting | None = f.metadata.get(KEY)
    return known is not None and known.omit_default and getattr(section, f.name) == f.default
