/**
 * What the panel knows, and how an event changes it. Nothing here waits, fetches or draws.
 *
 * A live message is a hint: whatever it tells can be asked for again.
 *
 * @typedef {import("./types.mjs").Run} Run
 * @typedef {import("./types.mjs").Details} Details
 * @typedef {import("./types.mjs").CurvesAnswer} CurvesAnswer
 * @typedef {import("./types.mjs").Message} Message
 * @typedef {import("./types.mjs").Connection} Connection
 * @typedef {import("./tail.mjs").Tail} Tail
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
 * @property {number} changes  messages about the open run after which it may have other pictures
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

import { appended, filled, NO_TAIL, since, undone } from "./tail.mjs";

const VERSION = 1; // of messages
const PICTURES = ["started", "iteration", "evaluated"]; // messages after which a run may have other pictures

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
  if (message.run === state.open && PICTURES.includes(message.type)) next = { ...next, changes: state.changes + 1 };
  if (message.type === "iteration") {
    if (known && !known.live) next = { ...next, outdated: true };
    return withTail(next, message.run, appended(state.tails[message.run] ?? NO_TAIL, message));
  }
  if (message.type === "started") {
    const tail = next.tails[message.run];
    if (tail) next = withTail(next, message.run, undone(tail, message.iteration));
  }
  if (known) next = withRun(next, message.run, facts(message));
  return message.type === "saved" ? next : { ...next, outdated: true };
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

/**
 * Stored curves of the whole run.
 *
 * @param {State} state
 * @param {string} run
 * @param {CurvesAnswer} answer
 * @returns {State}
 */
function fetched(state, run, answer) {
  const curves = { ...state.curves, [run]: answer };
  return withTail({ ...state, curves }, run, since(state.tails[run] ?? NO_TAIL, answer.iteration));
}

/**
 * Iterations from `from` on that were missed.
 *
 * @param {State} state
 * @param {string} run
 * @param {number} from
 * @param {CurvesAnswer} answer
 * @returns {State}
 */
function caughtUp(state, run, from, answer) {
  const start = state.curves[run]?.iteration ?? from;
  return withTail(state, run, filled(state.tails[run] ?? NO_TAIL, start, from, answer));
}

/** A run as the server describes it. @param {State} state @param {Details} details @returns {State} */
function seen(state, details) {
  const { id } = details;
  let next = { ...state, details: { ...state.details, [id]: details } };
  const tail = state.tails[id];
  if (tail && tail.next !== null && details.iteration < tail.next - 1)
    next = withTail(next, id, undone(tail, details.iteration)); // it went back while nobody listened
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

/**
 * The open run, with what was heard of it since.
 *
 * @param {State} state
 * @param {string | null} id
 * @returns {Run | null}
 */
export function runOf(state, id) {
  const run = state.runs?.find((r) => r.id === id) ?? (id === null ? null : state.details[id]);
  if (!run) return null;
  const next = state.tails[run.id]?.next ?? 0;
  return next > run.iteration ? { ...run, iteration: next } : run;
}
