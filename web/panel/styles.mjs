/** The panel's style sheets, loaded into the page once. */

const SHEETS = [
  "../lib/uplot.css",
  "./panel.css",
  "./fields.css",
  "./views.css",
  "./charts.css",
  "./tiles.css",
  "./dialogs.css",
];

export function loadStyles() {
  for (const sheet of SHEETS) {
    const href = new URL(sheet, import.meta.url).href;
    if (document.head.querySelector(`link[href="${href}"]`)) continue;
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = href;
    document.head.append(link);
  }
}
