"""Run folders that were damaged or made to harm, and requests to the board that shows them."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from board_requests import BoardProcess, odd_request
from hostile_runs import HOSTILE
from rows import Row
from run_folders import Run, write

from trainer import history
from trainer.history import StoreError, export
from trainer.report.page import report
from trainer.store.database import DATABASE

DAMAGED, REQUESTS = 6000, 14_000  # in the long form
MOST_SECONDS, MOST_MEMORY = 60, 800e6  # of a request, and of the board over all folders; bytes
QUESTIONS: tuple[Callable[[history.Reader], object], ...] = (
    history.details,
    lambda store: history.curves(store, None, 10_000),
    history.index,
    lambda store: history.groups(store, 0),
    lambda store: history.evaluation(store, 2),
    lambda store: history.candidate_tile(store, 0, 0, 0),
    history.findings,
    lambda store: export.write_csv(store, Nowhere()),
    lambda store: export.write_json(store, Nowhere()),
)
ROUTES = (
    "",
    "/curves?points=10000",
    "/groups",
    "/groups/0",
    "/tiles/0/0/0",
    "/tiles/0/0/base",
    "/evaluations/2",
    "/evaluations/2/0/tile",
    "/diagnosis",
    "/export.csv",
    "/export.json",
)


class Nowhere:
    """A file whose content nobody wants."""

    def write(self, text: str) -> int:
        return len(text)


def rows(share: float) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small = write(folder / "small", Run(iterations=3, planned=3, group_size=4, evaluations=(0, 2)))
        yield damaged(folder, small, max(20, round(DAMAGED * share)))
        yield from hostile(folder, small, share)
        yield requests(folder, small, max(60, round(REQUESTS * share)))


def damaged(folder: Path, small: Path, times: int) -> Row:
    """The readers themselves, all of them: the list of runs, the board, the report, the exports."""
    row = Row("bytes, pages or the length of `run.sqlite` changed")
    for seed in range(times):
        chance = random.Random(seed)
        run = folder / "damaged" / f"run-{seed}"
        shutil.copytree(small, run)
        write_damaged(run / DATABASE, chance)
        questions = [lambda run=run: history.summaries(run.parent), lambda run=run: report(run)]
        questions += [lambda run=run, ask=ask: asked(run, ask) for ask in chance.sample(QUESTIONS, 4)]
        for question in questions:
            tell(row, question, run)
        shutil.rmtree(run.parent)
    return row


def write_damaged(path: Path, chance: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    match chance.randrange(5):
        case 0:
            for _ in range(chance.choice((1, 1, 4, 64))):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
        case 1:  # where it hurts: headers of the file and of its pages
            start = chance.randrange(len(raw) // page) * page
            raw[start + chance.randrange(100)] = chance.randrange(256)
        case 2:
            here, there = (chance.randrange(len(raw) // page) * page for _ in range(2))
            raw[here : here + page] = raw[there : there + page]
        case 3:
            del raw[chance.randrange(len(raw)) :]
        case 4:
            start = chance.randrange(len(raw))
            raw[start : start + chance.randrange(1, 200)] = bytes(chance.randrange(200))
    path.write_bytes(raw)


def asked(run: Path, question: Callable[[history.Reader], object]) -> object:
    with history.reading(run) as store:
        return question(store)


def tell(row: Row, question: Callable[[], object], run: Path) -> None:
    try:
        question()
        row.add("shown as far as it is whole")
    except StoreError as error:
        row.add(kind_of(str(error).replace(str(run), "")))
    except Exception as error:  # noqa: BLE001
        row.add(f"{type(error).__name__}: {error}"[:200], traceback=True)


def kind_of(sentence: str) -> str:
    """Without what SQLite quotes of the file."""
    known = ("malformed database schema", "is malformed", "is not a database", "no such", "it takes too long")
    return next((f"said to be unreadable: {words}" for words in known if words in sentence), "said to be unreadable")


def hostile(folder: Path, small: Path, share: float) -> Iterator[Row]:
    """Each beside a healthy one, in a board of its own process."""
    runs = folder / "hostile"
    healthy = shutil.copytree(small, runs / "healthy")
    (runs / "victim").mkdir()
    row, cost = Row("a run folder made to harm, all routes of the board"), Row("the board's time and memory over them")
    names = list(HOSTILE)[:: max(1, round(1 / share) // 10)]
    slowest, what = 0.0, ""
    with BoardProcess(runs) as board:
        expected = board.ask("GET", "/runs/healthy/curves").body
        for number, name in enumerate(names):
            run = shutil.copytree(healthy, runs / f"run-{number}")
            HOSTILE[name](run)
            for route in ("list", *ROUTES):
                began = time.monotonic()
                answer = board.ask("GET", "/runs" if route == "list" else f"/runs/{run.name}{route}")
                took = time.monotonic() - began
                lost = route == "list" and b'"healthy"' not in answer.body
                row.add(f"{answer.status}", lost=lost, traceback=answer.status in (0, 500))
                if took > slowest:
                    slowest, what = took, f"{name}, {route}"
            renamed = board.ask("PATCH", f"/runs/{run.name}", b'{"title": "x"}', {"Content-Type": "application/json"})
            same = board.ask("GET", "/runs/healthy/curves").body == expected
            row.add(f"{renamed.status}", lost=not same, traceback=renamed.status in (0, 500))
            deleted = board.ask("DELETE", f"/runs/{run.name}")
            row.add(f"{deleted.status}", traceback=deleted.status in (0, 500))
            shutil.rmtree(run, ignore_errors=True)
            shutil.rmtree(runs / ".trash", ignore_errors=True)
        memory = board.most_memory()
        words = f"at most {slowest:.1f} s for an answer ({what}), {memory / 1e6:.0f} MB"
        cost.add(words, lost=slowest > MOST_SECONDS or memory > MOST_MEMORY, traceback=bool(board.complaints()))
    row.lost += not (runs / "victim").exists()
    yield row
    yield cost


def requests(folder: Path, small: Path, times: int) -> Row:
    runs = folder / "asked"
    shutil.copytree(small, runs / "run")
    row = Row("a request to the board with an odd method, path, query, header or body")
    with BoardProcess(runs) as board:
        expected = board.ask("GET", "/runs/run/curves").body
        before = board.memory()
        for seed in range(times):
            answer = board.raw(odd_request(random.Random(seed), board.port))
            wrong = answer.status == 500 or b"access-control-allow-origin" in answer.head.lower()
            row.add(f"{answer.status}" if answer.status else "closed", traceback=wrong)
        if board.ask("GET", "/runs/run/curves").body != expected or board.memory() > before + 100e6:
            row.lost += 1
        row.tracebacks += bool(board.complaints())
    return row
