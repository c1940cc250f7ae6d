import assert from "node:assert/strict";
import { test } from "node:test";
import { whyNot } from "../../web/panel/control_view.mjs";
import {
  ago,
  bytes,
  duration,
  metricName,
  modelName,
  number,
  runName,
  signed,
  stateOf,
} from "../../web/panel/format.mjs";
import { forClipboard, candidateNoise, continuing } from "../../web/panel/nodes.mjs";
import { notice } from "../../web/panel/notices.mjs";

test("numbers keep four digits, and what is not there is a dash", () => {
  const cases = [
    [0, "0"],
    [0.123456, "0.1235"],
    [-2.5, "-2.5"],
    [12345.6, "12,346"],
    [0.0000123, "1.23e-5"],
    [1e-4, "1e-4"],
    [3e9, "3e9"],
    [null, "–"],
    [undefined, "–"],
    [NaN, "–"],
    [Infinity, "–"],
  ];
  for (const [value, text] of cases) assert.equal(number(value), text);
});

test("a signed number shows its sign", () => {
  assert.deepEqual([signed(0.5), signed(-0.5), signed(0), signed(null)], ["+0.5", "−0.5", "0", "–"]);
});

test("durations are read in at most two units", () => {
  const cases = [
    [0.42, "0.4 s"],
    [59.6, "1 min"],
    [185, "3 min 5 s"],
    [7200, "2 h"],
    [8040, "2 h 14 min"],
    [90000, "1 d 1 h"],
    [-1, "–"],
    [null, "–"],
  ];
  for (const [seconds, text] of cases) assert.equal(duration(seconds), text);
});

test("bytes are counted in powers of 1024", () => {
  const cases = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [3 * 2 ** 29, "1.5 GiB"],
    [null, "–"],
  ];
  for (const [count, text] of cases) assert.equal(bytes(count), text);
});

test("how long ago is said in the largest unit that fits", () => {
  assert.deepEqual(
    [1000, 940, 880, -2600, -6200, null].map((t) => ago(t, 1000)),
    ["just now", "1 minute ago", "2 minutes ago", "1 hour ago", "2 hours ago", "–"],
  );
});

test("a path is shown by its last folder, a hub's name in full", () => {
  assert.equal(modelName("/models/flux/dev.safetensors"), "dev.safetensors");
  assert.equal(modelName("C:\\models\\flux"), "flux");
  assert.equal(modelName("black-forest-labs/FLUX.1-dev"), "black-forest-labs/FLUX.1-dev");
});

test("a state is told apart from its reason", () => {
  assert.deepEqual(stateOf("failed: no: memory"), { kind: "bad", word: "failed", reason: "no: memory" });
  assert.equal(stateOf("stopped by mode_collapse: x").kind, "bad");
  assert.deepEqual(
    ["complete", "running", "paused", "stopped", "interrupted"].map((s) => stateOf(s).kind),
    ["good", "busy", "idle", "idle", "idle"],
  );
});

test("metrics and runs have names for people", () => {
  assert.deepEqual(
    [metricName("reward/hps"), metricName("grad_norm"), metricName("some_thing")],
    ["hps", "gradient norm", "some thing"],
  );
  assert.deepEqual([runName({ id: "a", title: "" }), runName({ id: "a", title: "My run" })], ["a", "My run"]);
});

test("a node on the clipboard is what ComfyUI pastes, whatever is in it", () => {
  const node = candidateNoise({
    seed: "4611686018427387905",
    candidate: 3,
    groupSize: 12,
    strength: 0.3,
  });
  const { text, html } = forClipboard(...node);
  const inputs = { seed: "4611686018427387905", strength: 0.3, group_size: 12, candidate: 3 };
  assert.deepEqual(JSON.parse(text), { 1: { class_type: "NeighborGRPOCandidateNoise", inputs } });
  const pasted = JSON.parse(atob(html.match(/data-metadata="([A-Za-z0-9+/=]+)"/)[1]));
  assert.equal(pasted.nodes[0].type, "NeighborGRPOCandidateNoise");
  assert.deepEqual(pasted.nodes[0].widgets_values, Object.values(inputs));
  const named = forClipboard("Any", { name: "Ünï “quoted”" });
  assert.deepEqual(JSON.parse(atob(named.html.match(/"([A-Za-z0-9+/=]+)"><\/span>/)[1])).nodes[0].widgets_values, [
    "Ünï “quoted”",
  ]);
});

test("a finished run is continued with more iterations, an interrupted one with those planned", () => {
  assert.deepEqual(continuing({ id: "a", iteration: 40, iterations: 40 }), [
    "NeighborGRPOTrain",
    { iterations: 140, run_name: "a", resume: true },
  ]);
  assert.equal(continuing({ id: "a", iteration: 17, iterations: 300 })[1].iterations, 300);
});

test("the end of a run is a notice, its iterations are none", () => {
  const message = { version: 1, run: "a", iteration: 7 };
  assert.deepEqual(notice({ ...message, type: "finished", state: "failed: no memory" }), {
    severity: "error",
    summary: "a: failed",
    detail: "no memory",
  });
  assert.equal(notice({ ...message, type: "finished", state: "complete" }).severity, "success");
  assert.equal(notice({ ...message, type: "state", state: "waiting: the reward server is away" }).severity, "warn");
  assert.equal(notice({ ...message, type: "iteration", metrics: {} }), null);
  assert.equal(notice({ ...message, type: "state", state: "paused" }), null);
});

test("a run that cannot be told anything says why, and one that can says nothing", () => {
  const run = { id: "a", live: true, controllable: true };
  assert.equal(whyNot(run, "comfyui"), "");
  assert.match(whyNot({ ...run, controllable: false }, "comfyui"), /Another process/);
  assert.match(whyNot({ ...run, controllable: false }, "board"), /only looks on/);
  assert.match(whyNot({ ...run, controllable: false, live: false }, "board"), /not under way/);
  assert.match(whyNot(null, "board"), /Open a run/);
});
