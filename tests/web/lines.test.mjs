import assert from "node:assert/strict";
import { test } from "node:test";
import { SMALL, saysNothing, smallLines } from "../../web/panel/lines.mjs";

/** @param {Record<string, (number | null)[]>} curves @param {string} [name] */
function drawn(curves, name = "a") {
  const curve = (/** @type {string} */ metric) => {
    const mean = curves[metric];
    return mean && { x: mean.map((_, i) => i), mean, step: 1 };
  };
  return /** @type {any} */ ({ run: {}, name, curve, names: Object.keys(curves) });
}

/** @param {string} metric */
const kindOf = (metric) => /** @type {(typeof SMALL)[number]} */ (SMALL.find(({ names }) => names.includes(metric)));

test("what is measured now and then is one line, and a missing value of any other breaks it", () => {
  const runs = [drawn({ velocity_norm: [1, null, null, 1.1, null], grad_norm: [1, null, 2] })];
  const [sparse] = smallLines(kindOf("velocity_norm"), runs);
  assert.deepEqual([sparse.curve.x, sparse.curve.mean], [[0, 3], [1, 1.1]]);
  const [whole] = smallLines(kindOf("grad_norm"), runs);
  assert.deepEqual([whole.curve.x, whole.curve.mean], [[0, 1, 2], [1, null, 2]]);
});

test("bands lose what their line loses", () => {
  const curve = { x: [0, 2, 4], mean: [1, null, 3], low: [0, null, 2], high: [2, null, 4], step: 2 };
  const run = /** @type {any} */ ({ run: {}, name: "a", curve: () => curve, names: ["velocity_change"] });
  const [line] = smallLines(kindOf("velocity_change"), [run]);
  assert.deepEqual(line.curve, { x: [0, 4], mean: [1, 3], low: [0, 2], high: [2, 4], step: 2 });
});

test("curves of rounding errors and of one value say nothing where that is the rule", () => {
  for (const [metric, values, nothing] of /** @type {[string, number[], boolean][]} */ ([
    ["loss", [0, 1e-9], true],
    ["loss", [0, 1e-3], false],
    ["learning_rate", [1, 1], true],
    ["learning_rate", [1, 2], false],
    ["grad_norm", [0, 0], false],
  ])) {
    const kind = kindOf(metric);
    assert.equal(saysNothing(kind, smallLines(kind, [drawn({ [metric]: values })])), nothing, metric);
  }
});
