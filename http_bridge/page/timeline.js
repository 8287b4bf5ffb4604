// The event log: a chart of memory, a slider over its records, and what each one says.

import { askJson } from "./api.js";
import { colorOf } from "./colors.js";
import { byId, fill, make, refill, show } from "./dom.js";
import { bytes, count, moment } from "./format.js";

const PAGE_RECORDS = 500;
const RECORDS_MAX = 2000;
const WIDTH = 1000;
const HEIGHT = 160;

export class Timeline {
  /** @param {function(Object|null)} onMoment - Told which record is looked at; null is now. */
  constructor(onMoment) {
    this.onMoment = onMoment;
    this.records = [];
    this.known = new Map(); // seq -> the record with the pool after it
    this.selected = null;
    this.found = null; // the selected record that the list has been scrolled to
    this.model = "";
    this.usage = false;
    this.filling = null;
    this.listen();
  }

  listen() {
    const slider = byId("slider");
    slider.addEventListener("input", () => this.slide(Number(slider.value)));
    byId("now").addEventListener("click", () => this.select(null));
    byId("earlier").addEventListener("click", () => this.loadEarlier());
    byId("about-model").addEventListener("change", (event) => this.about(event.target.value));
    byId("usage").addEventListener("change", (event) => {
      this.usage = event.target.checked;
      this.draw();
    });
    const chart = byId("chart");
    const drag = (event) => {
      if (!event.buttons && event.type !== "pointerdown") return;
      const box = chart.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const shown = this.shown();
      this.slide(Math.max(0, Math.min(shown.length, Math.floor(share * shown.length))));
    };
    chart.addEventListener("pointerdown", drag);
    chart.addEventListener("pointermove", drag);
  }

  /** Load the last records, each with the pool after it. */
  async open() {
    const { records } = await askJson(`/pool/history?limit=${PAGE_RECORDS}`);
    this.take(records);
  }

  async loadEarlier() {
    const before = this.records[0].seq;
    const { records } = await askJson(`/pool/history?limit=${PAGE_RECORDS}&before=${before}`);
    this.take(records);
  }

  take(records) {
    for (const record of records) this.known.set(record.seq, record);
    const bySeq = new Map(this.records.map((record) => [record.seq, record]));
    for (const record of records) bySeq.set(record.seq, record);
    this.records = [...bySeq.values()].sort((a, b) => a.seq - b.seq).slice(-RECORDS_MAX);
    this.forget();
    this.draw();
  }

  /** A record as it came; the pool after it is asked for when it is needed. */
  add(record) {
    if (this.records.length && record.seq <= this.records.at(-1).seq) return;
    this.records.push(record);
    if (this.records.length > RECORDS_MAX) this.records.shift();
    this.forget();
    this.draw();
    this.complete();
  }

  /** Keep no pool of a record that is not shown any more. */
  forget() {
    const first = this.records[0]?.seq ?? 0;
    for (const seq of this.known.keys()) if (seq < first) this.known.delete(seq);
  }

  /** Ask for the pools after the newest records, once for all that come together. */
  complete() {
    this.filling ??= new Promise((resolve) => setTimeout(resolve, 400))
      .then(async () => {
        const missing = this.records.find((record) => !this.known.has(record.seq));
        if (!missing) return;
        const after = missing.seq - 1;
        const { records } = await askJson(`/pool/history?limit=${RECORDS_MAX}&after=${after}`);
        this.take(records);
      })
      .catch(() => {}) // the next record asks again; until then it is shown without its pool
      .finally(() => {
        this.filling = null;
      });
    return this.filling;
  }

  /** Show only what is about one model; "" shows all. */
  about(model) {
    this.model = model;
    byId("about-model").value = model;
    this.draw();
  }

  shown() {
    return this.records.filter((record) => this.eventsOf(record).length > 0);
  }

  eventsOf(record) {
    return record.events.filter(
      (event) =>
        (this.usage || event.type !== "usage.recorded") &&
        (!this.model || event.model === this.model),
    );
  }

  async slide(position) {
    const record = this.shown()[position];
    this.select(record ?? null);
  }

  async select(record) {
    this.selected = record?.seq ?? null;
    this.draw();
    if (record !== null && !this.known.has(record.seq)) await this.complete();
    if (this.selected === (record?.seq ?? null)) {
      this.onMoment(record && (this.known.get(record.seq) ?? null));
    }
  }

  draw() {
    const shown = this.shown();
    const at = shown.findIndex((record) => record.seq === this.selected);
    const slider = byId("slider");
    slider.max = String(shown.length);
    slider.value = String(at < 0 ? shown.length : at);
    const selected = shown[at];
    slider.setAttribute(
      "aria-valuetext",
      selected ? `${moment(selected.at_ms)}, record ${selected.seq}` : "now",
    );
    const first = this.records[0]?.seq ?? 1;
    show(byId("earlier"), first > 1 && this.records.length < RECORDS_MAX);
    byId("range").textContent = shown.length
      ? `${moment(shown[0].at_ms)} to ${moment(shown.at(-1).at_ms)}`
      : "nothing has happened yet";
    this.drawModels();
    fill(byId("chart"), chart(shown.map((record) => this.known.get(record.seq)), shown, at));
    this.drawEvents(shown);
  }

  drawModels() {
    const names = new Set(this.records.flatMap((record) => record.events.map((e) => e.model)));
    names.delete("");
    if (this.model) names.add(this.model);
    const list = byId("about-model");
    const wanted = ["", ...[...names].sort()];
    if ([...list.options].map((option) => option.value).join("\n") === wanted.join("\n")) return;
    fill(list, ...wanted.map((name) => make("option", { value: name }, name || "every model")));
    list.value = this.model;
  }

  drawEvents(shown) {
    const rows = [];
    for (const record of shown.toReversed()) {
      for (const event of this.eventsOf(record)) rows.push(this.row(record, event));
    }
    const list = byId("events");
    const below = list.scrollHeight - list.scrollTop;
    const reading = list.scrollTop > 0; // what is read stays where it is; new lines come above
    refill(list, ...rows);
    if (reading) list.scrollTop = list.scrollHeight - below;
    const marked = list.querySelector("[aria-current]");
    if (marked && this.found !== this.selected) scrollInto(list, marked);
    this.found = this.selected;
  }

  row(record, event) {
    const current = record.seq === this.selected;
    return make(
      "li",
      { "aria-current": current ? "true" : null, "data-seq": record.seq, "data-type": event.type },
      make(
        "button",
        {
          type: "button",
          class: "event",
          "data-key": `${record.seq} ${event.type}`,
          onclick: () => this.select(current ? null : record),
        },
        make("time", { datetime: new Date(record.at_ms).toISOString() }, moment(record.at_ms)),
        make("span", { class: "type", "data-tone": tone(event.type) }, event.type),
        make("span", { class: "what" }, ...named(event), event.text),
        make("span", { class: "cause" }, record.cause),
      ),
    );
  }
}

const named = (event) =>
  event.model ? [make("span", { class: "name" }, event.model), " "] : [];

/** Scroll a list so that `child` is seen, and nothing but the list. */
function scrollInto(list, child) {
  const above = child.offsetTop - list.offsetTop;
  if (above < list.scrollTop) list.scrollTop = above;
  const below = above + child.offsetHeight - list.clientHeight;
  if (below > list.scrollTop) list.scrollTop = below;
}

function tone(type) {
  if (/failed|quarantined|refused|tail_lost|residue|entered/.test(type)) return "bad";
  if (/evict|thrash|pressure|exited|jumped/.test(type)) return "warn";
  if (/ready|adopted|finished|left/.test(type)) return "good";
  return "quiet";
}

/** Memory after each record, stacked by model, with the budget above it. */
function chart(pools, records, at) {
  const svg = make("svg:svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  const step = WIDTH / Math.max(1, records.length);
  const filled = carried(pools);
  const tallest = Math.max(1, ...filled.map((pool) => pool.committed_bytes));
  const budget = Math.max(0, ...filled.map((pool) => pool.budget_bytes));
  const scale = (HEIGHT - 14) / Math.max(tallest, Math.min(budget, tallest * 1.6));
  for (const [name, area] of stacked(filled)) {
    svg.append(make("svg:path", { class: `area c${colorOf(name)}`, d: outline(area, step, scale) }));
  }
  svg.append(make("svg:path", { class: "budget", d: steps(filled, step, scale) }));
  records.forEach((record, index) => {
    const mark = record.events.map((event) => tone(event.type)).find((t) => t === "bad" || t === "warn");
    if (!mark) return;
    const x = index * step;
    svg.append(make("svg:line", { class: "mark", "data-tone": mark, x1: x, x2: x, y1: 2, y2: 10 }));
  });
  const x = (at < 0 ? records.length : at) * step;
  svg.append(make("svg:line", { class: "playhead", x1: x, x2: x, y1: 0, y2: HEIGHT }));
  const title = `${count(records.length)} records, at most ${bytes(tallest)} claimed`;
  svg.prepend(make("svg:title", {}, title));
  return svg;
}

/** Each record's pool; where it is not known yet, the one before it. */
function carried(pools) {
  let last = { models: [], committed_bytes: 0, budget_bytes: 0 };
  return pools.map((pool) => (last = pool ?? last));
}

/** For each model, from the bottom: [low, high] in bytes after each record. */
function stacked(pools) {
  const names = [...new Set(pools.flatMap((pool) => pool.models.map((model) => model.name)))];
  const floor = pools.map(() => 0);
  return names.map((name) => {
    const area = pools.map((pool, index) => {
      const claims = pool.models.filter((model) => model.name === name);
      const low = floor[index];
      floor[index] += claims.reduce((sum, model) => sum + model.claim_bytes, 0);
      return [low, floor[index]];
    });
    return [name, area];
  });
}

/** The budget as it was after each record; what is above the chart is not seen. */
function steps(pools, step, scale) {
  const at = (pool) => Math.max(-HEIGHT, HEIGHT - pool.budget_bytes * scale).toFixed(1);
  const parts = pools.map((pool, index) => `V${at(pool)}H${((index + 1) * step).toFixed(1)}`);
  return pools.length ? `M0 ${at(pools[0])}${parts.join("")}` : "M0 0";
}

/** A stepped area: what a record made true lasts until the next one, the last until now. */
function outline(area, step, scale) {
  const y = (value) => (HEIGHT - value * scale).toFixed(1);
  const x = (index) => (index * step).toFixed(1);
  const top = area.map(([, high], index) => `L${x(index)} ${y(high)}L${x(index + 1)} ${y(high)}`);
  const bottom = area
    .map(([low], index) => `L${x(index + 1)} ${y(low)}L${x(index)} ${y(low)}`)
    .reverse();
  return `M0 ${HEIGHT}${top.join("")}${bottom.join("")}Z`;
}
