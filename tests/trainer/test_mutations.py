"""The deliberate faults in tests/mutated can still be made: code that moved took them along."""

import mutations
import pytest


def complaints(mutants) -> list[str]:
    found = []
    for mutant in mutants:
        try:
            mutations.check(mutant)
        except mutations.Broken as problem:
            found.append(str(problem))
    return found


def test_every_fault_has_its_place_and_its_tests():
    assert complaints(mutations.all_mutants()) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"old": "import "}, "the snippet occurs .* times, not once"),
        ({"old": "no such line"}, "the snippet occurs 0 times, not once"),
        ({"new": "UP = 1"}, "nothing is changed"),
        ({"new": "UP ="}, "not Python any more"),
        ({"tests": ("tests/trainer/test_gone.py",)}, "there is no tests/trainer/test_gone.py"),
    ],
)
def test_a_fault_that_cannot_be_made_is_told(changes, complaint, tmp_path, monkeypatch):
    (tmp_path / "code.py").write_text("import os\nimport sys\n\nUP = 1\n", "utf-8")
    monkeypatch.setattr(mutations, "ROOT", tmp_path)
    fault = mutations.Mutant("fault", "code.py", "UP = 1", "UP = 2")
    assert complaints([fault]) == []
    with pytest.raises(mutations.Broken, match=complaint):
        mutations.check(fault._replace(**changes))
