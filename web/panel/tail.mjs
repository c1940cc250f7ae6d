/**
 * The iterations of a run heard of since its stored curves were fetched. If one was missed, `missed` says from which on
 * to ask; until the answer is there, the curve has a gap.
 *
 * @typedef {import("./types.mjs").CurvesAnswer} CurvesAnswer
 * @typedef {import("./types.mjs").Message} Message
 *
 * @typedef {{ iteration: number, metrics: Record<string, number | null> }} Entry
 *
 * @typedef {object} Tail
 * @property {number | null} next  the iteration to be heard of next; null while nobody knows
 * @property {Entry[]} entries  ascending
 * @property {number | null} missed  the first iteration that was not heard of
 * @property {boolean} stale  the stored curves are to be fetched anew: iterations were undone, or too many missed
 */

export const LONGEST_TAIL = 512; // iterations; beyond it the stored curves are fetched anew

/** @type {Tail} */
export const NO_TAIL = { next: null, entries: [], missed: null, stale: false };

/** An iteration was told of. @param {Tail} tail @param {Message} message @returns {Tail} */
export function appended(tail, message) {
  const { iteration, metrics = {} } = message;
  if (tail.next !== null && iteration < tail.next) return tail; // told twice
  const missed = tail.missed ?? (tail.next !== null && iteration > tail.next ? tail.next : null);
  const entries = [...tail.entries, { iteration, metrics }];
  const tooLong = entries.length > LONGEST_TAIL;
  return {
    next: iteration + 1,
    entries: tooLong ? entries.slice(-LONGEST_TAIL) : entries,
    missed,
    stale: tail.stale || tooLong,
  };
}

/**
 * A run begins at `iteration`; what it did there and later before is undone.
 *
 * @param {Tail} tail
 * @param {number} iteration
 * @returns {Tail}
 */
export function undone(tail, iteration) {
  if (tail.next === null || iteration >= tail.next) return tail;
  const entries = tail.entries.filter((e) => e.iteration < iteration);
  const missed = tail.missed !== null && tail.missed < iteration ? tail.missed : null;
  return { next: iteration, entries, missed, stale: true };
}

/** What is left when the stored curves hold all before `iteration`. @param {Tail} tail @param {number} iteration @returns {Tail} */
export function since(tail, iteration) {
  const entries = tail.entries.filter((e) => e.iteration >= iteration);
  const next = (entries.at(-1)?.iteration ?? iteration - 1) + 1;
  return { next, entries, missed: firstHole(iteration, entries), stale: false };
}

/**
 * With what was missed from `from` on; thinned by the server, as there was so much, it is of no use here.
 *
 * @param {Tail} tail
 * @param {number} start  the first iteration that the stored curves do not hold
 * @param {number} from
 * @param {CurvesAnswer} answer
 * @returns {Tail}
 */
export function filled(tail, start, from, answer) {
  const curves = Object.entries(answer.curves);
  if (curves.some(([, curve]) => curve.step > 1)) return { ...tail, stale: true };
  /** @type {Map<number, Entry>} */
  const entries = new Map();
  for (const [name, { x, mean }] of curves) {
    x.forEach((iteration, i) => {
      const entry = entries.get(iteration) ?? { iteration, metrics: {} };
      entry.metrics[name] = mean[i];
      entries.set(iteration, entry);
    });
  }
  for (const entry of tail.entries) entries.set(entry.iteration, entry);
  const kept = [...entries.values()].filter((e) => e.iteration >= start).sort((a, b) => a.iteration - b.iteration);
  return {
    next: Math.max(answer.iteration, tail.next ?? 0, from),
    entries: kept,
    missed: firstHole(start, kept),
    stale: tail.stale || kept.length > LONGEST_TAIL,
  };
}

/**
 * The first iteration from `start` on that is missing before the last of the entries.
 *
 * @param {number} start
 * @param {Entry[]} entries
 */
function firstHole(start, entries) {
  const at = entries.findIndex((e, i) => e.iteration !== start + i);
  return at < 0 ? null : start + at;
}
