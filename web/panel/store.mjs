/**
 * The one place that holds the state: it listens, asks for what is missing, and tells the views.
 *
 * @typedef {import("./state.mjs").State} State
 * @typedef {import("./state.mjs").Event} Event
 * @typedef {import("./types.mjs").Message} Message
 * @typedef {import("./transport.mjs").Transport} Transport
 */

import { EMPTY, reduce } from "./state.mjs";
import { ask, ofRun, Refused } from "./transport.mjs";

export const POINTS = 800; // of a curve
export const PAGE = 100; // runs
const AT_ONCE = 16; // milliseconds until the views are drawn, after what a person did
const LIVE = 120; // milliseconds until they follow a training: what a message lets the panel ask for is there by then
const UNWATCHED = 10000; // the same, while another window has the focus: many may be open beside the training
const SOONEST = 400; // milliseconds between two questions of the same kind
const PATROL = 5000; // milliseconds between two looks at what no message may have told
const AGAIN = 5000; // milliseconds until the same gap is asked for again
const MEMORY = "neighbor_grpo.panel"; // in localStorage: what to look at after a reload

export class Store {
  /** @param {Transport} transport */
  constructor(transport) {
    this.transport = transport;
    this.state = { ...EMPTY, ...remembered() };
    this.page = PAGE; // runs that are listed
    this.failure = ""; // why the last question had no answer
    /** @type {Set<() => void>} */
    this.views = new Set();
    /** @type {Set<(message: Message) => void>} */
    this.hearers = new Set();
    /** @type {Map<string, { timer: ReturnType<typeof setTimeout> | null, last: number }>} */
    this.questions = new Map();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.drawing = undefined;
    this.due = Infinity; // when the views are to be drawn
    this.end = transport.listen({
      message: (message) => {
        this.dispatch({ type: "message", message }, pace());
        for (const hear of this.hearers) hear(message);
      },
      connection: (connection) => this.connected(connection),
    });
    this.patrol = setInterval(() => this.look(), PATROL);
    this.back = () => {
      this.look();
      if (this.due < Infinity) this.tell();
    };
    globalThis.document?.addEventListener("visibilitychange", this.back);
    globalThis.addEventListener?.("focus", this.back);
  }

  destroy() {
    clearInterval(this.patrol);
    globalThis.document?.removeEventListener("visibilitychange", this.back);
    globalThis.removeEventListener?.("focus", this.back);
    clearTimeout(this.drawing);
    for (const { timer } of this.questions.values()) if (timer) clearTimeout(timer);
    this.end();
    this.views.clear();
  }

  /** @param {Event} event @param {number} [wait]  milliseconds until the views are drawn */
  dispatch(event, wait) {
    const before = this.state;
    this.state = reduce(before, event);
    if (this.state === before) return;
    if (this.state.open !== before.open || this.state.compared !== before.compared) remember(this.state);
    this.askForMissing();
    this.tell(wait);
  }

  /** Have the views drawn, once for all events of a moment. @param {number} [wait]  milliseconds */
  tell(wait = AT_ONCE) {
    const due = Date.now() + wait;
    if (!this.views.size || this.due <= due) return;
    clearTimeout(this.drawing);
    this.due = due;
    this.drawing = setTimeout(() => {
      this.due = Infinity;
      for (const draw of this.views) draw();
    }, wait);
  }

  /**
   * Call `draw` now and after every change. With the first view the store begins to ask.
   *
   * @param {() => void} draw
   * @returns {() => void} how to end it
   */
  watch(draw) {
    this.views.add(draw);
    draw();
    if (this.views.size === 1) this.look();
    return () => void this.views.delete(draw);
  }

  /** @param {(message: Message) => void} hear @returns {() => void} how to end it */
  hear(hear) {
    this.hearers.add(hear);
    return () => void this.hearers.delete(hear);
  }

  /** @param {import("./types.mjs").Connection} connection */
  connected(connection) {
    this.dispatch({ type: "connection", connection });
    if (connection === "live" && this.views.size) this.look();
  }

  /** Ask for what may have changed without a word: other processes' runs, and everything after a lost connection. */
  look() {
    if (!this.views.size || globalThis.document?.hidden) return;
    this.soon("runs", () => this.fetchRuns(), pace());
    for (const run of this.shown()) this.soon(`details ${run}`, () => this.fetchDetails(run), pace());
  }

  /** Ask for what the state says is missing of the runs that are shown. */
  askForMissing() {
    if (!this.views.size) return;
    const { state } = this;
    if (state.outdated) this.soon("runs", () => this.fetchRuns());
    for (const run of this.shown()) {
      if (!state.details[run]) this.soon(`details ${run}`, () => this.fetchDetails(run));
      const tail = state.tails[run];
      if (!state.curves[run] || tail?.stale)
        this.soon(`curves ${run}`, () => this.fetchCurves(run), state.curves[run] ? AGAIN / 5 : 0);
      else if (tail && tail.missed !== null) this.soon(`missed ${run} ${tail.missed}`, () => this.catchUp(run), AGAIN);
    }
  }

  shown() {
    return [this.state.open, ...this.state.compared].filter((id) => id !== null);
  }

  /**
   * Ask at once if the same was not asked within `pause`, else when that has passed, and never twice.
   *
   * @param {string} key
   * @param {() => Promise<void>} question
   * @param {number} [pause]  milliseconds
   */
  soon(key, question, pause = SOONEST) {
    const asked = this.questions.get(key) ?? { timer: null, last: -Infinity };
    this.questions.set(key, asked);
    if (asked.timer) return;
    const wait = Math.max(asked.last + Math.max(pause, SOONEST) - Date.now(), 0);
    asked.timer = setTimeout(async () => {
      asked.last = Date.now();
      try {
        await question();
        this.failure = "";
      } catch (problem) {
        this.failed(problem);
      } finally {
        asked.timer = null;
      }
    }, wait);
  }

  /** @param {unknown} problem */
  failed(problem) {
    this.failure = problem instanceof Refused ? problem.message : "The server does not answer.";
    if (!(problem instanceof Refused || problem instanceof TypeError)) throw problem;
    this.tell();
  }

  async fetchRuns() {
    const { runs, total } = await ask(this.transport, `/runs?limit=${this.page}`);
    this.dispatch({ type: "runs", runs, total });
  }

  /** @param {string} run */
  async fetchDetails(run) {
    try {
      this.dispatch({ type: "details", details: await ask(this.transport, ofRun(run)) });
    } catch (problem) {
      if (!(problem instanceof Refused && problem.status === 404)) throw problem;
      this.dispatch({ type: "removed", run });
    }
  }

  /** @param {string} run */
  async fetchCurves(run) {
    this.dispatch({ type: "curves", run, answer: await ask(this.transport, ofRun(run, `/curves?points=${POINTS}`)) });
  }

  /** Ask from the last iteration that was heard of. @param {string} run */
  async catchUp(run) {
    const from = this.state.tails[run]?.missed;
    if (from === null || from === undefined) return;
    const answer = await ask(this.transport, ofRun(run, `/curves?points=${POINTS}&from=${from}`));
    this.dispatch({ type: "caught up", run, from, answer });
  }
}

/** Milliseconds until the views follow a training. */
export function pace() {
  return (globalThis.document?.hasFocus() ?? true) ? LIVE : UNWATCHED;
}

/** @param {State} state */
function remember({ open, compared }) {
  try {
    localStorage.setItem(MEMORY, JSON.stringify({ open, compared }));
  } catch {
    // a browser that keeps nothing: the panel then begins with the list of runs
  }
}

/** @returns {{ open?: string | null, compared?: string[] }} */
function remembered() {
  try {
    const { open, compared } = JSON.parse(localStorage.getItem(MEMORY) ?? "{}");
    return {
      open: typeof open === "string" ? open : null,
      compared: Array.isArray(compared) ? compared.filter((id) => typeof id === "string") : [],
    };
  } catch {
    return {};
  }
}
