// Nodes of graphs that were saved before an input was added: they keep what they meant, whatever new nodes begin with.

const SETTINGS = "NeighborGRPOSettings";
const BEFORE_PAIRING = 13; // widgets that the node had
const CROSSED = "crossed"; // what all of its graphs trained by

/**
 * @typedef {{ widgets_values?: unknown }} Saved  what a graph saved of a node
 * @typedef {{ widgets?: { name: string, value?: unknown }[], onConfigure?: (info: Saved) => void }} ComfyNode
 */

/**
 * Have nodes of a type read what older graphs saved of them.
 * @param {{ prototype: ComfyNode }} nodeType  what ComfyUI makes the nodes of
 * @param {{ name: string }} nodeData  its description
 */
export function keepMeaning(nodeType, nodeData) {
  if (nodeData.name !== SETTINGS) return;
  const { onConfigure } = nodeType.prototype;
  nodeType.prototype.onConfigure = /** @this {ComfyNode} @param {Saved} info */ function (info) {
    onConfigure?.call(this, info);
    const values = info.widgets_values;
    const pairing = this.widgets?.find((widget) => widget.name === "pairing");
    if (pairing && Array.isArray(values) && values.length === BEFORE_PAIRING) pairing.value = CROSSED;
  };
}
