// The client's course: connecting, waiting, coming back, ending.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

import { ConnectionClosed, connect, Disconnected, RequestRefused } from "../../trioroom/web/trioroom.js";
import { chance, failure, settle, Stage } from "./stage.mjs";

afterEach(() => {
  Stage.end();
  delete globalThis.document;
  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
});

/** A page's window and document, which tell what happens to the browser. */
function browser() {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const turn = (visibilityState) => {
    globalThis.document.visibilityState = visibilityState;
    globalThis.document.dispatchEvent(new Event("visibilitychange"));
  };
  return { happens: (type, fields) => page.dispatchEvent(Object.assign(new Event(type), fields)), turn };
}

test("auth and the joins go out in one frame after hello", async () => {
  const stage = new Stage({ token: "t0k3n" });
  stage.join("chat/a");
  stage.join("chat/b");
  await stage.hello();
  assert.deepEqual(stage.socket.protocols, ["trioroom.v1.json"]);
  assert.deepEqual(stage.sent, [[
    { type: "auth", id: 1, token: "t0k3n" },
    { type: "join", id: 2, room: "chat/a" },
    { type: "join", id: 3, room: "chat/b" },
  ]]);
  assert.deepEqual(stage.states, ["open"]);
});

test("joins that do not fit into one message go out in several", async () => {
  const stage = new Stage();
  for (let number = 0; number < 40; number++) stage.join(`chat/${number}`);
  await stage.hello({ max_message_bytes: 1024 });
  const frames = stage.sent;
  assert.ok(frames.length > 1);
  assert.ok(frames.every((frame) => JSON.stringify(frame).length <= 1024));
  assert.deepEqual(frames.flat().map(({ id }) => id), Array.from({ length: 40 }, (_, index) => index + 1));
});

test("a token that is a function is asked for before each connection", async () => {
  const tokens = ["old", "new"];
  const stage = new Stage({ token: async () => tokens.shift() });
  await settle();
  await stage.hello();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "old" }]);
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "new" }]);
});

test("a token that cannot be had counts as a failed try", async () => {
  let tries = 0;
  const stage = new Stage({ token: () => { if (++tries === 1) throw new Error("no token today"); return "t"; } });
  await settle();
  assert.equal(stage.client.state, "waiting");
  assert.equal(stage.client.error.message, "no token today");
  await stage.pass(0.5);
  await stage.hello();
  assert.equal(stage.client.state, "open");
});

test("a token that never comes, and a server that never says hello, are given up", async () => {
  const never = new Stage({ token: () => new Promise(() => {}) });
  await never.pass(10);
  assert.match(never.client.error.message, /has not said hello within 10 s/);
  never.client.close();
  Stage.end();
  const silent = new Stage({ connectTimeout: 3 });
  const first = silent.socket;
  await silent.pass(3.5);
  assert.notEqual(first.closedWith, null);
  assert.equal(silent.connections, 2);
});

test("waits grow with full jitter up to half a minute, and are never without a pause", async () => {
  chance(1);
  const stage = new Stage();
  const waits = [];
  for (let failures = 0; failures < 8; failures++) {
    await stage.close();
    waits.push(Math.round(stage.details("state").at(-1).after * 100) / 100);
    await stage.pass(waits.at(-1) + 0.1);
  }
  assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 16, 30, 30]);
  chance(0);
  await stage.close();
  assert.equal(stage.details("state").at(-1).after, 0.05);
});

test("back-off begins anew only after a connection that lived", async () => {
  chance(1);
  const stage = new Stage();
  const after = () => Math.round(stage.details("state").at(-1).after * 10) / 10;
  await stage.close();
  await stage.pass(0.5);
  await stage.hello();
  await stage.close();
  assert.equal(after(), 1);
  await stage.pass(1);
  await stage.hello({ ping_interval: 100 });
  await stage.pass(30);
  await stage.close();
  assert.equal(after(), 0.5);
});

test("bye says when to come back", async () => {
  chance(0.5);
  const stage = new Stage();
  await stage.hello();
  await stage.say({ type: "bye", code: 4101, after: [2, 4] });
  await stage.close(4101, "drain");
  assert.equal(stage.details("state").at(-1).after, 3);
  await stage.pass(2.9);
  assert.equal(stage.connections, 1);
  await stage.pass(0.2);
  assert.equal(stage.connections, 2);
});

test("codes from 4200 on bring it back at once, and with a pause when that repeats", async () => {
  chance(1);
  const stage = new Stage();
  const waits = [];
  for (let time = 0; time < 3; time++) {
    await stage.hello();
    await stage.close(4200);
    waits.push(Math.round(stage.details("state").at(-1).after * 100) / 100);
    await stage.pass(1.1);
  }
  assert.deepEqual(waits, [0.05, 0.5, 1]);
});

for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4005, 4099]) {
  test(`code ${code} from the server ends the client`, async () => {
    const stage = new Stage();
    const room = await stage.joined();
    await stage.close(code, "because");
    await stage.pass(60);
    assert.equal(stage.connections, 1);
    const { state, error } = stage.details("state").at(-1);
    assert.equal(state, "closed");
    assert.ok(error instanceof ConnectionClosed);
    assert.deepEqual([error.code, error.reason, error.retry], [code, "because", false]);
    assert.deepEqual(stage.details("end"), [error]);
    assert.equal(await failure(room.publish("x")), error);
    assert.throws(() => stage.client.join("chat/b"), error);
  });
}

test("what is closed by the application ends without an error", async () => {
  const stage = new Stage();
  const room = await stage.joined();
  stage.client.close();
  stage.client.close();
  assert.deepEqual(stage.socket.closedWith, { code: 1000 });
  assert.deepEqual(stage.details("end"), [null]);
  assert.deepEqual(stage.details("state").at(-1), { state: "closed", after: null, error: null });
  assert.ok(await failure(room.call(1)) instanceof Disconnected);
  assert.throws(() => stage.client.join("chat/b"), /the application has closed the client/);
  await stage.pass(60);
  assert.equal(stage.connections, 1);
});

test("an error without a close, as of Node 20, is a failed try", async () => {
  const stage = new Stage();
  stage.socket.fire("error", { message: "connect ECONNREFUSED" });
  await stage.pass(0.1);
  assert.match(stage.details("state").find(({ state }) => state === "waiting").error.reason, /ECONNREFUSED/);
});

test("a server that speaks something else is not tried again", async () => {
  const stage = new Stage();
  stage.socket.fire("open");
  assert.equal(stage.client.state, "closed");
  assert.match(stage.client.error.reason, /speaks "" and not trioroom.v1.json/);
});

test("what is no envelope costs the connection, and unknown pushes do not", async () => {
  const stage = new Stage();
  await stage.hello();
  await stage.say([{ type: "news of tomorrow", room: "chat/a" }, { type: "ok", id: 77 }]);
  assert.equal(stage.client.state, "open");
  stage.socket.fire("message", { data: "{" });
  assert.equal(stage.client.state, "waiting");
});

test("a token that the server does not take ends the client", async () => {
  const stage = new Stage({ token: 7 });
  await stage.hello();
  await stage.say({ type: "error", id: 1, code: "bad_envelope", message: "a token is text", retry: false, after: null });
  assert.ok(stage.client.error instanceof RequestRefused);
  assert.equal(stage.client.state, "closed");
});

test("a token that cannot be checked now is shown again over another connection", async () => {
  const stage = new Stage({ token: "t" });
  await stage.hello();
  await stage.say({ type: "error", id: 1, code: "failed", message: "no database", retry: true, after: null });
  assert.equal(stage.client.state, "waiting");
  assert.match(stage.client.error.message, /no database/);
  await stage.opened();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "t" }]);
});

test("a client that is not authenticated is closed for good", async () => {
  const stage = new Stage({ token: () => "t" });
  await settle();
  await stage.hello();
  await stage.close(4003, "the token has expired");
  await stage.pass(60);
  assert.equal(stage.connections, 1);
  assert.deepEqual([stage.client.error.code, stage.client.error.reason], [4003, "the token has expired"]);
});

test("a token that has expired brings it back at once with a fresh one", async () => {
  chance(1);
  let calls = 0;
  const stage = new Stage({ token: () => `t${++calls}` });
  await settle();
  stage.join();
  await stage.hello();
  await stage.close(4201, "the token has expired");
  assert.equal(Math.round(stage.details("state").at(-1).after * 100) / 100, 0.05);
  await stage.opened();
  assert.deepEqual(stage.sent.flat().map(({ type, token }) => [type, token]), [["auth", "t2"], ["join", undefined]]);
});

/** A client whose token is a function, and what it has shown since it was told how long the first one lasts. */
async function renewing(expires_in, token = (calls) => `t${calls}`) {
  let calls = 0;
  const stage = new Stage({ token: () => token(++calls) });
  await settle();
  await stage.hello({ ping_interval: 1000 });
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "t1" }]);
  await stage.say({ type: "ok", id: 1, ...(expires_in && { expires_in }) });
  return stage;
}

for (const [luck, due] of [[0, 80], [1, 90]]) {
  test(`a fresh token is shown when ${due} % of the time of the first is spent`, async () => {
    chance(luck);
    const stage = await renewing(100);
    await stage.pass(due - 0.2);
    assert.deepEqual(stage.sent, []);
    await stage.pass(0.4);
    assert.deepEqual(stage.sent, [{ type: "auth", id: 2, token: "t2" }]);
    await stage.say({ type: "ok", id: 2, expires_in: 20 });
    await stage.pass(18.2);
    assert.deepEqual(stage.sent, [{ type: "auth", id: 3, token: "t3" }]);
    assert.equal(stage.client.state, "open");
  });
}

test("a token that lasts for ever, or for a moment, is not renewed", async () => {
  for (const lasts of [null, 10]) {
    const stage = await renewing(lasts);
    await stage.pass(200);
    assert.deepEqual(stage.sent, []);
    stage.client.close();
    Stage.end();
  }
});

test("a fresh token that cannot be had or checked is tried again, one that is refused is not", async () => {
  chance(0);
  const stage = await renewing(100, (calls) => { if (calls === 2) throw new Error("no network"); return `t${calls}`; });
  await stage.pass(80.2);
  assert.deepEqual(stage.sent, []);
  await stage.pass(10);
  assert.deepEqual(stage.sent, [{ type: "auth", id: 2, token: "t3" }]);
  await stage.say({ type: "error", id: 2, code: "failed", message: "m", retry: true, after: null });
  await stage.pass(10.2);
  assert.deepEqual(stage.sent, [{ type: "auth", id: 3, token: "t4" }]);
  await stage.say({ type: "error", id: 3, code: "unauthenticated", message: "m", retry: false, after: null });
  await stage.pass(100);
  assert.deepEqual(stage.sent, []);
  assert.equal(stage.client.state, "open");
});

test("no token is renewed over a connection that is gone", async () => {
  chance(0);
  const stage = await renewing(100);
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "t2" }]);
  await stage.say({ type: "ok", id: 1 });
  await stage.pass(20);
  assert.deepEqual(stage.sent, []);
  stage.client.close();
  await stage.pass(100);
});

test("another token that is refused changes nothing", async () => {
  const stage = new Stage({ token: "one" });
  await stage.hello();
  stage.socket.sent = [];
  const shown = failure(stage.client.authenticate("two"));
  await settle();
  await stage.say({ type: "error", id: 2, code: "other_user", message: "m", retry: false, after: null });
  assert.equal((await shown).code, "other_user");
  assert.equal(stage.client.state, "open");
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "one" }]);
});

test("another token can be shown at any time", async () => {
  const stage = new Stage({ token: "one" });
  await stage.hello();
  stage.socket.sent = [];
  const shown = stage.client.authenticate("two");
  await settle();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 2, token: "two" }]);
  await stage.say({ type: "ok", id: 2 });
  await shown;
  await stage.reconnected();
  assert.deepEqual(stage.sent, [{ type: "auth", id: 1, token: "two" }]);
});

test("errors without an id are told by the client", async () => {
  const stage = new Stage();
  const errors = [];
  stage.client.on("error", (error) => errors.push(error.code));
  await stage.hello();
  await stage.say({ type: "error", id: null, code: "not_joined", message: "m", retry: false, after: null });
  assert.deepEqual(errors, ["not_joined"]);
});

test("listeners can be removed, and there are none for events that do not exist", async () => {
  const stage = new Stage();
  const seen = [];
  const stop = stage.client.on("state", ({ state }) => seen.push(state));
  await stage.hello();
  stop();
  await stage.close();
  assert.deepEqual(seen, ["open"]);
  assert.throws(() => stage.client.on("opne", () => {}), /there is no event opne; these are: state, error/);
});

test("addresses are completed, and nonsense is told at once", () => {
  globalThis.location = { href: "https://example.test/page#top" };
  const made = [];
  const WebSocket = class extends EventTarget {
    constructor(url) { super(); made.push(url); }
    close() {}
  };
  for (const url of ["/", "live", "http://other.test/x#y"]) connect(url, { WebSocket }).close();
  delete globalThis.location;
  assert.deepEqual(made, ["wss://example.test/", "wss://example.test/live", "ws://other.test/x"]);
  assert.throws(() => connect("/", { WebSocket }), TypeError);
  assert.throws(() => connect("ws://x/", { WebSocket, codec: "xml" }), /there is no codec xml/);
  if (!globalThis.WebSocket) assert.throws(() => connect("ws://x/"), /use Node 22, run node --experimental-websocket/);
});

// ---- Liveness

test("a ping goes out when nothing was heard for ping_interval, and its answer will do", async () => {
  const stage = new Stage();
  await stage.hello();
  await stage.pass(24.9);
  assert.deepEqual(stage.sent, []);
  await stage.pass(0.2);
  assert.deepEqual(stage.sent, [{ type: "ping", id: 1 }]);
  await stage.say({ type: "ok", id: 1 });
  await stage.pass(24.8);
  assert.deepEqual(stage.sent, []);
  await stage.pass(0.3);
  assert.deepEqual(stage.sent, [{ type: "ping", id: 2 }]);
});

test("a connection over which nothing comes is given up after ten more seconds", async () => {
  const stage = new Stage();
  await stage.hello();
  await stage.pass(34.8);
  assert.equal(stage.client.state, "open");
  await stage.pass(0.4);
  assert.match(stage.details("state").find(({ state }) => state === "waiting").error.reason, /nothing was heard/);
});

test("after a sleep of the machine it asks at once", async () => {
  const stage = new Stage();
  await stage.hello();
  await stage.pass(2);
  mock.timers.setTime(Date.now() + 3_600_000); // and the timers are late
  await stage.pass(5);
  assert.deepEqual(stage.sent.at(-1).type, "ping");
  await stage.pass(5.2);
  assert.notEqual(stage.client.state, "open");
});

test("a page that is back from a long pause asks at once, and gives up after five seconds", async () => {
  const { turn, happens } = browser();
  const stage = new Stage();
  await stage.hello();
  turn("hidden");
  await stage.pass(5);
  turn("visible");
  assert.deepEqual(stage.sent, []);
  turn("hidden");
  await stage.pass(11);
  turn("visible");
  assert.deepEqual(stage.sent, [{ type: "ping", id: 1 }]);
  await stage.say({ type: "ok", id: 1 });
  happens("pageshow", { persisted: false });
  assert.deepEqual(stage.sent, []);
  happens("pageshow", { persisted: true });
  happens("online");
  assert.deepEqual(stage.sent, [{ type: "ping", id: 2 }, { type: "ping", id: 3 }]);
  await stage.pass(5.1);
  assert.equal(stage.client.state, "waiting");
});

test("offline closes at once, online opens at once, and timers go on in between", async () => {
  chance(1);
  const { happens } = browser();
  const stage = new Stage();
  await stage.hello();
  happens("offline");
  assert.equal(stage.client.state, "waiting");
  assert.match(stage.client.error.reason, /offline/);
  happens("online");
  assert.equal(stage.client.state, "connecting");
  assert.equal(stage.connections, 2);
  happens("offline");
  await stage.pass(1.1);
  assert.equal(stage.connections, 3);
  stage.client.close();
  happens("online");
  assert.equal(stage.connections, 3);
});

test("a try can be had at once", async () => {
  chance(1);
  const stage = new Stage();
  await stage.close();
  stage.client.reconnect();
  stage.client.reconnect();
  assert.equal(stage.connections, 2);
  await stage.hello();
  stage.client.reconnect();
  await stage.pass(5);
  assert.equal(stage.connections, 2);
});
