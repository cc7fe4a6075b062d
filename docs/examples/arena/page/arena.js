import { connect } from "/trioroom.js";

const $ = (id) => document.getElementById(id);
const field = $("field");
const pen = field.getContext("2d");
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const held = new Set(); // keys
let you = null; // our id in the room
let scale = 1;
let players = {}; // where the server says that they are: [x, y, coins] by id
let coin = [0, 0];
const drawn = new Map(); // and where they are on the screen, on their way there
let direction = "0,0";

const client = connect("/");
client.on("state", ({ state }) => ($("state").textContent = state));
const room = client.join("arena/1");

const colourOf = (id) => `hsl(${[...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7)} 70% 55%)`;

function enter(state) {
  you = state.you;
  scale = field.width / state.width;
  show(state.picture);
}

function show(picture) {
  ({ players, coin } = picture);
  const ranks = Object.entries(players).sort(([, one], [, other]) => other[2] - one[2]);
  $("scores").replaceChildren(...ranks.map(([id, [, , coins]]) => {
    const line = Object.assign(document.createElement("li"), { textContent: `${id === you ? "you" : id.slice(0, 4)} ${coins}` });
    line.style.setProperty("--colour", colourOf(id));
    return line;
  }));
}

room.joined.then(enter).catch(() => {}); // `end` tells why not
room.on("rejoined", ({ state }) => enter(state)); // as another player: the first one left with its connection
room.on("message", ({ data }) => show(data));
room.on("end", (error) => ($("note").textContent = `Load the page to play again: ${error?.reason || error?.message}.`));

function steer(dx, dy) {
  if (direction === `${dx},${dy}`) return; // nothing is sent while the direction stays
  direction = `${dx},${dy}`;
  room.publish([dx, dy], { confirm: false }).catch(() => (direction = "")); // not connected: the next one goes
}

function steerByKeys() {
  const [dx, dy] = [...held].reduce(([x, y], key) => [x + KEYS[key][0], y + KEYS[key][1]], [0, 0]);
  steer(dx, dy);
}

addEventListener("keydown", (event) => {
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  held.add(event.key);
  steerByKeys();
});
addEventListener("keyup", ({ key }) => {
  if (held.delete(key)) steerByKeys();
});
addEventListener("blur", () => {
  held.clear();
  steerByKeys();
});

function steerTowards({ clientX, clientY, buttons }) {
  if (!buttons || !drawn.has(you)) return;
  const { left, top, width } = field.getBoundingClientRect();
  const [x, y] = drawn.get(you);
  const toSide = ([from, to]) => Math.abs(to - from) < 2 ? 0 : Math.sign(to - from);
  const perPixel = field.width / width / scale;
  steer(toSide([x, (clientX - left) * perPixel]), toSide([y, (clientY - top) * perPixel]));
}
field.addEventListener("pointerdown", steerTowards);
field.addEventListener("pointermove", steerTowards);
addEventListener("pointerup", () => steer(0, 0));

function circle([x, y], radius, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x * scale, y * scale, radius * scale, 0, 2 * Math.PI);
  pen.fill();
}

function draw() {
  pen.clearRect(0, 0, field.width, field.height);
  circle(coin, 1.5, "#e0a100");
  for (const id of [...drawn.keys()]) if (!(id in players)) drawn.delete(id);
  for (const [id, [x, y]] of Object.entries(players)) {
    const [atX, atY] = drawn.get(id) ?? [x, y];
    const at = [atX + (x - atX) / 4, atY + (y - atY) / 4]; // twenty pictures a second look like sixty
    drawn.set(id, at);
    circle(at, 3, colourOf(id));
    if (id === you) circle(at, 1.2, "#fff");
  }
  requestAnimationFrame(draw);
}
draw();
