/** How far the candidates of a group lie apart, and where the update pulls. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Group} Group
 */

import { fill, h, say, select } from "./dom.mjs";
import { heatMap } from "./heat_map.mjs";
import { lightbox } from "./lightbox.mjs";
import { pointCloud } from "./point_cloud.mjs";
import { scrubber } from "./scrubber.mjs";
import { rewardNames } from "./tiles.mjs";

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store, memory } = panel;
  const element = h("div", { class: "ng-distances" });
  parent.append(element);
  const path = scrubber(element, panel);
  const slot = select("Prompt", (value) => {
    memory.slot = Number(value);
    render();
  });
  let reward = "";
  const colour = select("Colour", (value) => {
    reward = value;
    render();
  });
  const empty = h("p", { class: "ng-empty" });
  const body = h("div", { class: "ng-maps" });
  const bar = h("div", { class: "ng-bar" }, slot.element, colour.element);
  element.append(bar, empty, body);

  let shown = "";
  /** @type {{ run: string, iteration: number, groups: Group[] } | null} */
  let current = null;

  function draw() {
    path.draw();
    const run = store.state.open;
    const iteration = panel.iteration();
    if (iteration === null) nothing(run === null ? "Open a run to see its distances." : "No iteration is done yet.");
    if (iteration === null) shown = "";
    const key = `${run} ${iteration}`;
    if (run === null || iteration === null || key === shown) return;
    shown = key;
    void panel.groups.stored(run, iteration).then(
      (groups) => {
        if (key !== shown) return;
        if (!groups) return nothing(`Nothing is stored of iteration ${iteration}.`);
        current = { run, iteration, groups };
        render();
      },
      (problem) => {
        if (key !== shown) return;
        shown = "";
        store.failed(problem);
      },
    );
  }

  /** @param {string} why */
  function nothing(why) {
    say(empty, why);
    empty.hidden = false;
    bar.hidden = body.hidden = true;
  }

  function render() {
    if (!current) return;
    const { run, iteration, groups } = current;
    const group = groups.find((g) => g.slot === memory.slot) ?? groups[0];
    if (!group) return nothing("This iteration has no candidates.");
    slot.show(
      groups.map((g) => [String(g.slot), g.prompt]),
      String(group.slot),
    );
    const rewards = rewardNames(group);
    if (!rewards.includes(reward)) reward = rewards[0] ?? "";
    colour.show(
      rewards.map((r) => [r, `coloured by ${r}`]),
      reward,
    );
    bar.hidden = false;
    const { distances, points } = group;
    if (!distances) {
      say(empty, "This run did not store distances: it was made by an older version.");
      empty.hidden = false;
      return fill(body);
    }
    empty.hidden = true;
    body.hidden = false;
    const open = (/** @type {number} */ candidate) =>
      void lightbox(panel, { run, iteration, group }, "index", candidate);
    /** @type {((candidate: number | null) => void)[]} */
    const listeners = [];
    const point = (/** @type {number | null} */ candidate) => listeners.forEach((listen) => listen(candidate));
    const map = heatMap(group, distances, point);
    const cloud = points && pointCloud(group, points, reward, { point, open });
    listeners.push(map.point, ...(cloud ? [cloud.point] : []));
    fill(body, map.element, cloud && cloud.element);
  }

  const end = store.watch(draw);
  return () => {
    end();
    element.remove();
  };
}
