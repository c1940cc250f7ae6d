"""One run as one page: complete, self-contained, small, and without anything that runs."""

import json
import os
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import MARKUP, TRIED, Run, write

from trainer.history import reading
from trainer.report import chart as charts
from trainer.report.chart import Line, Scale, chart, padded, ticks
from trainer.report.html import Markup, h
from trainer.report.page import report
from trainer.report.pictures import Album

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """Elements and texts of a page, as a browser sees them."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_holds_the_runs_facts_curves_pictures_and_settings(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=12, planned=12, evaluations=(0, 12), info={"title": "Apples"}))
    page = Page(report(folder))
    for text in ("Apples", "12 of 12", "embedded", "tiny-clip-heldout", "reward", "seconds per phase", "Iteration 11"):
        assert text in page.texts
    assert page.texts.count("after 12") == 2
    pictures = page.all("img")
    assert len(pictures) == 2 * 2 * 12 + 2 * 2  # two iterations of two prompts, two prompts before and after
    assert all(p["src"].startswith("data:image/webp;base64,UklGR") for p in pictures)
    assert len(page.all("svg")) == 14
    shown = next(t for t in page.texts if t.startswith("{"))
    assert json.loads(shown)["optimizer"]["learning_rate"] == 1e-3


def test_the_strengths_of_the_lora_are_a_table_with_the_best_one_marked(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=12, planned=12, tiles_every=0, info={"strengths": TRIED}))
    page = Page(report(folder))
    assert "0.7 (+0.2 +- 0.01)" in page.texts
    assert "0.49 (-0.01 +- 0.01)" in page.texts
    assert [row.get("class") for row in page.all("tr")] == [None, None, "best", None]
    assert "Of the LoRA after 12 iterations, on 8 pictures, against the base model; best: " in page.texts
    assert "LoRA strength" not in Page(report(write(tmp_path / "other", Run(iterations=1)))).texts


def test_nothing_in_it_is_fetched_and_nothing_runs(tmp_path):
    nasty = (MARKUP, "</style></script><script>alert(2)</script>", "'\"><svg onload=alert(3)>", "a" * 3000)
    rewards = [{"kind": MARKUP, "name": MARKUP, "held_out": False}]
    info = {"title": MARKUP, "state": MARKUP, "changes": [{"iteration": MARKUP}, 3]}
    folder = write(tmp_path / "run", Run(iterations=3, prompts=nasty, evaluations=(0, 3), info=info))
    settings = {"prompts": list(nasty), "rewards": rewards, "model": {"path": MARKUP}}
    with sqlite3.connect(folder / "run.sqlite") as database:
        database.execute("UPDATE info SET value = ? WHERE key = 'settings'", (json.dumps(settings),))
        database.execute("UPDATE metrics SET name = ? WHERE name = 'reward/tiny-clip'", (f"reward/{MARKUP}",))
        database.execute("UPDATE metrics SET name = ? WHERE name = 'loss'", (MARKUP,))
        database.execute("UPDATE scores SET reward = ? WHERE reward = 'tiny-clip'", (MARKUP,))
        database.execute("INSERT INTO log (iteration, message) VALUES (1, ?)", (MARKUP,))
    database.close()
    text = report(folder)
    page = Page(text)
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("a")
    assert all(a["src"].startswith("data:") for a in page.all("img"))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "http://" not in text
    assert "https://" not in text
    assert page.texts.count(MARKUP) >= 5
    assert {"http-equiv": "Content-Security-Policy", "content": page.all("meta")[1]["content"]} == page.all("meta")[1]
    assert "default-src 'none'" in page.all("meta")[1]["content"]


def test_a_long_run_makes_a_small_page(tmp_path):
    run = Run(iterations=5000, tiles_every=0, candidates=False)
    assert len(report(write(tmp_path / "run", run))) < 600_000


def test_pictures_beyond_the_budget_are_left_out_and_counted(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=1))
    sizes = {p.name: p.stat().st_size for p in (folder / "tiles/000000").iterdir()}
    with reading(folder) as store:
        album = Album(store, budget=sum(sizes.values()) // 3)
        text = "".join(album.iteration(0))
    shown = text.count("<img")
    assert 0 < shown < 24
    assert shown + album.left_out == 24


def test_an_old_an_empty_and_a_half_written_run_have_a_page_too(tmp_path):
    assert "Iteration 2" in report(write(tmp_path / "old", Run(iterations=3, version=1)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.sqlite").touch()
    assert "<h1>empty</h1>" in report(tmp_path / "empty")


def test_text_is_escaped_and_elements_are_not():
    assert h("p", "<b>", h("i", '"&'), None, [1, "<"], title='a"b', class_="x") == (
        '<p title="a&quot;b" class="x">&lt;b&gt;<i>&quot;&amp;</i>1&lt;</p>'
    )
    assert h("img", src="x") == '<img src="x">'
    assert h("p", Markup("<b>")) == "<p><b></p>"


def drawn(*lines) -> ET.Element:
    return ET.fromstring(chart("t", lines))


def test_a_gap_is_not_drawn_over():
    figure = drawn(Line("a", [0, 1, 2, 3, 4, 5], [1, 2, None, 4, None, 6]))
    assert [len(p.get("points").split()) for p in figure.iter("polyline")] == [2]
    assert len(list(figure.iter("circle"))) == 2
    assert chart("t", [Line("a", [0, 1], [None, None])]) == ""
    assert chart("t", []) == ""


def test_points_lie_where_their_values_are():
    (line,) = drawn(Line("a", [0, 10, 20], [1.0, 3.0, 2.0])).iter("polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    width = charts.WIDTH - charts.LEFT - charts.RIGHT
    assert [x for x, _ in points] == [charts.LEFT, charts.LEFT + width / 2, charts.LEFT + width]
    heights = [y for _, y in points]
    assert heights[1] < heights[2] < heights[0]  # down the page is less
    assert heights[2] == pytest.approx((heights[0] + heights[1]) / 2, abs=0.1)


def test_a_band_goes_there_above_and_back_below():
    figure = drawn(Line("a", [0, 1, 2], [2, 2, None], [1, 1, None], [3, 3, None]))
    (band,) = figure.iter("polygon")
    (x0, top, *_), (x3, bottom) = (
        [float(v) for v in p.split(",")] for p in (band.get("points").split()[n] for n in (0, -1))
    )
    assert x0 == x3
    assert top < bottom
    assert Scale(10, 20, 100, 0)(12.5) == 75


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0.21, 0.34, [0.25, 0.3]), (-3, 17, [0, 5, 10, 15]), (0, 10_000, [0, 5000, 10_000]),
     (-1e-6, 2e-6, [-1e-6, 0, 1e-6, 2e-6])],
)  # fmt: skip
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected, abs=1e-15)


def test_equal_values_have_room_around_them():
    for low, high in ((3, 3), (0, 0), (-2, -2), (0.3, 0.3 + 1e-16), (1e-12, 1e-12)):
        below, above = padded(low, high)
        assert below < low <= high < above
        assert 2 <= len(ticks(below, above)) <= 6


def export(*words):
    line = [sys.executable, "-m", "trainer", "export", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_the_command_writes_the_page_or_says_in_one_line_why_not(tmp_path):
    folder = write(tmp_path / "run", Run(iterations=2))
    done = export(folder, "-o", tmp_path / "new" / "report.html", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == (tmp_path / "new" / "report.html").stat().st_size
    (folder / "run.sqlite").write_bytes(b"garbage" * 1000)
    for words in ((tmp_path,), (folder,), (tmp_path / "nowhere",)):
        failed = export(*words, "-o", tmp_path / "other.html")
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1
        assert not (tmp_path / "other.html").exists()
