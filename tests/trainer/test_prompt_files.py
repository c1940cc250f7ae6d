"""Prompts from files: each kind is read as what it is, and what is no prompt is told."""

import json

import pytest

from trainer.errors import ConfigError
from trainer.prompt_files import prompt_lines, read_prompt_file
from trainer.settings.config_file import load_config, parse

TWO = ["a cat, sitting", "a dog"]
READ = {  # name -> text, prompts
    "plain.txt": ("# animals\n\n  a cat, sitting  \n \t# indented\na dog\n", TWO),
    "WINDOWS.TXT": ("a cat, sitting\r\n\r\na dog\r\n", TWO),
    "no_suffix": ("a cat, sitting\na dog", TWO),
    "two files in one.txt": ("\ufeffa cat, sitting\n\ufeffa dog", TWO),
    "inside.txt": ("a\u2028cat\x0c, \x85sitting\na dog", ["a\u2028cat\x0c, \x85sitting", "a dog"]),
    "hash.txt": ("a cat # not a comment", ["a cat # not a comment"]),
    "quotes.txt": ('"a cat", he said', ['"a cat", he said']),
    "texts.json": (json.dumps(TWO), TWO),
    "objects.json": (json.dumps([{"prompt": TWO[0], "seed": 3}, {"caption": TWO[1]}]), TWO),
    "mixed.JSON": (json.dumps([TWO[0], {"text": TWO[1]}]), TWO),
    "one.json": ('{"prompt": "a dog"}', ["a dog"]),
    "first key.json": ('[{"caption": "no", "text": "no", "prompt": "a dog"}]', ["a dog"]),
    "lines.json": ('["a cat\\nin two lines"]', ["a cat\nin two lines"]),
    "lines.jsonl": ('{"prompt": "a cat, sitting"}\n\n# later\n"a dog"\n', TWO),
    "upper.JSONL": ('{"Prompt": "a cat, sitting"}\r\n{"TEXT": "a dog"}', TWO),
    "separators.jsonl": ('{"prompt": "a\u2028cat"}\n"a dog"', ["a\u2028cat", "a dog"]),
    "column.csv": ('id,prompt\n1,"a cat, sitting"\n2,a dog\n', TWO),
    "excel.CSV": ("\ufeffPrompt;Seed\r\na cat, sitting;1\r\na dog;2\r\n;\r\n", TWO),
    "all quoted.csv": ('"id";"prompt"\n"1";"a cat, sitting"\n"2";"a dog"', TWO),
    "tab.tsv": ("seed\tcaption\n1\ta cat, sitting\n2\ta dog", TWO),
    "alone.csv": ('"a cat, sitting"\na dog\n', TWO),
    "named.csv": ('prompts\n"a cat, sitting"\n\na dog', TWO),
    "comments.csv": ('# animals, all of them\nprompt\n"a cat, sitting"\n# later\na dog', TWO),
    "numbered.csv": ('#,prompt\n#1,"a cat, sitting"\n# more, to come\n#2,a dog', TWO),
    "quoted.csv": ('prompt\n"a sign ""OPEN"""\n"two\nlines"', ['a sign "OPEN"', "two\nlines"]),
}
REFUSED = {
    "empty.txt": ("", "has no prompt"),
    "blank.txt": (" \n\t\n\u200b\n# only this\n", "has no prompt"),
    "empty.json": ("", "has no prompt"),
    "none.json": ("[]", "has no prompt"),
    "empty.jsonl": ("\n", "has no prompt"),
    "empty.csv": ("", "has no prompt"),
    "header.csv": ("prompt\n", "has no prompt"),
    "null.json": ('["a cat", null]', "entry 2: None is no prompt: must be text"),
    "number.json": ('["a cat", 3]', "entry 2: 3 is no prompt"),
    "list.json": ('[["a", "b"]]', "entry 1: ['a', 'b'] is no prompt"),
    "blank.json": ('["a cat", " "]', "entry 2: ' ' is an empty prompt"),
    "key null.json": ('[{"prompt": null, "text": "a"}]', "entry 1: None is no prompt"),
    "no key.json": ('[{"promt": "a"}]', "entry 1: {'promt': 'a'} has no 'prompt', 'text' or 'caption'"),
    "number alone.json": ("3", "entry 1: 3 is no prompt"),
    "half.json": ('["a \\ud83d cat"]', "has a character that is none"),
    "zero.json": ('["a \\u0000 cat"]', "has a character that is none"),
    "broken.json": ('["a cat"', "not JSON (Expecting ',' delimiter"),
    "lines.json": ('{"prompt": "a"}\n{"prompt": "b"}', "call it .jsonl if each line is a value of its own"),
    "deep.json": ("[" * 100_000, "too deep"),
    "digits.json": ("[" + "1" * 5000 + "]", "not JSON (Exceeds the limit"),
    "null.jsonl": ('"a cat"\nnull', "line 2: None is no prompt"),
    "text.jsonl": ('"a cat"\na dog', "line 2: not JSON"),
    "blank.jsonl": ('"a cat"\n""', "line 2: '' is an empty prompt"),
    "list.jsonl": ('["a cat", "a dog"]', "line 1: ['a cat', 'a dog'] is no prompt"),
    "cells.csv": ("prompt\na cat, sitting\n", "line 2: has 2 cells, not 1"),
    "no header.csv": ("1,a cat\n2,a dog\n", "line 1: has 2 cells, not 1"),
    "missing.csv": ("prompt,seed\na cat,1\na dog\n", "line 3: has 1 cells, not 2"),
    "blank cell.csv": ("prompt,seed\n,1\n", "line 2: '' is an empty prompt"),
    "blank alone.csv": ('prompt\n""\n', "line 2: '' is an empty prompt"),
    "open.csv": ('prompt\n"a cat\na dog', "not CSV (unexpected end of data)"),
    "list.yaml": ("- a cat\n- a dog\n", ".yaml is no kind of prompt file: save it as .txt"),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_what_it_is(tmp_path, name):
    text, prompts = READ[name]
    (tmp_path / name).write_bytes(text.encode("utf-8"))
    assert read_prompt_file(tmp_path / name) == prompts


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_prompt_is_told_with_its_place(tmp_path, name):
    text, message = REFUSED[name]
    (tmp_path / name).write_bytes(text.encode("utf-8"))
    with pytest.raises(ConfigError) as caught:
        read_prompt_file(tmp_path / name)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_text_of_a_node_is_cut_as_a_file_is(tmp_path):
    text = "# animals\n\n  a cat \u2028 sitting \r\n  # indented\n\ta dog"
    (tmp_path / "a.txt").write_bytes(text.encode("utf-8"))
    assert prompt_lines(text) == read_prompt_file(tmp_path / "a.txt") == ["a cat \u2028 sitting", "a dog"]


@pytest.mark.parametrize("where", ["prompts", "evaluation.prompts"])
def test_a_config_names_a_file_of_any_kind_for_training_and_evaluation(config_file, tmp_path, where):
    (tmp_path / "animals.json").write_text(json.dumps([{"prompt": p} for p in TWO]), "utf-8")
    line = 'prompts = "animals.json"'
    config = load_config(config_file(**({"head": line} if where == "prompts" else {"evaluation": line})))
    assert (config.prompts if where == "prompts" else config.evaluation.prompts) == tuple(TWO)
    (tmp_path / "animals.json").write_text('["a cat", null]', "utf-8")
    with pytest.raises(ConfigError, match=f"^{where} = 'animals.json': .*entry 2: None is no prompt"):
        load_config(tmp_path / "config.toml")


def test_a_listed_prompt_stays_as_it_is_but_an_empty_one_is_told(config_file):
    assert load_config(config_file(head='prompts = [" a cat "]')).prompts == (" a cat ",)
    for empty in ("''", "' '", r'"\n"', "'\u200b'"):
        with pytest.raises(ConfigError, match=r"prompts\.1: .* is an empty prompt"):
            load_config(config_file(head=f"prompts = ['a cat', {empty}]"))


def test_a_prompt_of_half_a_character_is_told_wherever_it_comes_from(config_file):
    table = load_config(config_file()).to_dict()
    with pytest.raises(ConfigError, match=r"prompts\.0: 'caf\\udce9' has a character that is none"):
        parse({**table, "prompts": ["caf\udce9"]})
