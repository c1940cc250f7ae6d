/**
 * What the views share: the store, pictures, what is chosen, and the host around them.
 *
 * @typedef {import("./types.mjs").Run} Run
 * @typedef {import("./types.mjs").GroupIndex} GroupIndex
 * @typedef {import("./store.mjs").Store} Store
 *
 * @typedef {object} Host  what the surroundings offer
 * @property {"comfyui" | "board"} name
 * @property {(severity: "success" | "info" | "warn" | "error", summary: string, detail: string) => void} [toast]
 * @property {(type: string, inputs: import("./nodes.mjs").Inputs) => boolean} [addNode]  false: no such node
 * @property {(type: string, inputs: import("./nodes.mjs").Inputs) => object | null} [describeNode]  as the graph saves it
 * @property {() => void} [enlarge]
 *
 * @typedef {object} Memory  of what a person set, for as long as the page lives
 * @property {number} smoothing
 * @property {string} order  of the tiles
 * @property {number | "all"} slot
 * @property {string} tab
 * @property {{ run: string | null, range: import("./zoom.mjs").Range } | null} zoom  of the curves
 */

import { say } from "./dom.mjs";
import { Groups } from "./groups.mjs";
import { runOf } from "./state.mjs";
import { pace } from "./store.mjs";
import { ofRun, Refused } from "./transport.mjs";
import { nearest } from "./zoom.mjs";

/** @type {Memory} */
const MEMORY = { smoothing: 0.35, order: "advantage", slot: 0, tab: "runs", zoom: null };
const TOAST = 4000; // milliseconds

export class Panel {
  /**
   * @param {HTMLElement} root
   * @param {Store} store
   * @param {Host} host
   */
  constructor(root, store, host) {
    this.root = root;
    this.store = store;
    this.host = host;
    this.memory = MEMORY;
    this.groups = new Groups(store.transport);
    this.wide = root.clientWidth >= 900;
    this.goTo = (/** @type {string} */ _tab) => {};
    this.message = (/** @type {string} */ _text) => {};
    /** @type {{ run: string, changes: number, index: GroupIndex } | null} */
    this.known = null;
    /** @type {Set<() => void>} */
    this.themes = new Set();
    this.step = this.step.bind(this);
    this.ends = [
      watchTheme(() => this.themes.forEach((draw) => draw())),
      store.hear(({ type, run }) => {
        if (type === "started") this.groups.forget(run);
        if (run === store.state.open && document.hasFocus()) this.index(); // there when the views are drawn
      }),
    ];
  }

  destroy() {
    for (const end of this.ends) end();
  }

  /** @returns {Run | null} */
  run() {
    return runOf(this.store.state, this.store.state.open);
  }

  /** Which iterations of the open run have pictures; what is known so far, while the newest answer is on its way. */
  index() {
    const { open, changes } = this.store.state;
    if (open === null) return null;
    const { known } = this;
    const iteration = this.run()?.iteration ?? 0;
    const fresh = known?.run === open && known.changes === changes && (known.index.last ?? -1) >= iteration - 1;
    if (!fresh)
      this.store.soon(`groups ${open}`, () => this.fetchIndex(open, changes), known?.changes === changes ? 3000 : 0);
    return known?.run === open ? known.index : null;
  }

  /** @param {string} run @param {number} changes */
  async fetchIndex(run, changes) {
    const before = this.known?.run === run ? this.known.index : null;
    const index = await this.groups.index(run);
    this.known = { run, changes, index };
    if (before === null) this.store.tell();
    else if (newest(index) !== newest(before) || index.evaluations.length !== before.evaluations.length)
      this.store.tell(pace());
  }

  /** The iteration whose candidates are looked at: the chosen one, else the newest with pictures, else the newest. */
  iteration() {
    const { iteration } = this.store.state;
    if (iteration !== null) return iteration;
    const index = this.index();
    return index && newest(index);
  }

  /** Look at the iteration nearest to this one that has pictures. @param {number} wanted @param {string} [tab] */
  choose(wanted, tab) {
    this.store.dispatch({ type: "choose", iteration: nearest(this.index()?.tiles ?? [], wanted) ?? wanted });
    if (tab) this.goTo(tab);
  }

  /** @param {number} by */
  step(by) {
    const tiles = this.index()?.tiles ?? [];
    const now = this.iteration();
    if (!tiles.length || now === null) return;
    const at = Math.min(Math.max(tiles.indexOf(nearest(tiles, now) ?? now) + by, 0), tiles.length - 1);
    this.store.dispatch({ type: "choose", iteration: tiles[at] });
  }

  /**
   * The address of a picture.
   *
   * @param {string} run
   * @param {number} iteration
   * @param {number} slot
   * @param {number | "base"} candidate
   */
  tile(run, iteration, slot, candidate) {
    return this.store.transport.url(ofRun(run, `/tiles/${iteration}/${slot}/${candidate}`));
  }

  /** @param {() => void} draw  when light and dark change @returns {() => void} how to end it */
  onTheme(draw) {
    this.themes.add(draw);
    return () => void this.themes.delete(draw);
  }

  /** A short word to the person. @param {string} text @param {boolean} [bad] */
  toast(text, bad = false) {
    this.message(text);
    if (bad) this.host.toast?.("error", "Neighbor GRPO", text);
  }

  /**
   * Do something that the server or the browser may refuse, and say how it went.
   *
   * @param {() => Promise<unknown>} act
   * @param {string} [done]
   * @returns {Promise<boolean>} whether it went well
   */
  async attempt(act, done) {
    try {
      await act();
      if (done) this.toast(done);
      return true;
    } catch (problem) {
      if (!(problem instanceof Error)) throw problem;
      const silent = problem instanceof TypeError && !(problem instanceof Refused);
      this.toast(silent ? "The server does not answer." : problem.message, true);
      return false;
    }
  }
}

/** The newest iteration with pictures, else the newest. @param {GroupIndex} index */
function newest({ tiles, last }) {
  return tiles.at(-1) ?? last;
}

/**
 * A line that shows a message for a moment, on top of a dialog if one is open.
 *
 * @param {HTMLElement} root
 * @param {HTMLElement} element
 */
export function shortly(root, element) {
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  return (/** @type {string} */ text) => {
    const top = root.querySelector("dialog[open]") ?? root;
    if (element.parentElement !== top) top.append(element);
    say(element, text);
    element.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(() => {
      element.hidden = true;
      say(element, "");
    }, TOAST);
  };
}

/** @param {() => void} changed @returns {() => void} */
function watchTheme(changed) {
  const observer = new MutationObserver(changed);
  for (const element of [document.documentElement, document.body])
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style", "data-theme"] });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", changed);
  return () => {
    observer.disconnect();
    dark.removeEventListener("change", changed);
  };
}
