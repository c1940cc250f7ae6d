/** The candidates of a group in the plane of their two principal components, and the update's direction. */

/** @typedef {import("./types.mjs").Group} Group */

import { h, say, svg } from "./dom.mjs";
import { number, signed } from "./format.mjs";
import { force, heat } from "./ranking.mjs";

const SIZE = 400; // of the picture's own units
const MARGIN = 36;
const ARROW = 70; // its length

/**
 * @param {Group} group
 * @param {[number, number][]} points  in the order of the candidates
 * @param {string} reward  that colours them
 * @param {{ point: (candidate: number | null) => void, open: (candidate: number) => void }} listener
 */
export function pointCloud({ candidates, explained }, points, reward, { point, open }) {
  const all = points.flat();
  const reach = Math.max(...all.map(Math.abs), 1e-12); // one scale for both axes: distances stay true
  /** @param {[number, number]} p @returns {[number, number]} */
  const place = ([x, y]) => [
    SIZE / 2 + (x / reach) * (SIZE / 2 - MARGIN),
    SIZE / 2 - (y / reach) * (SIZE / 2 - MARGIN),
  ];
  const scores = candidates.map((c) => c.scores[reward] ?? null);
  const known = scores.filter((s) => s !== null);
  const [least, most] = [Math.min(...known), Math.max(...known)];

  const advantages = candidates.map((c) => c.advantage);
  const [fx, fy] = force(advantages, points);
  const length = Math.hypot(fx, fy);
  const picture = svg("svg", {
    viewBox: `0 0 ${SIZE} ${SIZE}`,
    class: "ng-cloud",
    role: "group",
    "aria-label": "Candidates in the plane of their principal components",
  });
  const id = `ng-arrow-${Math.random().toString(36).slice(2)}`;
  const tip = svg("path", { d: "M0 0 L8 4 L0 8 z", class: "ng-arrow-tip" });
  picture.append(
    svg(
      "defs",
      {},
      svg(
        "marker",
        { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
        tip,
      ),
    ),
  );
  picture.append(svg("path", { d: `M0 ${SIZE / 2} H${SIZE} M${SIZE / 2} 0 V${SIZE}`, class: "ng-axes" }));

  const words = h("p", { class: "ng-quiet ng-under", "aria-live": "polite" });
  const shares = explained
    ? `The plane holds ${Math.round(100 * (explained[0] + explained[1]))} % of the variance. `
    : "";
  const pull = length > 0 ? "Arrows: where the update pulls each anchor (Σ A′ᵢ pᵢ)." : "No advantages, so no pull.";
  /** @type {Map<number, SVGElement>} */
  const dots = new Map();

  candidates.forEach((c, i) => {
    const [x, y] = place(points[i]);
    if (c.anchor && length > 0) {
      const end = [x + (fx / length) * ARROW, y - (fy / length) * ARROW];
      picture.append(
        svg("line", { x1: x, y1: y, x2: end[0], y2: end[1], class: "ng-arrow", "marker-end": `url(#${id})` }),
      );
    }
  });
  candidates.forEach((c, i) => {
    const [x, y] = place(points[i]);
    const score = scores[i];
    const [r, g, b] = heat(score === null ? 0 : (score - least) / (most - least || 1));
    const label = `Candidate ${c.candidate}: ${reward} ${number(score)}, advantage ${signed(c.advantage)}${c.anchor ? ", anchor" : ""}`;
    const dot = svg(
      "g",
      { class: "ng-dot", tabindex: 0, role: "button", "aria-label": label },
      c.anchor && svg("circle", { cx: x, cy: y, r: 13, class: "ng-ring" }),
      svg("circle", { cx: x, cy: y, r: 8.5, fill: `rgb(${r} ${g} ${b})`, class: "ng-disc" }),
      svg("text", { x, y: y - 14, class: "ng-dot-name" }, c.candidate),
    );
    const show = () => {
      say(words, label);
      point(c.candidate);
    };
    const quiet = () => {
      say(words, shares + pull);
      point(null);
    };
    dot.addEventListener("pointerenter", show);
    dot.addEventListener("focus", show);
    dot.addEventListener("pointerleave", quiet);
    dot.addEventListener("blur", quiet);
    dot.addEventListener("click", () => open(c.candidate));
    dot.addEventListener("keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === "Enter") open(c.candidate);
    });
    dots.set(c.candidate, dot);
    picture.append(dot);
  });

  say(words, shares + pull);
  const key = h(
    "div",
    { class: "ng-heat-key" },
    h("span", {}, number(least, 3)),
    h("i", {}),
    h("span", {}, number(most, 3)),
    h("span", {}, reward),
    h("span", {}, "○ anchor"),
  );
  const element = h("section", { class: "ng-map" }, h("h3", {}, "Force field"), picture, key, words);
  return {
    element,
    /** @param {number | null} candidate */
    point(candidate) {
      for (const [name, dot] of dots) dot.classList.toggle("ng-pointed", name === candidate);
    },
  };
}
