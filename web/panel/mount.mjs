/** The whole panel: heading, tabs, and one view at a time. */

/**
 * @typedef {import("./store.mjs").Store} Store
 * @typedef {import("./panel.mjs").Host} Host
 * @typedef {(parent: HTMLElement, panel: Panel) => () => void} Mount
 */

import * as control from "./control_view.mjs";
import * as curves from "./curves_view.mjs";
import * as diagnosis from "./diagnosis_view.mjs";
import * as distances from "./distances_view.mjs";
import { button, fill, h, say } from "./dom.mjs";
import { duration, runName, stateOf } from "./format.mjs";
import * as neighborhood from "./neighborhood_view.mjs";
import { Panel, shortly } from "./panel.mjs";
import * as runs from "./runs_view.mjs";

/** @type {[string, string, Mount][]} */
const TABS = [
  ["runs", "Runs", runs.mount],
  ["curves", "Curves", curves.mount],
  ["neighborhood", "Neighborhood", neighborhood.mount],
  ["distances", "Distances", distances.mount],
  ["control", "Control", control.mount],
  ["diagnosis", "Diagnosis", diagnosis.mount],
];
let count = 0;

/**
 * Show the panel in `parent`. The store outlives it.
 *
 * @param {HTMLElement} parent
 * @param {Store} store
 * @param {Host} host
 * @returns {() => void} how to take it away
 */
export function mount(parent, store, host) {
  const prefix = `ng-${++count}`;
  const root = h("div", { class: "ng-root ng-panel" });
  parent.append(root);
  const panel = new Panel(root, store, host);
  const heading = h("div", { class: "ng-heading" });
  const offline = h("p", { class: "ng-offline", role: "alert", hidden: true });
  const message = h("p", { class: "ng-message", role: "status", hidden: true });
  const list = h("div", { class: "ng-tabs", role: "tablist", "aria-label": "Neighbor GRPO" });
  const body = h("div", { class: "ng-body", role: "tabpanel", tabindex: 0, id: `${prefix}-body` });
  root.append(heading, offline, list, body, message);
  panel.message = shortly(root, message);
  root.addEventListener("keydown", (event) => {
    if (event.target instanceof Element && event.target.matches("input, select")) event.stopPropagation(); // no keys for the graph
  });

  const tabs = TABS.map(([id, name]) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        class: "ng-tab",
        id: `${prefix}-${id}`,
        "data-tab": id,
        "aria-controls": body.id,
        onclick: () => show(id),
      },
      name,
    ),
  );
  fill(list, ...tabs);
  list.addEventListener("keydown", (event) => {
    const at = TABS.findIndex(([id]) => id === panel.memory.tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (to + TABS.length) % TABS.length;
    show(TABS[next][0]);
    tabs[next].focus();
  });

  let current = "";
  let end = () => {};

  /** @param {string} wanted */
  function show(wanted) {
    const tab = TABS.find(([id]) => id === wanted) ?? TABS[0];
    if (tab[0] === current) return;
    end();
    current = panel.memory.tab = tab[0];
    for (const button of tabs) {
      const chosen = button.dataset.tab === current;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      if (chosen) button.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    }
    body.setAttribute("aria-labelledby", `${prefix}-${current}`);
    body.scrollTop = 0;
    end = tab[2](body, panel);
  }
  panel.goTo = show;

  const parts = headingParts(panel);
  fill(heading, ...parts.nodes);
  const unwatch = store.watch(() => {
    parts.draw();
    const { connection } = store.state;
    const lost = connection === "lost" ? "Connection lost. What you see may be old; trying again …" : store.failure;
    say(offline, lost);
    offline.hidden = !lost;
  });
  show(store.state.open === null ? "runs" : panel.memory.tab);

  return () => {
    end();
    unwatch();
    panel.destroy();
    root.remove();
  };
}

/** The open run's name, state and progress. @param {Panel} panel */
function headingParts(panel) {
  const name = h("h2", { class: "ng-title" });
  const badge = h("span", { class: "ng-badge" });
  const progress = h("progress", { class: "ng-progress", max: 1, value: 0, "aria-label": "Iterations done" });
  const count = h("span", { class: "ng-quiet ng-count" });
  const { enlarge } = panel.host;
  const large =
    enlarge && button("⤢", enlarge, { class: "ng-button ng-enlarge", title: "Full width", "aria-label": "Full width" });
  const nodes = [
    h("div", { class: "ng-heading-row" }, name, badge, large),
    h("div", { class: "ng-heading-row" }, progress, count),
  ];

  function draw() {
    const run = panel.run();
    nodes[1].hidden = badge.hidden = !run;
    say(name, run ? runName(run) : "Neighbor GRPO");
    if (!run) return;
    const { kind, word, reason } = stateOf(run.state);
    badge.className = `ng-badge ng-${kind}`;
    badge.title = reason;
    say(badge, reason && kind !== "good" ? `${word}: ${reason}` : word);
    progress.value = run.iterations ? run.iteration / run.iterations : 0;
    say(
      count,
      `${run.iteration.toLocaleString("en-US")} / ${run.iterations.toLocaleString("en-US")}${remaining(panel, run)}`,
    );
  }
  return { nodes, draw };
}

/** The time that is left, by the last iterations. @param {Panel} panel @param {import("./types.mjs").Run} run */
function remaining(panel, run) {
  const left = run.iterations - run.iteration;
  if (!run.live || stateOf(run.state).word !== "running" || left <= 0) return "";
  const stored = panel.store.state.curves[run.id]?.curves.seconds?.mean ?? [];
  const heard = (panel.store.state.tails[run.id]?.entries ?? []).map((e) => e.metrics.seconds ?? null);
  const last = [...stored, ...heard].filter((s) => s !== null).slice(-20);
  if (!last.length) return "";
  return `, about ${duration((left * last.reduce((a, b) => a + b, 0)) / last.length)} left`;
}
