// The pool's feed: the status and every record, gapless, for as long as the page can be seen.

import { ask, events } from "./api.js";

const AGAIN_MS = [500, 1000, 2000, 5000];

/**
 * Follow the pool for ever.
 * @param {Object} tell - {status(status), record(record), lost(message)}.
 */
export async function follow(tell) {
  let seq = null;
  let failures = 0;
  for (;;) {
    await visible();
    const leaving = new AbortController();
    const leave = () => document.hidden && leaving.abort();
    document.addEventListener("visibilitychange", leave);
    try {
      const headers = seq === null ? {} : { "Last-Event-ID": String(seq) };
      const response = await ask("/pool/events", { headers, signal: leaving.signal });
      for await (const { event, id, data } of events(response)) {
        failures = 0;
        const told = JSON.parse(data || "{}");
        if (event === "record") {
          seq = Number(id);
          tell.record(told);
        } else if (event === "status") {
          seq ??= told.seq;
          tell.status(told);
        } else if (event === "ended" && told.message) {
          tell.lost(told.message);
        }
      }
      tell.lost("the bridge ended the connection");
    } catch (error) {
      if (leaving.signal.aborted) continue;
      if (error.status === 404) seq = null; // another log than before
      tell.lost(error.status ? error.message : "the bridge cannot be reached");
    } finally {
      document.removeEventListener("visibilitychange", leave);
    }
    await pause(AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)]);
    failures += 1;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}
