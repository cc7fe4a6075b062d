// The demo chat: one connection that speaks trioroom.v1.json, and the page around it.
"use strict";

const MAX_LINES = 500; // what the list keeps; older messages go
const MAX_DELAY = 15; // seconds between two attempts to connect, at most
const HELLO_TIMEOUT = 10; // seconds a server may take to say hello
const SETTLED = 10; // seconds after which a connection counts as good, and back-off starts anew
const HISTORY = 50; // messages that are shown when the page opens
const MAX_LISTED = 1000; // members whose names are shown

// ---- The connection: opens, asks, and comes back when it is lost ----------------------------

class Connection {
  #socket = null;
  #timer = 0;
  #helloTimer = 0;
  #attempt = 0;
  #since = Infinity; // when the server said hello
  #after = null; // the range of seconds a bye asked for
  #lastId = 0;
  #asked = new Map(); // id -> function(envelope), called once; null when the connection was lost

  constructor({ onState, onHello, onPush }) {
    this.onState = onState;
    this.onHello = onHello;
    this.onPush = onPush;
  }

  open() {
    this.close();
    this.onState("connecting");
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/", ["trioroom.v1.json"]);
    this.#socket = socket;
    this.#since = Infinity;
    this.#helloTimer = setTimeout(() => socket.close(), HELLO_TIMEOUT * 1000);
    // A socket that `open` or `close` has replaced may still have events to deliver.
    const current = (handle) => (event) => { if (this.#socket === socket) handle(event); };
    socket.addEventListener("message", current((event) => this.#receive(event.data)));
    socket.addEventListener("close", current((event) => this.#lost(event)));
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#helloTimer);
    socket?.close(1000);
    this.#forget();
  }

  // Whether the connection is lost and waits for its next attempt.
  get waiting() {
    return this.#socket?.readyState === WebSocket.CLOSED;
  }

  // Sends a request; false when there is no connection that has said hello.
  ask(envelope, answered) {
    if (this.#socket?.readyState !== WebSocket.OPEN || this.#since === Infinity) return false;
    const id = ++this.#lastId;
    this.#asked.set(id, answered);
    this.#socket.send(JSON.stringify({ ...envelope, id }));
    return true;
  }

  #receive(data) {
    for (const envelope of [JSON.parse(data)].flat()) { // a frame holds one or an array of them
      if (envelope.type === "hello") {
        clearTimeout(this.#helloTimer);
        this.#since = performance.now();
        this.onHello(envelope);
      } else if (envelope.type === "bye") {
        this.#after = envelope.after;
      } else if (this.#asked.has(envelope.id)) {
        const answered = this.#asked.get(envelope.id);
        this.#asked.delete(envelope.id);
        answered(envelope);
      } else {
        this.onPush(envelope);
      }
    }
  }

  #lost({ code, reason }) {
    clearTimeout(this.#helloTimer);
    if (performance.now() - this.#since > SETTLED * 1000) this.#attempt = 0;
    if (code >= 4000 && code <= 4099) {
      this.onState("offline", reason || `the server closed the connection with code ${code}`);
    } else {
      this.#wait(this.#delay(code));
    }
    this.#forget();
  }

  #delay(code) {
    const after = this.#after;
    this.#after = null;
    const attempt = this.#attempt++;
    if (after) return after[0] + Math.random() * (after[1] - after[0]);
    // At once only the first time, lest a server that closes each connection so is hammered.
    if (code >= 4200 && code <= 4299 && attempt === 0) return 0;
    return Math.min(MAX_DELAY, 0.5 * 2 ** attempt) * (0.5 + Math.random() / 2);
  }

  #wait(seconds) {
    if (seconds <= 0) return this.open();
    this.onState("reconnecting", Math.ceil(seconds));
    const step = Math.min(seconds, 1);
    this.#timer = setTimeout(() => this.#wait(seconds - step), step * 1000);
  }

  #forget() {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const answered of asked) answered(null);
  }
}

// ---- The page -------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const [log, messages, text, sendButton] = [$("log"), $("messages"), $("text"), $("send").querySelector("button")];

let room = roomOfHash() || "lobby"; // the one we want to be in
let joined = false;
let joinCount = 0; // answers to all joins but the last one come too late
let position = null; // where the log ends in the room's history; null until we have been in the room
let early = null; // pushes that came before the history that they follow; null while none is awaited
let version = 0; // of who is here
const present = new Map(); // user -> name
const unsent = []; // publications that got no answer, to be sent again with the same id
const user = storedUser();
let interrupted = false; // the log says that the connection is lost
let following = true; // the log is scrolled to its end

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

function addLine(name, content, className) {
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = now.toISOString();
  const line = element("li", className, "");
  line.style.setProperty("--hue", hueOf(name));
  const previous = messages.lastElementChild;
  if (previous?.className.includes(className) && previous.querySelector(".name").textContent === name) {
    line.classList.add("again");
  }
  line.append(element("span", "name", name), time, element("span", "text", content));
  messages.append(line);
  while (messages.childElementCount > MAX_LINES) messages.firstElementChild.remove();
  if (following || className === "own") showLatest();
  else $("latest").hidden = false;
}

const addNote = (content) => addLine("system", content, "system");
const addError = (content) => addLine("system", content, "system error");

function showLatest() {
  following = true;
  log.scrollTop = log.scrollHeight;
  $("latest").hidden = true;
}

// ---- State

function showState(state, detail) {
  const texts = { reconnecting: `reconnecting in ${detail} s` };
  if (state !== "connected") setJoined(false);
  if ((state === "reconnecting" || state === "offline") && !interrupted) {
    interrupted = true;
    addError(state === "offline" ? `Connection closed: ${detail}` : "Connection lost; trying to get it back.");
  }
  $("state").dataset.state = state;
  $("state").textContent = texts[state] ?? state;
  $("reconnect").hidden = state === "connecting" || state === "connected";
}

function setJoined(value) {
  joined = value;
  sendButton.disabled = !value;
  $("members").hidden = !value;
}

// ---- Who is here

function askWho() {
  const asked = joinCount;
  connection.ask({ type: "who", room: `chat/${room}`, limit: MAX_LISTED }, (answer) => {
    if (answer?.type !== "ok" || asked !== joinCount) return;
    present.clear();
    for (const member of answer.members) present.set(member.user, nameOf(member));
    version = answer.version;
    showPresent(answer.count);
  });
}

function followPresence(envelope) {
  const { joined: came = [], left = [], count } = envelope;
  for (const member of came) present.set(member.user, nameOf(member));
  for (const gone of left) present.delete(gone);
  // A push that is missing, or too many changes for one: ask anew. Before the first answer we do not know.
  const missed = version !== 0 && envelope.version !== version + 1;
  version = envelope.version;
  showPresent(count);
  if (missed || (!envelope.joined && !envelope.left && present.size !== count && count <= MAX_LISTED)) askWho();
}

const nameOf = (member) => member.info?.name ?? "somebody";

function showPresent(count) {
  $("count").textContent = count;
  const names = [...present].map(([id, name]) => (id === user ? `${name} (you)` : name)).sort((a, b) => a.localeCompare(b));
  if (present.size < count) names.push(`and ${count - present.size} more`);
  $("who").replaceChildren(...names.map((name) => element("li", "", name)));
}

// ---- Rooms

function join() {
  const count = ++joinCount;
  const away = interrupted;
  document.title = `${room} – trioroom chat`;
  setJoined(false);
  early = null;
  version = 0;
  connection.ask({ type: "auth", token: JSON.stringify({ user, name: $("name").value.trim() }) }, () => {});
  connection.ask({ type: "join", room: `chat/${room}`, position }, (answer) => {
    if (answer === null || count !== joinCount) return;
    showState("connected");
    if (answer.type === "error") return addError(`Not in room “${room}”: ${answer.message}`);
    const known = position !== null;
    position = answer.position;
    interrupted = false;
    setJoined(true);
    if (!answer.recovered) showHistory(known);
    else if (away) addNote("Back again; what was said in between follows.");
    askWho();
    sendAgain();
  });
}

// The last messages of the room; when the log `known` to us could not be continued, they take its place.
function showHistory(known) {
  const asked = joinCount;
  early = [];
  connection.ask({ type: "history", room: `chat/${room}`, limit: HISTORY }, (answer) => {
    if (answer === null || asked !== joinCount) return;
    const later = early;
    early = null;
    if (known && answer.messages?.length) messages.replaceChildren();
    for (const { data } of answer.messages ?? []) show(data);
    addNote(known ? "Back again; some messages may be missing here." : `You are in room “${room}”.`);
    for (const envelope of later) {
      if (!(envelope.offset <= answer.position?.offset)) receive(envelope); // else it was among them
    }
  });
}

function changeRoom(wanted) {
  if (wanted === room && joined) return;
  const left = room;
  room = wanted;
  $("room").value = wanted;
  if (roomOfHash() !== wanted) location.hash = encodeURIComponent(wanted);
  if (left !== wanted) {
    position = null;
    messages.replaceChildren();
    $("latest").hidden = true;
    interrupted = false;
  }
  // We may not be in it, after an error; the server's answer to that is of no interest.
  connection.ask({ type: "leave", room: `chat/${left}` }, () => {});
  join();
}

function receive(envelope) {
  if (envelope.type === "error") return addError(envelope.message);
  if (envelope.room !== `chat/${room}` || !joined) return; // late, from a room we have left
  if (envelope.type === "presence") return followPresence(envelope);
  if (early !== null && envelope.type !== "kicked") return early.push(envelope);
  if (envelope.type === "kicked") {
    setJoined(false);
    addError(`You were put out of the room${envelope.reason ? `: ${envelope.reason}` : ""}. Join to come back.`);
  } else if (envelope.type === "position") {
    position = envelope.position;
  } else if (envelope.type === "gap") {
    position = envelope.position ?? position;
    // One line will do for several in a row.
    const told = messages.lastElementChild?.classList.contains("gap");
    if (!told) addLine("system", "Some messages may be missing here.", "system gap");
  } else if (envelope.type === "message") {
    // What the room sent to us alone has no place in the history.
    if (envelope.offset) position = { epoch: position.epoch, offset: envelope.offset };
    show(envelope.data ?? {});
  }
}

function show(data) {
  if (data.kind === "message") addLine(data.name, data.text, data.user === user ? "own" : "other");
  else if (data.kind === "error") addError(data.text);
}

// ---- What the user does

function send() {
  const content = text.value.trim();
  const name = $("name").value.trim();
  if (!name) return $("join").reportValidity();
  if (!content || !joined) return; // the text stays in the box
  // The id lets us send it again when we do not know whether it arrived: it counts once.
  const publication = { type: "publish", room: `chat/${room}`, data: { name, text: content }, publication_id: randomId() };
  if (publish(publication)) text.value = "";
}

function publish(publication) {
  return connection.ask(publication, (answer) => {
    if (answer === null) unsent.push(publication);
    else if (answer.code === "unavailable") giveBack(publication, "Most likely not sent: the servers cannot reach each other.");
    else if (answer.type === "error") giveBack(publication, `Not sent: ${answer.message}.`);
  });
}

function sendAgain() {
  for (const publication of unsent.splice(0)) {
    if (publication.room !== `chat/${room}`) giveBack(publication, "A message may not have arrived before you changed rooms.");
    else if (!publish(publication)) unsent.push(publication);
  }
}

function giveBack(publication, why) {
  // What has been written meanwhile stays as it is; then the log keeps what the box has no room for.
  const content = publication.data.text;
  addError(`${why} ${text.value ? `It was: ${content}` : "It is back in the box, to be sent again."}`);
  text.value ||= content;
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
  changeRoom($("room").value.trim() || room);
  text.focus();
});

$("name").addEventListener("change", () => {
  store($("name").value.trim());
  if (!joined || !$("name").value.trim()) return;
  connection.ask({ type: "leave", room: `chat/${room}` }, () => {}); // to come back under the new name
  join();
});
$("latest").addEventListener("click", showLatest);
log.addEventListener("scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (following) $("latest").hidden = true;
});
// A phone's keyboard and a growing box take height from the log: its end stays in sight.
new ResizeObserver(() => { if (following) showLatest(); }).observe(log);
$("reconnect").addEventListener("click", () => connection.open());
addEventListener("hashchange", () => {
  const wanted = roomOfHash() || "lobby";
  if (wanted !== room) changeRoom(wanted); // else it was us who set it
});
addEventListener("online", () => { if (connection.waiting) connection.open(); });
addEventListener("pagehide", () => connection.close());
addEventListener("pageshow", (event) => { if (event.persisted) connection.open(); });

const connection = new Connection({
  onState: showState,
  onHello: join,
  onPush: receive,
});

$("name").value = storedName() || `guest-${Math.random().toString(36).slice(2, 6)}`;
$("room").value = room;
connection.open();
