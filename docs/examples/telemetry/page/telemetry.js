import { connect } from "/trioroom.js";

const $ = (id) => document.getElementById(id);
const map = $("map");
const pen = map.getContext("2d");
const [COLD, HOT] = [16, 34]; // degrees: the ends of the scale
let room = null;
let values = []; // the latest of each device, by its number
let columns = 1;
let received = 0;

const client = connect("/");
client.on("state", ({ state }) => ($("state").textContent = state));

async function watch(site) {
  room?.leave();
  const entered = (room = client.join(`site/${site}`));
  entered.on("message", ({ data: [device, value] }) => {
    if (entered !== room || !(device in values) || !Number.isFinite(value)) return; // devices break too
    values[device] = value;
    received += 1;
  });
  entered.on("end", (error) => { if (error) $("note").textContent = error.message; });
  const { devices } = await entered.joined;
  if (entered !== room) return; // another site has been chosen meanwhile
  values = Array(devices).fill(null); // each reports within a second
  columns = Math.ceil(Math.sqrt(devices * 2));
  [map.width, map.height] = [columns, Math.ceil(devices / columns)];
}

function colourOf(value) {
  const part = Math.min(1, Math.max(0, (value - COLD) / (HOT - COLD)));
  return `hsl(${220 - 210 * part} 75% 52%)`;
}

// Thousands of values a second, and sixty pictures: what has come is drawn when the screen is ready for it.
function draw() {
  pen.clearRect(0, 0, map.width, map.height);
  values.forEach((value, device) => {
    if (value === null) return;
    pen.fillStyle = colourOf(value);
    pen.fillRect(device % columns, Math.floor(device / columns), 1, 1);
  });
  requestAnimationFrame(draw);
}

setInterval(() => {
  const known = values.filter((value) => value !== null);
  const degrees = (value) => (known.length ? `${value.toFixed(1)} °C` : "–");
  $("devices").textContent = `${known.length}/${values.length}`;
  $("mean").textContent = degrees(known.reduce((sum, value) => sum + value, 0) / known.length);
  $("coldest").textContent = degrees(Math.min(...known));
  $("hottest").textContent = degrees(Math.max(...known));
  $("rate").textContent = received;
  received = 0;
}, 1000);

map.addEventListener("pointermove", ({ offsetX, offsetY }) => {
  const cell = map.clientWidth / columns;
  const device = Math.floor(offsetY / cell) * columns + Math.floor(offsetX / cell);
  const value = values[device] ?? null;
  $("note").textContent = value === null ? "Point at a field." : `Device ${device}: ${value.toFixed(1)} °C`;
});

$("site").addEventListener("change", () => watch($("site").value).catch(() => {})); // `end` tells why not
watch($("site").value).catch(() => {});
draw();
