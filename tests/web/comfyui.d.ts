/** The part of ComfyUI's /scripts/app.js (frontend 1.32 and newer) that the panel uses. */
interface Extension {
  /** Unique among all extensions. */
  name: string;
  /** Called once, when the page is ready. */
  setup?(): void | Promise<void>;
}

export const app: {
  registerExtension(extension: Extension): void;
};
