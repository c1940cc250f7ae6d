import assert from "node:assert/strict";
import { test } from "node:test";
import { bucketed, continued, firstAtLeast, joined, refined, stepFor } from "../../web/panel/downsample.mjs";
import { smooth, weightAt } from "../../web/panel/smoothing.mjs";
import { moved, nearest, within, zoomed } from "../../web/panel/zoom.mjs";

test("a bucket holds the mean, the lowest and the highest of its values", () => {
  const curve = bucketed([4, 5, 6, 7, 8], [1, 3, 2, 10, 7], 4);
  assert.deepEqual(curve, { x: [4, 8], mean: [4, 7], low: [1, 7], high: [10, 7], step: 4 });
});

test("a bucket without a finite value is a gap, and so is one that nothing was told of", () => {
  const curve = bucketed([0, 1, 6], [null, NaN, 5], 2);
  assert.deepEqual(curve.x, [0, 2, 4, 6]);
  assert.deepEqual(curve.mean, [null, null, null, 5]);
  assert.deepEqual(curve.low, [null, null, null, 5]);
});

test("a value that is missing is left out of its bucket's mean", () => {
  assert.deepEqual(bucketed([0, 1, 2], [2, null, 4], 4).mean, [3]);
});

test("single iterations have no low and high", () => {
  assert.deepEqual(bucketed([3, 4], [1, 2], 1), { x: [3, 4], mean: [1, 2], step: 1 });
});

test("the step is the smallest of 1, 2, 5, 10, ... that fits", () => {
  assert.deepEqual(
    [1, 100, 101, 201, 501, 1001].map((n) => stepFor(n, 100)),
    [1, 1, 2, 5, 10, 20],
  );
});

test("live values go on where the stored curve ends", () => {
  const entries = [
    { iteration: 2, metrics: { loss: 7 } },
    { iteration: 3, metrics: { loss: 8 } },
  ];
  const curve = continued({ x: [0, 1], mean: [5, 6], step: 1 }, entries, "loss");
  assert.deepEqual(curve, { x: [0, 1, 2, 3], mean: [5, 6, 7, 8], step: 1 });
});

test("a missing stretch between stored and live values breaks the line", () => {
  const curve = continued({ x: [0, 1], mean: [5, 6], step: 1 }, [{ iteration: 9, metrics: { loss: 7 } }], "loss");
  assert.deepEqual(curve, { x: [0, 1, 2, 9], mean: [5, 6, null, 7], step: 1 });
});

test("a metric that a live iteration does not have is a gap there", () => {
  const curve = continued({ x: [0], mean: [5], step: 1 }, [{ iteration: 1, metrics: {} }], "loss");
  assert.deepEqual(curve.mean, [5, null]);
});

test("many live values are thinned", () => {
  const entries = Array.from({ length: 400 }, (_, iteration) => ({ iteration, metrics: { loss: iteration % 2 } }));
  const curve = continued(undefined, entries, "loss", 100);
  assert.equal(curve.step, 5);
  assert.equal(curve.x.length, 80);
  assert.deepEqual([Math.min(...curve.low), Math.max(...curve.high)], [0, 1]);
});

test("live single values follow a curve in buckets", () => {
  const stored = { x: [0, 8], mean: [1, 2], low: [0, 1], high: [2, 3], step: 8 };
  const curve = joined(stored, { x: [16, 17], mean: [4, 5], step: 1 });
  assert.deepEqual(curve, { x: [0, 8, 16, 17], mean: [1, 2, 4, 5], low: [0, 1, 4, 5], high: [2, 3, 4, 5], step: 8 });
});

test("a finer window replaces the coarse buckets that it covers, and only those", () => {
  const whole = { x: [0, 4, 8, 12], mean: [1, 2, 3, 4], low: [0, 1, 2, 3], high: [2, 3, 4, 5], step: 4 };
  const fine = { x: [4, 6, 8, 10], mean: [10, 20, 30, 40], low: [9, 19, 29, 39], high: [11, 21, 31, 41], step: 2 };
  const curve = refined(whole, fine);
  assert.deepEqual(curve.x, [0, 4, 6, 8, 10, 12]);
  assert.deepEqual(curve.mean, [1, 10, 20, 30, 40, 4]);
  assert.deepEqual(curve.high, [2, 11, 21, 31, 41, 5]);
  assert.equal(refined(whole, undefined), whole);
  assert.equal(refined(whole, { ...fine, step: 4 }), whole);
});

test("the first number that is large enough is found as by a search from the left", () => {
  const sorted = [1, 3, 3, 7, 9];
  for (let limit = 0; limit <= 10; limit++) {
    const slow = sorted.findIndex((v) => v >= limit);
    assert.equal(firstAtLeast(sorted, limit), slow < 0 ? sorted.length : slow);
  }
});

test("no smoothing leaves the values as they are", () => {
  assert.deepEqual(smooth([1, null, 3], 0), [1, null, 3]);
});

test("smoothing is the mean of all values so far, each weighted by its age", () => {
  const values = [3, 1, 4, 1, 5, 9, 2, 6];
  const weight = 0.7;
  const slow = values.map((_, i) => {
    const weights = values.slice(0, i + 1).map((_, k) => weight ** (i - k));
    return values.slice(0, i + 1).reduce((sum, v, k) => sum + v * weights[k], 0) / weights.reduce((a, b) => a + b, 0);
  });
  smooth(values, weight).forEach((v, i) => assert.ok(Math.abs(v - slow[i]) < 1e-12));
});

test("a constant stays the same under any smoothing, from its first value on", () => {
  for (const weight of [0.1, 0.9, 0.999])
    for (const v of smooth([2, 2, 2, 2], weight)) assert.ok(Math.abs(v - 2) < 1e-9);
});

test("a gap stays a gap, and a point that is no point of the curve stays none", () => {
  const smoothed = smooth([1, null, undefined, 1], 0.5);
  assert.deepEqual(
    smoothed.map((v) => (typeof v === "number" ? Math.round(v) : v)),
    [1, null, undefined, 1],
  );
});

test("the smoothing slider grows from nothing to an eighth of the curve", () => {
  assert.equal(weightAt(0, 800), 0);
  assert.ok(Math.abs(weightAt(1, 800) - 0.99) < 1e-12);
  assert.ok(weightAt(0.3, 800) < weightAt(0.4, 800));
});

test("zooming in keeps the iteration under the pointer in its place", () => {
  const [from, to] = zoomed([100, 200], [0, 1000], 125, 0.5);
  assert.deepEqual([from, to], [112.5, 162.5]);
  assert.equal((125 - from) / (to - from), 0.25);
});

test("zooming out ends with everything", () => {
  assert.equal(zoomed([100, 900], [0, 1000], 500, 2), null);
  assert.deepEqual(zoomed([0, 400], [0, 1000], 0, 2), [0, 800]);
});

test("no window is narrower than four iterations", () => {
  assert.deepEqual(zoomed([10, 16], [0, 100], 13, 0.01), [11, 15]);
});

test("a window does not leave the axis", () => {
  assert.deepEqual(moved([10, 20], [0, 100], -50), [0, 10]);
  assert.deepEqual(within([95, 105], [0, 100]), [90, 100]);
});

test("the nearest iteration with pictures is found; of two alike the later", () => {
  assert.equal(nearest([0, 10, 20], 14), 10);
  assert.equal(nearest([0, 10, 20], 15), 20);
  assert.equal(nearest([], 3), null);
});
