import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY, reduce, runOf } from "../../web/panel/state.mjs";
import { LONGEST_TAIL } from "../../web/panel/tail.mjs";

const RUN = {
  id: "a",
  title: "a",
  state: "running",
  live: true,
  controllable: true,
  iteration: 0,
  iterations: 100,
  started: 1,
  updated: 2,
  model: "m",
  trained: ["r"],
  held_out: [],
  path: "/a",
};
const told = (type, iteration, more = {}) => ({
  type: "message",
  message: { version: 1, type, run: "a", iteration, ...more },
});
const iteration = (n) => told("iteration", n, { metrics: { loss: n / 10 } });
const stored = (done, step = 1) => ({
  iteration: done,
  curves: {
    loss: { x: Array.from({ length: done }, (_, i) => i), mean: Array.from({ length: done }, (_, i) => i / 10), step },
  },
});
const after = (...events) => events.reduce(reduce, { ...EMPTY, runs: [RUN], total: 1, open: "a" });
const heard = (state) => state.tails.a.entries.map((e) => e.iteration);

test("an iteration that is told joins the tail with its values", () => {
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), iteration(4));
  assert.deepEqual(state.tails.a, {
    next: 5,
    entries: [
      { iteration: 3, metrics: { loss: 0.3 } },
      { iteration: 4, metrics: { loss: 0.4 } },
    ],
    missed: null,
    stale: false,
  });
  assert.equal(runOf(state, "a").iteration, 5);
});

test("a missed message leaves a gap that begins with the first missed iteration, and says so once", () => {
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), iteration(6), iteration(9));
  assert.deepEqual(heard(state), [3, 6, 9]);
  assert.equal(state.tails.a.missed, 4);
});

test("what was missed fills the gap", () => {
  const answer = { iteration: 7, curves: { loss: { x: [4, 5, 6], mean: [0.4, null, 0.6], step: 1 } } };
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), iteration(6), {
    type: "caught up",
    run: "a",
    from: 4,
    answer,
  });
  assert.deepEqual(
    state.tails.a.entries.map((e) => [e.iteration, e.metrics.loss]),
    [
      [3, 0.3],
      [4, 0.4],
      [5, null],
      [6, 0.6],
    ],
  );
  assert.equal(state.tails.a.missed, null);
});

test("an answer that does not reach the end of the gap leaves the rest of it", () => {
  const answer = { iteration: 5, curves: { loss: { x: [4], mean: [0.4], step: 1 } } };
  const state = after({ type: "curves", run: "a", answer: stored(4) }, iteration(7), {
    type: "caught up",
    run: "a",
    from: 4,
    answer,
  });
  assert.equal(state.tails.a.missed, 5);
});

test("so many missed iterations that the server thins them have the whole curve fetched", () => {
  const answer = { iteration: 5000, curves: { loss: { x: [0], mean: [1], step: 8 } } };
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(4999), {
    type: "caught up",
    run: "a",
    from: 3,
    answer,
  });
  assert.equal(state.tails.a.stale, true);
});

test("a message told twice counts once", () => {
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), iteration(3));
  assert.deepEqual(heard(state), [3]);
});

test("stored curves take the place of the live values that they hold, and of no others", () => {
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), iteration(4), iteration(5), {
    type: "curves",
    run: "a",
    answer: stored(5),
  });
  assert.deepEqual(heard(state), [5]);
  assert.equal(state.tails.a.next, 6);
});

test("a run that goes back forgets what it will do again", () => {
  const state = after(
    { type: "curves", run: "a", answer: stored(3) },
    iteration(3),
    iteration(4),
    iteration(5),
    told("started", 4),
  );
  assert.deepEqual(heard(state), [3]);
  assert.deepEqual([state.tails.a.next, state.tails.a.stale], [4, true]);
  assert.deepEqual(heard(reduce(state, iteration(4))), [3, 4]);
});

test("a run that went back while nobody listened forgets what it will do again", () => {
  const details = { ...RUN, iteration: 4, settings: {}, prompts: [], metrics: [], changes: [], log: [] };
  const heardOf = [iteration(3), iteration(4), iteration(5)];
  const state = after({ type: "curves", run: "a", answer: stored(3) }, ...heardOf, { type: "details", details });
  assert.deepEqual([heard(state), state.tails.a.next, state.tails.a.stale], [[3], 4, true]);
});

test("the tail of a long run stays short and asks for the stored curves", () => {
  let state = after({ type: "curves", run: "a", answer: stored(0) });
  for (let i = 0; i <= LONGEST_TAIL; i++) state = reduce(state, iteration(i));
  assert.equal(state.tails.a.entries.length, LONGEST_TAIL);
  assert.equal(state.tails.a.entries[0].iteration, 1);
  assert.equal(state.tails.a.stale, true);
});

test("a server that knows of more iterations than were told shows what was missed", () => {
  const details = { ...RUN, iteration: 9, settings: {}, prompts: [], metrics: [], changes: [], log: [] };
  const state = after({ type: "curves", run: "a", answer: stored(3) }, { type: "details", details });
  assert.equal(state.tails.a.missed, 3);
});

test("a message about an unknown run has the list fetched", () => {
  const state = reduce(after(), { type: "message", message: { version: 1, type: "started", run: "b", iteration: 0 } });
  assert.equal(state.outdated, true);
  assert.equal(reduce(state, { type: "runs", runs: [RUN], total: 1 }).outdated, false);
});

test("a message of another version changes nothing but has the list fetched", () => {
  const state = reduce(after(), {
    type: "message",
    message: { version: 2, type: "iteration", run: "a", iteration: 0, metrics: { loss: 1 } },
  });
  assert.deepEqual(state, { ...after(), outdated: true });
});

test("the end of a run is shown at once", () => {
  const run = runOf(after(told("finished", 7, { state: "failed: out of memory" })), "a");
  assert.deepEqual([run.state, run.live, run.controllable], ["failed: out of memory", false, false]);
});

test("the open run is not compared with itself, and opening a compared one ends the comparison", () => {
  const compared = after({ type: "compare", run: "a", on: true }, { type: "compare", run: "b", on: true });
  assert.deepEqual(compared.compared, ["b"]);
  assert.deepEqual(reduce(compared, { type: "open", run: "b" }).compared, []);
  assert.deepEqual(reduce(compared, { type: "compare", run: "b", on: false }).compared, []);
});

test("a deleted run leaves no trace", () => {
  const state = after({ type: "curves", run: "a", answer: stored(3) }, iteration(3), { type: "removed", run: "a" });
  assert.deepEqual([state.runs, state.total, state.open, state.curves, state.tails], [[], 0, null, {}, {}]);
});

test("the reducer changes nothing that it was given", () => {
  const freeze = (value) => {
    if (value && typeof value === "object") Object.values(Object.freeze(value)).forEach(freeze);
    return value;
  };
  let state = freeze(after({ type: "curves", run: "a", answer: stored(3) }));
  for (const event of [
    iteration(3),
    iteration(6),
    told("state", 7, { state: "paused" }),
    told("started", 5),
    { type: "choose", iteration: 2 },
  ])
    state = freeze(reduce(state, freeze(event)));
  assert.deepEqual(heard(state), [3]);
});

test("10,000 events take less than 100 ms of the processor", (t) => {
  const metrics = Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`metric/${i}`, i]));
  const events = Array.from({ length: 10_000 }, (_, i) => told("iteration", i, { metrics }));
  const runs = Array.from({ length: 100 }, (_, i) => ({ ...RUN, id: `run-${i}` }));
  const start = () => ({ ...after(), runs: [...runs, RUN] });
  const times = [0, 1, 2].map(() => {
    const began = process.cpuUsage();
    const state = events.reduce(reduce, start());
    assert.equal(state.tails.a.next, 10_000);
    return process.cpuUsage(began).user / 1000; // what others do on a busy machine is not in it
  });
  t.diagnostic(`10,000 events: ${Math.min(...times).toFixed(1)} ms`);
  assert.ok(Math.min(...times) < 100, `${times}`);
});
