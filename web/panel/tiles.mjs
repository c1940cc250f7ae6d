/** The candidates of a group as tiles. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Candidate} Candidate
 * @typedef {import("./types.mjs").Group} Group
 *
 * @typedef {object} Shown  a group on the screen
 * @property {string} run
 * @property {number} iteration
 * @property {Group} group
 */

import { h } from "./dom.mjs";
import { number, signed } from "./format.mjs";
import { leaning, ordered, ranks, signColour } from "./ranking.mjs";

/** Names of the rewards that a group was scored by. @param {Group} group */
export function rewardNames(group) {
  return [...new Set(group.candidates.flatMap((c) => Object.keys(c.scores)))];
}

/**
 * The candidates as tiles; a click says which one.
 *
 * @param {Panel} panel
 * @param {Shown} shown
 * @param {string} order
 * @param {(candidate: number) => void} enlarge
 */
export function tileGrid(panel, { run, iteration, group }, order, enlarge) {
  const { width = 1, height = 1 } = panel.store.state.details[run]?.settings.sampling ?? {};
  const places = ranks(group.candidates);
  const rewards = rewardNames(group);
  const grid = h("ul", {
    class: "ng-tiles",
    style: `--ng-ratio: ${width} / ${height}`,
    "aria-label": `Candidates for “${group.prompt}”`,
  });
  const inOrder = ordered(group.candidates, order);
  if (group.base) grid.append(baseTile(panel, run, iteration, group.slot));
  for (const c of inOrder) {
    const rank = places[group.candidates.indexOf(c)];
    const source = panel.tile(run, iteration, group.slot, c.candidate);
    const none = h("span", { class: "ng-no-picture" }, group.gone ? "no longer kept" : "no picture stored");
    const removed = (/** @type {Event} */ event) => /** @type {Element} */ (event.target).replaceWith(none);
    const picture = c.tile
      ? h("img", { src: source, alt: "", loading: "lazy", decoding: "async", width, height, onerror: removed })
      : none;
    const scores = rewards.map((name) =>
      h("span", { class: "ng-score" }, h("span", {}, name), h("b", {}, number(c.scores[name]))),
    );
    const marks = h(
      "span",
      { class: "ng-tile-head" },
      h("span", { class: "ng-rank" }, rank === null ? "–" : `${rank}.`),
      h("span", { class: "ng-quiet" }, `№ ${c.candidate}`),
      c.anchor && h("span", { class: "ng-anchor", title: "Anchor: the update moved the policy from here" }, "⚓"),
    );
    const colour = signColour(leaning(c.advantage, group.candidates));
    const advantage = h(
      "span",
      { class: "ng-advantage", style: `--ng-sign: ${colour}` },
      "A′ ",
      h("b", {}, signed(c.advantage)),
    );
    const label = `Candidate ${c.candidate}, rank ${rank ?? "none"}, advantage ${number(c.advantage, 3)}${c.anchor ? ", anchor" : ""}`;
    const press = h(
      "button",
      { type: "button", class: "ng-picture", "aria-label": `${label}: enlarge`, onclick: () => enlarge(c.candidate) },
      picture,
    );
    grid.append(
      h(
        "li",
        {
          class: c.anchor ? "ng-tile ng-is-anchor" : "ng-tile",
          style: `--ng-edge: ${colour}`,
          "data-candidate": c.candidate,
        },
        press,
        marks,
        h("span", { class: "ng-scores" }, ...scores),
        advantage,
      ),
    );
  }
  grid.addEventListener("keydown", (event) => walk(grid, event));
  return grid;
}

/** @param {Panel} panel @param {string} run @param {number} iteration @param {number} slot */
function baseTile(panel, run, iteration, slot) {
  const source = panel.tile(run, iteration, slot, "base");
  return h(
    "li",
    { class: "ng-tile ng-base" },
    h(
      "span",
      { class: "ng-picture" },
      h("img", { src: source, alt: "Picture of the base noise", loading: "lazy", decoding: "async" }),
    ),
    h("span", { class: "ng-tile-head" }, h("span", { class: "ng-rank" }, "base noise")),
    h("span", { class: "ng-quiet" }, "The noise that all candidates lie around."),
  );
}

/** Arrow keys go from tile to tile as they lie on the screen. @param {HTMLElement} grid @param {KeyboardEvent} event */
function walk(grid, event) {
  const buttons = [...grid.querySelectorAll("button")];
  const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
  if (at < 0) return;
  const top = buttons[at].getBoundingClientRect().top;
  const row = buttons.filter((b) => Math.abs(b.getBoundingClientRect().top - top) < 4).length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -at, End: buttons.length - 1 - at }[
    event.key
  ];
  if (by === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  buttons[Math.min(Math.max(at + by, 0), buttons.length - 1)].focus();
}
