/** Curves in as many points as a screen has room for: the server's buckets, continued by live values. */

/** @typedef {import("./types.mjs").Curve} Curve */
/** @typedef {import("./tail.mjs").Entry} Entry */

/**
 * Values in buckets of `step` iterations: mean, low and high of each. A bucket without a value is null, and so is every
 * bucket between the first and the last that has no iteration at all.
 *
 * @param {readonly number[]} x  iterations, ascending
 * @param {readonly (number | null | undefined)[]} values
 * @param {number} step
 * @returns {Curve}
 */
export function bucketed(x, values, step) {
  /** @type {Curve} */
  const curve = { x: [], mean: [], step };
  const low = /** @type {(number | null)[]} */ ([]);
  const high = /** @type {(number | null)[]} */ ([]);
  if (x.length) {
    const first = Math.floor(x[0] / step);
    const last = Math.floor(x[x.length - 1] / step);
    for (let bucket = first, at = 0; bucket <= last; bucket++) {
      let [sum, count, least, most] = [0, 0, Infinity, -Infinity];
      for (; at < x.length && Math.floor(x[at] / step) === bucket; at++) {
        const value = values[at];
        if (value === null || value === undefined || !Number.isFinite(value)) continue;
        sum += value;
        count++;
        least = Math.min(least, value);
        most = Math.max(most, value);
      }
      curve.x.push(bucket * step);
      curve.mean.push(count ? sum / count : null);
      low.push(count ? least : null);
      high.push(count ? most : null);
    }
  }
  return step > 1 ? { ...curve, low, high } : curve;
}

/**
 * The step at which `iterations` fit into `points` buckets, among 1, 2, 5, 10, 20, 50, ...
 *
 * @param {number} iterations
 * @param {number} points
 */
export function stepFor(iterations, points) {
  for (let size = 1; ; size *= 10) {
    for (const digit of [1, 2, 5]) if (Math.ceil(iterations / (digit * size)) <= points) return digit * size;
  }
}

/**
 * A stored curve continued by what was heard since. If iterations between the two are missing, the line breaks.
 *
 * @param {Curve | undefined} curve
 * @param {readonly Entry[]} entries  ascending, none of them in `curve`
 * @param {string} name  of the metric
 * @param {number} [points]  that the live part may take
 * @returns {Curve}
 */
export function continued(curve, entries, name, points = 400) {
  const step = Math.max(curve?.step ?? 1, stepFor(entries.length, points));
  const x = entries.map((e) => e.iteration);
  const tail = bucketed(
    x,
    entries.map((e) => e.metrics[name]),
    step,
  );
  if (!curve || !curve.x.length) return tail;
  return joined(curve, tail);
}

/**
 * Two curves, one after the other; `second`'s part of a bucket that both have is left out.
 *
 * @param {Curve} first
 * @param {Curve} second
 * @returns {Curve}
 */
export function joined(first, second) {
  const end = first.x.length ? first.x[first.x.length - 1] + first.step : -Infinity;
  let from = second.x.findIndex((x) => x >= end - first.step + 1);
  if (from < 0) from = second.x.length;
  const gap = from < second.x.length && second.x[from] > end; // iterations that nobody knows
  const x = gap ? [...first.x, end] : first.x;
  /** @param {"mean" | "low" | "high"} part */
  const both = (part) => [
    ...(first[part] ?? first.mean),
    ...(gap ? [null] : []),
    ...(second[part] ?? second.mean).slice(from),
  ];
  const curve = { x: [...x, ...second.x.slice(from)], mean: both("mean"), step: Math.max(first.step, second.step) };
  return curve.step > 1 ? { ...curve, low: both("low"), high: both("high") } : curve;
}

/**
 * A coarse curve of the whole run with a finer one of a window inside it.
 *
 * @param {Curve} whole
 * @param {Curve | undefined} fine
 * @returns {Curve}
 */
export function refined(whole, fine) {
  if (!fine || !fine.x.length || fine.step >= whole.step) return whole;
  const from = fine.x[0];
  const to = fine.x[fine.x.length - 1];
  const before = slice(whole, 0, firstAtLeast(whole.x, from));
  const after = slice(whole, firstAtLeast(whole.x, to + 1), whole.x.length);
  return joined(joined(before, fine), after);
}

/** @param {Curve} curve @param {number} from @param {number} to @returns {Curve} */
function slice(curve, from, to) {
  const { x, mean, low, high, step } = curve;
  const part = { x: x.slice(from, to), mean: mean.slice(from, to), step };
  return low && high ? { ...part, low: low.slice(from, to), high: high.slice(from, to) } : part;
}

/** Where the first number that is at least `limit` stands. @param {readonly number[]} sorted @param {number} limit */
export function firstAtLeast(sorted, limit) {
  let [from, to] = [0, sorted.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle] < limit) from = middle + 1;
    else to = middle;
  }
  return from;
}
