/** Questions and offers in a dialog of the browser's own: it keeps the focus and closes with Escape. */

import { button, copy, h } from "./dom.mjs";
import { forClipboard } from "./nodes.mjs";

/** @typedef {import("./panel.mjs").Panel} Panel */

/**
 * Show a dialog until it is closed.
 *
 * @param {Panel} panel
 * @param {string} title
 * @param {(close: () => void) => (Node | string)[]} content
 */
export function dialog(panel, title, content) {
  const element = h("dialog", { class: "ng-root ng-dialog", "aria-label": title });
  const close = () => element.close();
  element.append(h("h2", {}, title), ...content(close));
  element.addEventListener("close", () => element.remove());
  element.addEventListener("keydown", (event) => event.stopPropagation()); // not for the graph behind it
  element.addEventListener("click", (event) => {
    if (event.target === element) close();
  });
  panel.root.append(element);
  element.showModal();
  return element;
}

/**
 * Ask before something is done.
 *
 * @param {Panel} panel
 * @param {{ title: string, text: string, yes: string }} question
 * @param {() => Promise<unknown>} act
 */
export function confirm(panel, { title, text, yes }, act) {
  dialog(panel, title, (close) => {
    const go = button(
      yes,
      () => {
        close();
        void panel.attempt(act);
      },
      { class: "ng-button ng-danger" },
    );
    return [h("p", {}, text), h("div", { class: "ng-buttons" }, button("Cancel", close, { autofocus: true }), go)];
  });
}

/**
 * Offer a node: to add to the graph if there is one, or to copy.
 *
 * @param {Panel} panel
 * @param {string} title
 * @param {string} text
 * @param {[string, import("./nodes.mjs").Inputs]} node
 */
export function offerNode(panel, title, text, [type, inputs]) {
  dialog(panel, title, (close) => {
    const { host } = panel;
    const add = button(
      "Add to the graph",
      () => {
        close();
        addNode(panel, [type, inputs]);
      },
      { class: "ng-button ng-primary" },
    );
    const take = button("Copy", () => {
      close();
      void copyNode(panel, [type, inputs]);
    });
    const list = Object.entries(inputs).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]);
    const nodes = [h("p", {}, text), h("dl", { class: "ng-facts" }, h("dt", {}, "node"), h("dd", {}, type), ...list)];
    return [...nodes, h("div", { class: "ng-buttons" }, button("Close", close), take, ...(host.addNode ? [add] : []))];
  });
}

/** @param {Panel} panel @param {[string, import("./nodes.mjs").Inputs]} node */
export function addNode(panel, [type, inputs]) {
  const added = panel.host.addNode?.(type, inputs);
  panel.toast(added ? "The node is in the graph." : `This ComfyUI has no node ${type}.`);
}

/** @param {Panel} panel @param {[string, import("./nodes.mjs").Inputs]} node */
export function copyNode(panel, [type, inputs]) {
  const { text, html } = forClipboard(type, inputs, panel.host.describeNode?.(type, inputs) ?? undefined);
  return panel.attempt(() => copy(text, html), "Copied. Paste it into a graph.");
}
