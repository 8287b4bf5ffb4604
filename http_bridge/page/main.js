// The page: the feed tells, the pool, the timeline and the chat show.

import { askJson, onKeyNeeded } from "./api.js";
import { Chat } from "./chat.js";
import { byId, fill, make } from "./dom.js";
import { follow } from "./feed.js";
import { showAbout, showHealth, showLost, showPool, showWhen } from "./pool.js";
import { Timeline } from "./timeline.js";

let status = null;
let lookedAt = null; // a record of the past, or null for now
let lost = false;
let refused = ""; // why the last button did nothing

const act = {
  unload: (name) => command("/pool/unload", { model: name }),
  pin: (name) => command("/pool/pin", { model: name }),
  unpin: (name) => command("/pool/unpin", { model: name }),
  why: (name) => {
    timeline.about(name);
    byId("timeline-title").scrollIntoView({ block: "nearest" });
  },
};

async function command(path, body) {
  refused = "";
  try {
    await askJson(path, { body });
  } catch (error) {
    refused = error.message;
  }
  draw();
}

function draw() {
  if (!status) return;
  showAbout(status);
  showWhen(lookedAt);
  showPool(lookedAt ? { ...lookedAt, models_known_only: true } : status, act);
  const warnings = lookedAt ? [] : status.warnings;
  fill(
    byId("notices"),
    ...warnings.map((words) => make("li", {}, words)),
    refused && make("li", { class: "failed" }, refused),
  );
}

const timeline = new Timeline((record) => {
  lookedAt = record;
  draw();
});
const chat = new Chat();

let asking = null;
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key").value = "";
    dialog.addEventListener("close", () => resolve(byId("key").value.trim()), { once: true });
    dialog.showModal();
  }).finally(() => {
    asking = null;
  });
  return asking;
}

onKeyNeeded(askForKey);

let opened = false;
async function open() {
  opened = true;
  try {
    await Promise.all([timeline.open(), chat.open(residents(status))]);
  } catch (error) {
    opened = false; // the next status tries again
    showLost(error.message);
  }
}

const residents = (s) => s.models.filter((m) => m.state !== "stopping").map((m) => m.name);
const described = (s) => s.models.map((model) => `${model.name} ${model.state}`).join();

follow({
  status(told) {
    const changed = !status || described(status) !== described(told);
    status = told;
    lost = false;
    showHealth(status);
    draw();
    if (!opened) open();
    else if (changed) chat.open(residents(status)).catch(() => {}); // the list as it was is still of use
  },
  record(record) {
    timeline.add(record);
  },
  lost(message) {
    lost = true;
    showLost(message);
  },
});

// Times until something happens go on while nothing is told.
setInterval(() => {
  if (status && !lost && !document.hidden) {
    status = { ...status, now_ms: status.now_ms + 1000 };
    draw();
  }
}, 1000);
