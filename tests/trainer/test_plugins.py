"""A class that a setting names: what its source tells, what an import tells, and each way to name it wrongly."""

import os
import sys
from types import ModuleType

import pytest

from trainer.errors import ConfigError
from trainer.plugins import Outline, load, look, outline_of

SOURCE = '''
"""A user's own module."""
import sys
sys.loud = True
from fractions import Fraction
from dataclasses import dataclass

class Plain:
    def __init__(self, a, b=1, *, c, d=(2, 3)):
        self.given = a, b, c, d

    def score(self, images):
        return images

class Empty:
    pass

class Open:
    def __init__(self, a=0, **rest):
        pass

class Child(Plain):
    pass

@dataclass
class Data:
    a: int
    b: int = 0

    def score(self): ...

class Delegating:
    def __getattr__(self, name):
        return name

def function(a, b=1):
    return a
'''
TAKES = {
    "Plain": Outline(("a", "b", "c", "d"), ("a", "c")),
    "Empty": Outline(),
    "Open": Outline(("a",), more=True),
    "function": Outline(("a", "b"), ("a",)),
}
SECRET = Outline(more=True)  # what a source does not show
HIDDEN = {"Child": TAKES["Plain"], "Data": Outline(("a", "b"), ("a",))}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`written(text, name)`: a module in the working directory; forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "loud", False, raising=False)
    before = set(sys.modules)

    def written(text: str, name: str = "mine") -> None:
        file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    yield written
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", [*TAKES, *HIDDEN])
def test_a_source_tells_what_a_class_takes_and_is_not_run(written, name):
    written(SOURCE)
    assert look(f"mine:{name}") == TAKES.get(name, SECRET)
    assert not sys.loud


@pytest.mark.parametrize(
    ("outline", "options", "wrong"),
    [
        (Outline(("a", "b"), ("a",)), ["a"], ""),
        (Outline(("a", "b"), ("a",)), ["b", "a"], ""),
        (Outline(("a", "b"), ("a",)), ["b"], "needs the option 'a'"),
        (Outline(("a", "b")), ["a", "c"], "takes no option 'c': it takes a, b"),
        (Outline(), ["c"], "takes no option 'c': it takes none"),
        (Outline(("a",), ("a",), more=True), ["a", "c"], ""),
        (Outline(("a",), ("a",), more=True), ["c"], "needs the option 'a'"),
    ],
)
def test_options_that_do_not_fit_are_named(outline, options, wrong):
    assert outline.misfit(options) == wrong


@pytest.mark.parametrize("name", [*TAKES, *HIDDEN])
def test_an_import_tells_it_of_every_class(written, name):
    written(SOURCE)
    assert outline_of(load(f"mine:{name}")) == (TAKES | HIDDEN)[name]


def test_a_class_is_found_in_a_package_of_the_working_directory_and_among_the_installed_ones(written):
    written(SOURCE, "own.folder.mine")
    assert look("own.folder.mine:Plain") == TAKES["Plain"]
    assert load("own.folder.mine:Plain")(1, c=2).given == (1, 1, 2, (2, 3))
    assert load("fractions:Fraction")(1, 2) == 0.5


def test_an_installed_module_goes_before_one_of_the_working_directory(written, monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    written("def rgb_to_hsv(r, g, b): return 'another'", "colorsys")
    assert load("colorsys:rgb_to_hsv")(1, 0, 0) == (0, 1, 1)


def test_a_name_that_another_module_gives_is_found(written):
    written(SOURCE)
    written("from mine import Plain as Other\nfrom mine import *", "second")
    for name in ("second:Other", "second:Empty"):
        assert look(name) == SECRET
        assert load(name).__module__ == "mine"


@pytest.mark.parametrize("check", [look, load])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:", "'mine:' names no class: write it as 'package.module:Class'"),
        (":Plain", "names no class"),
        ("../mine:Plain", "names no class"),
        ("mine:Plain()", "names no class"),
        ("gone:Plain", "'gone:Plain': there is no module gone in {here} or among the installed packages"),
        ("gone.mine:Plain", "there is no module gone.mine in"),
        ("mine.gone:Plain", "there is no module mine.gone in"),
        ("made:Plain", "there is no module made in"),
        ("mine:Plane", "'mine:Plane': the module mine has no class Plane: "),
    ],
)
def test_a_wrong_name_is_one_line_with_the_remedy(written, check, name, message):
    written(SOURCE)
    sys.modules["made"] = ModuleType("made")  # without a file, as __main__ may be
    with pytest.raises(ConfigError) as caught:
        check(name)
    assert message.format(here=os.getcwd()) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_class_is_answered_with_those_that_are_there(written):
    written("class Red: ...\nclass Blue: ...")
    with pytest.raises(ConfigError, match="has no class Rot: it has Red, Blue"):
        look("mine:Rot")


def test_a_module_that_makes_its_names_when_asked_is_believed(written):
    written("def __getattr__(name):\n    return dict")
    assert look("mine:Anything") == SECRET
    assert load("mine:Anything") is dict


def test_a_name_that_is_no_class_is_refused(written):
    written("Plain = 3")
    with pytest.raises(ConfigError, match="has no class Plain: correct the name"):
        load("mine:Plain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Plain:\n  def", r"\(SyntaxError: .*line 2"),
        ("import no_such_package", r"\(ModuleNotFoundError: No module named 'no_such_package', .*mine\.py line 1\)"),
        ("x = 1\nx = 1 / 0", r"\(ZeroDivisionError: division by zero, .*mine\.py line 2\)"),
    ],
)
def test_a_module_that_does_not_import_is_told_with_its_line(written, text, message):
    written(text)
    with pytest.raises(ConfigError, match=f"'mine:Plain': the module mine does not import {message}") as caught:
        load("mine:Plain")
    assert "\n" not in str(caught.value)


def test_a_package_that_does_not_import_is_not_called_missing(written):
    written("import no_such_package", "own.__init__")
    written(SOURCE, "own.mine")
    for check in (look, load):
        with pytest.raises(ConfigError, match=r"does not import \(ModuleNotFoundError: No module named 'no_such"):
            check("own.mine:Plain")


@pytest.mark.parametrize("check", [look, load])
def test_a_class_without_the_method_is_refused(written, check):
    written(SOURCE)
    check("mine:Plain", method="score")
    with pytest.raises(ConfigError, match="'mine:Empty': the class has no method score: it needs one"):
        check("mine:Empty", method="score")


@pytest.mark.parametrize("name", ["Child", "Data", "Delegating"])
def test_a_method_that_a_source_may_hide_is_not_missed(written, name):
    written(SOURCE)
    look(f"mine:{name}", method="score")
