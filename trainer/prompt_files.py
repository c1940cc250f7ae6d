"""Prompts that people bring, for the command line and the nodes: text, JSON and CSV, each read as what it is."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError, brief
from .texts import lines_of, read_text

KEYS = ("prompt", "text", "caption")  # of what has several values; the first one that is there counts
NAMED = "'prompt', 'text' or 'caption'"
JSON_LINES, TABLES = (".jsonl", ".ndjson"), {".csv": ",;\t", ".tsv": "\t"}
OTHERS = (".yaml", ".yml", ".toml", ".xml", ".html")  # as lines of text they would be read wrongly
HALVES = re.compile("[\0\ud800-\udfff]")  # half a character, which no file can hold; and what ends a text in C
UNSEEN = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # categories: spaces, controls, marks without width

Rows = list[tuple[int, list[str]]]
Found = Iterator[tuple[str, object]]  # where in the file, and what stands there


def read_prompt_file(path: Path) -> list[str]:
    """The prompts of a .txt, .jsonl, .json or .csv file; of text, # begins a line that is a comment.

    Raises:
        ConfigError: it cannot be read, something in it is no prompt, or there is none; one line with the place.
    """
    suffix, text = path.suffix.lower(), read_text(path)
    if suffix in OTHERS:
        raise ConfigError(f"{path}: {suffix} is no kind of prompt file: save it as .txt, .jsonl, .json or .csv")
    if suffix == ".json":
        found = _entries(path, text)
    elif suffix in JSON_LINES:
        found = _json_lines(path, text)
    elif suffix in TABLES:
        found = _cells(path, text, TABLES[suffix])
    else:
        found = (("a line", line) for line in prompt_lines(text))
    prompts = [prompt_of(value, f"{path}, {where}").strip() for where, value in found]
    if not prompts:
        raise ConfigError(f"{path}: has no prompt: write at least one")
    return prompts


def prompt_lines(text: str) -> list[str]:
    """One prompt a line; lines that begin with # are comments."""
    stripped = (_stripped(line) for line in lines_of(text))
    return [line for line in stripped if _is_seen(line) and not line.startswith("#")]


def prompt_of(value: object, where: str) -> str:
    """What stands somewhere, if it is a prompt.

    Raises:
        ConfigError: it is no text, an empty one, or one that no file can hold.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {brief(value)} is no prompt: must be text")
    if not _is_seen(value):
        raise ConfigError(f"{where}: {brief(value)} is an empty prompt: write one, or leave it out")
    if HALVES.search(value):
        raise ConfigError(f"{where}: {brief(value)} has a character that is none: correct it")
    return value


def _stripped(text: str) -> str:
    return text.strip().strip("\ufeff").strip()  # the mark of a file that was appended to another


def _is_seen(text: str) -> bool:
    return any(unicodedata.category(c) not in UNSEEN for c in text)


def _value(record: object) -> object:
    """What an object has under one of KEYS, anything else itself."""
    if not isinstance(record, dict):
        return record
    known = {key.strip().casefold(): value for key, value in record.items()}
    return next((known[key] for key in KEYS if key in known), record)


def _parsed(text: str, where: str, remedy: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ConfigError(f"{where}: not JSON that can be read (too deep)") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error}): {remedy}") from None


def _json_lines(path: Path, text: str) -> Found:
    for number, line in enumerate(lines_of(text), 1):
        line = _stripped(line)
        if _is_seen(line) and not line.startswith("#"):
            where = f"line {number}"
            record = _parsed(line, f"{path}, {where}", f"write a text in quotes, or an object with {NAMED}")
            yield from _named(path, where, record)


def _entries(path: Path, text: str) -> Found:
    if not _is_seen(text):
        return
    whole = _parsed(text, str(path), "correct it, or call it .jsonl if each line is a value of its own")
    for number, record in enumerate(whole if isinstance(whole, list) else [whole], 1):
        yield from _named(path, f"entry {number}", record)


def _named(path: Path, where: str, record: object) -> Found:
    value = _value(record)
    if isinstance(value, dict):
        raise ConfigError(f"{path}, {where}: {brief(value)} has no {NAMED}")
    yield where, value


def _cells(path: Path, text: str, delimiters: str) -> Found:
    """Of the column whose name is one of KEYS; without such a name, of the only column."""
    rows = next(filter(_has_header, (_cut(text, delimiter) for delimiter in delimiters)), None)
    rows = rows or _rows(path, text, delimiters[0])
    header = rows.pop(0)[1] if _has_header(rows) else ["prompt"]
    names, width = [_column(cell) for cell in header], len(header)
    column = names.index(next(key for key in KEYS if key in names))
    for number, row in rows:
        if _is_comment(row, column):
            continue
        if len(row) != width:
            raise ConfigError(
                f"{path}, line {number}: has {len(row)} cells, not {width}: put a prompt with a {delimiters[0]!r} in "
                "double quotes, or call its column 'prompt'"
            )
        yield f"line {number}", row[column]


def _rows(path: Path, text: str, delimiter: str) -> Rows:
    """(line, cells) of each row that is not empty; comments above the first are left out."""
    lines = lines_of(text)
    rows: Rows = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            empty = not any(map(_is_seen, row)) and (len(row) != 1 or not _is_seen(lines[reader.line_num - 1]))
            if not empty and (rows or _names(row) or not _is_comment(row, 0)):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: not CSV ({error}): correct its quotes") from None
    return rows


def _cut(text: str, delimiter: str) -> Rows:
    """The same; nothing if that is no CSV."""
    try:
        return _rows(Path(), text, delimiter)
    except ConfigError:
        return []


def _has_header(rows: Rows) -> bool:
    return bool(rows and _names(rows[0][1]))


def _names(row: list[str]) -> set[str]:
    """Those of KEYS that a header has."""
    return {*KEYS} & {*map(_column, row)}


def _is_comment(row: list[str], column: int) -> bool:
    """Whether it is none of a table whose prompts stand in `column`, where "#1" may be a prompt's number."""
    first = _stripped(row[0])
    return first.startswith("#") and (column == 0 or len(row) == 1 or first.startswith("# "))


def _column(name: str) -> str:
    return _stripped(name).casefold().removesuffix("s")
