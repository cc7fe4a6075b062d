import { connect } from "/trioroom.js";

const me = new URLSearchParams(location.search).get("name") ?? "guest";
const show = (id, text) => (document.getElementById(id).textContent = text);
const add = (text) => document.getElementById("messages").append(Object.assign(document.createElement("li"), { textContent: text }));

const client = connect(location.origin.replace("http", "ws"), { token: me });
client.on("state", ({ state }) => show("state", state));

const room = client.join("chat/lobby", { presence: true });
room.on("message", ({ data }) => add(`${data.name}: ${data.text}`));
room.on("gap", () => add("… something may be missing here …"));
room.on("presence", () => show("here", [...room.present.keys()].join(", ")));
room.on("end", (error) => add(`* ${error.message}`));

document.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  room.publish(text.value).catch((error) => add(`* not sent: ${error.message}`));
  text.value = "";
});

show("me", me);
show("state", "connecting");
