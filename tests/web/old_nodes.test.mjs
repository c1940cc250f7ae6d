import assert from "node:assert/strict";
import { test } from "node:test";
import { keepMeaning } from "../../web/panel/old_nodes.mjs";

/** A node of a new type, as ComfyUI makes it and fills its widgets. */
function node(name, onConfigure) {
  class Node {
    widgets = [{ name: "anchors", value: 1 }, { name: "pairing", value: "stratified" }];
  }
  if (onConfigure) Node.prototype.onConfigure = onConfigure;
  keepMeaning(Node, { name });
  return new Node();
}

const pairing = ({ widgets }) => widgets.find(({ name }) => name === "pairing").value;
const OLD = { widgets_values: Array(13).fill(1) };

test("GRPO Settings of a graph from before there was a pairing keep the paper's", () => {
  const old = node("NeighborGRPOSettings");
  old.onConfigure(OLD);
  assert.equal(pairing(old), "crossed");
});

test("a graph that says its pairing, and a node without widgets, stay as they are", () => {
  for (const info of [{ widgets_values: Array(14).fill(1) }, {}]) {
    const newer = node("NeighborGRPOSettings");
    newer.onConfigure(info);
    assert.equal(pairing(newer), "stratified");
  }
});

test("what another extension does with the node is still done, and other nodes are left alone", () => {
  const seen = [];
  const watched = node("NeighborGRPOSettings", function (info) {
    seen.push(this, info);
  });
  watched.onConfigure(OLD);
  assert.deepEqual(seen, [watched, OLD]);
  assert.equal(node("NeighborGRPOTrain").onConfigure, undefined);
});
