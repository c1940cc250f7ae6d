/** The way through a run's iterations that have pictures: a slider, steps, and a number to type. */

/** @typedef {import("./panel.mjs").Panel} Panel */

import { button, h, say, set } from "./dom.mjs";
import { number } from "./format.mjs";
import { nearest } from "./zoom.mjs";

/** @param {HTMLElement} parent @param {Panel} panel */
export function scrubber(parent, panel) {
  const slider = h("input", { type: "range", min: 0, step: 1, class: "ng-scrub", "aria-label": "Iteration" });
  const typed = h("input", { type: "number", class: "ng-input ng-iteration", min: 0, "aria-label": "Iteration" });
  const follow = h("input", { type: "checkbox" });
  const back = button("◀", () => panel.step(-1), { "aria-label": "Previous iteration with pictures" });
  const on = button("▶", () => panel.step(1), { "aria-label": "Next iteration with pictures" });
  const note = h("span", { class: "ng-quiet" });
  const newest = h(
    "label",
    { class: "ng-check", title: "Show each new iteration as soon as it is done" },
    follow,
    "newest",
  );
  const element = h("div", { class: "ng-scrubber" }, back, slider, on, typed, newest, note);
  parent.append(element);

  slider.addEventListener("input", () => {
    const tiles = panel.index()?.tiles ?? [];
    panel.store.dispatch({ type: "choose", iteration: tiles[Number(slider.value)] ?? null });
  });
  typed.addEventListener("keydown", (event) => event.stopPropagation());
  typed.addEventListener("change", () => {
    const wanted = Number(typed.value);
    const index = panel.index();
    if (!index || index.first === null || index.last === null || !Number.isInteger(wanted)) return;
    const iteration = Math.min(Math.max(wanted, index.first), index.last); // one without pictures has scores all the same
    panel.store.dispatch({ type: "choose", iteration });
  });
  follow.addEventListener("change", () => {
    panel.store.dispatch({ type: "choose", iteration: follow.checked ? null : panel.iteration() });
  });

  return {
    draw() {
      const { tiles = [], gone = 0 } = panel.index() ?? {};
      const iteration = panel.iteration();
      element.hidden = iteration === null;
      if (iteration === null) return;
      const at = tiles.indexOf(nearest(tiles, iteration) ?? -1);
      slider.max = String(Math.max(tiles.length - 1, 0));
      slider.value = String(at);
      slider.disabled = tiles.length < 2;
      set(slider, "aria-valuetext", `iteration ${iteration}`);
      if (document.activeElement !== typed) typed.value = String(iteration);
      follow.checked = panel.store.state.iteration === null;
      back.disabled = at <= 0;
      on.disabled = at >= tiles.length - 1;
      const kept = gone ? `pictures of ${number(tiles.length, 6)} of ${number(tiles.length + gone, 6)} iterations` : "";
      say(note, tiles.length && !tiles.includes(iteration) ? "no pictures of this iteration" : kept);
    },
  };
}
