// A small chat, to try a model with words and pictures: the same API that every app uses.

import { ask, askJson, events } from "./api.js";
import { byId, fill, make, show } from "./dom.js";
import { bytes, count } from "./format.js";

const PICTURES_MAX = 8;
const PICTURE_BYTES_MAX = 20e6;
const PICTURE_TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const NEAR_PX = 40;

export class Chat {
  constructor() {
    this.messages = []; // as the API takes them
    this.pictures = []; // data: URLs that go with the next message
    this.models = new Map();
    this.running = null;
    this.listen();
  }

  listen() {
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    byId("stop").addEventListener("click", () => this.running?.abort());
    byId("clear").addEventListener("click", () => this.clear());
    byId("file").addEventListener("change", (event) => {
      this.attach(event.target.files);
      event.target.value = "";
    });
    byId("model").addEventListener("change", () => this.showModel());
    const chat = byId("chat");
    chat.addEventListener("paste", (event) => this.attach(event.clipboardData.files));
    chat.addEventListener("dragover", (event) => event.preventDefault());
    chat.addEventListener("drop", (event) => {
      event.preventDefault();
      this.attach(event.dataTransfer.files);
    });
  }

  /**
   * Read which models there are that can answer in words.
   * @param {string[]} residents - Those in memory: one of them is offered first.
   */
  async open(residents = []) {
    const { data } = await askJson("/v1/models");
    const speaking = data.filter((model) => model.capabilities.includes("chat"));
    this.models = new Map(speaking.map((model) => [model.id, model]));
    const list = byId("model");
    const chosen = list.value || residents.find((name) => this.models.has(name));
    fill(list, ...speaking.map((model) => make("option", { value: model.id }, model.id)));
    if (this.models.has(chosen)) list.value = chosen;
    this.showModel();
  }

  sees() {
    const model = this.models.get(byId("model").value);
    return Boolean(model?.capabilities.includes("vision"));
  }

  showModel() {
    const sees = this.sees();
    byId("file").disabled = !sees;
    byId("attach").toggleAttribute("data-off", !sees);
    byId("attach").title = sees ? "Add pictures" : "This model reads text only";
    byId("send").disabled = !this.models.size;
    if (sees) byId("refused").textContent = "";
  }

  async attach(files) {
    let refused = "";
    // A copy: the input's own list is emptied meanwhile.
    for (const file of [...files]) {
      const reason = this.refuses(file);
      if (reason) refused = `${file.name}: ${reason}`;
      else this.pictures.push(await dataUrl(file));
    }
    byId("refused").textContent = refused;
    this.showPictures();
  }

  /** Why this file cannot go with a message, or "". */
  refuses(file) {
    if (!this.sees()) return `${byId("model").value} reads text only`;
    if (!PICTURE_TYPES.includes(file.type)) return "not a PNG, JPEG, WebP or GIF picture";
    if (file.size > PICTURE_BYTES_MAX) return `more than ${bytes(PICTURE_BYTES_MAX)}`;
    if (this.pictures.length >= PICTURES_MAX) return `at most ${PICTURES_MAX} pictures a message`;
    return "";
  }

  showPictures() {
    const thumbs = this.pictures.map((url, index) =>
      make(
        "button",
        {
          type: "button",
          class: "thumb",
          "aria-label": `Leave out picture ${index + 1}`,
          onclick: () => {
            this.pictures.splice(index, 1);
            this.showPictures();
          },
        },
        make("img", { src: url, alt: "" }),
      ),
    );
    fill(byId("pictures"), ...thumbs);
  }

  clear() {
    this.running?.abort();
    this.messages = [];
    fill(byId("messages"));
    show(byId("clear"), false);
  }

  async send() {
    const text = byId("prompt").value.trim();
    if (this.running || !text) return;
    const pictures = this.pictures.map((url) => ({ type: "image_url", image_url: { url } }));
    const content = pictures.length ? [...pictures, { type: "text", text }] : text;
    this.messages.push({ role: "user", content });
    this.say("user", text, this.pictures);
    byId("prompt").value = "";
    byId("refused").textContent = "";
    this.pictures = [];
    this.showPictures();
    show(byId("clear"), true);
    await this.answer();
  }

  async answer() {
    const shown = this.say("assistant", "");
    this.running = new AbortController();
    this.setBusy(true);
    try {
      await this.stream(shown, this.running.signal);
    } catch (error) {
      if (error.name === "AbortError") shown.note("stopped");
      else shown.fail(error.message.replace(/^messages\[\S+: /, "")); // whose place is seen
    } finally {
      this.running = null;
      this.setBusy(false);
      if (shown.text) this.messages.push({ role: "assistant", content: shown.text });
      else this.takeBack();
      // Only from the button that has just gone: elsewhere somebody is at work.
      if (document.activeElement === document.body) byId("prompt").focus();
    }
  }

  /** What was not answered is not sent again by itself: it goes back to where it was written. */
  takeBack() {
    const { content } = this.messages.pop();
    const parts = typeof content === "string" ? [{ text: content }] : content;
    byId("prompt").value ||= parts.at(-1).text;
    if (!this.pictures.length) this.pictures = parts.slice(0, -1).map((p) => p.image_url.url);
    this.showPictures();
  }

  request() {
    const system = byId("system").value.trim();
    const temperature = byId("temperature").value;
    const most = byId("max-tokens").value;
    return {
      model: byId("model").value,
      messages: system ? [{ role: "system", content: system }, ...this.messages] : this.messages,
      stream: true,
      stream_options: { include_usage: true },
      ...(temperature === "" ? {} : { temperature: Number(temperature) }),
      ...(most === "" ? {} : { max_completion_tokens: Number(most) }),
    };
  }

  async stream(shown, signal) {
    const began = performance.now();
    const response = await ask("/v1/chat/completions", { body: this.request(), signal });
    let first = null;
    let usage = null;
    let reason = null;
    for await (const { data, comment } of events(response)) {
      if (comment) shown.note(comment);
      if (!data || data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      reason = choice?.finish_reason ?? reason;
      const { content, reasoning_content: thought } = choice?.delta ?? {};
      if (content || thought) first ??= performance.now();
      if (thought) shown.think(thought);
      if (content) shown.add(content);
    }
    shown.note(figures(began, first ?? performance.now(), performance.now(), usage, reason));
  }

  setBusy(busy) {
    show(byId("send"), !busy);
    show(byId("stop"), busy);
    byId("messages").setAttribute("aria-busy", String(busy));
  }

  say(role, text, pictures = []) {
    const said = document.createTextNode(text); // grows in place: a long answer stays cheap
    const thought = document.createTextNode("");
    const words = make("p", { class: "words" }, said);
    const thoughts = make("p", {}, thought);
    const thinking = make("details", { hidden: true }, make("summary", {}, "Thinking"), thoughts);
    const note = make("p", { class: "note" });
    const message = make(
      "article",
      { class: role, "aria-label": role === "user" ? "You" : "Model" },
      ...pictures.map((url) => make("img", { src: url, alt: "attached picture" })),
      thinking,
      words,
      note,
    );
    const list = byId("messages");
    list.append(message);
    list.scrollTop = list.scrollHeight;
    // The end is followed while it is looked at; who has scrolled up to read stays there.
    const follow = (change) => {
      const near = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
      change();
      if (near) list.scrollTop = list.scrollHeight;
    };
    return {
      text,
      add(more) {
        this.text += more;
        follow(() => {
          said.appendData(more);
          note.textContent = "";
        });
      },
      think(more) {
        follow(() => {
          thinking.hidden = false;
          thought.appendData(more);
        });
      },
      note(line) {
        follow(() => {
          note.textContent = line;
        });
      },
      fail(line) {
        message.classList.add("failed");
        this.note(line);
      },
    };
  }
}

function figures(began, first, ended, usage, reason) {
  const parts = [`first token after ${((first - began) / 1000).toFixed(2)} s`];
  if (usage) {
    const rate = (usage.completion_tokens - 1) / ((ended - first) / 1000);
    parts.push(`${count(usage.completion_tokens)} tokens`);
    if (usage.completion_tokens > 1 && Number.isFinite(rate)) {
      parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tok/s`);
    }
  }
  if (reason === "length") parts.push("cut at the token limit");
  return parts.join(", ");
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
