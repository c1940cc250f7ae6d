/** Rewards on a large chart, everything else on small ones below; all share their window and their cursor. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Curves} Curves
 * @typedef {import("./zoom.mjs").Range} Range
 */

import { chart } from "./chart.mjs";
import { button, fill, h, say, set } from "./dom.mjs";
import { drawnRuns, inWords, rewardLines, saysNothing, SMALL, smallLines } from "./lines.mjs";
import { weightAt } from "./smoothing.mjs";
import { POINTS } from "./store.mjs";
import { strip } from "./strip.mjs";
import { ask, ofRun } from "./transport.mjs";

const SETTLED = 200; // milliseconds without a change, until a window is asked for in detail
let count = 0;

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store } = panel;
  const sync = `neighbor-grpo-${++count}`;
  /** @type {Range | null} */
  let range = null;
  /** @type {Record<string, Curves>} */
  let fine = {};
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  /** @type {Map<string, { box: HTMLElement, plot: ReturnType<typeof chart> }>} */
  const small = new Map();

  const slider = h("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value: panel.memory.smoothing,
    "aria-label": "Smoothing",
  });
  slider.addEventListener("input", () => {
    panel.memory.smoothing = Number(slider.value);
    draw();
  });
  const together = h("input", { type: "checkbox" });
  together.addEventListener("change", draw);
  const shared = h("label", { class: "ng-check" }, together, "one axis");
  const whole = button("Show all", () => zoom(null), { title: "Double click in a chart, or the key 0" });
  const bar = h("div", { class: "ng-bar" }, h("label", { class: "ng-slide" }, "Smoothing", slider), shared, whole);
  const empty = h("p", { class: "ng-empty" });
  const box = h("div", { class: "ng-main-chart" });
  const grid = h("div", { class: "ng-small-charts" });
  const element = h("div", { class: "ng-curves" }, bar, empty, box);
  parent.append(element);

  const shared_ = { sync, zoom, choose: (/** @type {number} */ i) => panel.choose(i), step: panel.step };
  const rewards = chart(box, { ...shared_, label: "Rewards", height: panel.wide ? 320 : 220, wheel: true, hover });
  const tiles = strip(element, panel);
  element.append(grid);

  /** @param {number | null} iteration */
  function hover(iteration) {
    tiles.show(iteration);
  }

  /** @param {Range | null} next */
  function zoom(next) {
    range = next;
    panel.memory.zoom = range && { run: store.state.open, range };
    for (const plot of [rewards, ...[...small.values()].map((s) => s.plot)]) plot.zoom(range);
    whole.disabled = !range;
    clearTimeout(timer);
    timer = setTimeout(() => void detail().catch((problem) => store.failed(problem)), SETTLED);
  }

  /** Fetch the window zoomed to, if the stored curve is coarse. */
  async function detail() {
    const wanted = range;
    if (!wanted) {
      fine = {};
      return draw();
    }
    const answers = await Promise.all(
      store.shown().flatMap((id) => {
        const step = Object.values(store.state.curves[id]?.curves ?? {})[0]?.step ?? 1;
        if (step === 1) return [];
        const from = Math.max(Math.floor(wanted[0] / step) * step, 0); // whole buckets
        const to = Math.ceil((wanted[1] + 1) / step) * step - 1;
        const path = `/curves?points=${POINTS}&from=${from}&to=${to}`;
        return [ask(store.transport, ofRun(id, path)).then(({ curves }) => [id, curves])];
      }),
    );
    if (range !== wanted) return;
    fine = Object.fromEntries(answers);
    draw();
  }

  function draw() {
    const { state } = store;
    const runs = drawnRuns(state, fine);
    const lines = rewardLines(runs, together.checked);
    const length = Math.max(0, ...lines.map((l) => l.curve.x.length));
    const weight = weightAt(Number(slider.value), length);
    say(empty, why(runs.length > 0, lines.length > 0, state.open !== null && state.open in state.curves));
    empty.hidden = lines.length > 0;
    for (const part of [bar, box, grid]) part.hidden = !lines.length;
    shared.hidden = new Set(lines.map((l) => l.scale)).size < 2 && !together.checked;
    if (lines.length) rewards.show(lines, weight);
    set(rewards.element, "aria-description", inWords(lines));
    whole.disabled = !range;
    const iteration = panel.iteration();
    rewards.mark(iteration);
    for (const kind of SMALL) drawSmall(kind, runs, weight, iteration);
    tiles.draw();
  }

  /**
   * @param {(typeof SMALL)[number]} kind
   * @param {import("./lines.mjs").Drawn[]} runs
   * @param {number} weight
   * @param {number | null} iteration
   */
  function drawSmall(kind, runs, weight, iteration) {
    const lines = smallLines(kind, runs);
    let made = small.get(kind.title);
    if (!lines.length || saysNothing(kind, lines)) {
      if (made) made.box.hidden = true;
      return;
    }
    if (!made) {
      const holder = h("section", { class: "ng-small", "data-chart": kind.title }, h("h3", {}, kind.title));
      grid.append(holder);
      for (const { title } of SMALL) {
        const other = title === kind.title ? holder : small.get(title)?.box;
        if (other) grid.append(other); // in the order of the list, whichever came first
      }
      const plot = chart(holder, { ...shared_, label: kind.title, height: 110, format: kind.format });
      made = { box: holder, plot };
      small.set(kind.title, made);
      plot.zoom(range);
    }
    made.box.hidden = false;
    made.plot.show(lines, weight);
    made.plot.mark(iteration);
  }

  const before = panel.memory.zoom;
  if (before && before.run === store.state.open) zoom(before.range);
  const end = [
    store.watch(draw),
    panel.onTheme(() => {
      rewards.redraw();
      for (const { plot } of small.values()) plot.redraw();
    }),
  ];
  return () => {
    clearTimeout(timer);
    for (const stop of end) stop();
    rewards.destroy();
    tiles.destroy();
    for (const { plot } of small.values()) plot.destroy();
    fill(element);
    element.remove();
  };
}

/** Why there is no chart. @param {boolean} runs @param {boolean} lines @param {boolean} answered */
function why(runs, lines, answered) {
  if (lines) return "";
  if (!runs) return "Open a run to see its curves.";
  return answered ? "No iteration is done yet. Curves appear with the first one." : "Loading …";
}
