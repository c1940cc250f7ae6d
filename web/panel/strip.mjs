/** The candidates of the iteration under a chart's cursor, as a row of small pictures. */

/** @typedef {import("./panel.mjs").Panel} Panel */

import { fill, h, say } from "./dom.mjs";
import { number } from "./format.mjs";
import { leaning, ordered, signColour } from "./ranking.mjs";
import { nearest } from "./zoom.mjs";

const SETTLED = 60; // milliseconds on one iteration, until its pictures are asked for

/** @param {HTMLElement} parent @param {Panel} panel */
export function strip(parent, panel) {
  const caption = h("p", { class: "ng-quiet" });
  const row = h("div", { class: "ng-strip-row" });
  const element = h(
    "section",
    { class: "ng-strip", "aria-label": "Candidates at the cursor", hidden: true },
    caption,
    row,
  );
  parent.append(element);
  /** @type {number | null} */
  let hovered = null;
  let shown = "";
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;

  /** @param {string} run @param {number} iteration */
  async function load(run, iteration) {
    const { groups } = await panel.groups.get(run, iteration);
    if (`${run} ${iteration}` !== shown) return;
    const group = groups[0];
    element.hidden = !group?.candidates.some((c) => c.tile);
    if (element.hidden) return;
    say(caption, `Iteration ${iteration}, best first: ${group.prompt}`);
    fill(
      row,
      ...ordered(group.candidates, "advantage").map((c) =>
        h(
          "button",
          {
            type: "button",
            class: "ng-thumb",
            style: `border-color: ${signColour(leaning(c.advantage, group.candidates))}`,
            "aria-label": `Candidate ${c.candidate} of iteration ${iteration}, advantage ${number(c.advantage, 3)}`,
            onclick: () => panel.choose(iteration, "neighborhood"),
          },
          h("img", {
            src: panel.tile(run, iteration, group.slot, c.candidate),
            alt: "",
            loading: "lazy",
            decoding: "async",
          }),
        ),
      ),
    );
  }

  function draw() {
    const run = panel.store.state.open;
    const tiles = panel.index()?.tiles ?? [];
    const wanted = hovered === null ? panel.iteration() : nearest(tiles, hovered);
    const key = `${run} ${wanted}`;
    if (key === shown) return;
    shown = key;
    clearTimeout(timer);
    if (run === null || wanted === null) element.hidden = true;
    else timer = setTimeout(() => void load(run, wanted).catch((problem) => panel.store.failed(problem)), SETTLED);
  }

  return {
    draw,
    /** @param {number | null} iteration */
    show(iteration) {
      hovered = iteration;
      draw();
    },
    destroy() {
      clearTimeout(timer);
      element.remove();
    },
  };
}
