/** The candidates of the iteration under a chart's cursor, as a row of small pictures. */

/** @typedef {import("./panel.mjs").Panel} Panel */

import { fill, h, say } from "./dom.mjs";
import { number } from "./format.mjs";
import { leaning, ordered, signColour } from "./ranking.mjs";
import { nearest } from "./zoom.mjs";

const SETTLED = 60; // milliseconds on one iteration, until its pictures are asked for
const PACE = 5000; // milliseconds between two iterations, while the newest is followed

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
  let due = 0; // when the newest iteration may be shown
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  /** @type {ReturnType<typeof setTimeout>} */
  let later;

  /** @param {string} run @param {number} iteration */
  async function load(run, iteration) {
    const {
      groups: [group],
    } = await panel.groups.get(run, iteration);
    if (`${run} ${iteration}` !== shown) return;
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
          c.tile &&
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

  function clear() {
    due = 0;
    say(caption, "");
    fill(row);
  }

  /** Its room is kept while it waits for pictures: a chart that grew narrower would move under a person's hand. */
  function draw() {
    const { open: run, iteration } = panel.store.state;
    const tiles = panel.index()?.tiles;
    element.hidden = run === null || tiles?.length === 0;
    const looked = hovered === null ? panel.iteration() : nearest(tiles ?? [], hovered);
    const wanted = element.hidden ? null : looked;
    const key = `${run} ${wanted}`;
    if (key === shown) return;
    const following = hovered === null && iteration === null && shown.startsWith(`${run} `);
    clearTimeout(later);
    if (following && Date.now() < due) {
      later = setTimeout(draw, due - Date.now());
      return;
    }
    shown = key;
    clearTimeout(timer);
    if (run === null || wanted === null) return clear();
    due = Date.now() + PACE;
    timer = setTimeout(() => void load(run, wanted).catch((problem) => panel.store.failed(problem)), SETTLED);
  }

  return {
    draw,
    /** @param {number | null} iteration */
    show(iteration) {
      hovered = iteration;
      due = 0;
      draw();
    },
    destroy() {
      clearTimeout(timer);
      clearTimeout(later);
      element.remove();
    },
  };
}
