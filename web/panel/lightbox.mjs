/** One candidate's picture in full, or two under a slider. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./tiles.mjs").Shown} Shown
 */

import { addNode, copyNode, dialog } from "./dialogs.mjs";
import { button, fill, h, say, select, set } from "./dom.mjs";
import { number, signed } from "./format.mjs";
import { candidateNoise } from "./nodes.mjs";
import { ordered, ranks } from "./ranking.mjs";

/**
 * @param {Panel} panel
 * @param {Shown} shown
 * @param {string} order  of the arrow keys
 * @param {number} first  candidate
 */
export function lightbox(panel, { run, iteration, group }, order, first) {
  const inOrder = ordered(group.candidates, order).map((c) => c.candidate);
  const places = ranks(group.candidates);
  let current = first;
  let other = ""; // the second picture: a candidate, "base", or none

  const left = h("img", { class: "ng-large", alt: "" });
  const right = h("img", { class: "ng-large ng-over", alt: "", hidden: true });
  const seam = slider();
  seam.hidden = true; // from the beginning: else it gets the focus
  const stage = h("div", { class: "ng-stage" }, left, right, seam);
  const facts = h("p", { class: "ng-lightbox-facts", "aria-live": "polite" });
  const second = select("Compare with", (value) => {
    other = value;
    draw();
  });

  stage.hidden = second.element.hidden = !group.candidates.some((c) => c.tile);

  /** @param {number | "base"} candidate */
  const source = (candidate) => panel.tile(run, iteration, group.slot, candidate);
  /** @param {number} candidate */
  const words = (candidate) => {
    const at = group.candidates.findIndex((c) => c.candidate === candidate);
    const { scores, advantage, anchor } = group.candidates[at];
    const values = Object.entries(scores).map(([name, value]) => `${name} ${number(value)}`);
    return [
      `№ ${candidate}`,
      `rank ${places[at] ?? "–"}`,
      `A′ ${signed(advantage)}`,
      ...values,
      ...(anchor ? ["anchor"] : []),
    ].join(" · ");
  };

  /** @param {number} by */
  function step(by) {
    current = inOrder[(inOrder.indexOf(current) + by + inOrder.length) % inOrder.length];
    draw();
  }

  function slide() {
    right.style.clipPath = `inset(0 0 0 ${seam.value}%)`;
    stage.style.setProperty("--ng-seam", `${seam.value}%`);
  }

  function draw() {
    if (stage.hidden) return say(facts, words(current));
    left.src = source(current);
    left.alt = `Candidate ${current}`;
    const pair = other !== "";
    stage.classList.toggle("ng-pair", pair);
    right.hidden = seam.hidden = !pair;
    if (pair) {
      set(right, "src", source(other === "base" ? "base" : Number(other)));
      right.alt = other === "base" ? "Base noise" : `Candidate ${other}`;
    }
    const secondWords = other === "" ? "" : `\nright: ${other === "base" ? "base noise" : words(Number(other))}`;
    say(facts, (pair ? "left: " : "") + words(current) + secondWords);
    const options = /** @type {[string, string][]} */ ([["", "one picture"]]);
    if (group.base) options.push(["base", "beside the base noise"]);
    for (const c of inOrder) if (c !== current) options.push([String(c), `beside № ${c}`]);
    if (other === String(current)) other = "";
    second.show(options, other);
    slide();
  }

  function noise() {
    const { grpo } = panel.store.state.details[run]?.settings ?? {};
    const changes = panel.store.state.details[run]?.changes ?? [];
    const strengths = changes.filter((c) => c.strength !== undefined && c.iteration <= iteration);
    const strength = strengths.at(-1)?.strength ?? grpo?.strength ?? 0.3;
    return candidateNoise({ seed: group.seed, candidate: current, groupSize: group.candidates.length, strength });
  }

  seam.addEventListener("input", slide);
  const element = dialog(panel, `Iteration ${iteration}`, (close) => [
    h("p", { class: "ng-prompt" }, group.prompt),
    stage,
    facts,
    h(
      "div",
      { class: "ng-buttons" },
      button("◀", () => step(-1), { "aria-label": "Previous candidate" }),
      button("▶", () => step(1), { "aria-label": "Next candidate" }),
      second.element,
      button("Copy noise as node", () => void copyNode(panel, noise())),
      panel.host.addNode && button("Add noise node", () => addNode(panel, noise())),
      button("Close", close),
    ),
  ]);
  element.classList.add("ng-lightbox");
  element.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined || event.target === seam || event.target === second.element) return;
    event.preventDefault();
    step(by);
  });
  draw();
  return element;
}

/**
 * The picture of an evaluation, in full.
 *
 * @param {Panel} panel
 * @param {string} title
 * @param {string} prompt
 * @param {string[]} sources
 * @param {string} words
 */
export function enlarge(panel, title, prompt, sources, words) {
  const seam = slider();
  const pictures = sources.map((src, i) =>
    h("img", { class: i ? "ng-large ng-over" : "ng-large", src, alt: i ? "after" : "before" }),
  );
  const stage = h(
    "div",
    { class: sources.length > 1 ? "ng-stage ng-pair" : "ng-stage" },
    ...pictures,
    sources.length > 1 && seam,
  );
  const slide = () => {
    if (pictures[1]) pictures[1].style.clipPath = `inset(0 0 0 ${seam.value}%)`;
    stage.style.setProperty("--ng-seam", `${seam.value}%`);
  };
  seam.addEventListener("input", slide);
  slide();
  const facts = h("p", { class: "ng-lightbox-facts" });
  fill(facts, words);
  const element = dialog(panel, title, (close) => [
    h("p", { class: "ng-prompt" }, prompt),
    stage,
    facts,
    h("div", { class: "ng-buttons" }, button("Close", close)),
  ]);
  element.classList.add("ng-lightbox");
}

/** The seam between two pictures. */
function slider() {
  const label = "How much of the first picture";
  return h("input", { type: "range", class: "ng-seam", min: 0, max: 100, step: 0.5, value: 50, "aria-label": label });
}
