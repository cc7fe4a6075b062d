// Prints the news until somebody says "good night": node --experimental-websocket news_reader.mjs ws://127.0.0.1:8000/
import { connect } from "trioroom";

const client = connect(process.argv[2]);
client.on("state", ({ state, after, error }) => {
  if (state === "waiting") console.log(`${error.message}; trying again in ${after.toFixed(1)} s`);
});

const room = client.join("news/world");
room.on("gap", () => console.log("some news are missing here"));
await room.publish("a reader has come"); // to the others
for await (const { data } of room) {
  console.log(data);
  if (data === "good night") break;
}
client.close();
