/** A chart over iterations: uPlot with bands, gaps, a window that several charts share, and a legend of our own. */

import uPlot from "../lib/uplot.mjs";
import { faint, heights, key, series, table } from "./chart_parts.mjs";
import { fill, h, say } from "./dom.mjs";
import { number } from "./format.mjs";
import { listenToKeys, listenToPointers } from "./gestures.mjs";

/**
 * @typedef {import("./types.mjs").Curve} Curve
 * @typedef {import("./zoom.mjs").Range} Range
 * @typedef {(value: number | null | undefined) => string} Format
 *
 * @typedef {object} Line
 * @property {string} label
 * @property {string} colour  name of a CSS variable
 * @property {boolean} [dashed]
 * @property {string} [scale]  lines of one name share their axis
 * @property {Curve} curve  `low` and `high` are drawn as a band
 *
 * @typedef {object} Options
 * @property {string} label  what a screen reader says
 * @property {number} height
 * @property {string} sync  charts of one name share their cursor
 * @property {boolean} [wheel]  the wheel zooms without Ctrl
 * @property {Format} [format]
 * @property {(range: Range | null) => void} zoom  somebody zooms; null shows everything
 * @property {(iteration: number | null) => void} [hover]
 * @property {(iteration: number) => void} [choose]
 * @property {(by: number) => void} [step]
 */

const RIGHT_AXIS_FROM = 420; // pixels

/** @param {HTMLElement} parent @param {Options} options */
export function chart(parent, options) {
  const legend = h("div", { class: "ng-legend" });
  const plot = h("div", { class: "ng-plot", tabindex: 0, role: "group", "aria-label": options.label });
  const element = h("div", { class: "ng-chart" }, legend, plot);
  parent.append(element);
  const style = getComputedStyle(element);
  const format = options.format ?? number;

  /** @type {uPlot | null} */
  let drawn = null;
  let made = ""; // what the plot was made for
  /** @type {Line[]} */
  let lines = [];
  /** @type {Range | null} */
  let range = null;
  /** @type {number | null} */
  let marked = null;
  /** @type {HTMLElement[]} */
  let values = [];
  let smoothing = 0;
  let width = 0; // of the plot; reading it anew while others draw would lay out the whole page each time
  let inSight = true;
  let late = false; // something was to be drawn out of sight
  /** @type {Map<string, string>} */
  const colours = new Map();

  const colour = (/** @type {string} */ name) => {
    if (!colours.has(name)) colours.set(name, style.getPropertyValue(name).trim() || "gray");
    return /** @type {string} */ (colours.get(name));
  };
  const full = () => {
    const x = drawn?.data[0] ?? [];
    return /** @type {Range} */ ([x[0] ?? 0, x[x.length - 1] ?? 1]);
  };
  const shown = () => range ?? full();

  /** @param {Line[]} next @param {number} weight  of smoothing */
  function show(next, weight) {
    lines = next.filter((line) => line.curve.x.length);
    smoothing = weight;
    draw();
  }

  /** Out of sight nothing is drawn but the first picture, which gives the chart its height. */
  function draw() {
    late = drawn !== null && !inSight;
    if (late) return;
    width ||= plot.clientWidth;
    const data = table(lines, smoothing);
    const scales = [...new Set(lines.map((l) => l.scale ?? "y"))];
    const key = JSON.stringify([
      lines.map((l) => [l.label, l.colour, l.dashed, l.scale]),
      smoothing > 0,
      width > RIGHT_AXIS_FROM,
    ]);
    if (drawn && key === made) drawn.setData(data);
    else remake(data, scales, smoothing > 0);
    made = key;
    if (drawn) point(drawn);
  }

  /** @param {uPlot.AlignedData} data @param {string[]} scales @param {boolean} smoothed */
  function remake(data, scales, smoothed) {
    drawn?.destroy();
    values = lines.map(() => h("b", {}));
    fill(legend, ...lines.map((line, i) => key(line, values[i])));
    drawn = new uPlot(
      {
        ...{ width: Math.max(width, 50), height: options.height, legend: { show: false }, pxAlign: 0 },
        series: [{}, ...lines.flatMap((line) => series(line, smoothed, colour))],
        bands: lines.map((line, i) => ({ series: [4 * i + 4, 4 * i + 3], fill: () => faint(colour(line.colour)) })),
        scales: {
          x: { time: false, range: (_, least, most) => range ?? [least, Math.max(most, least + 1)] },
          ...Object.fromEntries(scales.map((name) => [name, { range: heights }])),
        },
        axes: axes(scales),
        cursor: {
          sync: { key: options.sync, setSeries: false },
          drag: { x: true, y: false, setScale: false },
          points: { size: 6 },
          bind: { dblclick: () => () => (options.zoom(null), null) },
        },
        hooks: { setCursor: [point], setSelect: [selected], draw: [mark] },
      },
      data,
      plot,
    );
    listenToPointers({
      ...{ over: drawn.over, full, shown, zoom: options.zoom, wheel: options.wheel ?? false },
      iterationAt: (pixel) => drawn?.posToVal(pixel, "x") ?? 0,
      point: (left) => drawn?.setCursor({ left, top: 10 }),
    });
    drawn.over.addEventListener("click", () => {
      const at = drawn?.cursor.idx;
      if (drawn && at !== null && at !== undefined && !drawn.select.width) options.choose?.(drawn.data[0][at]);
    });
  }

  /** @param {string[]} scales @returns {uPlot.Axis[]} */
  function axes(scales) {
    const ink = { stroke: () => colour("--ng-quiet"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: () => colour("--ng-line"), width: 1 };
    const shownScales = scales.slice(0, width > RIGHT_AXIS_FROM ? 2 : 1);
    const single = scales.length === 1;
    const named = { labelSize: 16, labelGap: 0, labelFont: "11px system-ui, sans-serif" };
    return [
      {
        ...ink,
        grid: { show: false },
        size: 24,
        space: 60,
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000],
      },
      ...shownScales.map((scale, i) => ({
        ...{
          ...ink,
          scale,
          side: /** @type {uPlot.Axis.Side} */ (i ? 1 : 3),
          grid: i ? { show: false } : grid,
          space: 28,
        },
        ...(shownScales.length > 1 ? { ...named, label: scale } : {}),
        stroke: () =>
          colour(single ? "--ng-quiet" : (lines.find((l) => (l.scale ?? "y") === scale)?.colour ?? "--ng-quiet")),
        values: (/** @type {uPlot} */ _, /** @type {number[]} */ ticks) => ticks.map((v) => format(v)),
        size: (/** @type {uPlot} */ _, /** @type {string[] | null} */ texts) =>
          14 + 6.2 * Math.max(2, ...(texts ?? []).map((t) => t.length)),
      })),
    ];
  }

  /** The values under the cursor, else the last ones. @param {uPlot} u */
  function point(u) {
    const at = u.cursor.idx;
    const over = (u.cursor.left ?? -1) >= 0 && at !== null && at !== undefined;
    lines.forEach((line, i) => {
      const { x, mean } = line.curve;
      const where = over ? x.indexOf(u.data[0][at]) : mean.findLastIndex((v) => v !== null);
      if (values[i]) say(values[i], where < 0 ? "–" : format(mean[where]));
    });
    if (u.cursor.event) options.hover?.(over ? u.data[0][at] : null);
  }

  /** @param {uPlot} u */
  function selected(u) {
    const { left, width } = u.select;
    if (width > 4) options.zoom([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
    setTimeout(() => u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false));
  }

  /** @param {uPlot} u */
  function mark(u) {
    if (marked === null || marked < (u.scales.x.min ?? 0) || marked > (u.scales.x.max ?? 0)) return;
    const x = u.valToPos(marked, "x", true);
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour("--ng-accent");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  const size = new ResizeObserver(() => {
    width = plot.clientWidth;
    if (drawn && width && width !== drawn.width) drawn.setSize({ width, height: options.height });
  });
  size.observe(plot);
  const sight = new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    if (inSight && late) draw();
  });
  sight.observe(plot);
  listenToKeys(plot, { full, shown, zoom: options.zoom }, (by) => options.step?.(by));

  return {
    element,
    show,
    shown,
    full,
    /** @param {Range | null} next */
    zoom(next) {
      range = next;
      if (drawn) draw();
      element.dataset.range = next ? next.map(Math.round).join(" ") : "";
    },
    /** A line at this iteration. @param {number | null} iteration */
    mark(iteration) {
      if (marked === iteration) return;
      marked = iteration;
      if (inSight) drawn?.redraw(false);
      else late = true;
    },
    /** In the colours of now. */
    redraw() {
      colours.clear();
      drawn?.redraw(false, true);
    },
    destroy() {
      size.disconnect();
      sight.disconnect();
      drawn?.destroy();
      element.remove();
    },
  };
}
