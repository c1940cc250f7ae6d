/** At which strengths the LoRA of the open run was tried, and which is recommended. */

/**
 * @typedef {import("./types.mjs").Strengths} Strengths
 * @typedef {import("./types.mjs").AtStrength} AtStrength
 */

import { h } from "./dom.mjs";
import { number, signed } from "./format.mjs";

/**
 * The table; how to make it if there is none.
 *
 * @param {Strengths | null} known
 */
export function strengthTable(known) {
  if (!known) {
    const how = "Not measured yet: by the node LoRA Strength, or by ";
    return [h("p", { class: "ng-quiet" }, how, h("code", {}, "python -m trainer strength RUN"), ".")];
  }
  const names = [...new Set(known.strengths.flatMap((row) => Object.keys(row.rewards)))];
  const head = h("tr", {}, ...["strength", ...names].map((name) => h("th", { scope: "col" }, name)));
  const rows = known.strengths.map((row) => line(row, names, row.strength === known.recommended));
  return [
    h("p", {}, "Best at ", h("b", {}, number(known.recommended)), `: ${measured(known)}.`),
    h("table", { class: "ng-strengths" }, h("thead", {}, head), h("tbody", {}, ...rows)),
  ];
}

/** @param {Strengths} known */
function measured({ iteration, pictures }) {
  const after = iteration === null ? "" : ` after ${iteration} iterations`;
  return `of the LoRA${after}, on ${number(pictures)} pictures, each against the base model's`;
}

/** @param {AtStrength} row @param {string[]} names @param {boolean} best */
function line({ strength, rewards }, names, best) {
  const cells = names.map((name) => h("td", {}, rise(rewards[name])));
  return h("tr", { class: best && "ng-best" }, h("th", { scope: "row" }, number(strength)), ...cells);
}

/** @param {AtStrength["rewards"][string] | undefined} reward */
function rise(reward) {
  if (!reward) return "–";
  return `${number(reward.after)} (${signed(reward.difference)} ± ${number(reward.standard_error, 2)})`;
}
