// Requests to the bridge that served this page, and its event streams.

const KEY = "mlxd.key";
let askForKey = async () => "";

/** What to do when a key is needed: a function that gives one, or "". */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

/** What the bridge said went wrong, in its own words. */
export class Failure extends Error {
  constructor(status, message, hint) {
    super(hint && !message.includes(hint) ? `${message} (${hint})` : message);
    this.status = status;
  }
}

/**
 * A response, once the key is right.
 * @throws {Failure} for every status that is no success.
 */
export async function ask(path, { body, signal, headers = {} } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal,
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await failure(response);
    const given = await askForKey();
    if (!given) throw new Failure(401, "an API key is needed");
    sessionStorage.setItem(KEY, given);
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();

async function failure(response) {
  try {
    const { error } = await response.json();
    return new Failure(response.status, error.message, error.hint);
  } catch {
    return new Failure(response.status, `the bridge answered with status ${response.status}`);
  }
}

/**
 * The events of a text/event-stream response, one by one: {event, id, data, comment}.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

function parse(block) {
  const found = { event: "message", id: "", data: "", comment: "" };
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (colon === 0) found.comment = value;
    else if (name === "data") data.push(value);
    else if (name === "event" || name === "id") found[name] = value;
  }
  found.data = data.join("\n");
  return found;
}
