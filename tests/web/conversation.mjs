// What a program does with the client, over a real server: node --experimental-websocket conversation.mjs URL CODEC

import assert from "node:assert/strict";

import { connect, RequestRefused } from "../../trioroom/web/trioroom.js";

const [url, codec] = process.argv.slice(2);
const client = connect(url, { codec, token: async () => "ann" });
const other = connect(url, { codec: "json", token: "bob" });
const room = client.join("kept/a", { presence: true });
assert.deepEqual(await room.joined, { topic: "tea" });
assert.equal(room.position.offset, 0);

const heard = other.join("kept/a");
await heard.joined;
const values = ["text ä 😀", 0, -1.5, true, null, [1, [2, "x"]], { a: { b: null } }, 2 ** 53 - 1, new Uint8Array([0, 1, 255]), ""];
for (const value of values) await room.publish(value);
const seen = [];
for await (const { data, sender, position } of heard) {
  assert.equal(sender !== null && position.offset, seen.length + 1);
  if (seen.push(data) === values.length) break;
}
assert.deepEqual(seen, values);

const page = await heard.history({ limit: 3, before: { epoch: heard.position.epoch, offset: 10 } });
assert.deepEqual(page.messages.map(({ data, position }) => [position.offset, data]), [[7, { a: { b: null } }], [8, 2 ** 53 - 1], [9, values[8]]]);
assert.equal(page.more, true);
assert.deepEqual(page.position, heard.position);

const here = () => [...room.present.keys()].sort().join();
while (here() !== "ann,bob") await new Promise((resolve) => room.on("presence", resolve));
assert.deepEqual((await room.who({ limit: 1 })).members, [{ user: "ann", info: null }]);

assert.deepEqual(await room.call({ question: [1, 2] }), { question: [1, 2] });
if (codec === "msgpack") {
  const precise = { big: 2n ** 62n, small: -(2n ** 62n), bytes: new Uint8Array(70_000).slice(0, 60_000), deep: [new Uint8Array([1])] };
  assert.deepEqual(await room.call(precise), precise);
}
const fleeting = other.join("fleeting/a");
const refused = await fleeting.call(1).catch((error) => error);
assert.ok(refused instanceof RequestRefused && refused.code === "unsupported");
const unknown = await other.join("nowhere").joined.catch((error) => error);
assert.equal(unknown.code, "unknown_room");

const ended = new Promise((resolve) => heard.on("end", resolve));
heard.leave();
assert.equal(await ended, null);
client.close();
other.close();
console.log("all of it");
