/** ComfyUI around the panel: its graph, its toasts, and a view over the whole window. */

/**
 * @typedef {import("./panel.mjs").Host} Host
 * @typedef {import("./nodes.mjs").Inputs} Inputs
 * @typedef {import("./store.mjs").Store} Store
 * @typedef {import("/scripts/app.js").ComfyApp} ComfyApp
 */

import { h } from "./dom.mjs";
import { mount } from "./mount.mjs";

export const TAB = "neighbor-grpo";
const TOAST = 8000; // milliseconds
const SPACE = 60; // between a new node and those that are there

/** @param {ComfyApp} app @param {Store} store @returns {Host} */
export function comfyHost(app, store) {
  return {
    name: "comfyui",
    toast: (severity, summary, detail) => app.extensionManager.toast.add({ severity, summary, detail, life: TOAST }),
    addNode(type, inputs) {
      const node = made(type, inputs);
      if (!node) return false;
      const graph = app.canvas.graph ?? app.graph; // the one that is open; app.graph is always the outermost
      const others = graph.nodes;
      const right = Math.max(0, ...others.map((n) => n.pos[0] + n.size[0]));
      const top = Math.min(...others.map((n) => n.pos[1]));
      node.pos = [right + SPACE, Number.isFinite(top) ? top : 0];
      graph.add(node);
      app.canvas.centerOnNode(node);
      return true;
    },
    describeNode: (type, inputs) => made(type, inputs)?.serialize() ?? null,
    enlarge: () => enlarge(app, store),
  };
}

/**
 * A node with these values in its widgets, outside of the graph; null if ComfyUI knows no such node.
 *
 * @param {string} type
 * @param {Inputs} inputs
 */
function made(type, inputs) {
  const node = window.LiteGraph?.createNode(type);
  if (!node) return null;
  for (const widget of node.widgets ?? []) if (widget.name in inputs) widget.value = inputs[widget.name];
  return node;
}

/** The panel over the whole window, until Escape. @param {ComfyApp} app @param {Store} store */
export function enlarge(app, store) {
  if (document.querySelector("dialog.ng-full")) return;
  const body = h("div", { class: "ng-full-body" });
  const close = h(
    "button",
    { type: "button", class: "ng-button ng-close", "aria-label": "Close", title: "Close (Escape)" },
    "✕",
  );
  const element = h("dialog", { class: "ng-root ng-full", "aria-label": "Neighbor GRPO" }, body, close);
  close.addEventListener("click", () => element.close());
  element.addEventListener("keydown", (event) => event.stopPropagation()); // not for the graph behind it
  document.body.append(element);
  element.showModal();
  const { enlarge: _, ...host } = comfyHost(app, store);
  const end = mount(body, store, host);
  element.addEventListener("close", () => {
    end();
    element.remove();
  });
}

/** The tab in ComfyUI's side bar. @param {ComfyApp} app @param {Store} store */
export function sidebarTab(app, store) {
  let end = () => {};
  return {
    id: TAB,
    icon: "pi pi-chart-line",
    title: "Neighbor GRPO",
    label: "GRPO", // below the symbol, where few letters have room
    tooltip: "Neighbor GRPO: runs, curves and candidates",
    type: /** @type {const} */ ("custom"),
    render(/** @type {HTMLElement} */ element) {
      end();
      end = mount(element, store, comfyHost(app, store));
    },
    destroy() {
      end();
      end = () => {};
    },
  };
}
