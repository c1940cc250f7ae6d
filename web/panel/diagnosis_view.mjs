/** What the checks found in the open run, and how strong its LoRA is best. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Finding} Finding
 */

import { button, fill, h, say } from "./dom.mjs";
import { strengthTable } from "./strengths.mjs";
import { ask, ofRun } from "./transport.mjs";

const PAUSE = 5000; // milliseconds between two questions

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store } = panel;
  const summary = h("p", { class: "ng-empty", role: "status" });
  const list = h("div", { class: "ng-findings" });
  const strengths = h("div", { class: "ng-strength" });
  const element = h("div", { class: "ng-diagnosis" }, summary, list, h("h3", {}, "LoRA strength"), strengths);
  parent.append(element);
  let asked = "";
  let shown = "";
  let measured = "";

  function draw() {
    const run = panel.run();
    if (!run) {
      say(summary, "Open a run to have it checked.");
      return fill(list);
    }
    const known = store.state.details[run.id]?.strengths ?? null;
    if (measured !== JSON.stringify(known)) {
      measured = JSON.stringify(known);
      fill(strengths, ...strengthTable(known));
    }
    const key = `${run.id} ${run.iteration} ${run.state}`;
    if (key === asked) return;
    if (!asked.startsWith(`${run.id} `)) {
      say(summary, "Checking …");
      fill(list);
      shown = "";
    }
    asked = key;
    store.soon(`diagnosis ${run.id}`, () => load(run.id), PAUSE);
  }

  /** @param {string} run */
  async function load(run) {
    /** @type {{ findings: Finding[] }} */
    const { findings } = await ask(store.transport, ofRun(run, "/diagnosis"));
    const now = panel.run();
    if (now?.id !== run) return;
    say(
      summary,
      findings.length
        ? `${findings.length} ${findings.length === 1 ? "finding" : "findings"} in ${now.iteration} iterations`
        : healthy(now.iteration),
    );
    summary.classList.toggle("ng-healthy", !findings.length);
    const key = JSON.stringify(findings);
    if (key === shown) return;
    shown = key;
    const worstFirst = [...findings].sort((a, b) => a.severity.localeCompare(b.severity)); // "problem" before "warning"
    fill(list, ...worstFirst.map((f) => card(panel, f)));
  }

  const end = store.watch(draw);
  return () => {
    end();
    element.remove();
  };
}

/** @param {number} iterations */
function healthy(iterations) {
  return iterations ? `No sign of trouble in ${iterations} iterations.` : "No iteration is done yet.";
}

/** @param {Panel} panel @param {Finding} finding */
function card(panel, { check, severity, evidence, advice, since }) {
  const name = check.replace(/[-_]/g, " ");
  return h(
    "article",
    { class: `ng-finding ng-${severity}` },
    h("header", {}, h("h3", {}, name), h("span", { class: "ng-badge" }, severity)),
    h("p", {}, evidence),
    h("p", { class: "ng-advice" }, h("b", {}, "What to do: "), advice),
    h(
      "p",
      {},
      button(`Since iteration ${since}`, () => panel.choose(since, "neighborhood"), {
        title: "Look at its candidates",
      }),
    ),
  );
}
