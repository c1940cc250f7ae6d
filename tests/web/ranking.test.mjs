import assert from "node:assert/strict";
import { test } from "node:test";
import { force, heat, leaning, ordered, ranks } from "../../web/panel/ranking.mjs";

const group = (...advantages) =>
  advantages.map((advantage, candidate) => ({
    candidate,
    advantage,
    anchor: false,
    tile: true,
    scores: { r: advantage === null ? null : 10 - candidate },
  }));

test("the highest advantage has rank 1, equal ones share the better rank, and none has none", () => {
  assert.deepEqual(ranks(group(0.1, 0.7, -0.9, 0.7, null)), [3, 1, 4, 1, null]);
});

test("candidates come by advantage, by a reward or by index; what has no value comes last", () => {
  const names = (by, ...values) => ordered(group(...values), by).map((c) => c.candidate);
  assert.deepEqual(names("advantage", 0.1, null, 0.7, 0.1), [2, 0, 3, 1]);
  assert.deepEqual(names("r", 0.1, null, 0.7), [0, 2, 1]);
  assert.deepEqual(names("index", 0.1, null, 0.7), [0, 1, 2]);
  assert.deepEqual(names("advantage", null, null), [0, 1]);
});

test("a leaning is the share of the group's largest advantage, with its sign", () => {
  const candidates = group(0.5, -1, 0);
  assert.deepEqual(
    candidates.map((c) => leaning(c.advantage, candidates)),
    [0.5, -1, 0],
  );
  assert.equal(leaning(0, group(0, 0)), 0);
  assert.equal(leaning(null, candidates), 0);
});

test("the force is the sum of the points weighted by their advantages, wherever the origin lies", () => {
  const advantages = [0.5, -0.75, 0.25];
  const points = [
    [2, 0],
    [0, 4],
    [4, 8],
  ];
  assert.deepEqual(force(advantages, points), [2, -1]);
  assert.deepEqual(
    force(
      advantages,
      points.map(([x, y]) => [x + 16, y - 8]),
    ),
    [2, -1],
  );
});

test("a group without advantages pulls nowhere", () => {
  assert.deepEqual(
    force(
      [null, null],
      [
        [1, 2],
        [3, 4],
      ],
    ),
    [0, 0],
  );
});

test("heat goes from violet to yellow and stays in its bounds", () => {
  assert.deepEqual(
    [heat(0), heat(1), heat(-3), heat(7)],
    [
      [68, 1, 84],
      [253, 231, 37],
      [68, 1, 84],
      [253, 231, 37],
    ],
  );
  assert.deepEqual(heat(0.1), [67, 35, 110]);
});
