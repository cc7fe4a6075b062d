// What a room remembers, tells, and asks for.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { Disconnected, Kicked, RequestRefused, TooManyPending, Unconfirmed } from "../../trioroom/web/trioroom.js";
import { chance, failure, POSITION, settle, Stage } from "./stage.mjs";

afterEach(() => Stage.end());

const message = (offset, data = offset, more = {}) => ({ type: "message", room: "chat/a", data, offset, ...more });
const ok = (id, more = {}) => ({ type: "ok", id, room: "chat/a", ...more });
const error = (id, code, retry, after = null) => ({ type: "error", id, code, message: "no", retry, after });

test("joined resolves with what on_join returned, and the position is that of the ok", async () => {
  const stage = new Stage();
  const room = await stage.joined({ state: { topic: "tea" }, position: POSITION });
  assert.deepEqual(await room.joined, { topic: "tea" });
  assert.deepEqual(room.state, { topic: "tea" });
  assert.deepEqual(room.position, POSITION);
  assert.deepEqual(stage.told, []);
});

test("a join after hello goes out alone", async () => {
  const stage = new Stage();
  await stage.hello();
  stage.join();
  assert.deepEqual(stage.sent, [{ type: "join", id: 1, room: "chat/a" }]);
  assert.throws(() => stage.join(), /already in room chat\/a/);
});

test("the position follows messages, another name of the epoch, and gaps", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  await stage.say([message(6, "six", { from: "ann" }), message(undefined, "for you alone")]);
  assert.deepEqual(stage.details("message"), [
    { data: "six", sender: "ann", position: { epoch: "e", offset: 6 } },
    { data: "for you alone", sender: null, position: null },
  ]);
  assert.deepEqual(room.position, { epoch: "e", offset: 6 });
  await stage.say([{ type: "position", room: "chat/a", position: { epoch: "f", offset: 6 } }, message(7, "anew")]);
  assert.deepEqual(room.position, { epoch: "f", offset: 7 });
  await stage.say({ type: "gap", room: "chat/a", reason: "overflow", lost: 3 });
  assert.deepEqual(room.position, { epoch: "f", offset: 7 });
  await stage.say({ type: "gap", room: "chat/a", reason: "expired", lost: null, position: { epoch: "g", offset: 9 } });
  assert.deepEqual(room.position, { epoch: "g", offset: 9 });
  assert.deepEqual(stage.details("gap"), [
    { reason: "overflow", lost: 3, position: null },
    { reason: "expired", lost: null, position: { epoch: "g", offset: 9 } },
  ]);
});

test("a rejoin sends the position, and what was recovered follows", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  await stage.say(message(6));
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "join", id: 1, room: "chat/a", position: { epoch: "e", offset: 6 } }]);
  await stage.say([ok(1, { position: { epoch: "e", offset: 6 }, recovered: true }), message(7), message(8)]);
  assert.deepEqual(stage.told, ["message", "rejoined", "message", "message"]);
  assert.deepEqual(room.position, { epoch: "e", offset: 8 });
});

test("what could not be recovered is a gap", async () => {
  const stage = new Stage();
  await stage.joined();
  await stage.reconnected();
  await stage.say(ok(1, { position: { epoch: "f", offset: 2 }, recovered: false }));
  assert.deepEqual(stage.details("rejoined"), [{ state: null, recovered: false }]);
  assert.deepEqual(stage.details("gap"), [{ reason: "reconnect", lost: null, position: { epoch: "f", offset: 2 } }]);
});

test("a position that the application has kept is where the first join goes on", async () => {
  const stage = new Stage();
  const room = stage.join("chat/a", { position: POSITION });
  await stage.hello();
  assert.deepEqual(stage.sent, [{ type: "join", id: 1, room: "chat/a", position: POSITION }]);
  await stage.say([ok(1, { position: POSITION, recovered: true }), message(6)]);
  await room.joined;
  assert.deepEqual(stage.told, ["message"]);
  room.leave();
  stage.join("chat/a", { position: POSITION });
  await stage.say(ok(3, { position: { epoch: "f", offset: 0 }, recovered: false }));
  assert.deepEqual(stage.told, ["message", "end", "gap"]);
});

test("a room without a history has a gap with each reconnect", async () => {
  const stage = new Stage();
  await stage.joined({});
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "join", id: 1, room: "chat/a" }]);
  await stage.say(ok(1));
  assert.deepEqual(stage.details("gap"), [{ reason: "reconnect", lost: null, position: null }]);
});

test("a join is tried again when the error says so, after its time or with back-off", async () => {
  chance(1);
  const stage = new Stage();
  const room = stage.join();
  await stage.hello();
  await stage.say(error(1, "room_full", true, 3));
  stage.socket.sent = [];
  await stage.pass(2.9);
  assert.deepEqual(stage.sent, []);
  await stage.pass(0.2);
  assert.deepEqual(stage.sent, [{ type: "join", id: 2, room: "chat/a" }]);
  await stage.say(error(2, "unavailable", false));
  await stage.pass(0.6);
  assert.deepEqual(stage.sent, [{ type: "join", id: 3, room: "chat/a" }]);
  await stage.say(ok(3));
  await room.joined;
});

test("a refused join ends the room, the first time and when it comes back", async () => {
  const stage = new Stage();
  const room = stage.join();
  await stage.hello();
  await stage.say(error(1, "denied", false));
  const refused = await failure(room.joined);
  assert.ok(refused instanceof RequestRefused);
  assert.deepEqual([refused.code, refused.message, refused.retry], ["denied", "no", false]);
  assert.deepEqual(stage.details("end"), [refused]);
  await stage.reconnected();
  assert.deepEqual(stage.sent, []);
  const again = stage.join();
  await stage.say(ok(1));
  await again.joined;
  await stage.reconnected();
  await stage.say(error(1, "denied", false));
  assert.equal(stage.details("end").length, 2);
});

test("kicked ends the room and nothing else", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const published = failure(room.publish("on its way"));
  await stage.say({ type: "kicked", room: "chat/a", code: 4002, reason: "be kind" });
  const [kicked] = stage.details("end");
  assert.ok(kicked instanceof Kicked);
  assert.deepEqual([kicked.code, kicked.reason, kicked.retry], [4002, "be kind", false]);
  assert.equal(await failure(room.publish("x")), kicked);
  assert.equal(stage.client.state, "open");
  await stage.reconnected();
  assert.deepEqual(stage.sent, []);
  assert.ok(await published instanceof Unconfirmed);
});

test("leave says so, and what comes late of that membership is for nobody", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  room.leave();
  room.leave();
  assert.deepEqual(stage.sent, [{ type: "leave", id: 2, room: "chat/a" }]);
  assert.deepEqual(stage.details("end"), [null]);
  const again = stage.join();
  await stage.say([message(6), ok(2), ok(3, { position: { epoch: "e", offset: 6 } }), message(7)]);
  assert.deepEqual(stage.details("message").map(({ data }) => data), [7]);
  assert.deepEqual(again.position, { epoch: "e", offset: 7 });
});

test("a join can be given up", async () => {
  const stage = new Stage();
  const patience = new AbortController();
  const room = stage.join("chat/a", { signal: patience.signal });
  patience.abort(new Error("enough"));
  assert.equal((await failure(room.joined)).message, "enough");
  await stage.hello();
  assert.deepEqual(stage.sent, []);
  const late = stage.join("chat/b", { signal: AbortSignal.abort(new Error("before")) });
  assert.equal((await failure(late.joined)).message, "before");
});

// ---- Publishing

test("a publication waits for the room, is numbered, and resolves with the ok", async () => {
  const stage = new Stage();
  const room = stage.join();
  const data = { text: "as it was" };
  const published = room.publish(data);
  data.text = "changed";
  await stage.hello();
  await stage.say(ok(1));
  const [, envelope] = stage.sent;
  assert.match(envelope.publication_id, /^[0-9a-f]{32}$/);
  assert.deepEqual({ ...envelope, publication_id: "p" }, {
    type: "publish", id: 2, room: "chat/a", data: { text: "as it was" }, publication_id: "p",
  });
  await stage.say(ok(2));
  assert.equal(await published, undefined);
  await stage.reconnected();
  assert.equal(stage.sent.length, 1); // the join
});

test("what was not answered is sent again with the same id, in order, after the rejoin", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const published = [room.publish("one", { publicationId: "p1" }), room.publish("two", { publicationId: "p2" })];
  await stage.say(ok(2));
  await stage.close();
  published.push(room.publish("three", { publicationId: "p3" }));
  await stage.opened();
  stage.socket.sent = [];
  await stage.say(ok(1, { position: POSITION, recovered: true }));
  assert.deepEqual(stage.sent.map((each) => [each.id, each.publication_id]), [[2, "p2"], [3, "p3"]]);
  await stage.say([ok(2), ok(3)]);
  await Promise.all(published);
});

test("a publication is sent again when the error says so", async () => {
  chance(1);
  const stage = new Stage();
  const room = await stage.joined();
  const published = room.publish("x", { publicationId: "p" });
  await stage.say(error(2, "unavailable", true));
  stage.socket.sent = [];
  await stage.pass(0.6);
  assert.deepEqual(stage.sent, [{ type: "publish", id: 3, room: "chat/a", data: "x", publication_id: "p" }]);
  await stage.say(ok(3));
  await published;
  const refused = failure(room.publish("y"));
  await stage.say(error(4, "bad_envelope", false));
  assert.equal((await refused).code, "bad_envelope");
});

test("after 120 seconds without an answer it may have gone out or not", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const early = failure(room.publish("sent"));
  await stage.pass(1);
  await stage.close();
  const unsent = room.publish("never sent");
  unsent.catch(() => {});
  await stage.pass(118.5);
  assert.deepEqual(await Promise.race([early, "not yet"]), "not yet");
  await stage.pass(0.6);
  const lost = await early;
  assert.ok(lost instanceof Unconfirmed);
  assert.match(lost.message, /may have gone out or not.*the connection was lost/);
  await stage.opened();
  await stage.say(ok(1));
  assert.deepEqual(stage.sent.slice(1).map(({ data }) => data), ["never sent"]);
});

test("a publication that slept through its 120 seconds is not sent again", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const published = failure(room.publish("x"));
  await stage.close();
  mock.timers.setTime(Date.now() + 130_000);
  await settle();
  await stage.opened();
  await stage.say(ok(1));
  assert.ok(await published instanceof Unconfirmed);
});

test("no more than 100 publications are on their way, and the others follow in order", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const published = Array.from({ length: 250 }, (_, number) => room.publish(number));
  const calls = room.call("not held up").catch(() => {});
  const numbers = () => stage.sent.filter(({ type }) => type === "publish").map(({ id, data }) => [id, data]);
  const first = numbers();
  assert.equal(first.length, 100);
  await stage.say(ok(first[0][0]));
  assert.deepEqual(numbers().map(([, data]) => data), [100]);
  await stage.reconnected();
  await stage.say(ok(1, { position: POSITION, recovered: true }));
  const seen = [];
  for (let sent = numbers(); sent.length; sent = numbers()) {
    seen.push(...sent.map(([, data]) => data));
    await stage.say(sent.map(([id]) => ok(id)));
  }
  assert.deepEqual(seen, Array.from({ length: 249 }, (_, index) => index + 1));
  await Promise.all([calls, ...published]);
});

test("the publications of all rooms share those places", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const other = stage.client.join("chat/b");
  const [{ id }] = stage.sent;
  await stage.say(ok(id));
  const published = Array.from({ length: 60 }, (_, number) => [room.publish(number), other.publish(number)]).flat();
  const sent = () => stage.sent.filter(({ type }) => type === "publish");
  const first = sent();
  assert.equal(first.length, 100);
  await stage.say(first.map((each) => ok(each.id)));
  const rest = sent();
  assert.deepEqual(rest.map((each) => [each.room, each.data]).sort(), ["a", "b"].flatMap((name) =>
    Array.from({ length: 10 }, (_, index) => [`chat/${name}`, index + 50])));
  await stage.say(rest.map((each) => ok(each.id)));
  await Promise.all(published);
});

test("as many publications wait as max_pending says", async () => {
  const stage = new Stage({ maxPending: 2 });
  const room = await stage.joined();
  const published = [room.publish(1), room.publish(2)];
  const error = await failure(room.publish(3));
  assert.ok(error instanceof TooManyPending);
  assert.equal(error.retry, true);
  await stage.say([ok(2), ok(3)]);
  await Promise.all(published);
  room.publish(4);
  assert.equal(stage.sent.at(-1).data, 4);
});

test("without confirmation it is sent as it is, or not at all", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  await room.publish("now", { confirm: false });
  assert.deepEqual(stage.sent, [{ type: "publish", room: "chat/a", data: "now" }]);
  stage.socket.bufferedAmount = 2_000_000;
  assert.ok(await failure(room.publish("much", { confirm: false })) instanceof TooManyPending);
  await stage.close();
  assert.ok(await failure(room.publish("later", { confirm: false })) instanceof Disconnected);
});

test("what is too big for the server is refused here, and the connection stays", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const refused = await failure(room.publish("ä".repeat(40_000)));
  assert.deepEqual([refused.name, refused.code, refused.retry], ["RequestRefused", "too_big", false]);
  assert.equal((await failure(room.publish("ä".repeat(40_000), { confirm: false }))).code, "too_big");
  assert.deepEqual(stage.sent, []);
  assert.ok(await failure(room.publish({ nested: new Uint8Array(3) })) instanceof TypeError);
});

test("a publication can be given up", async () => {
  const stage = new Stage();
  const room = stage.join();
  const patience = new AbortController();
  const published = room.publish("x", { signal: patience.signal });
  patience.abort(new Error("enough"));
  assert.equal((await failure(published)).message, "enough");
  await stage.hello();
  await stage.say(ok(1));
  assert.equal(stage.sent.length, 1);
});

// ---- Calls and pages

test("a call is sent once, and answered in any order", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const [slow, fast] = [failure(room.call("slow", { timeout: 2 })), room.call("fast")];
  assert.deepEqual(stage.sent, [
    { type: "call", id: 2, room: "chat/a", data: "slow", timeout: 2 },
    { type: "call", id: 3, room: "chat/a", data: "fast" },
  ]);
  await stage.say(ok(3, { data: 12 }));
  assert.equal(await fast, 12);
  await stage.close();
  const lost = await slow;
  assert.ok(lost instanceof Disconnected);
  assert.equal(lost.retry, true);
  await stage.opened();
  await stage.say(ok(1));
  assert.deepEqual(stage.sent.map(({ type }) => type), ["join"]);
});

test("a call waits for the connection, and no longer than its timeout", async () => {
  const stage = new Stage();
  const room = stage.join();
  const [late, answered] = [room.call(1, { timeout: 1 }), room.call(2)];
  const lost = failure(late);
  await stage.pass(1.1);
  assert.match((await lost).message, /no connection within 1 s; the call was not sent/);
  await stage.hello();
  await stage.say(ok(1));
  assert.deepEqual(stage.sent.slice(1), [{ type: "call", id: 2, room: "chat/a", data: 2 }]);
  await stage.say(ok(2));
  assert.equal(await answered, null);
});

test("a call that is aborted is cancelled at the server", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const patience = new AbortController();
  const called = room.call("slow", { signal: patience.signal });
  patience.abort();
  assert.equal((await failure(called)).name, "AbortError");
  assert.deepEqual(stage.sent, [{ type: "call", id: 2, room: "chat/a", data: "slow" }, { type: "cancel", id: 2 }]);
  await stage.say(error(2, "cancelled", false));
});

test("pages are asked for again after a reconnect", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const history = room.history({ limit: 2, before: { epoch: "e", offset: 4 } });
  const who = room.who({ after: "ann" });
  const asked = stage.sent.map(({ id, ...rest }) => rest);
  assert.deepEqual(asked, [
    { type: "history", room: "chat/a", limit: 2, before: { epoch: "e", offset: 4 } },
    { type: "who", room: "chat/a", limit: 100, after: "ann" },
  ]);
  await stage.reconnected();
  await stage.say(ok(1, { position: POSITION, recovered: true }));
  assert.deepEqual(stage.sent.slice(1).map(({ id, ...rest }) => rest), asked);
  const messages = [{ offset: 2, data: "AAEC", encoding: "base64", from: "ann" }, { offset: 3, data: null }];
  await stage.say([ok(2, { position: POSITION, messages, more: true }), ok(3, { members: [{ user: "bob" }], version: 1, count: 2 })]);
  assert.deepEqual(await history, {
    messages: [
      { data: new Uint8Array([0, 1, 2]), sender: "ann", position: { epoch: "e", offset: 2 } },
      { data: null, sender: null, position: { epoch: "e", offset: 3 } },
    ],
    position: POSITION,
    more: true,
  });
  assert.deepEqual(await who, { members: [{ user: "bob", info: null }], version: 1, count: 2, more: false });
});

test("binary data travels as base64, both ways", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  room.publish(new Uint8Array([0, 1, 2]));
  room.call(new Uint8Array([3]).buffer);
  const [publish, call] = stage.sent;
  assert.deepEqual([publish.data, publish.encoding, call.data, call.encoding], ["AAEC", "base64", "Aw==", "base64"]);
  await stage.say(message(6, "AAEC", { encoding: "base64" }));
  assert.deepEqual(stage.details("message")[0].data, new Uint8Array([0, 1, 2]));
});

// ---- Presence

const push = (version, count, joined, left) => ({ type: "presence", room: "chat/a", version, count, joined, left });
const users = (room) => [...room.present.keys()].join();

test("who is here is read page by page, with the pushes between them", async () => {
  const stage = new Stage();
  const room = await stage.joined({}, { presence: true });
  await stage.say(push(1, 1, [{ user: "me" }], [])); // before the first page, which knows
  await stage.say(ok(2, { members: [{ user: "ann", info: 1 }, { user: "bob" }], version: 1, count: 4, more: true }));
  assert.deepEqual(stage.sent, [{ type: "who", id: 3, room: "chat/a", limit: 1000, after: "bob" }]);
  await stage.say(push(2, 4, [{ user: "aaron" }], ["ann"]));
  assert.deepEqual([users(room), room.count], ["", null]);
  await stage.say(ok(3, { members: [{ user: "me" }], version: 2, count: 3, more: false }));
  assert.deepEqual([users(room), room.count], ["bob,aaron,me", 3]);
  assert.equal(stage.details("presence").length, 1);
  await stage.say(push(3, 3, [{ user: "cid" }], ["bob"]));
  assert.deepEqual(stage.details("presence")[1], { joined: [{ user: "cid", info: null }], left: ["bob"], count: 3 });
  assert.deepEqual([users(room), room.present.get("me")], ["aaron,me,cid", null]);
});

test("after a reconnect the difference is told", async () => {
  const stage = new Stage();
  const room = await stage.joined({}, { presence: true });
  await stage.say(ok(2, { members: [{ user: "ann", info: 1 }, { user: "bob" }], version: 9, count: 2, more: false }));
  await stage.reconnected();
  await stage.say(ok(1));
  assert.equal(users(room), "ann,bob"); // until it is known better
  await stage.say(ok(2, { members: [{ user: "ann", info: 2 }, { user: "cid" }], version: 1, count: 2, more: false }));
  assert.deepEqual(stage.details("presence").at(-1), {
    joined: [{ user: "ann", info: 2 }, { user: "cid", info: null }], left: ["bob"], count: 2,
  });
});

test("a push without lists, and one that was missed, has it read anew", async () => {
  const stage = new Stage();
  const room = await stage.joined({}, { presence: true });
  stage.socket.sent = [];
  await stage.say(ok(2, { members: [{ user: "ann" }], version: 1, count: 1, more: false }));
  await stage.say(push(2, 2000));
  assert.deepEqual(stage.sent.map(({ id, type }) => [id, type]), [[3, "who"]]);
  await stage.say(ok(3, { members: [{ user: "ann" }, { user: "bob" }], version: 2, count: 2, more: false }));
  assert.equal(users(room), "ann,bob");
  await stage.say(push(4, 3, [{ user: "eve" }], []));
  assert.deepEqual(stage.sent.map(({ id, type }) => [id, type]), [[4, "who"]]);
});

test("a room that only counts is asked once", async () => {
  const stage = new Stage();
  const room = await stage.joined({}, { presence: true });
  await stage.say(push(1, 7));
  await stage.say(error(2, "unsupported", false));
  assert.equal(room.count, 7);
  await stage.say(push(2, 8));
  assert.deepEqual(stage.details("presence").map(({ count }) => count), [7, 8]);
  assert.deepEqual(stage.sent, []);
});

test("who that is refused for now is asked again", async () => {
  const stage = new Stage();
  const room = await stage.joined({}, { presence: true });
  await stage.say(error(2, "unavailable", true, 1));
  await stage.pass(1.1);
  assert.deepEqual(stage.sent.map(({ id, type }) => [id, type]), [[3, "who"]]);
  await stage.say(ok(3, { members: [{ user: "ann" }], version: 1, count: 1, more: false }));
  assert.equal(users(room), "ann");
});

// ---- Reading

const read = async (room, count) => {
  const seen = [];
  for await (const { data } of room) if (seen.push(data) === count) break;
  return seen;
};

test("messages can be read in a loop that begins after joined, and goes on where one ended", async () => {
  const stage = new Stage();
  const room = stage.client.join("chat/a");
  await stage.hello();
  await stage.say([ok(1, { position: POSITION }), message(6), message(7)]);
  await room.joined;
  assert.deepEqual(await read(room, 1), [6]);
  await stage.say(message(8));
  assert.deepEqual(await read(room, 2), [7, 8]);
  const waiting = read(room, 1);
  await settle();
  await stage.say(message(9));
  assert.deepEqual(await waiting, [9]);
});

test("messages that came before there was a listener go to the first one", async () => {
  const stage = new Stage();
  const room = stage.client.join("chat/a");
  await stage.hello();
  await stage.say([ok(1, { position: POSITION }), message(6)]);
  const seen = [];
  room.on("message", ({ data }) => seen.push(data));
  await settle();
  await stage.say(message(7));
  assert.deepEqual(seen, [6, 7]);
});

test("an inbox that is full loses the oldest, and a gap stands in their place", async () => {
  const stage = new Stage();
  const room = stage.client.join("chat/a", { maxInbox: 3 });
  await stage.hello();
  await stage.say([ok(1, { position: POSITION }), ...[6, 7, 8, 9, 10].map((offset) => message(offset))]);
  const seen = [];
  for await (const { event, data, lost } of room.events()) {
    seen.push([event, data ?? lost]);
    if (seen.length === 4) break;
  }
  assert.deepEqual(seen, [["gap", 2], ["message", 8], ["message", 9], ["message", 10]]);
});

test("a loop ends with the room, by its error if it has one", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const [one, two] = [read(room), stage.client.join("chat/b")];
  two.leave();
  assert.deepEqual(await read(two), []);
  const failed = failure(one);
  await stage.say({ type: "kicked", room: "chat/a", code: 4002, reason: "" });
  assert.ok(await failed instanceof Kicked);
});

test("a listener that throws is the application's affair", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  const thrown = new Promise((resolve) => process.prependOnceListener("uncaughtException", resolve));
  const others = process.listeners("uncaughtException").slice(1);
  for (const listener of others) process.off("uncaughtException", listener);
  room.on("message", () => { throw new Error("mine"); });
  await stage.say([message(6), message(7)].slice(0, 1));
  assert.equal((await thrown).message, "mine");
  for (const listener of others) process.on("uncaughtException", listener);
  assert.equal(stage.client.state, "open");
});
