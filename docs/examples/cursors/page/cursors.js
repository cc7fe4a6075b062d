import { connect } from "/trioroom.js";

const $ = (id) => document.getElementById(id);
const INTERVAL = 50; // milliseconds between two places: twenty a second
const ANIMALS = ["badger", "crane", "dormouse", "falcon", "hare", "lynx", "marten", "otter", "raven", "stork"];
const name = new URLSearchParams(location.search).get("name") ?? ANIMALS[Math.floor(Math.random() * ANIMALS.length)];
const cursors = new Map(); // the others', by the id of their member
const ARROW = '<svg width="20" height="20" viewBox="0 0 20 20"><path d="M3 2l13 6.5-5.5 1.8L8 16z"/></svg>';
let place = null; // of our pointer, in parts of the board, for its size differs from window to window
let told = true;

const client = connect("/");
client.on("state", ({ state }) => ($("state").textContent = state));
const room = client.join("cursors/home");

const hueOf = (id) => [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7);

function makeCursor(id) {
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.innerHTML = ARROW; // ours; what others say is only ever text
  cursor.append(document.createElement("span"));
  cursor.style.setProperty("--hue", hueOf(id));
  $("board").append(cursor);
  cursors.set(id, cursor);
  return cursor;
}

function show(id, data) {
  if (data === null) {
    cursors.get(id)?.remove();
    cursors.delete(id);
  } else if (Number.isFinite(data?.x) && Number.isFinite(data?.y)) {
    const cursor = cursors.get(id) ?? makeCursor(id);
    cursor.lastChild.textContent = String(data.name).slice(0, 30);
    cursor.style.translate = `${data.x * $("board").clientWidth}px ${data.y * $("board").clientHeight}px`;
  }
  $("count").textContent = cursors.size + 1;
}

function enter(places) {
  for (const id of [...cursors.keys()]) show(id, null);
  for (const [id, data] of Object.entries(places)) show(id, data);
  told = place === null;
}

room.joined.then(enter);
room.on("rejoined", ({ state }) => enter(state));
room.on("message", ({ sender, data }) => show(sender, data));

$("board").addEventListener("pointermove", ({ clientX, clientY }) => {
  const { left, top, width, height } = $("board").getBoundingClientRect();
  place = { x: (clientX - left) / width, y: (clientY - top) / height, name };
  told = false;
});

// At most every 50 ms, and nothing while the pointer rests. A place that is lost with the connection is stale anyway.
setInterval(() => {
  if (told || client.state !== "open") return;
  told = true;
  room.publish(place, { confirm: false }).catch(() => {});
}, INTERVAL);

$("me").textContent = name;
