/** Numbers, times and names as a person reads them. */

/**
 * A number in at most `digits` significant digits: 0.1235, 1.2e-5, 12,346, "–" for what is not there.
 *
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e7)
    return value
      .toExponential(Math.min(digits - 1, 2))
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  if (size >= 10 ** digits) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

/** @param {number | null | undefined} value */
export function signed(value) {
  const text = number(value, 3);
  return value !== null && value !== undefined && value > 0 ? `+${text}` : text.replace("-", "−");
}

/**
 * Seconds as 4.2 s, 3 min 5 s, 2 h 14 min or 3 d 4 h.
 *
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const [d, h, m, s] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
    whole % 60,
  ];
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  if (m) return s ? `${m} min ${s} s` : `${m} min`;
  return `${s} s`;
}

/** @param {number | null | undefined} count */
export function bytes(count) {
  if (count === null || count === undefined || !Number.isFinite(count)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log2(count) / 10), units.length - 1);
  const size = count / 2 ** (10 * power);
  return `${size >= 1000 ? Math.round(size) : Number(size.toPrecision(3))} ${units[power]}`;
}

/**
 * How long ago, roughly.
 *
 * @param {number | null} unix  seconds
 * @param {number} now  seconds
 */
export function ago(unix, now) {
  if (unix === null) return "–";
  const seconds = Math.max(now - unix, 0);
  if (seconds < 60) return "just now";
  const [size, name] = seconds < 3600 ? [60, "minute"] : seconds < 86400 ? [3600, "hour"] : [86400, "day"];
  const count = Math.floor(seconds / size);
  return `${count} ${name}${count === 1 ? "" : "s"} ago`;
}

/** A date and time in the reader's own way. @param {number | null} unix  seconds */
export function moment(unix) {
  return unix === null
    ? "–"
    : new Date(unix * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/**
 * The last folder of a path, or all of a hub's "owner/name".
 *
 * @param {string} model
 */
export function modelName(model) {
  const parts = model.split(/[\\/]/).filter(Boolean);
  return parts.length > 2 || /^([\\/~.]|[A-Za-z]:)/.test(model) ? (parts.at(-1) ?? model) : model;
}

const METRICS = /** @type {Record<string, string>} */ ({
  velocity_change: "velocity, apart from the base model's",
  velocity_norm: "velocity's norm, by the base model's",
  effective_step: "effective step",
  loss: "loss",
  grad_norm: "gradient norm",
  clip_fraction: "clip fraction",
  kl_old: "to the old policy",
  kl_reference: "to the reference",
  ratio_error: "|ρ − 1| at the start",
  velocity_error: "before the update",
  velocity_shift: "before the last update",
  flatness: "flatness of the advantages",
  diversity: "diversity (mean pairwise distance)",
  skipped_groups: "skipped groups",
  learning_rate: "learning rate",
  strength: "strength",
  seconds: "seconds",
  "memory/device": "device memory",
});

/** A metric's name for people. @param {string} name */
export function metricName(name) {
  if (name.startsWith("reward/")) return name.slice(7);
  if (name.startsWith("reward_std/")) return `spread of ${name.slice(11)}`;
  if (name.startsWith("seconds/")) return name.slice(8);
  return METRICS[name] ?? name.replaceAll("_", " ");
}

/**
 * The sort of a state, for its colour, and the reason behind its colon.
 *
 * @param {string} state
 * @returns {{ kind: "good" | "busy" | "idle" | "bad", word: string, reason: string }}
 */
export function stateOf(state) {
  const at = state.indexOf(":");
  const word = at < 0 ? state : state.slice(0, at);
  const reason = at < 0 ? "" : state.slice(at + 1).trim();
  const bad = /^(failed|gave up|stopped by)/.test(word);
  const kind = bad ? "bad" : word === "complete" ? "good" : word === "running" ? "busy" : "idle";
  return { kind, word, reason };
}

/** A run's name for people. @param {{ id: string, title: string }} run */
export function runName(run) {
  return run.title || run.id;
}
