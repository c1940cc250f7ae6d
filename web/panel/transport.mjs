/**
 * How the panel talks to its server: inside ComfyUI through ComfyUI's own `api`, elsewhere by fetch and a WebSocket.
 *
 * @typedef {import("./types.mjs").Message} Message
 * @typedef {import("./types.mjs").Connection} Connection
 *
 * @typedef {object} Listener
 * @property {(message: Message) => void} message
 * @property {(connection: Connection) => void} connection  "live" also after every reconnection: ask for what was missed
 *
 * @typedef {object} Transport
 * @property {(path: string, init?: RequestInit) => Promise<Response>} send  `path` begins behind the routes' prefix
 * @property {(path: string) => string} url  for pictures and downloads
 * @property {(listener: Listener) => () => void} listen  returns how to end it
 */

export const PREFIX = "/neighbor_grpo/v1";
const EVENT = "neighbor_grpo";
const FIRST_WAIT = 500; // milliseconds until the first reconnection; each further one waits twice as long
const LONGEST_WAIT = 10_000;

/** A refusal by the server, in its own words. */
export class Refused extends Error {
  /** @param {number} status @param {string} reason */
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/**
 * What ComfyUI's `api` offers of it.
 *
 * @typedef {object} ComfyApi
 * @property {(route: string, init?: RequestInit) => Promise<Response>} fetchApi
 * @property {(route: string) => string} apiURL
 * @property {(type: string, listener: (event: CustomEvent) => void) => void} addEventListener
 * @property {(type: string, listener: (event: CustomEvent) => void) => void} removeEventListener
 */

/** @param {ComfyApi} api @returns {Transport} */
export function comfyTransport(api) {
  return {
    send: (path, init) => api.fetchApi(PREFIX + path, init),
    url: (path) => api.apiURL(PREFIX + path),
    listen({ message, connection }) {
      const heard = (/** @type {CustomEvent} */ event) => message(event.detail);
      const lost = () => connection("lost");
      const live = () => connection("live");
      api.addEventListener(EVENT, heard);
      api.addEventListener("reconnecting", lost);
      api.addEventListener("reconnected", live);
      live();
      return () => {
        api.removeEventListener(EVENT, heard);
        api.removeEventListener("reconnecting", lost);
        api.removeEventListener("reconnected", live);
      };
    },
  };
}

/**
 * @param {string} page  the address that the page is at, without the slash at its end
 * @param {typeof WebSocket} [Socket]
 * @returns {Transport}
 */
export function webTransport(page, Socket = WebSocket) {
  const base = page + PREFIX;
  return {
    send: (path, init) => fetch(base + path, init),
    url: (path) => base + path,
    listen: (listener) => keptOpen(base.replace(/^http/, "ws") + "/events", Socket, listener),
  };
}

/**
 * A WebSocket that is opened again whenever it closes, until it is ended.
 *
 * @param {string} url
 * @param {typeof WebSocket} Socket
 * @param {Listener} listener
 */
function keptOpen(url, Socket, { message, connection }) {
  let wait = FIRST_WAIT;
  let ended = false;
  /** @type {WebSocket} */
  let socket;
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;

  function open() {
    clearTimeout(timer);
    socket = new Socket(url);
    socket.onopen = () => {
      wait = FIRST_WAIT;
      connection("live");
    };
    socket.onmessage = (event) => {
      const told = parsed(event.data);
      if (told) message(told);
    };
    socket.onclose = () => {
      if (ended) return;
      connection("lost");
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
  }

  /** The network is back, or the computer woke up: do not wait. */
  function hurry() {
    if (!ended && socket.readyState === Socket.CLOSED) open();
  }

  open();
  globalThis.addEventListener?.("online", hurry);
  return () => {
    ended = true;
    clearTimeout(timer);
    globalThis.removeEventListener?.("online", hurry);
    socket.close();
  };
}

/** @param {unknown} text @returns {Message | null} */
function parsed(text) {
  try {
    const told = JSON.parse(String(text));
    return typeof told?.type === "string" && typeof told.run === "string" ? told : null;
  } catch {
    return null; // not from this server
  }
}

/**
 * The JSON that the server answers with, or null for an answer without a body.
 *
 * @param {Transport} transport
 * @param {string} path
 * @param {{ method?: string, body?: object, signal?: AbortSignal }} [options]
 * @returns {Promise<any>}
 * @throws {Refused} with the server's reason
 */
export async function ask(transport, path, { method = "GET", body, signal } = {}) {
  const headers = { "Content-Type": "application/json" };
  const init = method === "GET" ? { signal } : { method, headers, body: JSON.stringify(body ?? {}), signal };
  const response = await transport.send(path, init);
  const text = await response.text();
  if (!response.ok) throw new Refused(response.status, reason(text) ?? `the server answered ${response.status}`);
  return text ? JSON.parse(text) : null;
}

/** @param {string} text @returns {string | null} */
function reason(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : null;
  } catch {
    return null;
  }
}

/** The path of a run's route. @param {string} run @param {string} [rest] */
export function ofRun(run, rest = "") {
  return `/runs/${encodeURIComponent(run)}${rest}`;
}
