"""The inputs that stand for settings: default, range, choices and tooltip are the setting's own."""

from typing import Any, get_type_hints

from comfy_api.latest import io

from ..trainer.settings.described import Section, Setting, described


def setting_input(section: type[Section], name: str, called: str = "", **other: Any) -> io.Input:
    """The input for `section.name`, called like it or `called`; `other` are its own arguments, and what differs."""
    setting, kind = described(section, name), get_type_hints(section)[name]
    known = {"default": getattr(section, name), "tooltip": setting.help}
    if kind is bool:
        return io.Boolean.Input(called or name, **known | other)
    if kind is int:
        return io.Int.Input(called or name, **known | number_field(setting, int) | other)
    if kind is float:
        return io.Float.Input(called or name, **known | number_field(setting, float) | other)
    if setting.choices or "options" in other:
        return io.Combo.Input(called or name, **known | {"options": list(setting.choices)} | other)
    return io.String.Input(called or name, **known | other)


def setting_inputs(section: type[Section], *names: str) -> list[io.Input]:
    return [setting_input(section, name) for name in names]


def number_field(setting: Setting, kind: type) -> dict[str, Any]:
    low, high = setting.number_field
    found = {"min": kind(low), "max": kind(high)}
    if setting.step or setting.finest:
        found["step"] = kind(setting.step or setting.finest)
    if setting.finest:
        found["round"] = setting.finest
    return found
