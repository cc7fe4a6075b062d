// A client without a network: what it sends is kept, and the test says what the server answers and what time it is.

import { mock } from "node:test";

import { connect } from "../../trioroom/web/trioroom.js";

const HELLO = { type: "hello", connection: "c1", ping_interval: 25, max_message_bytes: 65536, version: 1 };
export const POSITION = { epoch: "e", offset: 5 };

/** What a browser gives, without the network behind it. */
class FakeSocket extends EventTarget {
  static made = [];
  binaryType = "blob";
  bufferedAmount = 0;
  protocol = "";
  sent = []; // frames
  closedWith = null;

  constructor(url, protocols) {
    super();
    Object.assign(this, { url, protocols });
    FakeSocket.made.push(this);
  }

  send(frame) {
    this.sent.push(typeof frame === "string" ? JSON.parse(frame) : frame);
  }

  close(code) {
    this.closedWith = { code };
  }

  fire(type, fields) {
    this.dispatchEvent(Object.assign(new Event(type), fields));
  }
}

/** A client and its side of the network, with a clock that only `pass` moves. */
export class Stage {
  events = []; // [what, detail] of all rooms and the client, in order

  constructor(options = {}) {
    mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
    FakeSocket.made = [];
    this.client = connect("ws://test/", { WebSocket: FakeSocket, ...options });
    this.client.on("state", (state) => this.events.push(["state", state]));
  }

  static end() {
    mock.restoreAll();
    mock.timers.reset();
  }

  get socket() {
    return FakeSocket.made.at(-1);
  }

  get connections() {
    return FakeSocket.made.length;
  }

  /** The frames that were sent since the last time. */
  get sent() {
    return this.socket.sent.splice(0);
  }

  /** Names of the events so far. */
  get told() {
    return this.events.filter(([what]) => what !== "state").map(([what]) => what);
  }

  get states() {
    return this.events.filter(([what]) => what === "state").map(([, { state }]) => state);
  }

  details(what) {
    return this.events.filter(([name]) => name === what).map(([, detail]) => detail);
  }

  async hello(fields = {}) {
    this.socket.protocol = this.socket.protocols[0];
    this.socket.fire("open");
    await this.say({ ...HELLO, ...fields });
  }

  /** One frame of the server. */
  async say(envelopes) {
    this.socket.fire("message", { data: JSON.stringify(envelopes) });
    await settle();
  }

  async close(code = 1006, reason = "") {
    this.socket.fire("close", { code, reason });
    await settle();
  }

  join(name = "chat/a", options = {}) {
    const room = this.client.join(name, options);
    for (const event of ["message", "gap", "presence", "rejoined", "end"]) {
      room.on(event, (detail) => this.events.push([event, detail]));
    }
    return room;
  }

  /** A room that we are in, over a connection that is open. */
  async joined(ok = { position: POSITION }, options = {}) {
    const room = this.join("chat/a", options);
    await this.hello();
    await this.say({ type: "ok", id: 1, room: "chat/a", ...ok });
    this.socket.sent = [];
    return room;
  }

  /** The connection is lost, and made again at once; the server has said hello. */
  async reconnected() {
    await this.close();
    await this.opened();
  }

  /** The next try to connect is made, and the server has said hello. */
  async opened() {
    while (this.client.state !== "connecting") await this.pass(0.1);
    await this.hello();
  }
}

/** All promises that can go on have gone on. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

Stage.prototype.pass = async function (seconds) {
  for (let left = seconds * 1000; left > 0; left -= 100) { // in steps, as timers set others
    mock.timers.tick(Math.min(100, left));
    await settle();
  }
};

/** What `promise` is rejected with. */
export async function failure(promise) {
  const [result] = await Promise.allSettled([promise]);
  if (result.status === "fulfilled") throw new Error("it did not fail");
  return result.reason;
}

/** Chance as the test wants it; 1 is almost 1. */
export const chance = (value) => mock.method(Math, "random", () => Math.min(value, 1 - 1e-9));
