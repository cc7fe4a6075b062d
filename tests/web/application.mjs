// What the golden transcripts have an application do with the client, and what it is told.

import assert from "node:assert/strict";

import { settle } from "./stage.mjs";

/** Does what the steps `do` say, and compares what it is told with the steps `event` and `present`. */
export class Application {
  #values;
  #kinds; // of events that the transcript looks at
  #client = null;
  #rooms = new Map();
  #aborts = new Map(); // by the name of what can be cancelled
  #events = []; // that were not looked at yet

  constructor({ steps }, values) {
    this.#values = values;
    this.#kinds = new Set(steps.filter(({ event }) => event).map(({ event }) => event.event));
  }

  uses(client) {
    this.#client = client;
    client.on("state", ({ state, error }) => { if (state === "closed") this.#tell("closed", { error: described(error) }); });
  }

  async do(step) {
    const { call, as, room: name, ...rest } = this.#values.fill(step);
    const room = this.#rooms.get(name);
    switch (call) {
      case "join": this.#join(name, rest); break;
      case "leave": room.leave(); break;
      case "close": this.#client.close(); break;
      case "cancel": this.#aborts.get(as).abort(); break;
      case "publish": await this.#ask(as, (options) => room.publish(rest.data, options), rest); break;
      case "call": await this.#ask(as, (options) => room.call(rest.data, options), rest); break;
      case "history": await this.#ask(as, async (options) => asPage(await room.history(options)), rest); break;
      case "who": await this.#ask(as, (options) => room.who(options), rest); break;
      default: throw new Error(`an application has no ${call}`);
    }
    await settle();
  }

  /** This is what it was told next. */
  expect(pattern) {
    const event = this.#events.shift();
    assert.ok(this.#values.matches(pattern, event, true), `${JSON.stringify(event)} instead of ${JSON.stringify(pattern)}`);
  }

  expectNothing() {
    assert.deepEqual(this.#events, [], "the application was told more");
  }

  expectPresent({ room: name, users, count }) {
    const { present, count: counted } = this.#rooms.get(name);
    if (users) assert.deepEqual(Object.fromEntries(present), users);
    assert.equal(counted, count);
  }

  #join(name, options) {
    const room = this.#client.join(name, options);
    const tell = (event, detail) => this.#tell(event, { room: name, ...detail });
    this.#rooms.set(name, room);
    room.joined.then(() => tell("joined", { state: room.state, position: room.position }), () => {}); // `end` tells why not
    room.on("message", ({ sender, ...message }) => tell("message", { from: sender, ...message }));
    for (const event of ["gap", "presence", "rejoined"]) room.on(event, (detail) => tell(event, detail));
    room.on("end", (error) => tell("end", { error: described(error) }));
  }

  /** Asks with a name are answered by an event, those without one at once. */
  #ask(name, fn, options) {
    const abort = new AbortController();
    const asked = fn({ ...options, signal: abort.signal });
    if (name === undefined) return asked;
    this.#aborts.set(name, abort);
    asked.then(
      (value) => this.#tell("answer", { to: name, value }),
      (error) => this.#tell("failed", { to: name, error: described(error) }),
    );
    return undefined;
  }

  #tell(event, detail) {
    if (this.#kinds.has(event)) this.#events.push({ event, ...detail });
  }
}

/** An error as transcripts have it. */
const described = (error) => error && { name: error.name, ...error };

/** A page of a history as transcripts have it. */
const asPage = ({ messages, ...page }) => ({
  ...page,
  messages: messages.map(({ data, sender, position }) => ({ data, from: sender, offset: position.offset })),
});
