import { connect } from "/trioroom.js";

const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1) || undefined; // issued by a login; who has none may look
const course = new Map(); // what was published, by its place in the history
let closesAt = 0;

const client = connect("/", { token });
client.on("state", ({ state }) => ($("state").textContent = state));
const room = client.join("auction/vase");

function enter({ title, minimum, seconds_left, may_bid }) {
  document.title = $("title").textContent = title;
  closesAt = performance.now() + seconds_left * 1000; // the clocks of visitors differ: the server says how long
  $("bid").hidden = !may_bid;
  if (!may_bid) $("note").textContent = "You may look, but not bid.";
  offer(minimum);
}

function offer(minimum) {
  $("amount").min = minimum;
  $("amount").value = Math.max(minimum, Number($("amount").value));
}

function take({ data, position }) {
  course.set(position.offset, data);
  const inOrder = [...course].sort(([one], [other]) => one - other).map(([, each]) => each);
  $("course").replaceChildren(...inOrder.map(line).reverse());
  const { kind, bidder, amount, minimum } = inOrder.at(-1);
  if (bidder !== null) $("highest").textContent = `${amount} €, ${bidder}`;
  if (kind === "sold") $("bid").hidden = true;
  else offer(minimum);
}

function line({ kind, bidder, amount }) {
  const text = kind === "bid" ? `${bidder}: ${amount} €` : bidder === null ? "Nobody bid." : `Sold to ${bidder} for ${amount} €.`;
  return Object.assign(document.createElement("li"), { textContent: text });
}

// What was bid before we came. A bid that comes meanwhile may be among them: then it is put into its place twice.
const readCourse = async () => (await room.history({ limit: 100 })).messages.forEach(take);

room.on("message", take);
room.on("rejoined", ({ state }) => enter(state)); // and what we missed comes by itself
room.on("gap", () => { // unless we were away for too long
  course.clear();
  readCourse().catch(() => {});
});
room.on("end", (error) => ($("note").textContent = error?.message ?? "You have left."));
room.joined.then(enter).then(readCourse).catch(() => {}); // `end` tells why not

$("bid").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const { yours_at } = await room.call({ bid: Number($("amount").value) }, { timeout: 5 });
    $("note").textContent = `The highest bid is yours, at ${yours_at} €.`;
  } catch (error) {
    $("note").textContent = error.message; // the words of the room: outbid, too late, not allowed
  }
});

setInterval(() => {
  const left = Math.max(0, Math.ceil((closesAt - performance.now()) / 1000));
  $("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}, 250);
