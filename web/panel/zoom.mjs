/** Windows onto the axis of iterations. */

/** @typedef {[number, number]} Range */

const LEAST = 4; // iterations that a window shows

/**
 * A window `factor` times as wide in which `centre` keeps its place; null if that would show everything.
 *
 * @param {Range} range
 * @param {Range} full
 * @param {number} centre
 * @param {number} factor
 * @returns {Range | null}
 */
export function zoomed([from, to], full, centre, factor) {
  const width = Math.max((to - from) * factor, Math.min(LEAST, full[1] - full[0]));
  const share = to > from ? (centre - from) / (to - from) : 0.5;
  const start = centre - share * width;
  return within([start, start + width], full);
}

/**
 * A window moved by `by` iterations, as far as there are any.
 *
 * @param {Range} range
 * @param {Range} full
 * @param {number} by
 * @returns {Range | null}
 */
export function moved([from, to], full, by) {
  return within([from + by, to + by], full);
}

/**
 * A window pushed into the axis; null if it covers all of it.
 *
 * @param {Range} range
 * @param {Range} full
 * @returns {Range | null}
 */
export function within([from, to], full) {
  const width = to - from;
  if (width >= full[1] - full[0]) return null;
  const start = Math.min(Math.max(from, full[0]), full[1] - width);
  return [start, start + width];
}

/**
 * The number in an ascending list that is nearest to `wanted`; null of none.
 *
 * @param {readonly number[]} sorted
 * @param {number} wanted
 */
export function nearest(sorted, wanted) {
  let best = null;
  for (const value of sorted) if (best === null || Math.abs(value - wanted) <= Math.abs(best - wanted)) best = value;
  return best;
}
