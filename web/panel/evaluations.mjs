/** Pictures of fixed prompts and seeds: before the training, and now. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").EvaluationPicture} Picture
 */

import { fill, h, say, select } from "./dom.mjs";
import { number, signed } from "./format.mjs";
import { enlarge } from "./lightbox.mjs";
import { ofRun } from "./transport.mjs";

/** @param {HTMLElement} parent @param {Panel} panel */
export function evaluations(parent, panel) {
  const title = h("h3", {}, "Before and after");
  /** @type {number | null} */
  let wanted = null; // null: the newest
  const choice = select("Evaluation", (value) => {
    wanted = Number(value);
    draw();
  });
  const list = h("div", { class: "ng-evaluations" });
  const element = h(
    "section",
    { class: "ng-fixed", hidden: true },
    h("div", { class: "ng-group-head" }, title, choice.element),
    list,
  );
  parent.append(element);
  let shown = "";

  function draw() {
    const run = panel.store.state.open;
    const all = panel.index()?.evaluations ?? [];
    element.hidden = run === null || !all.length;
    if (run === null || !all.length) return;
    if (wanted === null || !all.includes(wanted)) wanted = null;
    const after = wanted ?? all[all.length - 1];
    choice.show(
      all.map((i) => [String(i), i ? `after ${i} iterations` : "before training"]),
      String(after),
    );
    const key = `${run} ${all[0]} ${after}`;
    if (key === shown) return;
    shown = key;
    void load(run, all[0], after, key).catch((problem) => {
      shown = "";
      panel.store.failed(problem);
    });
  }

  /** @param {string} run @param {number} before @param {number} after @param {string} key */
  async function load(run, before, after, key) {
    const [first, last] = await Promise.all([
      panel.groups.evaluation(run, before),
      panel.groups.evaluation(run, after),
    ]);
    if (key !== shown) return;
    fill(
      list,
      ...last.pictures.map((now) =>
        pair(
          run,
          before,
          after,
          first.pictures.find((p) => p.number === now.number),
          now,
        ),
      ),
    );
  }

  /**
   * @param {string} run
   * @param {number} before
   * @param {number} after
   * @param {Picture | undefined} then
   * @param {Picture} now
   */
  function pair(run, before, after, then, now) {
    /** @param {number} iteration */
    const source = (iteration) => panel.store.transport.url(ofRun(run, `/evaluations/${iteration}/${now.number}/tile`));
    const names = Object.keys(now.scores);
    const words = names.map((n) => change(n, then?.scores[n], now.scores[n])).join(" · ");
    const sources = then && before !== after ? [source(before), source(after)] : [source(after)];
    const open = () =>
      enlarge(
        panel,
        sources.length > 1 ? `Before | after ${after} iterations` : `After ${after} iterations`,
        now.prompt,
        sources,
        words,
      );
    /** @param {string} src @param {string} name */
    const picture = (src, name) =>
      h(
        "figure",
        {},
        h("img", { src, alt: `${name}: ${now.prompt}`, loading: "lazy", decoding: "async" }),
        h("figcaption", {}, name),
      );
    const pictures = sources.map((src, i) =>
      picture(src, i < sources.length - 1 ? `after ${before}` : `after ${after}`),
    );
    const press = h(
      "button",
      { type: "button", class: "ng-picture ng-pair-button", "aria-label": `Enlarge: ${now.prompt}`, onclick: open },
      ...pictures,
    );
    const score = h("p", { class: "ng-quiet" });
    say(score, words);
    return h("article", { class: "ng-evaluation" }, press, h("p", { class: "ng-prompt" }, now.prompt), score);
  }

  return { draw };
}

/** @param {string} name @param {number | null | undefined} then @param {number | null | undefined} now */
function change(name, then, now) {
  const known = typeof then === "number" && typeof now === "number" && then !== now;
  return `${name} ${number(now)}${known ? ` (${signed(now - then)})` : ""}`;
}
