// The golden transcripts of the protocol, played with the client: tests/transcripts/player.py tells how they read.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, mock, test } from "node:test";

import { settle, Stage } from "./stage.mjs";

const TRANSCRIPTS = JSON.parse(readFileSync(new URL("../transcripts/v1.json", import.meta.url)));
const PATIENCE = 40; // seconds that may pass before the client does what it is to do
const ROOM_EVENTS = ["message", "gap", "presence", "rejoined", "end"];
const ANY = { string: "any", number: 100 };

afterEach(() => Stage.end());

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

/** What the names of a transcript stand for in this run. */
class Values {
  #bound = new Map();

  /** A value that matches `pattern`. */
  fill(pattern) {
    if (Array.isArray(pattern)) return pattern.map((item) => this.fill(item));
    if (!isObject(pattern)) return pattern;
    if ("$any" in pattern) return ANY[pattern.$any];
    if ("$bytes" in pattern) return bytes(pattern.$bytes);
    if ("$use" in pattern) return this.#bound.get(pattern.$use);
    if ("$bind" in pattern) return this.#bind(pattern.$bind, `${pattern.$bind}-${this.#bound.size}`);
    return Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, this.fill(value)]));
  }

  /** Whether `value` is as `pattern` says; `partly`: further fields do not matter. */
  matches(pattern, value, partly = false) {
    if (Array.isArray(pattern)) {
      return pattern.length === value?.length && pattern.every((item, index) => this.matches(item, value[index], partly));
    }
    if (!isObject(pattern)) return pattern === value;
    if ("$any" in pattern) return typeof value === pattern.$any;
    if ("$bytes" in pattern) return value instanceof Uint8Array && Buffer.from(value).toString("base64") === pattern.$bytes;
    if ("$use" in pattern) return value === this.#bound.get(pattern.$use);
    if ("$bind" in pattern) return typeof value === "string" && this.#bind(pattern.$bind, value) === value;
    return isObject(value) && this.#matchesObject(pattern, value, partly);
  }

  #matchesObject(pattern, value, partly) {
    const keys = new Set([...Object.keys(pattern), ...(partly ? [] : Object.keys(value))]);
    return [...keys].every((key) => {
      const inner = partly && key !== "data";
      return this.matches(pattern[key] ?? null, value[key] ?? null, inner);
    });
  }

  #bind(name, value) {
    if (!this.#bound.has(name)) this.#bound.set(name, value);
    return this.#bound.get(name);
  }
}

/** One transcript, the client in it, and what the application was told so far. */
class Play {
  values = new Values();
  token = null;
  told = []; // not yet looked at
  sent = []; // frames, likewise
  rooms = new Map();
  cancels = new Map();

  constructor({ steps }) {
    this.steps = steps;
    this.kinds = new Set(steps.flatMap(({ event }) => (event ? [event.event] : [])));
  }

  async run() {
    for (const [number, step] of this.steps.entries()) {
      const [[kind, what]] = Object.entries(step);
      if (kind === "meanwhile") continue;
      this.number = number;
      try {
        await this[kind](what);
      } catch (error) {
        error.message = `step ${number}, ${JSON.stringify(step)}: ${error.message}`;
        throw error;
      }
    }
    await settle();
    assert.deepEqual(this.told, [], "the application was told more");
  }

  async connect({ token = null }) {
    if (this.stage) return this.until(() => this.stage.client.state === "connecting");
    this.token = token;
    this.stage = new Stage({ token: () => this.token });
    this.stage.client.on("state", ({ state, error }) => { if (state === "closed") this.tell("closed", { error }); });
    await settle();
  }

  async server(envelopes) {
    const filled = this.values.fill(envelopes);
    if (filled.type === "hello") await this.stage.hello(filled);
    else await this.stage.say(filled);
  }

  async client(envelopes) {
    await this.until(() => this.#sent().length > 0);
    const frame = this.sent.shift();
    assert.ok(this.values.matches(envelopes, frame), `sent ${JSON.stringify(frame)}`);
  }

  async close(how) {
    const next = this.steps.slice(this.number).find(({ connect }) => connect);
    this.token = next?.connect.token ?? null; // asked for before it connects
    await this.stage.close(how?.code ?? 1006, this.values.fill(how?.reason ?? ""));
  }

  async after([least, most]) {
    const { connections } = this.stage;
    await this.stage.pass(Math.max(least - 0.1, 0));
    assert.equal(this.stage.connections, connections, "it came too early");
    await this.until(() => this.stage.connections > connections, most - least + 0.3);
  }

  async do({ call, room: name, as, data, ...options }) {
    await this[`do_${call}`](name, this.values.fill(data), this.values.fill(options), as);
    await settle();
  }

  do_join(name, _, options) {
    const room = this.stage.client.join(name, options);
    this.rooms.set(name, room);
    room.joined.then((state) => this.tell("joined", { room: name, state, position: room.position }), () => {});
    for (const event of ROOM_EVENTS) room.on(event, (detail) => this.#tellOfRoom(event, name, detail));
  }

  do_leave(name) {
    this.rooms.get(name).leave();
    this.told = this.told.filter(({ event, room }) => event !== "end" || room !== name); // the application knows
  }

  do_publish(name, data, { publication_id: publicationId, ...options }, as) {
    this.#answer(as, this.rooms.get(name).publish(data, { ...options, ...(publicationId && { publicationId }) }));
  }

  do_call(name, data, options, as) {
    const controller = new AbortController();
    this.cancels.set(as, controller);
    this.#answer(as, this.rooms.get(name).call(data, { ...options, signal: controller.signal }));
  }

  do_cancel(_, __, ___, as) {
    this.cancels.get(as).abort();
  }

  do_history(name, _, options, as) {
    const offsets = ({ messages, ...page }) => ({
      ...page,
      messages: messages.map(({ data, sender, position }) => ({ offset: position.offset, data, from: sender })),
    });
    this.#answer(as, this.rooms.get(name).history(options).then(offsets));
  }

  do_who(name, _, options, as) {
    this.#answer(as, this.rooms.get(name).who(options));
  }

  do_close() {
    this.stage.client.close();
  }

  async event(expected) {
    await this.until(() => this.told.length > 0);
    const told = this.told.shift();
    assert.ok(this.values.matches(expected, told, true), `told ${JSON.stringify(told)}`);
  }

  async present({ room: name, users, count }) {
    const room = this.rooms.get(name);
    const listed = Object.fromEntries(room.present);
    if (users) assert.ok(this.values.matches(users, listed), `lists ${JSON.stringify(listed)}`);
    assert.equal(room.count, count);
  }

  async hang_up({ code }) {
    assert.equal(this.stage.socket.closedWith.code, code);
  }

  /** What is of a kind that the transcript speaks of is to come in its order. */
  tell(event, detail) {
    if (this.kinds.has(event)) this.told.push({ event, ...detail });
  }

  async until(condition, seconds = PATIENCE) {
    for (let passed = 0; !condition() && passed < seconds; passed += 0.1) await this.stage.pass(0.1);
    assert.ok(condition(), "it does not happen");
  }

  #sent() {
    if (this.stage.socket) this.sent.push(...this.stage.sent);
    return this.sent;
  }

  #tellOfRoom(event, room, detail) {
    if (event === "end") this.tell(event, { room, error: detail });
    else if (event === "message") this.tell(event, { room, data: detail.data, from: detail.sender, position: detail.position });
    else this.tell(event, { room, ...detail });
  }

  #answer(to, promise) {
    promise.then(
      (value) => { if (to) this.tell("answer", { to, value }); },
      (error) => { if (to && error.name !== "AbortError") this.tell("failed", { to, error }); },
    );
  }
}

for (const transcript of TRANSCRIPTS.filter((each) => !each.server_only)) {
  test(`${transcript.name}: ${transcript.about}`, async () => {
    mock.method(Math, "random", Math.random);
    await new Play(transcript).run();
  });
}

test("there are transcripts", () => assert.ok(TRANSCRIPTS.length > 30));
