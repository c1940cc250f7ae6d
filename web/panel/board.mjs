/** The panel as a page of its own. */

import { h, say } from "./dom.mjs";
import { mount } from "./mount.mjs";
import { notice } from "./notices.mjs";
import { Store } from "./store.mjs";
import { loadStyles } from "./styles.mjs";
import { webTransport } from "./transport.mjs";

const LIFE = 8000; // milliseconds of a notice
const THEME = "neighbor_grpo.theme"; // in localStorage

loadStyles();
const store = new Store(webTransport(new URL(".", location.href).href.slice(0, -1))); // a proxy may add to the path
const told = h("p", { class: "ng-root ng-notice", role: "status", hidden: true });
document.body.append(told);
theme();
mount(document.body, store, { name: "board" });

store.hear((message) => {
  const words = notice(message);
  if (!words) return;
  say(told, `${words.summary}. ${words.detail}`);
  told.dataset.severity = words.severity;
  told.hidden = false;
  setTimeout(() => (told.hidden = true), LIFE);
});

/** A button for light and dark; without a choice the system's holds. */
function theme() {
  const { dataset } = document.documentElement;
  try {
    dataset.theme = localStorage.getItem(THEME) ?? "";
  } catch {
    // a browser that keeps nothing
  }
  const dark = () =>
    (dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const flip = h(
    "button",
    { type: "button", class: "ng-root ng-button ng-theme", "aria-label": "Light or dark", title: "Light or dark" },
    "◐",
  );
  flip.addEventListener("click", () => {
    dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem(THEME, dataset.theme);
    } catch {
      // then for this page only
    }
  });
  document.body.append(flip);
}
