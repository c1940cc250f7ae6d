/** Elements, made without ever reading text as HTML. */

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Value */
/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. "on..." attributes are listeners, false, null and undefined leave an attribute away, true sets it empty.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, Value>} [attributes]
 * @param {...Child} children  strings become text
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else set(element, name, value);
  }
  fill(element, ...children);
  return element;
}

/** @param {Element} element @param {string} name @param {string | number | boolean | null | undefined} value */
export function set(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  const nodes = children.filter((c) => c !== null && c !== undefined && c !== false);
  element.replaceChildren(...nodes.map((c) => (c instanceof Node ? c : String(c))));
}

/**
 * Set the text if it is another: a screen reader hears changes only.
 *
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A button.
 *
 * @param {string} text
 * @param {(event: MouseEvent) => void} click
 * @param {Record<string, Value>} [attributes]
 */
export function button(text, click, attributes = {}) {
  return h("button", { type: "button", class: "ng-button", onclick: click, ...attributes }, text);
}

/**
 * A choice among named values.
 *
 * @param {string} label
 * @param {(value: string) => void} choose
 */
export function select(label, choose) {
  const list = h("select", { class: "ng-select", "aria-label": label, onchange: () => choose(list.value) });
  /** @param {readonly [string, string][]} options  value, text @param {string} value */
  function show(options, value) {
    const old = [...list.options].map((o) => [o.value, o.text]);
    if (JSON.stringify(old) !== JSON.stringify(options))
      fill(list, ...options.map(([v, text]) => h("option", { value: v }, text)));
    list.value = value;
  }
  return { element: list, show };
}

/**
 * A picture as an SVG element.
 *
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...Child} children
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  fill(element, ...children);
  return element;
}

/**
 * Copy text; if the browser has no clipboard for this page (plain http), in the old way.
 *
 * @param {string} text
 * @param {string} [html]
 */
export async function copy(text, html) {
  if (navigator.clipboard && window.isSecureContext) {
    const blob = (/** @type {string} */ type, /** @type {string} */ part) => new Blob([part], { type });
    if (!html) return navigator.clipboard.writeText(text);
    const parts = { "text/plain": blob("text/plain", text), "text/html": blob("text/html", html) };
    return navigator.clipboard.write([new ClipboardItem(parts)]);
  }
  const given = (/** @type {ClipboardEvent} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    if (html) event.clipboardData?.setData("text/html", html);
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  document.addEventListener("copy", given, { capture: true, once: true });
  if (!document.execCommand("copy")) throw new Error("this browser does not let the page copy");
}
