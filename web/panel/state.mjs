/**
 * What the panel knows, and how an event changes it. Nothing here waits, fetches or draws.
 *
 * A live message is a hint: whatever it tells can be asked for again. A run's `Tail` holds the iterations heard since its
 * stored curves were fetched. Where one was missed, `missed` says from which iteration on to ask; until the answer is
 * there, the curve has a gap.
 *
 * @typedef {import("./types.mjs").Run} Run
 * @typedef {import("./types.mjs").Details} Details
 * @typedef {import("./types.mjs").Curves} Curves
 * @typedef {import("./types.mjs").CurvesAnswer} CurvesAnswer
 * @typedef {import("./types.mjs").Message} Message
 * @typedef {import("./types.mjs").Connection} Connection
 *
 * @typedef {{ iteration: number, metrics: Record<string, number | null> }} Entry
 *
 * @typedef {object} Tail
 * @property {number | null} next  the iteration to be heard of next; null while nobody knows
 * @property {Entry[]} entries  ascending
 * @property {number | null} missed  the first iteration that was not heard of
 * @property {boolean} stale  the stored curves are to be fetched anew, as iterations were undone or too many were missed
 *
 * @typedef {object} State
 * @property {Connection} connection
 * @property {Run[] | null} runs  newest first; null before the first answer
 * @property {number} total  runs that the server has
 * @property {boolean} outdated  the list of runs is to be fetched anew
 * @property {string | null} open  the run to look at
 * @property {string[]} compared  runs drawn beside it
 * @property {Record<string, Details>} details
 * @property {Record<string, CurvesAnswer>} curves  of the whole run
 * @property {Record<string, Tail>} tails
 * @property {number | null} iteration  chosen for tiles and distances; null follows the newest
 * @property {number} changes  messages about the open run that concern more than its curves (pictures, state, log)
 *
 * @typedef {{ type: "connection", connection: Connection }
 *   | { type: "runs", runs: Run[], total: number }
 *   | { type: "details", details: Details }
 *   | { type: "curves", run: string, answer: CurvesAnswer }
 *   | { type: "caught up", run: string, from: number, answer: CurvesAnswer }
 *   | { type: "open", run: string | null }
 *   | { type: "compare", run: string, on: boolean }
 *   | { type: "removed", run: string }
 *   | { type: "choose", iteration: number | null }
 *   | { type: "message", message: Message }} Event
 */

export const LONGEST_TAIL = 512; // iterations; beyond it the stored curves are fetched anew
const VERSION = 1; // of messages

/** @type {State} */
export const EMPTY = {
  connection: "connecting",
  runs: null,
  total: 0,
  outdated: false,
  open: null,
  compared: [],
  details: {},
  curves: {},
  tails: {},
  iteration: null,
  changes: 0,
};

/** @type {Tail} */
const NO_TAIL = { next: null, entries: [], missed: null, stale: false };

/** @param {State} state @param {Event} event @returns {State} */
export function reduce(state, event) {
  switch (event.type) {
    case "connection":
      return event.connection === state.connection ? state : { ...state, connection: event.connection };
    case "runs":
      return { ...state, runs: event.runs, total: event.total, outdated: false };
    case "details":
      return seen(state, event.details);
    case "curves":
      return fetched(state, event.run, event.answer);
    case "caught up":
      return caughtUp(state, event.run, event.from, event.answer);
    case "open":
      if (event.run === state.open) return state;
      return { ...state, open: event.run, compared: state.compared.filter((id) => id !== event.run), iteration: null };
    case "compare": {
      const others = state.compared.filter((id) => id !== event.run);
      return { ...state, compared: event.on && event.run !== state.open ? [...others, event.run] : others };
    }
    case "removed":
      return removed(state, event.run);
    case "choose":
      return event.iteration === state.iteration ? state : { ...state, iteration: event.iteration };
    case "message":
      return event.message.version === VERSION ? heard(state, event.message) : { ...state, outdated: true };
  }
}

/** A live message. @param {State} state @param {Message} message @returns {State} */
function heard(state, message) {
  const known = state.runs?.find((run) => run.id === message.run);
  let next = known ? state : { ...state, outdated: true };
  if (message.type === "iteration") {
    if (known && !known.live) next = { ...next, outdated: true };
    next = withTail(next, message.run, appended(state.tails[message.run] ?? NO_TAIL, message));
    return message.run === state.open ? { ...next, changes: state.changes + 1 } : next;
  }
  if (message.type === "started") {
    const tail = next.tails[message.run];
    if (tail) next = withTail(next, message.run, undone(tail, message.iteration));
  }
  if (known) next = withRun(next, message.run, facts(message));
  return { ...next, changes: state.changes + 1, outdated: next.outdated || message.type !== "saved" };
}

/** What a message tells of the run as a whole. @param {Message} message @returns {Partial<Run>} */
function facts(message) {
  switch (message.type) {
    case "started":
      return { state: "running", live: true, iteration: message.iteration };
    case "state":
      return message.state === undefined ? {} : { state: message.state };
    case "finished":
      return { live: false, controllable: false, ...(message.state === undefined ? {} : { state: message.state }) };
    default:
      return {};
  }
}

/** @param {Tail} tail @param {Message} message @returns {Tail} */
function appended(tail, message) {
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

/** A run begins at `iteration`; what it did there and later before is undone. @param {Tail} tail @param {number} iteration @returns {Tail} */
function undone(tail, iteration) {
  if (tail.next === null || iteration >= tail.next) return tail;
  const entries = tail.entries.filter((e) => e.iteration < iteration);
  const missed = tail.missed !== null && tail.missed < iteration ? tail.missed : null;
  return { next: iteration, entries, missed, stale: true };
}

/** Stored curves of the whole run. @param {State} state @param {string} run @param {CurvesAnswer} answer @returns {State} */
function fetched(state, run, answer) {
  const tail = state.tails[run] ?? NO_TAIL;
  const entries = tail.entries.filter((e) => e.iteration >= answer.iteration);
  const next = entries.length ? entries[entries.length - 1].iteration + 1 : answer.iteration;
  const hole = firstHole(answer.iteration, entries);
  const curves = { ...state.curves, [run]: answer };
  return withTail({ ...state, curves }, run, { next, entries, missed: hole, stale: false });
}

/** Iterations from `from` on that were missed, single ones. @param {State} state @param {string} run @param {number} from @param {CurvesAnswer} answer @returns {State} */
function caughtUp(state, run, from, answer) {
  const tail = state.tails[run] ?? NO_TAIL;
  const all = Object.entries(answer.curves);
  if (all.some(([, curve]) => curve.step > 1)) return withTail(state, run, { ...tail, stale: true });
  /** @type {Map<number, Entry>} */
  const entries = new Map();
  for (const [name, { x, mean }] of all) {
    x.forEach((iteration, i) => {
      const entry = entries.get(iteration) ?? { iteration, metrics: {} };
      entry.metrics[name] = mean[i];
      entries.set(iteration, entry);
    });
  }
  for (const entry of tail.entries) entries.set(entry.iteration, entry);
  const merged = [...entries.values()].sort((a, b) => a.iteration - b.iteration);
  const start = state.curves[run]?.iteration ?? from;
  const next = Math.max(answer.iteration, tail.next ?? 0, from);
  const kept = merged.filter((e) => e.iteration >= start);
  return withTail(state, run, { next, entries: kept, missed: firstHole(start, kept), stale: tail.stale || kept.length > LONGEST_TAIL });
}

/** The first iteration from `start` on that is missing before the last of the entries. @param {number} start @param {Entry[]} entries */
function firstHole(start, entries) {
  const at = entries.findIndex((e, i) => e.iteration !== start + i);
  return at < 0 ? null : start + at;
}

/** A run as the server describes it. @param {State} state @param {Details} details @returns {State} */
function seen(state, details) {
  const { id } = details;
  let next = { ...state, details: { ...state.details, [id]: details } };
  const tail = state.tails[id];
  if (tail && tail.next !== null && details.iteration < tail.next - 1) next = withTail(next, id, { ...tail, stale: true });
  if (tail && tail.next !== null && details.iteration > tail.next)
    next = withTail(next, id, { ...tail, missed: tail.missed ?? tail.next });
  return withRun(next, id, details);
}

/** @param {State} state @param {string} run @returns {State} */
function removed(state, run) {
  /** @template T @param {Record<string, T>} record @returns {Record<string, T>} */
  const without = ({ [run]: _, ...rest }) => rest;
  return {
    ...state,
    runs: state.runs?.filter((r) => r.id !== run) ?? null,
    total: Math.max(state.total - 1, 0),
    open: state.open === run ? null : state.open,
    compared: state.compared.filter((id) => id !== run),
    details: without(state.details),
    curves: without(state.curves),
    tails: without(state.tails),
  };
}

/** @param {State} state @param {string} run @param {Tail} tail @returns {State} */
function withTail(state, run, tail) {
  return { ...state, tails: { ...state.tails, [run]: tail } };
}

/** @param {State} state @param {string} id @param {Partial<Run>} facts @returns {State} */
function withRun(state, id, facts) {
  const at = state.runs?.findIndex((run) => run.id === id) ?? -1;
  if (!state.runs || at < 0) return state;
  const { id: _, ...known } = facts;
  const run = { ...state.runs[at] };
  for (const key of /** @type {(keyof Run)[]} */ (Object.keys(run))) {
    if (key in known) Object.assign(run, { [key]: known[/** @type {keyof typeof known} */ (key)] });
  }
  return { ...state, runs: state.runs.map((r, i) => (i === at ? run : r)) };
}

/** The open run, with what was heard of it since. @param {State} state @param {string | null} id @returns {Run | null} */
export function runOf(state, id) {
  const run = state.runs?.find((r) => r.id === id) ?? (id === null ? null : state.details[id]);
  if (!run) return null;
  const next = state.tails[run.id]?.next ?? 0;
  return next > run.iteration ? { ...run, iteration: next } : run;
}
