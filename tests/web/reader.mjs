// Tells each event of a room as a line of JSON, and says a number itself now and then: reader.mjs URL CODEC

import { connect } from "../../trioroom/web/trioroom.js";

const [url, codec] = process.argv.slice(2);
const client = connect(url, { codec, token: "reader" });
const room = client.join("kept/a");
const tell = (line) => console.log(JSON.stringify(line));
client.on("state", ({ state }) => tell({ event: state }));

async function say() {
  for (let number = 0; !ended; number++) {
    await room.publish(["reader", number]);
    tell({ event: "published", number });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

let ended = false;
const saying = room.joined.then(say);
for await (const event of room.events()) {
  tell(event);
  if (event.data === "end") break;
}
ended = true;
await saying;
client.close();
