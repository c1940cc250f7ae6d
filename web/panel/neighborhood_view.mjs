/**
 * What the policy chooses between: the candidates of an iteration, and pictures of the same prompts before and after.
 *
 */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Group} Group
 */

import { button, fill, h, say, select } from "./dom.mjs";
import { evaluations } from "./evaluations.mjs";
import { lightbox } from "./lightbox.mjs";
import { scrubber } from "./scrubber.mjs";
import { rewardNames, tileGrid } from "./tiles.mjs";

const GONE = "The pictures of this iteration are no longer kept (run.keep_tiles).";

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store, memory } = panel;
  const element = h("div", { class: "ng-neighborhood" });
  parent.append(element);
  const path = scrubber(element, panel);
  const order = select("Order", (value) => {
    memory.order = value;
    render();
  });
  const slot = select("Prompt", (value) => {
    memory.slot = value === "all" ? "all" : Number(value);
    render();
  });
  const bar = h("div", { class: "ng-bar" }, slot.element, order.element);
  const empty = h("p", { class: "ng-empty" });
  const body = h("div", { class: "ng-groups" });
  element.append(bar, empty, body);
  const fixed = evaluations(element, panel);

  let shown = "";
  /** @type {{ run: string, iteration: number, groups: Group[] } | null} */
  let current = null;

  function draw() {
    path.draw();
    fixed.draw();
    const run = store.state.open;
    const iteration = panel.iteration();
    if (iteration === null)
      nothing(
        run === null ? "Open a run to see its candidates." : "No iteration is done yet. Its candidates appear here.",
      );
    if (iteration === null) shown = "";
    const key = `${run} ${iteration} ${run !== null && run in store.state.details}`;
    if (run === null || iteration === null || key === shown) return;
    shown = key;
    void load(run, iteration, key);
  }

  /** @param {string} run @param {number} iteration @param {string} key */
  async function load(run, iteration, key) {
    try {
      const groups = await panel.groups.stored(run, iteration);
      if (key !== shown) return; // somebody scrubbed on
      if (!groups) return nothing(`Nothing is stored of iteration ${iteration}.`);
      current = { run, iteration, groups };
      render();
    } catch (problem) {
      if (key !== shown) return;
      shown = "";
      store.failed(problem);
    }
  }

  /** @param {string} why */
  function nothing(why) {
    say(empty, why);
    empty.hidden = false;
    bar.hidden = body.hidden = true;
  }

  function render() {
    if (!current) return;
    empty.hidden = true;
    bar.hidden = body.hidden = false;
    const { run, iteration, groups } = current;
    if (memory.slot !== "all" && !groups.some((g) => g.slot === memory.slot)) memory.slot = groups[0]?.slot ?? 0;
    const rewards = groups[0] ? rewardNames(groups[0]) : [];
    if (!["advantage", "index", ...rewards].includes(memory.order)) memory.order = "advantage";
    order.show(
      [
        ["advantage", "by advantage"],
        ["index", "by index"],
        ...rewards.map((r) => /** @type {[string, string]} */ ([r, `by ${r}`])),
      ],
      memory.order,
    );
    const prompts = groups.map((g) => /** @type {[string, string]} */ ([String(g.slot), g.prompt]));
    slot.show(groups.length > 1 ? [...prompts, ["all", `all ${groups.length} prompts`]] : prompts, String(memory.slot));
    const wanted = groups.filter((g) => memory.slot === "all" || g.slot === memory.slot);
    const focused = body.contains(document.activeElement)
      ? document.activeElement?.closest("li")?.dataset.candidate
      : undefined;
    fill(body, ...wanted.map((group) => section(run, iteration, group)));
    const again = /** @type {HTMLElement | null} */ (
      focused && body.querySelector(`li[data-candidate="${focused}"] button`)
    );
    if (again) again.focus();
  }

  /** @param {string} run @param {number} iteration @param {Group} group */
  function section(run, iteration, group) {
    const open = (/** @type {number} */ candidate) =>
      void lightbox(panel, { run, iteration, group }, memory.order, candidate);
    const title = h("h3", { class: "ng-prompt" }, group.prompt);
    const heading = h(
      "div",
      { class: "ng-group-head" },
      title,
      button("Distances", () => panel.goTo("distances"), { title: "How far these candidates lie apart" }),
    );
    const gone = group.gone && h("p", { class: "ng-quiet ng-gone" }, GONE);
    const tiles = tileGrid(panel, { run, iteration, group }, memory.order, open);
    return h("section", { class: "ng-group" }, heading, gone, tiles);
  }

  const end = store.watch(draw);
  return () => {
    end();
    element.remove();
  };
}
