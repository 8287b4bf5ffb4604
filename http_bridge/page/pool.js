// Memory and the models in it: as it is, or as it was.

import { colorOf } from "./colors.js";
import { byId, fill, make, refill, show } from "./dom.js";
import { bytes, count, counted, duration, moment } from "./format.js";

/**
 * Show a pool.
 * @param {Object} pool - The status, or a record of the history with the pool after it.
 * @param {Object} act - {unload(name), pin(name), unpin(name), why(name)}.
 */
export function showPool(pool, act) {
  const past = pool.models_known_only;
  const free = Math.max(0, pool.budget_bytes - pool.committed_bytes);
  fill(
    byId("sum"),
    make("strong", {}, bytes(pool.committed_bytes)),
    ` of ${bytes(pool.budget_bytes)} claimed, ${bytes(free)} free`,
  );
  showMeter(pool);
  document.body.classList.toggle("past", Boolean(past));
  refill(byId("models").tBodies[0], ...pool.models.map((model) => row(model, pool, act)));
  show(byId("models"), pool.models.length > 0);
  const empty = byId("empty");
  show(empty, pool.models.length === 0);
  empty.textContent = past
    ? "No model was in memory."
    : "No model is in memory. One is loaded when it is asked for: try one in the chat.";
  showQueue(past ? [] : pool.queue, pool.now_ms);
}

function showMeter(pool) {
  const meter = byId("meter");
  const whole = Math.max(pool.budget_bytes, pool.committed_bytes, 1);
  const parts = pool.models.map((model) => {
    const segment = make("span", {
      class: `segment c${colorOf(model.name)}`,
      "data-state": model.state,
      title: `${model.name}: ${bytes(model.claim_bytes)} claimed`,
    });
    segment.style.width = `${(100 * model.claim_bytes) / whole}%`;
    const used = Math.min(1, model.measured_bytes / Math.max(1, model.claim_bytes));
    const measured = make("span", { class: "measured" });
    measured.style.width = `${100 * used}%`;
    segment.append(measured);
    return segment;
  });
  fill(meter, ...parts);
  meter.classList.toggle("over", pool.committed_bytes > pool.budget_bytes);
  const words = pool.models.map((m) => `${m.name} ${m.state} ${bytes(m.claim_bytes)}`);
  meter.setAttribute(
    "aria-label",
    `${bytes(pool.committed_bytes)} of ${bytes(pool.budget_bytes)}: ${words.join(", ") || "empty"}`,
  );
}

function row(model, pool, act) {
  const cells = [
    make(
      "th",
      { scope: "row" },
      make("span", { class: `dot c${colorOf(model.name)}`, "aria-hidden": "true" }),
      make("span", { class: "name", title: model.path }, model.name),
      model.pinned && pool.models_known_only ? make("span", { class: "tag" }, "pinned") : "",
    ),
    make("td", { class: "state", "data-state": model.state }, stateWords(model)),
    make("td", { class: "number" }, bytes(model.claim_bytes)),
  ];
  if (!pool.models_known_only) cells.push(...liveCells(model, pool, act));
  return make("tr", { "data-model": model.name }, ...cells);
}

function liveCells(model, pool, act) {
  const button = (label, does, shown = true) =>
    shown
      ? make(
          "button",
          {
            type: "button",
            class: "plain",
            "aria-label": `${label} ${model.name}`,
            "data-key": `${label} ${model.name}`,
            onclick: does,
          },
          label,
        )
      : "";
  const rests = model.state === "idle";
  const speed = model.tokens_per_s ?? 0;
  const inUse = Math.max(model.leases, model.running);
  return [
    make("td", { class: "number live spare" }, count(model.context_tokens)),
    make("td", { class: "number live spare" }, inUse > 0 ? count(inUse) : "–"),
    make("td", { class: "number live spare" }, speed > 0 ? speed.toFixed(speed < 10 ? 1 : 0) : "–"),
    make("td", { class: "live until" }, until(model, pool.now_ms)),
    make(
      "td",
      { class: "live actions" },
      button("why", () => act.why(model.name)),
      model.pinned
        ? button("unpin", () => act.unpin(model.name))
        : button("pin", () => act.pin(model.name)),
      button("unload", () => act.unload(model.name), rests),
    ),
  ];
}

function stateWords(model) {
  if (model.state === "loading" && model.progress > 0) {
    return `loading ${Math.round(100 * model.progress)} %`;
  }
  return model.state;
}

function until(model, now) {
  if (model.pinned) return "pinned";
  if (model.state === "busy") return "in use";
  if (model.state !== "idle") return "–";
  if (model.expires_at_ms === null) return "forever";
  return `in ${duration(Math.max(0, model.expires_at_ms - now))}`;
}

function showQueue(queue, now) {
  show(byId("queue"), queue.length > 0);
  const items = queue.map((waiter) =>
    make(
      "li",
      {},
      make("span", { class: "name" }, waiter.model),
      ` for ${waiter.client}, ${duration(now - waiter.since_ms)} so far`,
      waiter.deadline_at_ms === null
        ? ""
        : `, gives up in ${duration(Math.max(0, waiter.deadline_at_ms - now))}`,
    ),
  );
  fill(byId("queue").querySelector("ul"), ...items);
}

/** What the head of the page says of a daemon that answers. */
export function showHealth(status) {
  const chip = byId("health");
  const [words, tone] = health(status);
  if (chip.textContent !== words) chip.textContent = words;
  chip.dataset.tone = tone;
}

/** Which daemon it is, and how long it has been up. */
export function showAbout(status) {
  const up = duration(Math.max(0, status.now_ms - status.started_at_ms));
  byId("about").textContent = `${status.version}, up ${up}, record ${count(status.seq)}`;
}

function health(status) {
  if (status.stopping) return ["shutting down", "bad"];
  if (status.read_only) return ["the log cannot be written", "bad"];
  if (status.safe_mode) return ["safe mode", "warn"];
  if (status.warnings.length) return ["serving, with a warning", "warn"];
  const waiting = status.queue.length;
  return waiting ? [`serving, ${counted(waiting, "request")} waiting`, "good"] : ["serving", "good"];
}

/** Say that the daemon or the bridge is gone; what was shown last stays. */
export function showLost(message) {
  const chip = byId("health");
  chip.textContent = message;
  chip.dataset.tone = "bad";
}

/** Which moment is shown. */
export function showWhen(record) {
  show(byId("now"), record !== null);
  byId("when").textContent =
    record === null ? "now" : `as it was at ${moment(record.at_ms)}, after record ${count(record.seq)}`;
}
