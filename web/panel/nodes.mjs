/** Nodes of a ComfyUI graph as something to paste. */

/** @typedef {Record<string, string | number | boolean>} Inputs */

const TRAIN = "NeighborGRPOTrain"; // has more widgets than are filled in here

/**
 * A node for the clipboard. The text is a prompt in ComfyUI's API format; the HTML is what ComfyUI's own copying writes, so
 * that pasting it into a graph adds the node.
 *
 * @param {string} type
 * @param {Inputs} inputs  in the order of the node's widgets
 * @param {object} [made]  the node as the graph would save it, if there is a graph to ask
 * @returns {{ text: string, html?: string }}
 */
export function forClipboard(type, inputs, made) {
  const text = JSON.stringify({ 1: { class_type: type, inputs } }, null, 2);
  if (!made && type === TRAIN) return { text };
  const node = made ?? {
    ...{
      id: 1,
      type,
      pos: [0, 0],
      size: [320, 200],
      flags: {},
      order: 0,
      mode: 0,
      inputs: [],
      outputs: [],
      properties: {},
    },
    widgets_values: Object.values(inputs),
  };
  const items = { nodes: [node], groups: [], reroutes: [], links: [], subgraphs: [] };
  const ascii = JSON.stringify(items).replace(
    /[^\0-\x7f]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  const packed = btoa(ascii);
  return { text, html: `<meta charset="utf-8"><div><span data-metadata="${packed}"></span></div>` };
}

/**
 * The node that makes a candidate's noise again.
 *
 * @param {{ seed: string, candidate: number, groupSize: number, strength: number }} of
 * @returns {[string, Inputs]}
 */
export function candidateNoise({ seed, candidate, groupSize, strength }) {
  return ["NeighborGRPOCandidateNoise", { seed, strength, group_size: groupSize, candidate }];
}

/**
 * The node that goes on with a run.
 *
 * @param {{ id: string, iteration: number, iterations: number }} run
 * @returns {[string, Inputs]}
 */
export function continuing({ id, iteration, iterations }) {
  const planned = iteration >= iterations ? iterations + 100 : iterations;
  return [TRAIN, { iterations: planned, run_name: id, resume: true }];
}
