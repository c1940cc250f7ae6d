// The pack's frontend: the one file that ComfyUI imports by itself. Everything else is an .mjs that this one imports.
// By relative addresses: this file is at extensions/<pack>/main.js, wherever a proxy has put ComfyUI.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { comfyHost, enlarge, sidebarTab, TAB } from "./panel/comfy.mjs";
import { notice } from "./panel/notices.mjs";
import { keepMeaning } from "./panel/old_nodes.mjs";
import { Store } from "./panel/store.mjs";
import { loadStyles } from "./panel/styles.mjs";
import { comfyTransport } from "./panel/transport.mjs";

const NAME = "NeighborGRPO";
const OPEN = `${NAME}.OpenPanel`;
const ENLARGE = `${NAME}.EnlargePanel`;

function register() {
  const store = new Store(comfyTransport(api));
  app.registerExtension({
    name: NAME,
    commands: [
      {
        id: OPEN,
        label: "Neighbor GRPO: open the panel",
        icon: "pi pi-chart-line",
        function: () => app.extensionManager.sidebarTab.toggleSidebarTab(TAB),
      },
      {
        id: ENLARGE,
        label: "Neighbor GRPO: open the panel in full width",
        icon: "pi pi-window-maximize",
        function: () => enlarge(app, store),
      },
    ],
    keybindings: [
      { commandId: OPEN, combo: { key: "N", alt: true, shift: true } },
      { commandId: ENLARGE, combo: { key: "P", alt: true, shift: true } },
    ],
    menuCommands: [{ path: ["View"], commands: [ENLARGE] }],
    beforeRegisterNodeDef: keepMeaning,
    async setup() {
      loadStyles();
      app.extensionManager.sidebarTab.registerSidebarTab(sidebarTab(app, store));
      const { toast } = comfyHost(app, store);
      store.hear((message) => {
        const told = notice(message);
        if (told) toast?.(told.severity, told.summary, told.detail);
      });
      document.documentElement.dataset.neighborGrpo = "ready"; // last: it tells tests that everything above has run
    },
  });
}

if (app.extensions.some(({ name }) => name === NAME))
  console.warn(`Neighbor GRPO is installed twice: ${new URL(".", import.meta.url).pathname} is not used; remove one`);
else register();
