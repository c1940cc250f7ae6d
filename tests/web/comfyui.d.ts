/** The part of ComfyUI's /scripts/app.js (frontend 1.32 and newer) that the panel uses. */
declare module "*/scripts/app.js" {
  interface Extension {
    /** Unique among all extensions. */
    name: string;
    commands?: { id: string; label: string; icon?: string; function: () => void | Promise<void> }[];
    keybindings?: { commandId: string; combo: { key: string; ctrl?: boolean; alt?: boolean; shift?: boolean } }[];
    menuCommands?: { path: string[]; commands: string[] }[];
    /** Called for each type of node, before there are nodes of it. */
    beforeRegisterNodeDef?(nodeType: { prototype: object }, nodeData: { name: string }): void;
    /** Called once, when the page is ready. */
    setup?(): void | Promise<void>;
  }

  interface SidebarTab {
    id: string;
    icon: string;
    title: string;
    label?: string;
    tooltip?: string;
    type: "custom";
    /** On opening. */
    render(element: HTMLElement): void;
    /** On closing. */
    destroy(): void;
  }

  interface Toast {
    severity: "success" | "info" | "warn" | "error";
    summary: string;
    detail: string;
    /** Milliseconds. */
    life?: number;
  }

  export interface ComfyApp {
    registerExtension(extension: Extension): void;
    /** Those that are registered. */
    extensions: Extension[];
    graph: Graph;
    canvas: {
      /** The one that is open: `app.graph` or a subgraph somewhere in it. */
      graph: Graph | null;
      centerOnNode(node: GraphNode): void;
    };
    extensionManager: {
      sidebarTab: { registerSidebarTab(tab: SidebarTab): void; toggleSidebarTab(id: string): void };
      toast: { add(toast: Toast): void };
    };
  }

  export const app: ComfyApp;
}

interface Window {
  /** null for a type that is not registered. */
  LiteGraph?: { createNode(type: string): GraphNode | null };
}

interface Graph {
  nodes: GraphNode[];
  add(node: GraphNode): void;
}

interface GraphNode {
  pos: [number, number];
  size: [number, number];
  widgets?: { name: string; value: unknown }[];
  serialize(): object;
}
