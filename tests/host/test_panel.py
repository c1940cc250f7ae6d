"""The panel in a real ComfyUI: a training is watched and controlled from the side bar, over a reload and a restart."""

import json
import re
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import browser
import desk
import graphs
import pytest
from comfy_server import DIRECT
from patience import GUARD, until
from safetensors import safe_open

from trainer.diagnosis import CHECKS
from trainer.training.checkpoint import load as load_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Page

V1 = "/neighbor_grpo/v1"
WAIT = 1000 * GUARD  # milliseconds
MARKUP = "<img src=x onerror=alert(1)>"
# while the server is gone, the page's own connection and every request of the frontend fail
GONE = re.compile(
    r"ERR_CONNECTION_RE(FUSED|SET)|WebSocket connection|Failed to fetch|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE"
)
SOONNESS = """() => {
    window.ended = {}, window.seen = {}
    app.api.addEventListener("neighbor_grpo", ({ detail }) => {
        if (detail.type === "iteration") window.ended[detail.iteration] ??= performance.now()
    })
    const look = () => {
        const done = parseInt(document.querySelector(".ng-count")?.textContent ?? "")
        if (done > 0) window.seen[done - 1] ??= performance.now()
        setTimeout(look, 10)
    }
    look()
}"""


def train(name: str, iterations: int, **changes) -> dict:
    return graphs.train(name=name, iterations=iterations, steps=2, micro_batch=6, prompts_per_iteration=1, **changes)


def begin(server, name: str, iterations: int = 500, **changes) -> str:
    """A training that has begun."""
    prompt = server.queue(train(name, iterations, **changes))
    until(lambda: done(server, name) > 0)
    return prompt


def done(server, name: str) -> int:
    """Iterations, as the route says."""
    return next((run["iteration"] for run in server.get(f"{V1}/runs")["runs"] if run["id"] == name), 0)


def ask(
    server, method: str, path: str, body: object = None, content_type: str = "application/json"
) -> tuple[int, object]:
    """Status and JSON of a route of the panel."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + V1 + path, data, {"Content-Type": content_type}, method=method)
    try:
        with DIRECT.open(request, timeout=GUARD) as reply:
            text, status = reply.read(), reply.status
    except urllib.error.HTTPError as error:
        text, status = error.read(), error.code
    return status, json.loads(text) if text else None


def open_panel(page: "Page", run: str) -> None:
    page.set_default_timeout(WAIT)
    if not page.locator(".ng-panel").count():
        desk.tab(page, "neighbor-grpo").click()
    page.locator("[data-tab=runs]").click()
    page.get_by_role("button", name=run, exact=True).click()


def shown(page: "Page") -> int:
    """Iterations done, as the panel says."""
    return int(page.locator(".ng-count").inner_text().split("/")[0])


@pytest.fixture(autouse=True)
def idle(server):
    """No test leaves a training behind."""
    yield
    server.post("/interrupt", {})
    until(lambda: not server.get("/queue")["queue_running"])


def test_a_training_is_watched_live_paused_resumed_and_stopped(page, console, server):
    prompt = begin(server, "watched")
    open_panel(page, "watched")
    page.locator(".ng-main-chart canvas").wait_for()
    page.evaluate(SOONNESS)
    page.wait_for_function("Object.keys(seen).filter(n => n in ended).length >= 3")  # a slow page may skip some
    delays = page.evaluate("Object.keys(seen).filter(n => n in ended).map(n => seen[n] - ended[n])")
    print(
        f"an iteration is shown {sorted(delays)[len(delays) // 2]:.0f} ms after its message, at most {max(delays):.0f}"
    )
    page.locator("[data-tab=neighborhood]").click()
    page.locator(".ng-tile[data-candidate] img").first.wait_for()
    page.wait_for_function("document.querySelector('.ng-tile[data-candidate] img').naturalWidth === 64")
    assert page.locator(".ng-tile[data-candidate]").count() == 6

    page.locator("[data-tab=control]").click()
    page.get_by_role("button", name="Pause").click()
    page.locator(".ng-badge", has_text="paused").first.wait_for()
    stood = done(server, "watched")
    time.sleep(2)
    assert done(server, "watched") == stood
    page.get_by_label("Learning rate").fill("0.0005")
    page.get_by_label("Strength").fill("0.5")
    page.get_by_role("button", name="Apply at the next iteration").click()
    page.get_by_role("button", name="Resume").click()
    until(lambda: done(server, "watched") > stood + 1)
    changes = server.get(f"{V1}/runs/watched")["changes"]
    assert [{k: v for k, v in c.items() if k != "iteration"} for c in changes] == [
        {"learning_rate": 0.0005, "strength": 0.5}
    ]
    curve = server.get(f"{V1}/runs/watched/curves?names=learning_rate")["curves"]["learning_rate"]
    assert (curve["mean"][0], curve["mean"][-1]) == pytest.approx((1e-3, 5e-4))

    page.get_by_role("button", name="Stop and save").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop and save").click()
    page.locator(desk.TOAST, has_text="watched").first.wait_for()  # told even to who looks elsewhere
    entry = server.wait(prompt)
    folder = server.base / "output/neighbor_grpo/watched"
    assert entry["outputs"]["5"]["text"] == [f"stopped: {folder}"]
    reached = load_checkpoint(folder / "checkpoint").iteration
    assert reached == done(server, "watched") < 500
    with safe_open(server.base / "models/loras/watched.safetensors", "pt") as file:
        assert file.metadata()["iteration"] == str(reached)
    page.locator(".ng-badge", has_text="stopped").first.wait_for()
    assert console == []


def test_a_reload_in_mid_run_goes_on_without_a_gap(page, console, server):
    begin(server, "reloaded", seed=1)
    open_panel(page, "reloaded")
    page.locator(".ng-main-chart canvas").wait_for()
    before = shown(page)
    page.reload()
    page.wait_for_function(browser.READY)
    if not page.locator(".ng-panel").count():
        desk.tab(page, "neighbor-grpo").click()
    page.locator("h2.ng-title", has_text="reloaded").wait_for()  # it remembers what was looked at
    page.locator("[data-tab=curves]").click()
    page.locator(".ng-main-chart canvas").wait_for()
    page.wait_for_function("n => parseInt(document.querySelector('.ng-count').textContent) > n", arg=before + 2)
    curve = server.get(f"{V1}/runs/reloaded/curves?names=reward/tiny-clip")["curves"]["reward/tiny-clip"]
    assert None not in curve["mean"]
    assert curve["x"] == list(range(len(curve["x"])))
    assert console == []


def test_the_panel_outlives_a_restart_of_the_server_and_the_run_goes_on_later(page, console, server):
    begin(server, "restarted", seed=2, save_every=1)
    open_panel(page, "restarted")
    page.locator(".ng-badge", has_text="running").first.wait_for()
    server.stop()
    page.get_by_text("Connection lost").first.wait_for()
    server.start()
    page.get_by_text("Connection lost").first.wait_for(state="hidden")
    page.locator(".ng-badge", has_text="interrupted").first.wait_for()
    stood = done(server, "restarted")
    prompt = server.queue(train("restarted", stood + 3, seed=2, save_every=1, resume=True))
    page.wait_for_function("n => parseInt(document.querySelector('.ng-count').textContent) === n", arg=stood + 3)
    page.locator(".ng-badge", has_text="complete").first.wait_for()
    server.wait(prompt)
    assert [line for line in console if not GONE.search(line)] == []


def test_markup_in_a_prompt_is_shown_as_text_in_comfyui_too(page, console, server):
    server.wait(server.queue(train("markup", 2, prompts=MARKUP)))
    open_panel(page, "markup")
    page.locator("[data-tab=neighborhood]").click()
    page.locator(".ng-prompt", has_text=MARKUP).first.wait_for()
    assert page.locator("img[onerror], img[src='x']").count() == 0
    assert console == []


@pytest.mark.on_newest_too
def test_commands_open_the_panel_in_the_side_bar_and_in_full_width(page, console, server):
    page.keyboard.press("Alt+Shift+N")
    page.locator(".ng-panel").wait_for()
    page.keyboard.press("Alt+Shift+P")
    page.locator("dialog.ng-full .ng-panel").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog.ng-full").wait_for(state="detached")
    assert console == []


@pytest.mark.on_newest_too
def test_every_tab_can_be_clicked_in_a_side_bar_of_usual_width(page):
    desk.tab(page, "neighbor-grpo").click()
    page.locator(".ng-panel").wait_for()
    reached = page.locator("[role=tab][data-tab]").evaluate_all(
        """tabs => tabs.map(tab => {
            const { left, right, top, bottom } = tab.getBoundingClientRect(), middle = (top + bottom) / 2
            return [left + 4, right - 4].every(x => document.elementFromPoint(x, middle) === tab)
        })"""
    )
    assert reached == [True] * 6


def test_steps_of_a_graph_are_a_run_of_their_own(page, console, server):
    graph = graphs.steps(rank=3)
    graph["7"]["inputs"]["run_name"] = "by-hand"
    for _ in range(2):
        server.wait(server.queue(graph))
    (run,) = [run for run in server.get(f"{V1}/runs")["runs"] if run["id"].startswith("by-hand")]
    assert (run["iteration"], run["trained"]) == (2, ["tiny-clip"])
    open_panel(page, run["title"] or run["id"])
    page.locator("[data-tab=neighborhood]").click()
    page.locator(".ng-tile[data-candidate] img").first.wait_for()
    assert console == []


def test_pictures_of_evaluation_prompts_stand_before_and_after(page, console, server):
    graph = train("evaluated", 3)
    graph["2e"] = graphs.node("PromptSet", policy=["1", 0], text="panda on a pink background", file="")
    graph["5"]["inputs"] |= {"evaluation": ["2e", 0], "evaluate_every": 2}
    server.wait(server.queue(graph))
    assert server.get(f"{V1}/runs/evaluated/groups")["evaluations"] == [0, 2, 3]
    for iteration in (0, 3):
        (picture,) = server.get(f"{V1}/runs/evaluated/evaluations/{iteration}")["pictures"]
        assert picture["prompt"] == "panda on a pink background"
        assert 0 < picture["scores"]["tiny-clip"] < 1
    open_panel(page, "evaluated")
    page.locator("[data-tab=neighborhood]").click()
    pair = page.locator(".ng-evaluation").first
    pair.wait_for()
    assert pair.locator("figcaption").all_inner_texts() == ["after 0", "after 3"]
    assert console == []


@pytest.mark.parametrize(
    ("chosen", "checks"), [("nothing", []), ("stalled", ["stalled"]), ("any problem", list(CHECKS))]
)
def test_a_run_is_told_which_problems_end_it(server, chosen, checks):
    graph = train(f"ends-on-{len(checks)}", 1, seed=len(checks))
    graph["5"]["inputs"]["stop_on"] = chosen
    server.wait(server.queue(graph))
    assert server.get(f"{V1}/runs/ends-on-{len(checks)}")["settings"]["run"]["stop_on"] == checks


def test_a_candidate_becomes_a_node_with_its_whole_seed(page, console, server):
    server.wait(server.queue(train("noise", 2, seed=3)))
    open_panel(page, "noise")
    page.locator("[data-tab=neighborhood]").click()
    page.locator(".ng-tile[data-candidate='2'] button").click()
    page.get_by_role("button", name="Add noise node").click()
    node = page.wait_for_function("app.graph.nodes.find(n => n.type === 'NeighborGRPOCandidateNoise')")
    values = node.evaluate("n => Object.fromEntries(n.widgets.map(w => [w.name, w.value]))")
    (group,) = server.get(f"{V1}/runs/noise/groups/1")["groups"]
    assert values == {"seed": str(group["seed"]), "strength": 0.3, "group_size": 6, "candidate": 2}
    assert console == []


def test_inside_a_subgraph_the_node_is_added_there(page, console, server):
    server.wait(server.queue(train("inside", 1)))
    page.evaluate(
        """() => {
            app.graph.clear()
            const node = LiteGraph.createNode("NeighborGRPOClipReward")
            app.graph.add(node)
            const { subgraph, node: outside } = app.graph.convertToSubgraph(new Set([node]))
            app.canvas.openSubgraph(subgraph, outside)
        }"""
    )
    open_panel(page, "inside")
    page.locator("[data-tab=neighborhood]").click()
    page.locator(".ng-tile[data-candidate='2'] button").click()
    page.get_by_role("button", name="Add noise node").click()
    page.wait_for_function("app.canvas.graph.nodes.some(n => n.type === 'NeighborGRPOCandidateNoise')")
    assert page.evaluate("app.canvas.graph !== app.graph")
    assert page.evaluate("app.graph.nodes.map(n => n.type)") == page.evaluate("[...app.graph.subgraphs.keys()]")
    assert console == []


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2fmodels", "%2e%2e%2fmodels", "/etc", "a%00b", "x" * 300, ".trash"]
)
def test_no_name_leads_out_of_the_runs_folder(server, name):
    status, answer = ask(server, "GET", f"/runs/{name}")
    assert status == 404
    if answer is not None:
        assert set(answer) == {"error"}


def test_nothing_is_changed_without_a_json_body_of_this_page(server):
    server.wait(server.queue(train("kept", 1, seed=4)))
    for method, path, body in (("PATCH", "", {"title": "x"}), ("POST", "/control", {"action": "stop"})):
        assert ask(server, method, f"/runs/kept{path}", body, content_type="text/plain")[0] == 415
    assert ask(server, "GET", "/runs/kept/control")[0] == 405
    assert ask(server, "POST", "/runs/kept/control", {"action": "stop"})[0] == 409
    assert server.get(f"{V1}/runs/kept")["title"] in ("", "kept")
    assert ask(server, "DELETE", "/runs/kept", {})[0] == 204
    assert ask(server, "GET", "/runs/kept")[0] == 404
    assert (server.base / "output/neighbor_grpo/.trash/kept/lora.safetensors").is_file()
