import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Store } from "../../web/panel/store.mjs";
import { ask, comfyTransport, ofRun, Refused, webTransport } from "../../web/panel/transport.mjs";

const answering = (body, init) => ({ send: async () => new Response(body, init) });

test("a refusal carries the server's own words", async () => {
  await assert.rejects(
    ask(answering('{"error": "no such run"}', { status: 404 }), "/x"),
    (e) => e instanceof Refused && e.message === "no such run" && e.status === 404,
  );
  await assert.rejects(ask(answering("<html>", { status: 502 }), "/x"), /the server answered 502/);
});

test("an answer without a body is null", async () => {
  assert.equal(await ask(answering(null, { status: 204 }), "/x", { method: "DELETE" }), null);
});

test("changes are sent as JSON, so that no foreign form can send them", async () => {
  const sent = [];
  await ask({ send: async (path, init) => (sent.push([path, init]), new Response("{}")) }, "/x", {
    method: "POST",
    body: { action: "stop" },
  });
  assert.equal(sent[0][1].headers["Content-Type"], "application/json");
  assert.equal(sent[0][1].body, '{"action":"stop"}');
});

test("a run's name cannot leave its place in an address", () => {
  assert.equal(ofRun("a b/../c?d#e", "/curves"), "/runs/a%20b%2F..%2Fc%3Fd%23e/curves");
});

class FakeSocket {
  static CLOSED = 3;
  static all = [];
  readyState = 1;
  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }
  close() {
    this.readyState = FakeSocket.CLOSED;
    this.onclose?.();
  }
}

test("a lost connection is opened again, each time after a longer wait, and says so", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  FakeSocket.all = [];
  const states = [];
  const end = webTransport("http://board", FakeSocket).listen({ message() {}, connection: (c) => states.push(c) });
  assert.equal(FakeSocket.all[0].url, "ws://board/neighbor_grpo/v1/events");
  FakeSocket.all[0].onopen();
  FakeSocket.all[0].close();
  mock.timers.tick(499);
  assert.equal(FakeSocket.all.length, 1);
  mock.timers.tick(1);
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.all[1].close();
  mock.timers.tick(999);
  assert.equal(FakeSocket.all.length, 2);
  mock.timers.tick(1);
  FakeSocket.all[2].onopen();
  assert.deepEqual(states, ["live", "lost", "lost", "live"]);
  end();
  mock.timers.tick(60_000);
  assert.equal(FakeSocket.all.length, 3);
  mock.timers.reset();
});

test("what is no message is not passed on", () => {
  FakeSocket.all = [];
  const heard = [];
  const end = webTransport("https://board", FakeSocket).listen({ message: (m) => heard.push(m.run), connection() {} });
  for (const data of ["nonsense", "null", "[]", '{"type": 3, "run": "a"}', '{"type": "state", "run": "a"}'])
    FakeSocket.all[0].onmessage({ data });
  assert.deepEqual(heard, ["a"]);
  assert.equal(FakeSocket.all[0].url, "wss://board/neighbor_grpo/v1/events");
  end();
});

test("ComfyUI's own connection is used where the panel is in ComfyUI", () => {
  const api = Object.assign(new EventTarget(), {
    fetchApi: async (path) => new Response(path),
    apiURL: (path) => `/api${path}`,
  });
  const events = [];
  const transport = comfyTransport(api);
  const end = transport.listen({ message: (m) => events.push(m.run), connection: (c) => events.push(c) });
  for (const type of ["neighbor_grpo", "reconnecting", "reconnected"])
    api.dispatchEvent(Object.assign(new Event(type), { detail: { run: "a" } }));
  end();
  api.dispatchEvent(new Event("reconnecting"));
  assert.deepEqual(events, ["live", "a", "lost", "live"]);
  assert.equal(transport.url("/runs"), "/api/neighbor_grpo/v1/runs");
});

test("the store asks from the first missed iteration on", async () => {
  const asked = [];
  const run = {
    id: "a",
    title: "a",
    state: "running",
    live: true,
    controllable: false,
    iteration: 2,
    iterations: 9,
    started: 1,
    updated: 1,
    model: "m",
    trained: [],
    held_out: [],
    path: "/a",
  };
  const curve = (from, to) => ({
    iteration: to,
    curves: {
      loss: { x: Array.from({ length: to - from }, (_, i) => from + i), mean: Array(to - from).fill(1), step: 1 },
    },
  });
  const answers = (path) => {
    if (path.startsWith("/runs?")) return { runs: [run], total: 1 };
    if (path.includes("from=2")) return curve(2, 6);
    if (path.includes("/curves")) return curve(0, 2);
    return { ...run, settings: {}, prompts: [], metrics: [], changes: [], log: [] };
  };
  let hear = () => {};
  const store = new Store({
    send: async (path) => (asked.push(path), new Response(JSON.stringify(answers(path)))),
    url: (path) => path,
    listen: ({ message }) => ((hear = message), () => {}),
  });
  store.dispatch({ type: "open", run: "a" });
  const until = async (done) => {
    for (let i = 0; i < 200 && !done(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok(done());
  };
  const end = store.watch(() => {});
  store.dispatch({ type: "connection", connection: "live" });
  await until(() => store.state.curves.a);
  hear({ version: 1, type: "iteration", run: "a", iteration: 5, metrics: { loss: 2 } });
  await until(() => store.state.tails.a.missed === null);
  assert.deepEqual(
    store.state.tails.a.entries.map((e) => [e.iteration, e.metrics.loss]),
    [
      [2, 1],
      [3, 1],
      [4, 1],
      [5, 2],
    ],
  );
  assert.equal(asked.filter((path) => path.includes("from=2")).length, 1);
  end();
  store.destroy();
});

test("a page without the focus follows at leisure, and at once when it has it again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const page = new EventTarget();
  let focus = false;
  t.after(() => Object.assign(globalThis, { document: undefined, addEventListener, removeEventListener }));
  const { addEventListener, removeEventListener } = globalThis;
  Object.assign(globalThis, {
    document: Object.assign(page, { hasFocus: () => focus, hidden: false }),
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
  });
  let hear = () => {};
  const store = new Store({
    send: () => new Promise(() => {}),
    url: (path) => path,
    listen: ({ message }) => ((hear = message), () => {}),
  });
  let drawn = 0;
  store.watch(() => drawn++);
  drawn = 0;
  const message = (iteration) => hear({ version: 1, type: "iteration", run: "a", iteration, metrics: {} });
  message(0);
  message(1);
  t.mock.timers.tick(9900);
  assert.equal(drawn, 0);
  t.mock.timers.tick(200);
  assert.equal(drawn, 1); // both messages
  message(2);
  focus = true;
  page.dispatchEvent(new Event("focus"));
  t.mock.timers.tick(20);
  assert.equal(drawn, 2);
  message(3);
  t.mock.timers.tick(150);
  assert.equal(drawn, 3);
  store.destroy();
});
