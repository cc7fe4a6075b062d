// The demo chat: a page around one room of trioroom's client, which keeps the connection.

import { connect, Kicked, RequestRefused } from "/trioroom.js";

const MAX_LINES = 500; // what the list keeps; older messages go
const HISTORY = 50; // messages that are shown when the page opens
const MAX_LISTED = 1000; // members whose names are shown
const PATIENCE = 5; // seconds for a message to be sent, then it is given back

const $ = (id) => document.getElementById(id);
const [log, messages, text, sendButton] = [$("log"), $("messages"), $("text"), $("send").querySelector("button")];

const user = storedUser();
let client = null;
let room = null; // of the client; null after it has ended
let wanted = roomOfHash() || "lobby"; // its name, without what all have in front
let early = null; // what came before the history that it follows; null while none is awaited
let shown = null; // the position up to which the log has all that a page of the history had
let interrupted = false; // the log says that the connection is lost
let following = true; // the log is scrolled to its end
let countdown = 0; // a timer

function roomOfHash() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim();
  } catch { // a stray % in the address
    return "";
  }
}

function store(name) {
  try {
    localStorage.setItem("trioroom.name", name); // for tabs to come
    sessionStorage.setItem("trioroom.name", name);
  } catch { /* no storage in this browser: the name lasts as long as the page */ }
}

function storedName() {
  try {
    return sessionStorage.getItem("trioroom.name") ?? localStorage.getItem("trioroom.name");
  } catch {
    return null;
  }
}

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Who we are for as long as the tab is open, also when it is loaded anew.
function storedUser() {
  try {
    const stored = sessionStorage.getItem("trioroom.user") ?? randomId();
    sessionStorage.setItem("trioroom.user", stored);
    return stored;
  } catch {
    return randomId();
  }
}

function hueOf(name) {
  let hash = 2166136261; // FNV-1a, which sets short names far apart
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}

// ---- The log

function element(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content; // never markup: names and texts come from strangers
  return made;
}

function timeElement(when) {
  const time = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = when.toISOString();
  return time;
}

// `when` is null for what was said before we came: nobody has noted the time.
function addLine(name, content, className, when = new Date()) {
  const line = element("li", className, "");
  line.style.setProperty("--hue", hueOf(name));
  const previous = messages.lastElementChild;
  if (previous?.className.includes(className) && previous.querySelector(".name").textContent === name) {
    line.classList.add("again");
  }
  line.append(element("span", "name", name), ...(when ? [timeElement(when)] : []), element("span", "text", content));
  messages.append(line);
  while (messages.childElementCount > MAX_LINES) messages.firstElementChild.remove();
  if (following || className === "own") showLatest();
  else $("latest").hidden = false;
}

const addNote = (content) => addLine("system", content, "system");
const addError = (content) => addLine("system", content, "system error");

function addGap() {
  const told = messages.lastElementChild?.classList.contains("gap"); // one line will do for several in a row
  if (!told) addLine("system", "Some messages may be missing here.", "system gap");
}

function showLatest() {
  following = true;
  log.scrollTop = log.scrollHeight;
  $("latest").hidden = true;
}

function show({ data }, when = new Date()) {
  if (data?.kind === "message") addLine(data.name, data.text, data.user === user ? "own" : "other", when);
  else if (data?.kind === "error") addError(data.text);
}

// ---- State

function showState(name, detail = name) {
  $("state").dataset.state = name;
  $("state").textContent = detail;
  $("reconnect").hidden = name === "connecting" || name === "connected";
}

function setJoined(joined) {
  sendButton.disabled = !joined;
  $("members").hidden = !(joined && room.count !== null);
}

function followState({ state, after, error }) {
  clearInterval(countdown);
  if (state === "open") return; // connected, for us, is being in the room
  setJoined(false);
  if (state === "connecting") return showState("connecting");
  if (!interrupted) addError(state === "closed" ? `Connection closed: ${error?.reason || error?.message}` : "Connection lost; trying to get it back.");
  interrupted = true;
  if (state === "closed") return showState("offline");
  let left = Math.ceil(after);
  const count = () => showState("reconnecting", `reconnecting in ${left--} s`);
  count();
  countdown = setInterval(() => { if (left > 0) count(); }, 1000);
}

function showPresent() {
  const { present, count } = room;
  const listed = [...present].slice(0, MAX_LISTED);
  const names = listed.map(([id, info]) => `${info?.name ?? "somebody"}${id === user ? " (you)" : ""}`);
  names.sort((one, other) => one.localeCompare(other));
  if (listed.length < count) names.push(`and ${count - listed.length} more`);
  $("count").textContent = count;
  $("who").replaceChildren(...names.map((name) => element("li", "", name)));
  $("members").hidden = sendButton.disabled;
}

// ---- The room

const token = () => JSON.stringify({ user, name: $("name").value.trim() });

function start() {
  client = connect("/", { token });
  client.on("state", followState);
  enter();
}

// Goes into the room, on from `position` if the log has been there.
function enter(position = null) {
  const entered = client.join(`chat/${wanted}`, { presence: true, position });
  const handlers = { message: receive, gap: tellGap, presence: showPresent, rejoined: comeBack, end: endRoom };
  for (const [event, handler] of Object.entries(handlers)) {
    entered.on(event, (detail) => { if (room === entered) handler(detail); });
  }
  room = entered;
  document.title = `${wanted} – trioroom chat`;
  setJoined(false);
  if (position === null) showHistory(`You are in room “${wanted}”.`);
  entered.joined.then(() => { if (room === entered) arrive(); }, () => {}); // the event `end` tells why not
}

function leave() {
  const left = room;
  room = null; // whose end is of no interest
  left?.leave();
}

function arrive() {
  interrupted = false;
  showState("connected");
  setJoined(true);
}

function comeBack({ recovered }) {
  if (recovered && interrupted) addNote("Back again; what was said in between follows.");
  arrive();
  if (room.count !== null) showPresent();
}

function endRoom(error) {
  room = null;
  setJoined(false);
  if (client.state === "closed") return; // the state tells it
  showState("connected");
  if (error instanceof Kicked) addError(`You were put out of the room${error.reason ? `: ${error.reason}` : ""}. Join to come back.`);
  else addError(`Not in room “${wanted}”: ${error.message}`);
}

function receive(message) {
  if (early !== null) return early.push(message);
  const { position } = message;
  if (position && position.epoch === shown?.epoch && position.offset <= shown.offset) return; // it was on the page
  show(message);
}

function tellGap({ reason }) {
  if (reason === "reconnect") showHistory("Back again; some messages may be missing here.");
  else addGap();
}

// The last messages of the room take the place of what the log has. The client asks again if the connection is lost.
async function showHistory(note) {
  const [asked, later] = [room, (early = [])];
  const page = await asked.history({ limit: HISTORY }).catch(() => null);
  if (room !== asked || early !== later) return; // left, or asked anew
  early = null;
  shown = page?.position ?? null;
  if (page?.messages.length) messages.replaceChildren();
  for (const message of page?.messages ?? []) show(message, null);
  addNote(page ? note : `${note} What was said before cannot be had at the moment.`);
  for (const message of later) receive(message);
}

function changeRoom(name) {
  if (name === wanted && room !== null) return;
  if (name !== wanted) {
    messages.replaceChildren();
    $("latest").hidden = true;
  }
  wanted = name;
  $("room").value = wanted;
  if (roomOfHash() !== wanted) location.hash = encodeURIComponent(wanted);
  leave();
  if (client.state === "closed") start();
  else enter();
}

// ---- What the user does

async function send() {
  const content = text.value.trim();
  const name = $("name").value.trim();
  if (!name) return $("join").reportValidity();
  if (!content || sendButton.disabled) return; // the text stays in the box
  text.value = "";
  try {
    await room.publish({ name, text: content }, { signal: AbortSignal.timeout(PATIENCE * 1000) });
  } catch (error) {
    giveBack(content, error instanceof RequestRefused ? `Not sent: ${error.message}.` : "Most likely not sent: no answer came.");
  }
}

function giveBack(content, why) {
  // What has been written meanwhile stays as it is; then the log keeps what the box has no room for.
  addError(`${why} ${text.value ? `It was: ${content}` : "It is back in the box, to be sent again."}`);
  text.value ||= content;
}

function rename() {
  store($("name").value.trim());
  if (sendButton.disabled || !$("name").value.trim()) return;
  const position = early === null ? room.position : null; // else the log has nothing to go on from
  client.authenticate(token());
  leave(); // to come back under the new name
  enter(position);
}

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
  text.focus();
});

text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  store($("name").value.trim());
  changeRoom($("room").value.trim() || wanted);
  text.focus();
});

$("name").addEventListener("change", rename);
$("latest").addEventListener("click", showLatest);
log.addEventListener("scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (following) $("latest").hidden = true;
});
// A phone's keyboard and a growing box take height from the log: its end stays in sight.
new ResizeObserver(() => { if (following) showLatest(); }).observe(log);
$("reconnect").addEventListener("click", () => {
  if (client.state === "closed") start();
  else client.reconnect();
});
addEventListener("hashchange", () => {
  const name = roomOfHash() || "lobby";
  if (name !== wanted) changeRoom(name); // else it was us who set it
});

$("name").value = storedName() || `guest-${Math.random().toString(36).slice(2, 6)}`;
$("room").value = wanted;
start();
