/** When a person who looks elsewhere is told something. */

/** @typedef {import("./types.mjs").Message} Message */

import { stateOf } from "./format.mjs";

/**
 * What to say about a message; null for most.
 *
 * @param {Message} message
 * @returns {{ severity: "success" | "info" | "warn" | "error", summary: string, detail: string } | null}
 */
export function notice({ type, run, iteration, state = "" }) {
  const { kind, word, reason } = stateOf(state);
  const detail = reason || `${iteration} iterations are done.`;
  if (type === "finished") {
    const severity = kind === "bad" ? "error" : kind === "good" ? "success" : "info";
    return { severity, summary: `${run}: ${word || "ended"}`, detail };
  }
  if (type === "state" && word === "waiting") return { severity: "warn", summary: `${run} waits`, detail };
  return null;
}
