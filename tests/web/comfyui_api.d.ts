/** The part of ComfyUI's /scripts/api.js (frontend 1.32 and newer) that the panel uses. */
declare module "*/scripts/api.js" {
  export const api: {
    /** `fetch` below /api, with the user's headers. */
    fetchApi(route: string, init?: RequestInit): Promise<Response>;
    /** The address of a route below /api. */
    apiURL(route: string): string;
    /** Messages of the websocket by type, besides "reconnecting" and "reconnected". */
    addEventListener(type: string, listener: (event: CustomEvent) => void): void;
    removeEventListener(type: string, listener: (event: CustomEvent) => void): void;
  };
}
