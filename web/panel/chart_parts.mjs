/** What a chart is made of: its legend's entries, its table, its series. */

import uPlot from "../lib/uplot.mjs";
import { h } from "./dom.mjs";
import { smooth } from "./smoothing.mjs";

/** @typedef {import("./chart.mjs").Line} Line */

/** An entry of the legend. @param {Line} line @param {HTMLElement} value */
export function key(line, value) {
  const mark =
    line.label &&
    h("i", { class: line.dashed ? "ng-key ng-key-dashed" : "ng-key", style: `--ng-key: var(${line.colour})` });
  return h("span", { class: "ng-legend-item" }, mark, line.label, " ", value);
}

/**
 * One table of all lines: iterations, and for each line its raw values, its smoothed ones, low and high. A line that has no
 * point at an iteration has undefined there, which does not break it; null does.
 *
 * @param {Line[]} lines
 * @param {number} weight
 * @returns {uPlot.AlignedData}
 */
export function table(lines, weight) {
  if (!lines.length) return [[], []];
  const tables = lines.map(({ curve }) => {
    const { x, mean } = curve;
    const low = curve.low ?? x.map(() => null);
    const high = curve.high ?? x.map(() => null);
    return /** @type {uPlot.AlignedData} */ ([x, mean, smooth(mean, weight), low, high]);
  });
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

/** @param {Line} line @param {boolean} smoothed @param {(name: string) => string} colour @returns {uPlot.Series[]} */
export function series(line, smoothed, colour) {
  const scale = line.scale ?? "y";
  const dash = line.dashed ? [6, 4] : undefined;
  const stroke = () => colour(line.colour);
  const points = { size: 4, fill: stroke };
  const none = { show: false };
  const edge = { scale, stroke: () => "transparent", width: 0, points: none };
  return [
    {
      scale,
      dash,
      width: smoothed ? 1 : 2,
      stroke: smoothed ? () => faint(colour(line.colour), 0.35) : stroke,
      points: smoothed ? none : points,
    },
    { scale, dash, width: 2, stroke, show: smoothed, points },
    edge,
    edge,
  ];
}

/** @param {string} colour @param {number} [alpha] */
export function faint(colour, alpha = 0.16) {
  return `color-mix(in srgb, ${colour} ${100 * alpha}%, transparent)`;
}

/** The height of an axis: uPlot's own, but for values that are all 0, which it draws below an axis up to 100. */
export function heights(/** @type {uPlot} */ _, /** @type {number} */ least, /** @type {number} */ most) {
  return least === null || (least === 0 && most === 0)
    ? /** @type {uPlot.Range.MinMax} */ ([0, 1])
    : uPlot.rangeNum(least, most, 0.1, true);
}
