/** What a person can tell a run that is under way. */

/**
 * @typedef {import("./panel.mjs").Panel} Panel
 * @typedef {import("./types.mjs").Run} Run
 */

import { confirm } from "./dialogs.mjs";
import { button, fill, h, say } from "./dom.mjs";
import { number, stateOf } from "./format.mjs";
import { ask, ofRun } from "./transport.mjs";

/** @param {HTMLElement} parent @param {Panel} panel */
export function mount(parent, panel) {
  const { store } = panel;
  const reason = h("p", { class: "ng-reason" });
  const pause = button("Pause", () => void send("pause", "It pauses after this iteration."));
  const resume = button("Resume", () => void send("resume", "It goes on."));
  const save = button("Save now", () => void send("save", "It saves after this iteration."));
  const stop = button(
    "Stop and save …",
    () => {
      const text = "The run ends after this iteration and saves. It can be continued later.";
      confirm(panel, { title: "Stop this run?", text, yes: "Stop and save" }, () =>
        send("stop", "It stops after this iteration."),
      );
    },
    { class: "ng-button ng-danger" },
  );

  const rate = field("Learning rate", "any");
  const strength = field("Strength", 0.01);
  const apply = h("button", { type: "submit", class: "ng-button ng-primary" }, "Apply at the next iteration");
  const form = h("form", { class: "ng-form", onsubmit: change }, rate.label, strength.label, apply);
  const changes = h("ol", { class: "ng-log" });
  const log = h("ol", { class: "ng-log" });
  const element = h(
    "div",
    { class: "ng-control" },
    reason,
    h("div", { class: "ng-buttons ng-large-buttons" }, pause, resume, save, stop),
    h("h3", {}, "Change while it runs"),
    form,
    h("h3", {}, "Changes made"),
    changes,
    h("h3", {}, "Log"),
    log,
  );
  parent.append(element);
  let shown = ""; // values that the fields were filled with
  let logged = "";

  /** @param {string} action @param {string} done @param {object} [values] */
  async function send(action, done, values = {}) {
    const run = store.state.open;
    if (run === null) return;
    await panel.attempt(
      () => ask(store.transport, ofRun(run, "/control"), { method: "POST", body: { action, ...values } }),
      done,
    );
    store.soon(`details ${run}`, () => store.fetchDetails(run));
  }

  /** @param {Event} event */
  function change(event) {
    event.preventDefault();
    const values = {
      ...(rate.changed() ? { learning_rate: rate.input.valueAsNumber } : {}),
      ...(strength.changed() ? { strength: strength.input.valueAsNumber } : {}),
    };
    if (Object.keys(values).length) void send("change", "It applies from the next iteration on.", values);
    else panel.toast("Nothing was changed.");
  }

  function draw() {
    const { state } = store;
    const run = panel.run();
    const details = state.open === null ? undefined : state.details[state.open];
    const why = whyNot(run, panel.host.name);
    say(reason, why);
    reason.hidden = !why;
    const { word } = stateOf(run?.state ?? "");
    for (const part of [pause, resume, save, stop, apply, rate.input, strength.input]) {
      part.disabled = why !== "";
      part.title = why;
    }
    pause.hidden = word === "paused";
    resume.hidden = word !== "paused";
    if (!details) return;
    const now = {
      learning_rate: last(details.changes, "learning_rate") ?? details.settings.optimizer?.learning_rate,
      strength: last(details.changes, "strength") ?? details.settings.grpo?.strength,
    };
    const key = JSON.stringify([details.id, now]);
    if (key !== shown) {
      shown = key;
      rate.show(now.learning_rate, details.limits.learning_rate);
      strength.show(now.strength, details.limits.strength);
    }
    const lines = JSON.stringify([details.changes, details.log]);
    if (lines === logged) return;
    logged = lines;
    fill(
      changes,
      ...(details.changes.length ? details.changes.map(changeLine) : [h("li", { class: "ng-quiet" }, "none")]),
    );
    const newest = [...details.log].reverse();
    fill(
      log,
      ...(newest.length
        ? newest.map((l) => line(l.iteration, l.message))
        : [h("li", { class: "ng-quiet" }, "nothing to tell")]),
    );
  }

  const end = store.watch(draw);
  return () => {
    end();
    element.remove();
  };
}

/** Why a run cannot be told anything; empty if it can. @param {Run | null} run @param {"comfyui" | "board"} host */
export function whyNot(run, host) {
  if (!run) return "Open a run to control it.";
  if (run.controllable) return "";
  if (!run.live) return "This run is not under way. “Continue …” in the list of runs goes on with it.";
  if (host === "board") return "The board only looks on: stop the run where it was started (Ctrl+C saves first).";
  return "Another process works on this run: stop it where it was started (Ctrl+C saves first).";
}

/** @param {string} name @param {number | "any"} step */
function field(name, step) {
  const input = h("input", { type: "number", class: "ng-input", step });
  input.addEventListener("keydown", (event) => event.stopPropagation());
  const label = h("label", { class: "ng-field" }, name, input);
  let old = "";
  return {
    input,
    label,
    /** @param {number | undefined} value @param {import("./types.mjs").Limits} limits */
    show(value, { above, most }) {
      input.min = String(above);
      input.max = String(most);
      old = input.value = value === undefined ? "" : String(value);
    },
    changed: () => input.value !== old && Number.isFinite(input.valueAsNumber),
  };
}

/** @param {import("./types.mjs").Change[]} changes @param {"learning_rate" | "strength"} name */
function last(changes, name) {
  return changes.filter((c) => c[name] !== undefined).at(-1)?.[name];
}

/** @param {import("./types.mjs").Change} change */
function changeLine({ iteration, learning_rate, strength }) {
  const parts = [
    ...(learning_rate === undefined ? [] : [`learning rate ${number(learning_rate)}`]),
    ...(strength === undefined ? [] : [`strength ${number(strength)}`]),
  ];
  return line(iteration, parts.join(", "));
}

/** @param {number} iteration @param {string} text */
function line(iteration, text) {
  return h("li", {}, h("b", {}, String(iteration)), " ", text);
}
