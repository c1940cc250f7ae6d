/** Which curves a run has, and which lines of which charts they become. */

/**
 * @typedef {import("./types.mjs").Curve} Curve
 * @typedef {import("./types.mjs").Curves} Curves
 * @typedef {import("./types.mjs").Run} Run
 * @typedef {import("./chart.mjs").Line} Line
 *
 * @typedef {object} Drawn  a run in the charts
 * @property {Run} run
 * @property {string} name  of the run
 * @property {(name: string) => Curve | undefined} curve
 * @property {string[]} names  of its curves
 *
 * @typedef {object} Small  a small chart
 * @property {string} title
 * @property {string[]} names  of its curves, or what they begin with
 * @property {import("./chart.mjs").Format} [format]
 * @property {"zero" | "constant"} [quiet]  shown only if it is something else, but for rounding
 * @property {boolean} [sparse]  measured now and then, with no gap between
 */

import { continued, refined } from "./downsample.mjs";
import { bytes, duration, metricName, number, runName } from "./format.mjs";
import { runOf } from "./state.mjs";

const ROUNDING = 1e-6; // of float32, in sums of a few thousand numbers
export const COLOURS = 8; // --ng-c0 to --ng-c7

/** @type {Small[]} */
export const SMALL = [
  { title: "velocity, apart from the base model's", names: ["velocity_change"], sparse: true },
  { title: "velocity's norm, by the base model's", names: ["velocity_norm"], sparse: true },
  { title: "effective step (1: steady, 0.23: noise)", names: ["effective_step"] },
  { title: "gradient norm", names: ["grad_norm"] },
  { title: "loss", names: ["loss"], quiet: "zero" },
  { title: "clip fraction", names: ["clip_fraction"], quiet: "zero" },
  { title: "approximate KL", names: ["kl_old", "kl_reference"], quiet: "zero" },
  { title: "|ρ − 1| at the start", names: ["ratio_error"], quiet: "zero" },
  { title: "velocity, apart from the rollout's", names: ["velocity_error", "velocity_shift"], quiet: "zero" },
  { title: "flatness of the advantages", names: ["flatness"] },
  { title: "diversity (mean pairwise distance)", names: ["diversity"] },
  { title: "skipped groups", names: ["skipped_groups"] },
  { title: "seconds per phase", names: ["seconds/"], format: duration },
  { title: "device memory", names: ["memory/device"], format: bytes },
  { title: "learning rate", names: ["learning_rate"], quiet: "constant" },
  { title: "strength", names: ["strength"], quiet: "constant" },
];

/** @param {number} i */
const paint = (i) => `--ng-c${i % COLOURS}`;

/**
 * The runs to draw: the open one and those compared with it, each with its stored and its live values.
 *
 * @param {import("./state.mjs").State} state
 * @param {Record<string, Curves>} fine  of the window zoomed to, by run
 * @returns {Drawn[]}
 */
export function drawnRuns(state, fine) {
  const ids = [state.open, ...state.compared];
  return ids.flatMap((id) => {
    const run = runOf(state, id);
    if (id === null || !run) return [];
    const stored = state.curves[id]?.curves ?? {};
    const entries = state.tails[id]?.entries ?? [];
    const names = [...new Set([...Object.keys(stored), ...entries.flatMap((e) => Object.keys(e.metrics))])].sort();
    /** @param {string} name */
    const curve = (name) => {
      if (!names.includes(name)) return undefined;
      const whole = stored[name] && refined(stored[name], fine[id]?.[name]);
      return continued(whole, entries, name);
    };
    return [{ run, name: runName(run), curve, names }];
  });
}

/**
 * Rewards: by reward in one run's colours, by run if several are compared. Held-out ones are dashed. The band is the mean
 * plus and minus the standard deviation within a group; of several runs, that of the first reward only.
 *
 * @param {Drawn[]} runs
 * @param {boolean} together  all rewards on one axis
 * @returns {Line[]}
 */
export function rewardLines(runs, together) {
  return runs.flatMap(({ run, name, curve }, r) => {
    const rewards = [...run.trained, ...run.held_out];
    return rewards.flatMap((reward, i) => {
      const found = curve(`reward/${reward}`);
      if (!found) return [];
      const spread = curve(`reward_std/${reward}`);
      return [
        {
          label:
            runs.length > 1 ? `${name} · ${reward}` : reward + (run.held_out.includes(reward) ? " (held out)" : ""),
          colour: paint(runs.length > 1 ? r : i),
          dashed: run.held_out.includes(reward),
          scale: together ? "y" : reward,
          curve: banded(found, runs.length > 1 && i > 0 ? undefined : spread),
        },
      ];
    });
  });
}

/**
 * @param {Pick<Small, "names" | "sparse">} kind  of small chart
 * @param {Drawn[]} runs
 * @returns {Line[]}
 */
export function smallLines({ names, sparse }, runs) {
  const phases = names[0].endsWith("/");
  return runs.flatMap(({ name, names: all, curve }, r) => {
    const wanted = phases ? (runs.length > 1 ? ["seconds"] : all.filter((n) => n.startsWith(names[0]))) : names;
    const found = wanted.flatMap((metric) => {
      const values = curve(metric);
      return values && values.mean.some((v) => v !== null) ? [{ metric, values }] : [];
    });
    return found.map(({ metric, values }, i) => ({
      label:
        runs.length > 1 ? name : phases ? metric.slice(names[0].length) : found.length > 1 ? metricName(metric) : "",
      colour: paint(runs.length > 1 ? r : i),
      dashed: runs.length > 1 && i > 0,
      curve: sparse ? withoutGaps(values) : values,
    }));
  });
}

/**
 * A curve that never changes says nothing, nor one of rounding errors.
 *
 * @param {Small} kind
 * @param {Line[]} lines
 */
export function saysNothing({ quiet }, lines) {
  const values = lines.flatMap((l) => l.curve.mean).filter((v) => v !== null);
  if (quiet === "zero") return values.every((v) => Math.abs(v) < ROUNDING);
  return quiet === "constant" && values.every((v) => v === values[0]);
}

/** @param {Curve} curve @returns {Curve} */
function withoutGaps({ x, mean, low, high, step }) {
  /** @template T @param {T[]} values */
  const there = (values) => values.filter((_, i) => mean[i] !== null);
  return { x: there(x), mean: there(mean), low: low && there(low), high: high && there(high), step };
}

/** @param {Curve} curve @param {Curve | undefined} spread @returns {Curve} */
function banded(curve, spread) {
  const { x, mean, step } = curve;
  if (!spread) return { x, mean, step };
  const widths = new Map(spread.x.map((at, i) => [at, spread.mean[i]]));
  /** @param {number} sign */
  const edge = (sign) => mean.map((v, i) => (v === null ? null : v + sign * (widths.get(x[i]) ?? 0)));
  return { x, mean, step, low: edge(-1), high: edge(1) };
}

/** The description of a chart for those who do not see it. @param {Line[]} lines */
export function inWords(lines) {
  return lines
    .map(({ label, curve }) => {
      const values = curve.mean.filter((v) => v !== null);
      return `${label}: from ${number(values[0])} to ${number(values.at(-1))}`;
    })
    .join("; ");
}
