// The golden transcripts of the protocol: the client sends and tells what they say, in both encodings.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { Application } from "./application.mjs";
import { pack, unpack } from "./messagepack.mjs";
import { toMsgpack, tokensOf, TRANSCRIPTS, Values } from "./player.mjs";
import { chance, settle, Stage } from "./stage.mjs";

const PATIENCE = 30; // seconds until what the client should send does not come
const LEFT_OVER = 0.5; // seconds after the last step in which nothing more is to come; less than any ping_interval
const FOR_GOOD = 60; // likewise when the client has ended

const CODECS = {
  json: { subprotocol: "trioroom.v1.json", envelopes: (pattern) => pattern, write: JSON.stringify, read: (frame) => frame },
  msgpack: {
    subprotocol: "trioroom.v1.msgpack",
    envelopes: toMsgpack,
    write: (envelopes) => new Uint8Array(pack(envelopes)).buffer,
    read: unpack,
  },
};

/** Both ends of what transcripts leave open: when a client that waits goes on, and in how many frames an array comes. */
const MANNERS = {
  soonest: { luck: 0, frames: (envelopes) => [envelopes] },
  latest: { luck: 1, frames: (envelopes) => [envelopes].flat() },
};

afterEach(() => Stage.end());

/** One transcript, with a client on a stage; the test is the server. */
class Performance {
  #codec;
  #frames;
  #values = new Values();
  #options;
  #stage = null;
  #application;
  #sent = []; // frames that were not looked at yet
  #connections = 0;
  #lostAt = null; // milliseconds, as the next one
  #notBefore = 0; // what was refused may be asked again

  constructor(transcript, codec, frames) {
    const tokens = tokensOf(transcript);
    this.#codec = CODECS[codec];
    this.#frames = frames;
    this.#options = { codec, token: () => tokens.shift() };
    this.#application = new Application(transcript, this.#values);
  }

  /** Does one step, or sees that the client does. */
  async play(step) {
    const [[kind, value]] = Object.entries(step);
    if (["server", "close", "after", "do"].includes(kind)) this.#application.expectNothing();
    if (["close", "after"].includes(kind)) this.#expectNothing();
    switch (kind) {
      case "connect": return this.#connect();
      case "client": return this.#expect(this.#codec.envelopes(value));
      case "server": return this.#say(this.#values.fill(this.#codec.envelopes(value)));
      case "close": return this.#lose(value ?? { code: 1006, reason: "" });
      case "hang_up": return assert.deepEqual(this.#stage.socket.closedWith, value);
      case "after": return this.#comeBack(value);
      case "do": return this.#application.do(value);
      case "event": return this.#application.expect(value);
      case "present": return this.#application.expectPresent(value);
      case "meanwhile": return undefined;
      default: throw new Error(`there is no step ${kind}`);
    }
  }

  /** The client sends and tells no more than the transcript has. */
  async finish() {
    await this.#stage.pass(this.#stage.client.state === "closed" ? FOR_GOOD : LEFT_OVER);
    this.#application.expectNothing();
    this.#expectNothing();
    assert.equal(this.#stage.connections, this.#connections);
  }

  async #connect() {
    if (this.#stage === null) {
      this.#stage = new Stage(this.#options);
      this.#application.uses(this.#stage.client);
      await settle(); // the token is there
    }
    assert.equal(this.#stage.connections, ++this.#connections);
    const { socket } = this.#stage;
    assert.deepEqual(socket.protocols, [this.#codec.subprotocol]);
    socket.protocol = this.#codec.subprotocol;
    socket.fire("open");
  }

  async #say(envelopes) {
    const afters = [envelopes].flat().map(({ after }) => after);
    this.#notBefore = Date.now() + 1000 * Math.max(0, ...afters.filter((after) => typeof after === "number"));
    for (const frame of this.#frames(envelopes)) {
      this.#stage.socket.fire("message", { data: this.#codec.write(frame) });
      await settle();
    }
  }

  async #lose({ code, reason }) {
    this.#lostAt = Date.now();
    await this.#stage.close(code, this.#values.fill(reason));
  }

  async #comeBack([least, most]) {
    const passed = () => (Date.now() - this.#lostAt) / 1000;
    while (this.#stage.connections === this.#connections && passed() <= most) await this.#stage.pass(0.01);
    assert.ok(passed() >= least, `it is back after ${passed()} s`);
    assert.ok(passed() <= most, `it is not back after ${most} s`);
  }

  async #expect(pattern) {
    for (let waited = 0; waited < PATIENCE && !this.#read().length; waited += 0.1) await this.#stage.pass(0.1);
    const frame = this.#sent.shift();
    assert.ok(this.#values.matches(pattern, frame), `${JSON.stringify(frame)} instead of ${JSON.stringify(pattern)}`);
    assert.ok(Date.now() >= this.#notBefore, `${JSON.stringify(frame)} comes too soon`);
  }

  #expectNothing() {
    assert.deepEqual(this.#read(), [], "the client has sent more");
  }

  #read() {
    this.#sent.push(...this.#stage.sent.map(this.#codec.read));
    return this.#sent;
  }
}

async function play(transcript, codec, { luck, frames }) {
  chance(luck);
  const performance = new Performance(transcript, codec, frames);
  for (const [number, step] of transcript.steps.entries()) {
    try {
      await performance.play(step);
    } catch (error) {
      error.message += `\nin step ${number}: ${JSON.stringify(step)}`;
      throw error;
    }
  }
  await performance.finish();
}

for (const transcript of TRANSCRIPTS) {
  for (const codec of Object.keys(CODECS)) {
    for (const [name, manner] of Object.entries(MANNERS)) {
      test(`${transcript.name} (${codec}, ${name})`, () => play(transcript, codec, manner));
    }
  }
}

test("there are transcripts", () => assert.ok(TRANSCRIPTS.length > 30));
