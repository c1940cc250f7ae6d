/** The list of runs, and what can be done with one. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Run} Run
 */

import { button, copy, fill, h, say, set } from "./dom.mjs";
import { ago, duration, modelName, moment, runName, stateOf } from "./format.mjs";
import { confirm, offerNode } from "./dialogs.mjs";
import { continuing } from "./nodes.mjs";
import { COLOURS } from "./lines.mjs";
import { runOf } from "./state.mjs";
import { PAGE } from "./store.mjs";
import { ask, ofRun } from "./transport.mjs";

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store } = panel;
  const empty = h("p", { class: "ng-empty" });
  const list = h("ul", { class: "ng-runs", "aria-label": "Runs" });
  const rest = button("Show more", () => {
    store.page += PAGE;
    void panel.attempt(() => store.fetchRuns());
  });
  const element = h("div", { class: "ng-runs-view" }, empty, list, rest);
  parent.append(element);
  /** @type {Map<string, ReturnType<typeof row>>} */
  const rows = new Map();

  function draw() {
    const { state } = store;
    const runs = state.runs ?? [];
    say(
      empty,
      state.runs ? "No runs yet. Queue a Neighbor GRPO Train node, or start one by the command line." : "Loading …",
    );
    empty.hidden = runs.length > 0;
    rest.hidden = runs.length >= state.total;
    say(rest, `Show more (${state.total - runs.length} older runs)`);
    for (const [id, { element }] of rows) {
      if (runs.some((run) => run.id === id)) continue;
      element.remove();
      rows.delete(id);
    }
    runs.forEach(({ id }, i) => {
      const run = runOf(state, id);
      if (!run) return;
      const known = rows.get(id) ?? row(panel, id);
      rows.set(id, known);
      if (list.children[i] !== known.element) list.insertBefore(known.element, list.children[i] ?? null);
      known.show(run);
    });
  }

  const end = store.watch(draw);
  return () => {
    end();
    element.remove();
  };
}

/** One run. Its element stays the same, so that what has the focus keeps it. @param {Panel} panel @param {string} id */
function row(panel, id) {
  const { store } = panel;
  /** @type {Run} */
  let run;
  const name = button("", () => open(panel, id), { class: "ng-run-name" });
  const badge = h("span", { class: "ng-badge" });
  const facts = h("p", { class: "ng-run-facts" });
  const bar = h("progress", { class: "ng-progress", max: 1, value: 0, "aria-label": "Iterations done" });
  const compare = h("input", { type: "checkbox" });
  compare.addEventListener("change", () => store.dispatch({ type: "compare", run: id, on: compare.checked }));
  const swatch = h("i", { class: "ng-key" });
  const title = h("div", { class: "ng-run-title" }, name);
  const download = (/** @type {string} */ kind) =>
    h(
      "a",
      { class: "ng-button", href: store.transport.url(ofRun(id, `/export.${kind}`)), download: `${id}.${kind}` },
      kind.toUpperCase(),
    );
  const trash = button("Delete …", () => remove(panel, run), { class: "ng-button ng-danger" });
  const actions = h(
    "div",
    { class: "ng-buttons" },
    button("Continue …", () => goOn(panel, run)),
    button("Rename", () => rename(panel, run, title, name)),
    button("Copy path", () => void panel.attempt(() => copy(run.path), `Copied: ${run.path}`)),
    download("csv"),
    download("json"),
    trash,
  );
  const more = h("details", { class: "ng-more" }, h("summary", {}, "More"), actions);
  const pick = h(
    "label",
    { class: "ng-check", title: "Draw this run beside the open one" },
    compare,
    swatch,
    "compare",
  );
  const head = h("div", { class: "ng-run-head" }, title, badge);
  const element = h("li", { class: "ng-run" }, head, bar, facts, h("div", { class: "ng-run-foot" }, pick, more));

  /** @param {Run} next */
  function show(next) {
    run = next;
    const { state } = store;
    const isOpen = state.open === id;
    say(name, runName(run));
    set(name, "aria-current", isOpen && "true");
    element.classList.toggle("ng-open", isOpen);
    badgeOf(badge, run);
    bar.value = run.iterations ? run.iteration / run.iterations : 0;
    const length = run.started && run.updated ? `, ${duration(run.updated - run.started)}` : "";
    const rewards = [...run.trained, ...run.held_out.map((r) => `${r} (held out)`)].join(", ");
    fill(
      facts,
      fact(`${run.iteration.toLocaleString("en-US")} of ${run.iterations.toLocaleString("en-US")} iterations${length}`),
      fact(modelName(run.model), run.model),
      fact(rewards, "rewards"),
      fact(ago(run.started, Date.now() / 1000), moment(run.started)),
    );
    const at = isOpen ? 0 : 1 + state.compared.indexOf(id);
    compare.checked = isOpen || at > 0;
    compare.disabled = isOpen || state.open === null;
    swatch.hidden = !compare.checked || !state.compared.length;
    swatch.style.setProperty("--ng-key", `var(--ng-c${at % COLOURS})`);
    trash.disabled = run.live;
    trash.title = run.live ? "The run is being worked on: stop it first." : "Move the folder to the trash";
  }
  return { element, show };
}

/** @param {string} text @param {string} [title] */
function fact(text, title) {
  return text ? h("span", { title }, text) : null;
}

/** @param {HTMLElement} element @param {Run} run */
function badgeOf(element, run) {
  const { kind, word, reason } = stateOf(run.state);
  element.className = `ng-badge ng-${kind}`;
  element.title = reason;
  say(element, word);
}

/** @param {Panel} panel @param {string} id */
function open(panel, id) {
  panel.store.dispatch({ type: "open", run: id });
  panel.goTo("curves");
}

/**
 * Turn the name into a field, until Enter, Escape or the loss of focus.
 *
 * @param {Panel} panel
 * @param {Run} run
 * @param {HTMLElement} box
 * @param {HTMLElement} name
 */
function rename(panel, run, box, name) {
  const field = h("input", { class: "ng-input", value: runName(run), maxlength: 200, "aria-label": "Name of the run" });
  let done = false;
  /** @param {boolean} keep */
  async function finish(keep) {
    if (done) return;
    done = true;
    box.replaceChildren(name);
    name.focus();
    const title = field.value.trim();
    if (!keep || title === runName(run)) return;
    const body = { title: title === run.id ? "" : title };
    await panel.attempt(() => ask(panel.store.transport, ofRun(run.id), { method: "PATCH", body }));
    await panel.attempt(() => panel.store.fetchRuns());
  }
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault(); // the key would press the button that gets the focus
    void finish(event.key === "Enter");
  });
  field.addEventListener("blur", () => void finish(true));
  box.replaceChildren(field);
  field.select();
  field.focus();
}

/** @param {Panel} panel @param {Run} run */
function remove(panel, run) {
  const text = `“${runName(run)}” and its pictures, checkpoint and LoRA move to the folder .trash beside it.`;
  confirm(panel, { title: "Delete this run?", text, yes: "Delete" }, async () => {
    await ask(panel.store.transport, ofRun(run.id), { method: "DELETE" });
    panel.store.dispatch({ type: "removed", run: run.id });
    panel.toast(`“${runName(run)}” is in the trash.`);
  });
}

/** @param {Panel} panel @param {Run} run */
function goOn(panel, run) {
  const text =
    "A Train node with this name and ‘resume’ on goes on where the run ended. Connect it to the same policy, prompts, " +
    "neighborhood and reward as before, then queue it.";
  offerNode(panel, `Continue “${runName(run)}”`, text, continuing(run));
}
