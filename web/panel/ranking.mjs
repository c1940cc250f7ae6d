/** Which candidate of a group is the best, and how that looks. */

/** @typedef {import("./types.mjs").Candidate} Candidate */
/** @typedef {import("./types.mjs").Group} Group */

/**
 * Ranks by advantage, 1 for the highest; equal ones share the better rank. A candidate without an advantage has none.
 *
 * @param {readonly Candidate[]} candidates
 * @returns {(number | null)[]}
 */
export function ranks(candidates) {
  return candidates.map(({ advantage }) =>
    advantage === null ? null : 1 + candidates.filter((c) => c.advantage !== null && c.advantage > advantage).length,
  );
}

/**
 * The candidates in the order to show them: "index", "advantage" (best first), or by the reward of that name.
 * What has no value comes last; equal ones stay in the order of their index.
 *
 * @param {readonly Candidate[]} candidates
 * @param {string} by
 * @returns {Candidate[]}
 */
export function ordered(candidates, by) {
  const all = [...candidates].sort((a, b) => a.candidate - b.candidate);
  if (by === "index") return all;
  /** @param {Candidate} c */
  const value = (c) => (by === "advantage" ? c.advantage : (c.scores[by] ?? null)) ?? -Infinity;
  return all.sort((a, b) => (value(b) === value(a) ? 0 : value(b) - value(a)));
}

/**
 * Where an advantage stands between the group's extremes, in [-1, 1]; 0 keeps its place.
 *
 * @param {number | null} advantage
 * @param {readonly Candidate[]} candidates
 */
export function leaning(advantage, candidates) {
  const most = Math.max(...candidates.map((c) => Math.abs(c.advantage ?? 0)));
  return advantage === null || most === 0 ? 0 : advantage / most;
}

/**
 * Red, grey, green for a number in [-1, 1], readable on light and on dark ground.
 *
 * @param {number} t
 */
export function signColour(t) {
  const strength = Math.min(Math.abs(t), 1) ** 0.7;
  return `hsl(${t < 0 ? 8 : 150} ${Math.round(75 * strength)}% ${Math.round(58 - 10 * strength)}%)`;
}

const HEAT = [
  [68, 1, 84],
  [65, 68, 135],
  [42, 120, 142],
  [34, 168, 132],
  [122, 209, 81],
  [253, 231, 37],
]; // viridis

/**
 * A colour for a number in [0, 1], from dark violet to yellow, in steps that look alike.
 *
 * @param {number} t
 * @returns {[number, number, number]}
 */
export function heat(t) {
  const at = Math.min(Math.max(t, 0), 1) * (HEAT.length - 1);
  const i = Math.min(Math.floor(at), HEAT.length - 2);
  const [a, b] = [HEAT[i], HEAT[i + 1]];
  const mix = a.map((v, c) => Math.round(v + (b[c] - v) * (at - i)));
  return [mix[0], mix[1], mix[2]];
}

/**
 * The force field in the plane of the points: sum_i A'_i p_i. As the advantages of a group sum to zero, it does not matter
 * where the plane's origin lies. Every anchor is moved by this same vector (up to a positive factor).
 *
 * @param {readonly (number | null)[]} advantages
 * @param {readonly [number, number][]} points
 * @returns {[number, number]}
 */
export function force(advantages, points) {
  let [x, y] = [0, 0];
  points.forEach((p, i) => {
    x += (advantages[i] ?? 0) * p[0];
    y += (advantages[i] ?? 0) * p[1];
  });
  return [x, y];
}
