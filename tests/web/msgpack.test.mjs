// The client's own MessagePack, as it goes over the wire.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { failure, settle, Stage } from "./stage.mjs";

afterEach(() => Stage.end());

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const frame = (text) => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));

// {"type":"hello","ping_interval":25.0,"max_message_bytes":2097152}
const HELLO = "83 a474797065 a568656c6c6f ad70696e675f696e74657276616c cb4039000000000000 b16d61785f6d6573736167655f6279746573 ce00200000";

/** In the room "a", over a connection that speaks MessagePack. */
async function joined() {
  const stage = new Stage({ codec: "msgpack" });
  stage.client.join("a");
  stage.socket.protocol = stage.socket.protocols[0];
  stage.socket.fire("open");
  await receive(stage, HELLO);
  await receive(stage, "82 a474797065 a26f6b a26964 01"); // {"type":"ok","id":1}
  stage.socket.sent = [];
  return stage;
}

async function receive(stage, text) {
  stage.socket.fire("message", { data: frame(text).buffer });
  await settle();
}

/** What came as the data of a message, which is last in it. */
async function received(text) {
  const stage = await joined();
  const seen = [];
  stage.client.join("b"); // that of another room is told apart
  const room = stage.client.join("c");
  room.on("message", ({ data }) => seen.push(data));
  await receive(stage, "82 a474797065 a26f6b a26964 03");
  await receive(stage, `83 a474797065 a76d657373616765 a4726f6f6d a163 a464617461 ${text}`);
  Stage.end();
  assert.equal(stage.client.error, null);
  return seen[0];
}

/** How `data` is written. */
async function written(data) {
  const stage = new Stage({ codec: "msgpack" });
  const room = stage.client.join("a");
  stage.socket.protocol = stage.socket.protocols[0];
  stage.socket.fire("open");
  await receive(stage, HELLO);
  await receive(stage, "82 a474797065 a26f6b a26964 01");
  stage.socket.sent = [];
  room.call(data).catch(() => {});
  room.publish(data, { confirm: false });
  await settle();
  const texts = stage.socket.sent.map(hex).map((text) => text.slice(text.indexOf("a464617461") + 10));
  Stage.end();
  assert.equal(texts[0], texts[1]); // a call has its data written, read and written: a mistake may cancel itself out
  return texts[1];
}

const big = 2n ** 60n;
const VALUES = [
  [null, "c0"],
  [false, "c2"],
  [true, "c3"],
  [0, "00"],
  [127, "7f"],
  [-1, "ff"],
  [-32, "e0"],
  [200, "ce000000c8"],
  [-33, "d2ffffffdf"],
  [4294967295, "ceffffffff"],
  [4294967296, "cf0000000100000000"],
  [-2147483649, "d3ffffffff7fffffff"],
  [Number.MAX_SAFE_INTEGER, "cf001fffffffffffff"],
  [big, "cf1000000000000000"],
  [-big, "d3f000000000000000"],
  [1.5, "cb3ff8000000000000"],
  [1e300, "cb7e37e43c8800759c"],
  ["", "a0"],
  ["ä😀", "a6c3a4f09f9880"],
  ["x".repeat(32), `d920${"78".repeat(32)}`],
  ["x".repeat(300), `da012c${"78".repeat(300)}`],
  ["x".repeat(70_000), `db00011170${"78".repeat(70_000)}`],
  [new Uint8Array([0, 255]), "c40200ff"],
  [new Uint8Array(300), `c5012c${"00".repeat(300)}`],
  [new Uint8Array(70_000), `c600011170${"00".repeat(70_000)}`],
  [[], "90"],
  [Array(16).fill(1), `dc0010${"01".repeat(16)}`],
  [Array(70_000).fill(1), `dd00011170${"01".repeat(70_000)}`],
  [{ a: [{ b: null }] }, "81a1619181a162c0"],
  [Object.fromEntries(Array.from({ length: 16 }, (_, index) => [String.fromCharCode(97 + index), 1])),
    `de0010${Array.from({ length: 16 }, (_, index) => `a1${hex([97 + index])}01`).join("")}`],
];

test("values are written as the specification says, and read back", async () => {
  for (const [value, text] of VALUES) {
    const name = String(text).slice(0, 20);
    assert.equal(await written(value), text, name);
    assert.deepEqual(await received(text), value, name);
  }
});

test("shorter and longer forms of others are read too", async () => {
  const forms = {
    cc80: 128, cd0100: 256, d080: -128, d1ff00: -256, ca3fc00000: 1.5, d90161: "a", dd0000000101: [1], df00000001a16101: { a: 1 },
    d3ffffffffffffffff: -1, cf0000000000000001: 1,
  };
  for (const [text, value] of Object.entries(forms)) assert.deepEqual(await received(text), value, text);
});

test("objects are written as JSON sees them", async () => {
  assert.equal(await written({ a: undefined, b: new Date(0), c: [undefined] }),
    `82a162b8${hex(Buffer.from("1970-01-01T00:00:00.000Z"))}a16391c0`);
  assert.equal(await written(new Uint16Array([1]).buffer), "c4020100");
});

test("a key of the wire does not become a prototype", async () => {
  const data = await received("81 a95f5f70726f746f5f5f 81a16101");
  assert.deepEqual(Object.keys(data), ["__proto__"]);
  assert.equal(data.a, undefined);
});

test("what cannot be written is refused at once", async () => {
  const stage = await joined();
  const room = stage.client.join("b");
  for (const value of [() => {}, Symbol("s"), { a: [2n ** 64n] }, -(2n ** 63n) - 1n]) {
    assert.match((await failure(room.publish(value))).name, /TypeError|RangeError/);
  }
});

for (const [what, text] of Object.entries({
  "ends too early": "82a474797065",
  "goes on behind its end": "8000",
  "claims to be longer than it is": "dbffffffff61",
  "has an extension type": "d40100",
  "is no UTF-8": "81a474797065a2c328",
  "is a type that does not exist": "c1",
  "is nothing": "",
  "is no object": "c0",
})) {
  test(`a frame that ${what} costs the connection`, async () => {
    const stage = await joined();
    await receive(stage, text);
    assert.equal(stage.client.state, "waiting");
    assert.match(stage.client.error.reason, /no envelope/);
  });
}

test("several joins are one array", async () => {
  const stage = new Stage({ codec: "msgpack" });
  for (const name of ["a", "b"]) stage.client.join(name);
  stage.socket.protocol = stage.socket.protocols[0];
  stage.socket.fire("open");
  await receive(stage, HELLO);
  const join = (id, name) => `83a474797065a46a6f696ea26964${id}a4726f6f6da1${name}`;
  assert.equal(hex(stage.socket.sent[0]), `92${join("01", "61")}${join("02", "62")}`);
});
