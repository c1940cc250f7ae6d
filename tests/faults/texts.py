"""Config files, prompts and answers by the thousand: whole ones in every form, and changed ones.

What is whole has to be read as it was meant. What is not is read or refused in one short line, and in time.
"""

import csv
import io
import json
import math
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rows import Row

from trainer.errors import UserError
from trainer.prompt_files import read_prompt_file
from trainer.reward_server.config import load_server_config
from trainer.rewards.quoted import quoted
from trainer.rewards.vlm import VlmJudge
from trainer.settings.config_file import load_config

SECONDS = 10  # for one input
LONGEST = 1100  # characters of an error
CONFIG = """
prompts = ["a red apple", 'a sign that says "OPEN"']
[model]
path = "embedded"
device = "cpu"
[lora]
rank = 4
alpha = 8.0
targets = "attention"
[sampling]
width = 64
height = 64
steps = 4
solver = "heun"
sizes = [[64, 64], [32, 64]]
[grpo]
group_size = 4
anchors = 2
trained_steps = 2
strength = 0.3
[optimizer]
learning_rate = 1e-3
[run]
folder = "runs/a"
iterations = 3
seed = 7
stop_on = ["stalled"]
[evaluation]
prompts = ["a blue fish"]
every = 2
[[rewards]]
kind = "colourfulness"
clip = [0, 60]
[[rewards]]
kind = "remote"
weight = -0.5
options = { url = "http://127.0.0.1:1", timeout = 3.0, retries = 1 }
"""
SERVER = '[[rewards]]\nkind = "sharpness"\n[server]\ndevice = "cpu"\nmax_images = 8\nbatch_window = 0.01\n'
STRANGE = [
    *("nan", "inf", "-inf", "true", "-1", "0", "0.0", "1e999", "9" * 400, "9" * 5000, "2.5", "[]", "{}", "[[]]"),
    *('""', '" "', '"\\u0000"', '"a\\nb"', "'C:\\temp'", '"C:\\temp"', '"C:\\models"', "'~nobody/x'", '"/dev/zero"'),
    *("1979-05-27", "07:32:00", "[1, 'a']", "{a = {b = 1}}", f"'{'x' * 60_000}'", "[" * 900 + "]" * 900, "'a:b'"),
    *("'\u2028'", "'🍎'", "18446744073709551616", "-9223372036854775809", "'none.txt'", "'.'", "“a”"),
]
KEYS = ["a", "'a\\nb'", f"'{'k' * 30_000}'", '""', "model.path", "rewards", "grpo.clip", "grpo.strenght", "run.seed"]
WORDS = "a red apple größer 看板 🍎 dog's l’été 5' 24\" wide, sitting; on # the; \u2028 \x85 \x0c end.".split(" ")
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
SUFFIXES = [".txt", ".TXT", ".jsonl", ".json", ".JSON", ".csv", ".CSV", ".tsv", ""]


def rows(share: float = 1.0) -> Iterator[Row]:
    generator = random.Random(11)
    with tempfile.TemporaryDirectory() as name:
        for campaign, times in CAMPAIGNS.items():
            row = Row(campaign.__doc__ or "")
            for _ in range(max(20, round(times * share))):
                campaign(row, generator, Path(name))
            yield row


def changed_config(row: Row, generator: random.Random, folder: Path) -> None:
    """changed bytes in a config"""
    path = folder / "config.toml"
    path.write_bytes(mutated(CONFIG.encode(), generator))
    attempt(row, lambda: load_config(path))


def strange_values(row: Row, generator: random.Random, folder: Path) -> None:
    """other values, keys and sections in a config"""
    lines = CONFIG.splitlines()
    for _ in range(generator.choice((1, 1, 2, 4))):
        number = generator.randrange(len(lines))
        key, equals, _ = lines[number].partition(" = ")
        if not equals or generator.random() < 0.2:
            lines.insert(number, f"{generator.choice(KEYS)} = {generator.choice(STRANGE)}")
        else:
            lines[number] = f"{key} = {generator.choice(STRANGE)}"
    path = folder / "config.toml"
    path.write_text("\n".join(lines), "utf-8")
    attempt(row, lambda: load_config(path))


def overrides(row: Row, generator: random.Random, folder: Path) -> None:
    """strange overrides (--set)"""
    path = folder / "config.toml"
    path.write_text(CONFIG, "utf-8")
    known = ("model.path", "grpo.clip", "run.seed", "rewards.0.weight", "rewards.9.kind", "prompts", "a.b.c", "run", "")
    key = generator.choice((*known, *KEYS))
    text = f"{key}={mutated(generator.choice(STRANGE)[:500].encode(), generator).decode('utf-8', 'surrogateescape')}"
    attempt(row, lambda: load_config(path, [text]))


def changed_server(row: Row, generator: random.Random, folder: Path) -> None:
    """changed bytes in a reward server's config"""
    path = folder / "server.toml"
    path.write_bytes(mutated(SERVER.encode(), generator))
    attempt(row, lambda: load_server_config(path))


def whole_prompts(row: Row, generator: random.Random, folder: Path) -> None:
    """whole prompt files of every kind and encoding"""
    prompts, suffix = some_prompts(generator), generator.choice(SUFFIXES)
    path = folder / f"whole{suffix}"
    path.write_bytes(saved(prompts, suffix.lower(), generator))
    attempt(row, lambda: read_prompt_file(path), lambda found: found == prompts, whole=True)


def changed_prompts(row: Row, generator: random.Random, folder: Path) -> None:
    """changed bytes in prompt files of every kind"""
    suffix = generator.choice(SUFFIXES)
    path = folder / f"changed{suffix}"
    path.write_bytes(mutated(saved(some_prompts(generator), suffix.lower(), generator), generator))
    attempt(row, lambda: read_prompt_file(path), are_prompts)


def strange_records(row: Row, generator: random.Random, folder: Path) -> None:
    """JSON prompts with null, numbers, lists and other keys among them"""
    strange = [None, 3, 1.5, True, [], ["a"], {}, {"promt": "a"}, {"prompt": None}, "", " ", "\u200b", "a\0b", "\ud83d"]
    records: list[object] = [{generator.choice(("prompt", "text", "caption")): "a cat"} for _ in range(3)]
    records.insert(generator.randrange(4), generator.choice(strange))
    path = folder / generator.choice(("strange.json", "strange.jsonl"))
    lines = "\n".join(map(json.dumps, records))
    path.write_text(json.dumps(records) if path.suffix == ".json" else lines, "utf-8")
    attempt(row, lambda: read_prompt_file(path), lambda found: False)  # each has to be told


def quotes(row: Row, generator: random.Random, folder: Path) -> None:
    """prompts with a text in quotes, beside inches, feet and apostrophes"""
    target = generator.choice(("HELLO", "OPEN 24 h", "24", "don't panic", "Route 66", "l'été", "开放", "7:30", "!"))
    before = " ".join(
        generator.choices(('a 24" monitor,', "a 5'10\" man", "the dog's bowl", 'a 3½" disk', "6' tall,"), k=2)
    )
    after = generator.choice(("", " at night", ", 6 feet wide", " by the cat’s bed", ' and "MORE"', " – new"))
    opening, closing = generator.choice(('""', "“”", "„“", "«»", "””", "»«", "「」", ('\\"', '\\"')))
    prompt = f"{before} {generator.choice(('shows', 'says:', 'with', ''))} {opening}{target}{closing}{after}"
    attempt(row, lambda: quoted(prompt), lambda found: found == target, whole=True)


def strange_quotes(row: Row, generator: random.Random, folder: Path) -> None:
    """texts of quotes, digits and spaces in any order"""
    signs = generator.choices("\"“”„«»‘’‚‹›「」\\1½ aé'", k=generator.choice((3, 10, 40, 3000)))
    attempt(row, lambda: quoted("".join(signs)), lambda found: bool(found.strip()))


JUDGE = VlmJudge("http://127.0.0.1:1")


def whole_answers(row: Row, generator: random.Random, folder: Path) -> None:
    """a judge's scores in Markdown, JSON and words"""
    best = generator.choice((5, 10, 100))
    value = generator.randrange(0, best * 2 + 1) / 2
    label = generator.choice(("Final Score", "Score", "Rating", "Overall rating", "final score", "FINAL SCORE"))
    out_of = generator.choice((f"/{best}", f" / {best}", f" out of {best}", f" of {best}", f"**/{best}"))
    forms = (
        f"**{label}:** {value:g}{out_of}",
        f"### {label}\n\n**{value:g}{out_of}**",
        f"{label} = {value:g}{out_of}",
        f"| {label} | {value:g}{out_of} |",
        f"{label} (0-{best}): {value:g}",
        f"The {label} is {value:g}{out_of}.",
        "```json\n" + json.dumps({"reason": "3 apples", label.lower().replace(" ", "_"): value, "max": best}) + "\n```",
    )
    form = generator.choice(forms)
    expected = value / 5 if form.startswith("```") else value / best
    answer = f"It has 3 apples of 4.\n{form}\n{generator.choice(('', 'Done.', 'Thanks!'))}"
    fits = lambda found: found == expected or (math.isnan(found) and not 0 <= expected <= 1)  # noqa: E731
    attempt(row, lambda: JUDGE.read(answer), fits)


def changed_answers(row: Row, generator: random.Random, folder: Path) -> None:
    """changed bytes in a judge's answer"""
    answer = '{"score": "4/5"} **Final Score:** 3.5 out of 5 (overall rating: 70%)' * generator.choice((1, 1, 50))
    text = mutated(answer.encode(), generator).decode("utf-8", "replace")
    attempt(row, lambda: JUDGE.read(text), lambda found: math.isnan(found) or 0 <= found <= 1)


Campaign = Callable[[Row, random.Random, Path], None]
CAMPAIGNS: dict[Campaign, int] = {  # with how often
    changed_config: 7000,
    strange_values: 6000,
    overrides: 3000,
    changed_server: 2000,
    whole_prompts: 5000,
    changed_prompts: 6000,
    strange_records: 2000,
    quotes: 4000,
    strange_quotes: 3000,
    whole_answers: 3000,
    changed_answers: 2000,
}


def attempt(
    row: Row, read: Callable[[], object], fits: Callable[[object], bool] = lambda found: True, *, whole: bool = False
) -> None:
    """One more time of `row`: what is read has to fit, a refusal is one short line, and `whole` input gets none."""
    try:
        with in_time():
            found = read()
    except UserError as error:
        short = "\n" not in str(error) and len(str(error)) <= LONGEST
        row.add("refused in one line" if short else "refused in many words", lost=whole, traceback=not short)
    except (Exception, Late) as error:  # noqa: BLE001  whatever it is, a user would have read it
        row.add(f"{type(error).__name__}", traceback=True)
    else:
        right = fits(found)
        row.add("read" if right else "read as something else", lost=not right)


class Late(BaseException):
    """An input took too long."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raises Late if it takes longer than SECONDS, on systems that have alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(data: bytes, generator: random.Random) -> bytes:
    """One to eight bytes or pieces changed, put in, taken out, repeated or cut off."""
    found = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        place, size = generator.randrange(len(found) + 1), generator.choice((1, 1, 1, 4, 30))
        match generator.randrange(6):
            case 0:
                found[place : place + size] = generator.randbytes(size)
            case 1:
                found[place:place] = generator.choice(
                    (
                        b"\0",
                        b"\n",
                        b'"',
                        b"'",
                        b"\\",
                        b"[",
                        b"]",
                        b"{",
                        b"=",
                        b"#",
                        b"\xff",
                        b"\xe2\x80\xa8",
                        b",",
                        b"9",
                        b".",
                    )
                )
            case 2:
                del found[place : place + size]
            case 3:
                found[place:place] = found[place : place + size] * generator.choice((1, 3, 500))
            case 4:
                del found[place:]
            case 5:
                found[place : place + 1] = bytes([generator.randrange(32, 127)])
    return bytes(found)


def some_prompts(generator: random.Random) -> list[str]:
    """Texts that begin and end with a letter."""
    return [
        f"a {' '.join(generator.choices(WORDS, k=generator.randrange(1, 9)))} b"
        for _ in range(generator.randrange(1, 6))
    ]


def are_prompts(found: object) -> bool:
    """Whether they can be trained on: texts that are not empty and that every file can hold."""
    assert isinstance(found, list)
    return bool(found) and all(isinstance(p, str) and p.strip() and "\0" not in p and encodable(p) for p in found)


def encodable(text: str) -> bool:
    try:
        return bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def saved(prompts: list[str], suffix: str, generator: random.Random) -> bytes:
    """Prompts as a file of this kind, in any of the ways that programs save it."""
    key = generator.choice(("prompt", "text", "caption", "Prompt"))
    if suffix == ".json":
        text = json.dumps([{key: p} if generator.random() < 0.5 else p for p in prompts], ensure_ascii=False)
    elif suffix == ".jsonl":
        text = "\n".join(json.dumps({key: p, "seed": 3}, ensure_ascii=False) for p in prompts)
    elif suffix in (".csv", ".tsv"):
        buffer, delimiter = io.StringIO(newline=""), "\t" if suffix == ".tsv" else generator.choice(",;")
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerows([["id", key], *([n, p] for n, p in enumerate(prompts))])
        text = buffer.getvalue()
    else:
        text = "\n".join(["# a comment", *prompts, "", "  # another"])
    end, encoding = generator.choice(("\n", "\r\n", "\r")), generator.choice([*ENCODINGS])
    return ENCODINGS[encoding] + text.replace("\n", end).encode(encoding)
