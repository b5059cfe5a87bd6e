// The HTTP host of the page: messages become requests to /api/v1, with the token that the address brought.

import {default as page} from "./view.js";

const KEPT = "embedstore";

// The token stands behind the # of the address, which no server sees; it is taken off so that nobody copies it along.
function token() {
  const brought = location.hash.slice(1);
  if (brought) {
    const found = new URLSearchParams(brought).get("token") || brought;
    sessionStorage.setItem(`${KEPT}.token`, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(`${KEPT}.token`) || "";
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(`${KEPT}.start`));
  } catch {
    return null;
  }
}

// An answer with buffers: 4 bytes length of the head, the head as JSON, then the buffers, all padded to 8 bytes.
function unpack(whole) {
  const length = new DataView(whole).getUint32(0, true);
  const {buffers, ...result} = JSON.parse(new TextDecoder().decode(new Uint8Array(whole, 4, length)));
  let at = padded(4 + length);
  const parts = buffers.map((size) => {
    const part = new Uint8Array(whole, at, size);
    at = padded(at + size);
    return part;
  });
  return [result, parts];
}

function padded(length) {
  return Math.ceil(length / 8) * 8;
}

class HttpModel {
  constructor() {
    this.page = true;
    this.token = token();
    this.heard = () => {};
    this.running = new Map();
  }

  get(name) {
    return name === "start" ? remembered() : undefined;
  }

  remember(start) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => sessionStorage.setItem(`${KEPT}.start`, JSON.stringify(start)), 200);
  }

  on(name, listener) {
    if (name === "msg:custom") this.heard = listener;
  }

  cancel(id) {
    this.running.get(id)?.abort();
  }

  async send({id, call, args}, _, buffers) {
    const abort = new AbortController();
    this.running.set(id, abort);
    try {
      const [result, parts] = await this.post(call, args, buffers, abort.signal);
      this.heard({id, ok: true, result}, parts);
    } catch (error) {
      this.heard({id, ok: false, error: {type: error.type || "Unreachable", message: error.message}}, []);
    } finally {
      this.running.delete(id);
    }
  }

  async post(call, args, buffers, signal) {
    const [body, type] = buffers && buffers.length ? [buffers[0], "application/octet-stream"] : [JSON.stringify(args || {}), "application/json"];
    let answer;
    try {
      answer = await fetch(`/api/v1/${call}`, {
        method: "POST",
        headers: {Authorization: `Bearer ${this.token}`, "Content-Type": type},
        body,
        signal,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer: is embedstore serve still running? Start it again and open the address that it prints");
    }
    if (!answer.ok) throw await refusal(answer);
    if ((answer.headers.get("Content-Type") || "").startsWith("application/json")) return [await answer.json(), []];
    return unpack(await answer.arrayBuffer());
  }
}

async function refusal(answer) {
  let said = {type: "Refused", message: `the server answered ${answer.status}`};
  if (answer.status === 401) {
    said = {type: "NoToken", message: "this address has no valid token: open the whole address that embedstore serve printed"};
  } else {
    const body = await answer.json().catch(() => null); // a proxy's page is no JSON: the status is all there is to say
    if (body && body.error) said = body.error;
  }
  return Object.assign(new Error(said.message), {type: said.type});
}

page.render({model: new HttpModel(), el: document.getElementById("embedstore")});
