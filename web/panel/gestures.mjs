/** Wheel, pinch and keys on a chart. */

/** @typedef {import("./zoom.mjs").Range} Range */

import { moved, within, zoomed } from "./zoom.mjs";

const NOTCH = 1.0015; // zoom for one pixel of the wheel

/**
 * @typedef {object} Target
 * @property {HTMLElement} over  the plot's area
 * @property {() => Range} full
 * @property {() => Range} shown
 * @property {(pixel: number) => number} iterationAt  of a horizontal position in `over`
 * @property {(range: Range | null) => void} zoom
 * @property {(pixel: number) => void} point  move the cursor
 * @property {boolean} wheel  zoom without the Ctrl key
 */

/**
 * Zoom by the wheel (around the pointer), by two fingers, and move the cursor by one.
 *
 * @param {Target} target
 */
export function listenToPointers({ over, full, shown, iterationAt, zoom, point, wheel }) {
  /** @type {Map<number, number>} */
  const fingers = new Map(); // horizontal positions by pointer
  const place = (/** @type {MouseEvent} */ event) => event.clientX - over.getBoundingClientRect().left;

  over.addEventListener(
    "wheel",
    (event) => {
      if (!(wheel || event.ctrlKey || event.metaKey)) return; // the page scrolls
      event.preventDefault();
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      const [from, to] = shown();
      const pixels = (sideways ? event.deltaX : event.deltaY) * (event.deltaMode === 1 ? 20 : 1);
      if (sideways) zoom(moved([from, to], full(), (pixels / over.clientWidth) * (to - from)));
      else zoom(zoomed([from, to], full(), iterationAt(place(event)), NOTCH ** pixels));
    },
    { passive: false },
  );

  over.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") return;
    fingers.set(event.pointerId, place(event));
    point(place(event));
  });
  over.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before === undefined) return;
    const now = place(event);
    if (fingers.size === 1) point(now);
    else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1] ?? now;
      const spread = Math.max(Math.abs(now - other), 8) / Math.max(Math.abs(before - other), 8);
      zoom(zoomed(shown(), full(), iterationAt((now + other) / 2), 1 / spread));
    }
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"])
    over.addEventListener(end, (event) => void fingers.delete(/** @type {PointerEvent} */ (event).pointerId));
}

/**
 * + and - zoom, 0 shows everything, Shift with an arrow moves the window, an arrow alone the choice, Enter takes it.
 *
 * @param {HTMLElement} element  that has the focus
 * @param {Pick<Target, "full" | "shown" | "zoom">} target
 * @param {(by: number) => void} step  to another iteration
 */
export function listenToKeys(element, { full, shown, zoom }, step) {
  element.addEventListener("keydown", (event) => {
    const [from, to] = shown();
    const middle = (from + to) / 2;
    const forward = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(zoomed([from, to], full(), middle, 0.5));
    else if (event.key === "-") zoom(zoomed([from, to], full(), middle, 2));
    else if (event.key === "0") zoom(null);
    else if (forward && event.shiftKey)
      zoom(within([from + (forward * (to - from)) / 4, to + (forward * (to - from)) / 4], full()));
    else if (forward) step(forward);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
