// The pack's frontend: the one file that ComfyUI imports by itself. Everything else is an .mjs that this one imports.
import { app } from "/scripts/app.js";

app.registerExtension({
  name: "NeighborGRPO",
  setup() {
    document.documentElement.dataset.neighborGrpo = "ready"; // last: it tells tests that everything above has run
  },
});
