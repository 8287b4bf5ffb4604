// A small chat, to try a model with words and pictures: the same API that every app uses.

import { ask, askJson, events } from "./api.js";
import { byId, fill, make, show } from "./dom.js";
import { count } from "./format.js";

const PICTURES_MAX = 8;
const PICTURE_BYTES_MAX = 20e6;

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

  /** Read which models there are that can answer in words. */
  async open() {
    const { data } = await askJson("/v1/models");
    const speaking = data.filter((model) => model.capabilities.includes("chat"));
    this.models = new Map(speaking.map((model) => [model.id, model]));
    const list = byId("model");
    const chosen = list.value;
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
  }

  async attach(files) {
    for (const file of [...files].filter((f) => f.type.startsWith("image/"))) {
      if (this.pictures.length >= PICTURES_MAX || file.size > PICTURE_BYTES_MAX) continue;
      this.pictures.push(await dataUrl(file));
    }
    this.showPictures();
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
      else shown.fail(error.message);
    } finally {
      this.running = null;
      this.setBusy(false);
      if (shown.text) this.messages.push({ role: "assistant", content: shown.text });
      else this.messages.pop(); // what was not answered is not sent again
      byId("prompt").focus();
    }
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
    const words = make("p", { class: "words" }, text);
    const thoughts = make("p", {});
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
    const stay = () => {
      list.scrollTop = list.scrollHeight;
    };
    stay();
    return {
      text,
      add(more) {
        this.text += more;
        words.textContent = this.text;
        note.textContent = "";
        stay();
      },
      think(more) {
        thinking.hidden = false;
        thoughts.append(more);
        stay();
      },
      note(line) {
        note.textContent = line;
        stay();
      },
      fail(line) {
        note.textContent = line;
        message.classList.add("failed");
        stay();
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
