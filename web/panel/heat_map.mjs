/** The distances between the candidates of a group as a square of colours. */

/** @typedef {import("./types.mjs").Group} Group */

import { h, say } from "./dom.mjs";
import { number } from "./format.mjs";
import { heat } from "./ranking.mjs";

/**
 * @param {Group} group
 * @param {(number | null)[][]} distances  G x G, in the order of the candidates
 * @param {(candidate: number | null) => void} pointed  the pointer is on this candidate's row
 */
export function heatMap({ candidates }, distances, pointed) {
  const size = distances.length;
  const apart = distances.flatMap((row, i) => row.flatMap((d, k) => (d === null || k === i ? [] : [d])));
  const least = apart.reduce((a, b) => Math.min(a, b), Infinity);
  const most = apart.reduce((a, b) => Math.max(a, b), 0);
  const mean = apart.reduce((a, b) => a + b, 0) / (apart.length || 1);
  const cell = Math.max(Math.floor(384 / size), 1);
  const canvas = h("canvas", { class: "ng-heat", width: size * cell, height: size * cell, role: "img", tabindex: 0 });
  canvas.setAttribute(
    "aria-label",
    `Distances between ${size} candidates: from ${number(least)} to ${number(most)}, ${number(mean)} in the mean`,
  );
  const words = h("p", { class: "ng-quiet ng-under", "aria-live": "polite" });
  const key = h(
    "div",
    { class: "ng-heat-key" },
    h("span", {}, number(least, 3)),
    h("i", {}),
    h("span", {}, number(most, 3)),
  );
  const title = h("h3", {}, "Distances of the latents");
  const element = h("section", { class: "ng-map" }, title, canvas, key, words);
  const context = canvas.getContext("2d");
  /** @type {[number, number]} */
  let at = [0, Math.min(1, size - 1)];

  /** @param {number | null} row @param {number | null} column */
  function draw(row, column) {
    if (!context) return;
    for (let i = 0; i < size; i++) {
      for (let k = 0; k < size; k++) {
        const d = distances[i][k];
        const [r, g, b] = heat(((d ?? least) - least) / (most - least || 1));
        context.fillStyle = i === k || d === null ? "#8884" : `rgb(${r} ${g} ${b})`;
        context.clearRect(k * cell, i * cell, cell, cell);
        context.fillRect(k * cell, i * cell, cell - (cell > 8 ? 1 : 0), cell - (cell > 8 ? 1 : 0));
      }
    }
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    if (row !== null) context.strokeRect(1, row * cell + 1, size * cell - 2, cell - 2);
    if (column !== null) context.strokeRect(column * cell + 1, 1, cell - 2, size * cell - 2);
  }

  /** @param {number} row @param {number} column */
  function say_(row, column) {
    at = [row, column];
    draw(row, column);
    const [a, b] = [candidates[row]?.candidate ?? row, candidates[column]?.candidate ?? column];
    say(
      words,
      row === column ? `№ ${a}` : `№ ${a} and № ${b}: ${number(distances[row][column])} apart (root mean square)`,
    );
    pointed(a);
  }

  const quiet = `${number(mean)} apart in the mean. Rows and columns are candidates by index.`;
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    /** @param {number} share */
    const place = (share) => Math.min(Math.max(Math.floor(share * size), 0), size - 1);
    say_(place((event.clientY - box.top) / box.height), place((event.clientX - box.left) / box.width));
  });
  canvas.addEventListener("pointerleave", () => {
    draw(null, null);
    say(words, quiet);
    pointed(null);
  });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    say_((at[0] + by[0] + size) % size, (at[1] + by[1] + size) % size);
  });
  draw(null, null);
  say(words, quiet);

  return {
    element,
    /** Mark a candidate's row. @param {number | null} candidate */
    point(candidate) {
      const row = candidates.findIndex((c) => c.candidate === candidate);
      if (row !== at[0] || candidate === null) draw(row < 0 ? null : row, null);
    },
  };
}
