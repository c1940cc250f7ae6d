// Nodes of graphs that were saved before an input was added: they keep what they meant, whatever new nodes begin with.

const SETTINGS = "NeighborGRPOSettings";
const BEFORE_PAIRING = 13; // widgets that the node had
const CROSSED = "crossed"; // what all of its graphs trained by

/**
 * Have nodes of a type read what older graphs saved of them.
 * @param {{ prototype: { onConfigure?: (info: any) => void } }} nodeType  what ComfyUI makes the nodes of
 * @param {{ name: string }} nodeData  its description
 */
export function keepMeaning(nodeType, nodeData) {
  if (nodeData.name !== SETTINGS) return;
  const { onConfigure } = nodeType.prototype;
  nodeType.prototype.onConfigure = function (info) {
    onConfigure?.call(this, info);
    const pairing = this.widgets?.find((/** @type {{ name: string }} */ widget) => widget.name === "pairing");
    if (pairing && info.widgets_values?.length === BEFORE_PAIRING) pairing.value = CROSSED;
  };
}
