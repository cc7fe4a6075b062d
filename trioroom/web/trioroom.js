/**
 * The client of trioroom for browsers and Node: rooms over one WebSocket that comes back by itself.
 *
 *     import { connect } from "/trioroom.js";
 *     const client = connect("/", { token: () => fetchToken() });
 *     const room = client.join("chat/lobby");
 *     room.on("message", ({ data }) => show(data));
 *     await room.publish({ text: "hello" });
 *
 * It speaks version 1 of trioroom's protocol. From the inside out: a `Connection` is one WebSocket that has answers
 * to wait for and finds out when it is dead; a `Client` has one after the other, and the rooms; a `Room` remembers its
 * position and what waits for an answer. All times are seconds. What begins with an underscore is for this file alone.
 *
 * @module trioroom
 */

const FIRST_DELAY = 0.5; // the longest wait after the first failure; twice as long after each further one
const MAX_DELAY = 30;
const MIN_DELAY = 0.05;
const SETTLED = 30; // a connection that lived so long was a good one: back-off begins anew
const AT_ONCE = 0.05; // the longest wait when a close code asks to come back at once
const CONNECT_TIMEOUT = 10; // for a token, the opening handshake and hello
const PING_INTERVAL = 25; // where the server does not ping; else as it does
const PONG_TIMEOUT = 10; // for anything at all after a ping
const WAKE_TIMEOUT = 5; // likewise, when there is reason to think that the network has changed
const WATCH_INTERVAL = 5; // between two looks at the clock, so that a sleep of the machine is noticed
const HIDDEN_LONG = 10; // a page that was hidden so long may have lost its connection
const UNCONFIRMED = 120; // after that a publication is not sent again; the server remembers its id for 300
const MAX_PENDING = 1000;
const MAX_IN_FLIGHT = 100; // publications of a client: many at once, as after an outage, would exceed max_message_rate
const MAX_INBOX = 1000;
const MAX_BUFFERED_BYTES = 1 << 20; // of what goes out unconfirmed
const WHO_LIMIT = 1000;
const SPENT = [0.8, 0.9]; // of a token's time, when another one is called for: not all clients at once
const MIN_RENEWAL = 10; // between two calls; a token that lasts no longer is not renewed, its connection ends with 4201
const DAY = 86_400; // longer waits overflow setTimeout

const now = () => Date.now() / 1000;
const later = (seconds, fn) => setTimeout(fn, Math.min(seconds, DAY) * 1000);
const between = (least, most) => least + Math.random() * (most - least);

// ---- Close codes ----------------------------------------------------------------------------

/** Why a connection ended: the catalogue of `trioroom.CloseCode`. */
export const CloseCode = Object.freeze({
  NORMAL: 1000,
  GOING_AWAY: 1001,
  PROTOCOL_ERROR: 1002,
  UNSUPPORTED_DATA: 1003,
  NO_STATUS: 1005,
  ABNORMAL: 1006,
  INVALID_DATA: 1007,
  POLICY_VIOLATION: 1008,
  MESSAGE_TOO_BIG: 1009,
  INTERNAL_ERROR: 1011,
  SERVICE_RESTART: 1012,
  TRY_AGAIN_LATER: 1013,
  BAD_ENVELOPE: 4000,
  JOIN_REFUSED: 4001,
  KICKED: 4002,
  UNAUTHENTICATED: 4003,
  UNKNOWN_ROOM: 4004,
  DISCONNECTED: 4005,
  DRAIN: 4101,
  SLOW_CONSUMER: 4108,
  PING_TIMEOUT: 4110,
  OVERLOAD: 4113,
  TOKEN_EXPIRED: 4201,
});

const COME_BACK = new Set([
  CloseCode.GOING_AWAY,
  CloseCode.ABNORMAL,
  CloseCode.INTERNAL_ERROR,
  CloseCode.SERVICE_RESTART,
  CloseCode.TRY_AGAIN_LATER,
]);

/** Whether a client that was closed with `code` gains by coming back. */
export function shouldReconnect(code) {
  return code >= 4000 && code <= 4999 ? code >= 4100 : COME_BACK.has(code);
}

// ---- Errors ---------------------------------------------------------------------------------

/** What all errors of this client have in common: `retry` tells whether trying again may help. */
export class TrioroomError extends Error {
  static { this.prototype.name = "TrioroomError"; } // not the class's own name, which minifiers change

  constructor(message, retry = false, options = undefined) {
    super(message, options);
    this.retry = retry;
  }
}

/** The server answered a request with an error; `code` is one of the protocol's, `after` the seconds to wait or null. */
export class RequestRefused extends TrioroomError {
  static { this.prototype.name = "RequestRefused"; }

  constructor(code, message, retry = false, after = null) {
    super(message, retry);
    this.code = code;
    this.after = after;
  }
}

/** There is no connection, or it was lost before the answer came: whether the request was served is not known. */
export class Disconnected extends TrioroomError {
  static { this.prototype.name = "Disconnected"; }

  constructor(message, options) {
    super(message, true, options);
  }
}

/** A publication was sent, and nobody said that it arrived: it may have gone out or not. */
export class Unconfirmed extends TrioroomError {
  static { this.prototype.name = "Unconfirmed"; }
}

/** The server put us out of a room. */
export class Kicked extends TrioroomError {
  static { this.prototype.name = "Kicked"; }

  constructor(code, reason) {
    super(`put out of the room with code ${code}${reason && `: ${reason}`}`);
    this.code = code;
    this.reason = reason;
  }
}

/** The connection has ended: for good with a code that says not to come back, or when the application closed it. */
export class ConnectionClosed extends TrioroomError {
  static { this.prototype.name = "ConnectionClosed"; }

  constructor(code, reason, message = `the server closed the connection with code ${code}${reason && `: ${reason}`}`) {
    super(message, shouldReconnect(code));
    this.code = code;
    this.reason = reason;
  }
}

/** More waits to be published than the client keeps. */
export class TooManyPending extends TrioroomError {
  static { this.prototype.name = "TooManyPending"; }

  constructor(message) {
    super(message, true);
  }
}

const closedByUs = () => new ConnectionClosed(CloseCode.NORMAL, "", "the application has closed the client");
const refusal = ({ code, message, retry, after }) => new RequestRefused(code, message, retry ?? false, after ?? null);

// ---- Small parts ----------------------------------------------------------------------------

/** Calls `fn` with the reason when `signal` is aborted, or was; returns a function that stops that. */
function onAbort(signal, fn) {
  const abort = () => fn(signal.reason);
  if (signal?.aborted) queueMicrotask(abort);
  signal?.addEventListener("abort", abort);
  return () => signal?.removeEventListener("abort", abort);
}

/** Listeners by the name of the event. */
class Emitter {
  #listeners;

  constructor(names) {
    this.#listeners = new Map(names.map((name) => [name, new Set()]));
  }

  on(name, listener) {
    this.#of(name).add(listener);
    return () => this.off(name, listener);
  }

  off(name, listener) {
    this.#of(name).delete(listener);
  }

  has(name) {
    return this.#of(name).size > 0;
  }

  emit(name, detail) {
    for (const listener of [...this.#of(name)]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => { throw error; }); // the application's failure, and none of ours
      }
    }
  }

  #of(name) {
    const listeners = this.#listeners.get(name);
    if (!listeners) throw new TypeError(`there is no event ${name}; these are: ${[...this.#listeners.keys()].join(", ")}`);
    return listeners;
  }
}

/** Full jitter: those that went down together do not come back together. */
class Backoff {
  #failures = 0;

  next() {
    return Math.max(MIN_DELAY, between(0, Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#failures++)));
  }

  reset() {
    this.#failures = 0;
  }
}

/** What happened in a room and was not read yet; when it is full the oldest goes, and a gap stands in its place. */
class Inbox {
  #items = [];
  #dropped = 0; // messages
  #gapDropped = false; // then nobody knows how many messages are missing
  #readers = []; // functions to call when there is something to read
  #ended = false;
  #error = null;

  constructor(max) {
    this.max = max;
  }

  put(item) {
    this.#items.push(item);
    if (this.#items.length > this.max) {
      const { event } = this.#items.shift();
      if (event === "message") this.#dropped++;
      if (event === "gap") this.#gapDropped = true;
    }
    this.#wake();
  }

  end(error) {
    this.#ended = true;
    this.#error = error;
    this.#wake();
  }

  /** The next item; undefined when there is none at the moment. */
  take() {
    if (!this.#dropped && !this.#gapDropped) return this.#items.shift();
    const lost = this.#gapDropped ? null : this.#dropped;
    this.#dropped = 0;
    this.#gapDropped = false;
    return { event: "gap", reason: "inbox", lost, position: null };
  }

  /** All that comes; ends with the room, by its error if it has one. */
  async *read() {
    for (;;) {
      const item = this.take();
      if (item !== undefined) yield item;
      else if (!this.#ended) await new Promise((resolve) => this.#readers.push(resolve));
      else if (this.#error) throw this.#error;
      else return;
    }
  }

  #wake() {
    for (const resolve of this.#readers.splice(0)) resolve();
  }
}

/** Tells when the network or the machine may have been away. In Node nobody tells, and the clock has to do. */
class Surroundings {
  #hiddenSince = null;
  #added = [];

  constructor({ wake, offline }) {
    this.#add(globalThis, "online", wake);
    this.#add(globalThis, "offline", offline);
    this.#add(globalThis, "pageshow", (event) => { if (event.persisted) wake(); }); // not when the page is new
    this.#add(globalThis.document, "visibilitychange", () => this.#seen(wake));
  }

  stop() {
    for (const [target, type, listener] of this.#added.splice(0)) target.removeEventListener(type, listener);
  }

  #add(target, type, listener) {
    if (typeof target?.addEventListener !== "function") return;
    target.addEventListener(type, listener);
    this.#added.push([target, type, listener]);
  }

  #seen(wake) {
    if (globalThis.document.visibilityState === "hidden") {
      this.#hiddenSince ??= now();
    } else {
      const long = this.#hiddenSince !== null && now() - this.#hiddenSince > HIDDEN_LONG;
      this.#hiddenSince = null;
      if (long) wake();
    }
  }
}

// ---- Codecs ---------------------------------------------------------------------------------

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function asBytes(data) {
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : null;
}

function toBase64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) { // as many arguments as any engine takes
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Envelopes as JSON text. Binary data travels as base64, and `encoding` says so. */
class JsonCodec {
  subprotocol = "trioroom.v1.json";

  /** One envelope, to be put into a frame. */
  encode(envelope) {
    const bytes = asBytes(envelope.data);
    const marked = bytes ? { ...envelope, data: toBase64(bytes), encoding: "base64" } : envelope;
    return JSON.stringify(marked, function (key, value) {
      if (asBytes(this[key])) throw new TypeError(`${key} is binary data inside of a value; that takes codec: "msgpack"`);
      return value;
    });
  }

  /** The frame of one or several encoded envelopes. */
  frame(encoded) {
    return encoded.length === 1 ? encoded[0] : `[${encoded.join(",")}]`;
  }

  /** How many bytes an encoded envelope has. */
  size(encoded) {
    return encoder.encode(encoded).length;
  }

  /** The envelopes of a frame. */
  decode(frame) {
    const envelopes = [JSON.parse(frame)].flat();
    for (const envelope of envelopes) {
      decodeData(envelope);
      envelope.messages?.forEach(decodeData);
    }
    return envelopes;
  }

  /** `data` as it is now, whatever becomes of it. */
  copy(data) {
    return asBytes(data)?.slice() ?? (data === undefined ? null : JSON.parse(this.encode({ data })).data);
  }
}

function decodeData(record) {
  if (record.encoding === "base64") record.data = fromBase64(record.data);
}

/** Envelopes as MessagePack, which has words for binary data and for integers beyond 2^53. */
class MsgpackCodec {
  subprotocol = "trioroom.v1.msgpack";

  encode(envelope) {
    const data = asBytes(envelope.data);
    return new Packer().pack(data ? { ...envelope, data } : envelope);
  }

  frame(encoded) {
    if (encoded.length === 1) return encoded[0];
    const packer = new Packer();
    packer.head(encoded.length, 0x90, 16, 0xdc);
    for (const each of encoded) packer.append(each);
    return packer.bytes();
  }

  size(encoded) {
    return encoded.length;
  }

  decode(frame) {
    return [new Unpacker(new Uint8Array(frame)).all()].flat();
  }

  copy(data) {
    return new Unpacker(this.encode({ data: data ?? null })).all().data;
  }
}

/** Writes one value in MessagePack; objects as `JSON.stringify` sees them: `toJSON` counts, undefined fields do not. */
class Packer {
  #buffer = new Uint8Array(256);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;

  pack(value) {
    this.#write(value);
    return this.bytes();
  }

  bytes() {
    return this.#buffer.subarray(0, this.#length);
  }

  append(bytes) {
    const at = this.#room(bytes.length); // first: it may put another buffer in place
    this.#buffer.set(bytes, at);
  }

  /** The head of an array or map: small lengths go into the first byte, up to 16 and 32 bits behind it. */
  head(length, small, limit, wide) {
    if (length < limit) this.#byte(small | length);
    else this.#lengthAfter(wide, length);
  }

  #write(value) {
    switch (typeof value) {
      case "undefined": return this.#byte(0xc0);
      case "boolean": return this.#byte(value ? 0xc3 : 0xc2);
      case "number": return Number.isSafeInteger(value) ? this.#integer(value) : this.#float(value);
      case "bigint": return this.#bigInteger(value);
      case "string": return this.#text(value);
      case "object": return this.#object(value);
      default: throw new TypeError(`MessagePack has no words for a ${typeof value}`);
    }
  }

  #object(value) {
    if (value === null) return this.#byte(0xc0);
    const bytes = asBytes(value);
    if (bytes) return this.#binary(bytes);
    if (typeof value.toJSON === "function") return this.#write(value.toJSON());
    if (Array.isArray(value)) {
      this.head(value.length, 0x90, 16, 0xdc);
      for (const item of value) this.#write(item);
      return;
    }
    const fields = Object.entries(value).filter(([, field]) => field !== undefined);
    this.head(fields.length, 0x80, 16, 0xde);
    for (const [key, field] of fields) {
      this.#text(key);
      this.#write(field);
    }
  }

  #text(text) {
    const bytes = encoder.encode(text);
    if (bytes.length < 32) this.#byte(0xa0 | bytes.length);
    else if (bytes.length < 0x100) this.#bytes(0xd9, bytes.length);
    else this.#lengthAfter(0xda, bytes.length);
    this.append(bytes);
  }

  #binary(bytes) {
    if (bytes.length < 0x100) this.#bytes(0xc4, bytes.length);
    else this.#lengthAfter(0xc5, bytes.length);
    this.append(bytes);
  }

  #integer(value) {
    if (value >= -32 && value < 128) return this.#byte(value & 0xff);
    if (value >= 0x100000000 || value < -0x80000000) return this.#bigInteger(BigInt(value));
    const at = this.#room(5);
    this.#buffer[at] = value < 0 ? 0xd2 : 0xce;
    if (value < 0) this.#view.setInt32(at + 1, value);
    else this.#view.setUint32(at + 1, value);
  }

  #bigInteger(value) {
    if (value >= 2n ** 64n || value < -(2n ** 63n)) throw new RangeError(`${value} has more than 64 bits`);
    const at = this.#room(9);
    this.#buffer[at] = value < 0n ? 0xd3 : 0xcf;
    if (value < 0n) this.#view.setBigInt64(at + 1, value);
    else this.#view.setBigUint64(at + 1, value);
  }

  #float(value) {
    const at = this.#room(9);
    this.#buffer[at] = 0xcb;
    this.#view.setFloat64(at + 1, value);
  }

  #byte(byte) {
    const at = this.#room(1);
    this.#buffer[at] = byte;
  }

  #bytes(...bytes) {
    this.append(bytes);
  }

  /** `type` and a length of 16 bits, or the type after it and one of 32. */
  #lengthAfter(type, length) {
    if (length < 0x10000) return this.#bytes(type, length >> 8, length & 0xff);
    const at = this.#room(5);
    this.#buffer[at] = type + 1;
    this.#view.setUint32(at + 1, length);
  }

  /** Where the next `size` bytes go. */
  #room(size) {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#buffer.length));
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

/** Reads one value in MessagePack. Integers that a number cannot hold are BigInt. */
class Unpacker {
  #bytes;
  #view;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The value that the bytes are; a RangeError if they end too early or too late. */
  all() {
    const value = this.#read();
    if (this.#at !== this.#bytes.length) throw new RangeError("there is more than one value");
    return value;
  }

  #read() {
    const type = this.#unsigned(1);
    if (type < 0x80) return type;
    if (type < 0x90) return this.#map(type & 0x0f);
    if (type < 0xa0) return this.#array(type & 0x0f);
    if (type < 0xc0) return this.#text(type & 0x1f);
    if (type >= 0xe0) return type - 0x100;
    return this.#wide(type);
  }

  #wide(type) {
    switch (type) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.#take(this.#unsigned(1 << (type - 0xc4))).slice();
      case 0xca: return this.#view.getFloat32(this.#skip(4));
      case 0xcb: return this.#view.getFloat64(this.#skip(8));
      case 0xcc: case 0xcd: case 0xce: return this.#unsigned(1 << (type - 0xcc));
      case 0xcf: return asNumber(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0: return this.#view.getInt8(this.#skip(1));
      case 0xd1: return this.#view.getInt16(this.#skip(2));
      case 0xd2: return this.#view.getInt32(this.#skip(4));
      case 0xd3: return asNumber(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9: case 0xda: case 0xdb: return this.#text(this.#unsigned(1 << (type - 0xd9)));
      case 0xdc: case 0xdd: return this.#array(this.#unsigned(2 << (type - 0xdc)));
      case 0xde: case 0xdf: return this.#map(this.#unsigned(2 << (type - 0xde)));
      default: throw new RangeError(`type ${type} of MessagePack is none that trioroom uses`);
    }
  }

  #array(length) {
    const items = [];
    while (length-- > 0) items.push(this.#read());
    return items;
  }

  #map(length) {
    const fields = {};
    while (length-- > 0) {
      const [key, value] = [String(this.#read()), this.#read()];
      if (key === "__proto__") Object.defineProperty(fields, key, { value, enumerable: true, configurable: true, writable: true });
      else fields[key] = value;
    }
    return fields;
  }

  #text(length) {
    return decoder.decode(this.#take(length));
  }

  #unsigned(size) {
    const at = this.#skip(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #take(length) {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  #skip(length) {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new RangeError("it ends too early");
    this.#at += length;
    return at;
  }
}

const asNumber = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value);

// ---- The connection -------------------------------------------------------------------------

/** Sends a ping when nothing was heard for a while, and gives up when nothing answers. */
class Liveness {
  #heardAt = now();
  #deadline = null; // by then something must have been heard
  #lookedAt = now();
  #timer = null;

  constructor(interval, { ping, dead }) {
    this.interval = interval;
    this.ping = ping;
    this.dead = dead;
    this.#watch();
  }

  heard() {
    this.#heardAt = now();
    this.#deadline = null;
  }

  /** Ask now, and give up when nothing is heard within `timeout`. */
  probe(timeout) {
    this.#deadline = Math.min(this.#deadline ?? Infinity, now() + timeout);
    this.ping();
    this.#watch();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#deadline = null;
    this.ping = this.dead = () => {};
  }

  #watch() {
    clearTimeout(this.#timer);
    const due = (this.#deadline ?? this.#heardAt + this.interval) - now();
    this.#lookedAt = now();
    this.#timer = later(Math.min(Math.max(due, 0.01), WATCH_INTERVAL), () => this.#look());
  }

  #look() {
    const passed = now() - this.#lookedAt;
    if (passed < 0 || passed > 2 * WATCH_INTERVAL) return this.#slept();
    if (this.#deadline !== null && now() >= this.#deadline) return this.dead();
    if (this.#deadline === null && now() >= this.#heardAt + this.interval) return this.probe(PONG_TIMEOUT);
    this.#watch();
  }

  /** The machine slept, the page was frozen or the clock was set. What has come meanwhile may not be read yet. */
  #slept() {
    this.heard();
    this.probe(WAKE_TIMEOUT);
  }
}

/** One WebSocket, from the opening handshake to its end, which `onLost` is told once. */
class Connection {
  hello = null; // what the server said first
  #socket;
  #codec;
  #listeners; // {onHello, onPush, onLost}
  #asked = new Map(); // id -> function(envelope or null), called once
  #lastId = 0;
  #liveness = null;
  #bye = null;
  #since = null; // when the server said hello
  #failure = ""; // what the WebSocket said about an error, if it did

  constructor(url, WebSocketClass, codec, listeners) {
    this.#codec = codec;
    this.#listeners = listeners;
    const socket = new WebSocketClass(url, [codec.subprotocol]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const current = (handle) => (event) => { if (this.#socket === socket) handle(event); };
    socket.addEventListener("open", current(() => this.#opened()));
    socket.addEventListener("message", current((event) => this.#receive(event.data)));
    socket.addEventListener("close", current(({ code, reason }) => this.#lose(code, reason)));
    socket.addEventListener("error", current((event) => {
      this.#failure = event.message ?? event.error?.message ?? "";
      later(0, current(() => this.#lose(CloseCode.ABNORMAL, this.#failure))); // Node 20 has no close after a failed open
    }));
  }

  /** Sends requests, in one frame if they fit; each `answered` gets the envelope, or null when there is none to come. */
  ask(...requests) {
    const encoded = [];
    for (const [envelope, answered] of requests) {
      const id = ++this.#lastId;
      try {
        encoded.push(this.#encode({ type: envelope.type, id, ...envelope }));
        this.#asked.set(id, answered);
      } catch (error) {
        if (!(error instanceof RequestRefused)) throw error;
        const { code, message, retry, after } = error;
        queueMicrotask(() => answered({ type: "error", id, code, message, retry, after }));
      }
    }
    this.#sendFrames(encoded);
    return this.#lastId;
  }

  /** Sends an envelope that is not answered. */
  send(envelope) {
    this.#sendFrames([this.#encode(envelope)]);
  }

  get bufferedBytes() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Asks whether the server is there. */
  probe(timeout) {
    this.#liveness?.probe(timeout);
  }

  /** Ends it without waiting for the other side; `code` is what `onLost` gets. */
  drop(code, reason) {
    const socket = this.#socket;
    this.#lose(code, reason);
    try {
      socket?.close(code === CloseCode.NORMAL ? code : undefined);
    } catch { /* it was not open yet */ }
  }

  #encode(envelope) {
    const encoded = this.#codec.encode(envelope);
    const max = this.hello.max_message_bytes;
    if (this.#codec.size(encoded) > max) {
      throw new RequestRefused("too_big", `a request of more than max_message_bytes=${max}; the server would close the connection`);
    }
    return encoded;
  }

  #sendFrames(encoded) {
    let frame = [];
    let size = 8; // brackets, or MessagePack's head
    for (const each of encoded) {
      const more = this.#codec.size(each) + 1;
      if (frame.length && size + more > this.hello.max_message_bytes) {
        this.#socket?.send(this.#codec.frame(frame));
        [frame, size] = [[], 8];
      }
      frame.push(each);
      size += more;
    }
    if (frame.length) this.#socket?.send(this.#codec.frame(frame));
  }

  #opened() {
    const { protocol } = this.#socket;
    if (protocol === this.#codec.subprotocol) return;
    this.drop(CloseCode.PROTOCOL_ERROR, `the server speaks "${protocol}" and not ${this.#codec.subprotocol}`);
  }

  #receive(frame) {
    this.#liveness?.heard();
    let envelopes;
    try {
      envelopes = this.#codec.decode(frame);
      if (!envelopes.every((envelope) => typeof envelope?.type === "string")) throw new TypeError("it has no type");
    } catch (error) {
      return this.drop(CloseCode.ABNORMAL, `the server sent what is no envelope: ${error.message}`);
    }
    for (const envelope of envelopes) {
      if (this.#socket) this.#take(envelope); // a listener may have closed us
    }
  }

  #take(envelope) {
    if (envelope.type === "hello") return this.#greeted(envelope);
    if (envelope.type === "bye") return void (this.#bye = envelope);
    const answered = this.#asked.get(envelope.id);
    if (answered && (envelope.type === "ok" || envelope.type === "error")) {
      this.#asked.delete(envelope.id);
      answered(envelope);
    } else {
      this.#listeners.onPush(envelope);
    }
  }

  #greeted(hello) {
    this.hello = hello;
    this.#since = now();
    this.#liveness = new Liveness(hello.ping_interval ?? PING_INTERVAL, {
      ping: () => this.ask([{ type: "ping" }, () => {}]),
      dead: () => this.drop(CloseCode.ABNORMAL, "nothing was heard from the server in time"),
    });
    this.#listeners.onHello(this);
  }

  #lose(code, reason) {
    if (!this.#socket) return;
    this.#socket = null;
    this.#liveness?.stop();
    const lived = this.#since === null ? 0 : now() - this.#since;
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#listeners.onLost({ code, reason: reason || this.#failure, bye: this.#bye, lived });
    for (const answered of asked) answered(null);
  }
}

// ---- Requests -------------------------------------------------------------------------------

/** What a room asks of the server: waits for the connection, and is asked again when that is lost before the answer. */
class Request {
  done = false;
  sent = false; // and neither answered nor lost
  #settle;
  #roomError = null; // why the room has ended, if it has
  #unfollow;

  constructor(envelope, signal) {
    this.envelope = envelope;
    this.promise = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    this.#unfollow = onAbort(signal, (reason) => this.aborted(reason));
  }

  /** Sends it over `connection`. */
  send(connection) {
    this.sent = true;
    this.id = connection.ask([this.envelope, (answer) => this.#answered(answer)]);
  }

  #answered(answer) {
    this.sent = false;
    if (this.done) return;
    if (answer === null) this.lost();
    else if (answer.type === "ok") this.resolve(answer);
    else this.refused(refusal(answer));
    if (this.#roomError) this.ended(this.#roomError); // nobody sends it again
  }

  resolve(answer) {
    this.#settle.resolve(answer);
    this.finish();
  }

  reject(error) {
    this.#settle.reject(error);
    this.finish();
  }

  finish() {
    this.done = true;
    this.#unfollow();
  }

  /** The connection is lost, and the answer with it; the room sends it again. */
  lost() {}

  refused(error) {
    this.reject(error);
  }

  aborted(reason) {
    this.reject(reason);
  }

  /** The room has ended: what is on its way may yet be answered. */
  ended(error) {
    this.#roomError = error;
    if (!this.sent) this.gaveUp(error);
  }

  gaveUp(error) {
    this.reject(error);
  }
}

/** Sent once, as the server may have begun to do what it asks for. */
class Call extends Request {
  #connection = null;
  #timer = null;

  constructor(envelope, signal, timeout) {
    super(envelope, signal);
    if (timeout !== undefined && !this.done) {
      this.#timer = later(timeout, () => {
        if (!this.sent) this.reject(new Disconnected(`no connection within ${timeout} s; the call was not sent`));
      });
    }
  }

  send(connection) {
    this.#connection = connection;
    super.send(connection);
  }

  lost() {
    this.reject(new Disconnected("the connection was lost before the answer; calling again helps if doing it twice does no harm"));
  }

  aborted(reason) {
    if (this.sent) this.#connection.send({ type: "cancel", id: this.id });
    this.reject(reason);
  }

  finish() {
    clearTimeout(this.#timer);
    super.finish();
  }
}

/** Carries an id by which it counts once, and so can be sent again until it is answered, or for `UNCONFIRMED` seconds. */
class Publication extends Request {
  resting = false; // before it is sent again
  #firstSent = null;
  #deadline = null;
  #retry = null;
  #backoff = new Backoff();
  #why = "no answer came";

  /** `again` is called when it has rested, to be sent again. */
  constructor(envelope, signal, again) {
    super(envelope, signal);
    this.again = again;
  }

  send(connection) {
    if (this.#firstSent === null) {
      this.#firstSent = now();
      this.#deadline = later(UNCONFIRMED, () => this.#unconfirmed());
    }
    if (now() - this.#firstSent >= UNCONFIRMED) return this.#unconfirmed(); // timers stand still while a machine sleeps
    super.send(connection);
  }

  lost() {
    this.#why = "the connection was lost before the answer";
  }

  refused(error) {
    if (!error.retry) return this.reject(error);
    this.#why = error.message;
    this.resting = true;
    this.#retry = later(error.after ?? this.#backoff.next(), () => {
      this.resting = false;
      this.again(this);
    });
  }

  gaveUp(error) {
    if (this.#firstSent === null) this.reject(error);
    else this.#unconfirmed();
  }

  finish() {
    clearTimeout(this.#deadline);
    clearTimeout(this.#retry);
    super.finish();
  }

  #unconfirmed() {
    this.reject(new Unconfirmed(`it may have gone out or not, and is not sent again: ${this.#why}`));
  }
}

// ---- Presence -------------------------------------------------------------------------------

/** Who is in a room, kept by pages of `who` and by pushes, in the order in which they come. */
class Present {
  users = new Map(); // user -> info
  count = null;
  #coming = null; // the list that is being read, page by page
  #pages = 0; // of it
  #asked = null; // the latest question; an answer to another one comes too late
  #version = null; // of the latest push, on this connection
  #latestCount = null; // in a push
  #countOnly = false;
  #backoff = new Backoff();
  #timer = null;

  /** `ask(envelope, answered)` sends a request; `changed({joined, left, count})` tells the application. */
  constructor(ask, changed) {
    this.ask = ask;
    this.changed = changed;
  }

  /** On a new connection: what is known is shown until the list was read anew. */
  begin() {
    this.stop();
    this.#version = null;
    this.#readAnew();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#asked = this.#coming = null;
  }

  push({ version, count, joined, left }) {
    const missed = this.#version !== null && version !== this.#version + 1;
    this.#version = version;
    this.#latestCount = count;
    if (this.#countOnly) return this.#tell([], [], count);
    if (this.#coming && this.#pages === 0) return; // the first page comes after it, and so knows
    if (missed || (joined === undefined && left === undefined)) return this.#readAnew(); // that many have changed
    this.#apply(this.#coming ?? this.users, joined, left);
    if (this.#coming) return; // told when the list is complete
    this.#tell(joined ?? [], left ?? [], count);
  }

  #apply(users, joined = [], left = []) {
    for (const { user, info } of joined) users.set(user, info ?? null);
    for (const user of left) users.delete(user);
  }

  #tell(joined, left, count) {
    const changed = joined.length > 0 || left.length > 0 || count !== this.count;
    this.count = count;
    if (changed) this.changed({ joined: joined.map(({ user, info }) => ({ user, info: info ?? null })), left, count });
  }

  #readAnew() {
    clearTimeout(this.#timer);
    this.#coming = new Map();
    this.#pages = 0;
    this.#readPage(undefined);
  }

  #readPage(after) {
    const asked = (this.#asked = {});
    this.ask({ type: "who", limit: WHO_LIMIT, ...(after === undefined ? {} : { after }) }, (answer) => {
      if (this.#asked === asked && answer !== null) this.#read(answer);
    });
  }

  #read(answer) {
    if (answer.type === "error") return this.#refused(answer);
    this.#backoff.reset();
    this.#pages++;
    this.#apply(this.#coming, answer.members);
    this.#version ??= answer.version;
    if (answer.more && answer.members.length) return this.#readPage(answer.members.at(-1).user);
    const [before, present] = [this.users, this.#coming];
    this.stop();
    this.users = present;
    const joined = [...present].filter(([user, info]) => !before.has(user) || !same(before.get(user), info));
    const left = [...before.keys()].filter((user) => !present.has(user));
    this.#tell(joined.map(([user, info]) => ({ user, info })), left, answer.count);
  }

  #refused({ code, retry, after }) {
    this.stop();
    if (code === "unsupported") { // or it shows nobody at all, and there will be no pushes
      this.#countOnly = true;
      if (this.#latestCount !== null) this.#tell([], [], this.#latestCount);
    } else if (retry) {
      this.#timer = later(after ?? this.#backoff.next(), () => this.#readAnew());
    }
  }
}

const comparable = (info) => JSON.stringify(info, (key, value) => (typeof value === "bigint" ? String(value) : value));
const same = (one, other) => comparable(one) === comparable(other);

// ---- Rooms ----------------------------------------------------------------------------------

/** A room that we are in, or on our way to. Get it from `Client.join`. */
class Room {
  /** Its name. */
  name;
  /** Resolves with what the room's `on_join` returned, once we are in it for the first time; rejects if that fails. */
  joined;
  #client;
  #state = null;
  #position = null;
  #connection = null; // over which we are in it; null while we are not
  #entered = false; // we have been in it
  #over = false;
  #error = null;
  #events = new Emitter(["message", "gap", "presence", "rejoined", "end"]);
  #inbox;
  #collects = true; // into the inbox, until it is clear that nobody reads it
  #read = false; // somebody does
  #requests = new Set(); // not answered yet, in their order
  #present = null;
  #backoff = new Backoff();
  #timer = null;
  #settle; // {resolve, reject} of joined
  #unfollow; // the signal

  constructor(client, name, { position = null, presence = false, maxInbox = MAX_INBOX, signal } = {}) {
    this.name = name;
    this.#client = client;
    this.#position = position;
    this.#inbox = new Inbox(maxInbox);
    this.joined = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    this.joined.catch(() => {}); // the event `end` tells it too
    if (presence) {
      const ask = (envelope, answered) => this.#connection.ask([{ ...envelope, room: name }, answered]);
      this.#present = new Present(ask, (change) => this.#tell("presence", change));
    }
    this.#unfollow = onAbort(signal, (reason) => { if (!this.#entered) this.#abandon(reason); });
  }

  /** What `on_join` returned, the latest time; null before that. */
  get state() {
    return this.#state;
  }

  /** `{epoch, offset}` of where we are in the room's history; null where it has none. */
  get position() {
    return this.#position;
  }

  /** Who is here: a Map from user to info. Empty without `presence: true`. */
  get present() {
    return this.#present?.users ?? new Map();
  }

  /** How many are here; null before that is known, and without `presence: true`. */
  get count() {
    return this.#present?.count ?? null;
  }

  /** Calls `listener` at each `message`, `gap`, `presence`, `rejoined` or `end`; returns a function that stops that. */
  on(event, listener) {
    const stop = this.#events.on(event, listener);
    if (event === "message" && this.#collects && !this.#read) {
      this.#collects = false;
      queueMicrotask(() => this.#empty());
    }
    return stop;
  }

  off(event, listener) {
    this.#events.off(event, listener);
  }

  /** All that happens here, in order; ends with the room, by its error if it has one. */
  events() {
    this.#read = this.#collects = true;
    return this.#inbox.read();
  }

  /** The messages alone. */
  async *[Symbol.asyncIterator]() {
    for await (const { event, ...message } of this.events()) {
      if (event === "message") yield message;
    }
  }

  /** Publishes `data`; resolves when the server has it. Sent again after a loss, it still counts once. */
  async publish(data, { publicationId = randomId(), confirm = true, signal } = {}) {
    this.#check();
    signal?.throwIfAborted();
    if (!confirm) return this.#publishUnconfirmed(data);
    const publications = this.#client._publications;
    if (publications.size >= this.#client._options.maxPending) {
      throw new TooManyPending(`${publications.size} publications wait for an answer; await some of them first`);
    }
    const copy = this.#client._codec.copy(data);
    const envelope = { type: "publish", room: this.name, data: copy, publication_id: publicationId };
    const publication = new Publication(envelope, signal, (rested) => this.#send(rested));
    publications.add(publication);
    try {
      await this.#request(publication);
    } finally {
      publications.delete(publication);
      this.#client._sendAll(); // another one may go
    }
  }

  /** Asks the room's `on_call`; resolves with what it returned. */
  async call(data, { timeout, signal } = {}) {
    this.#check();
    const limit = timeout === undefined ? {} : { timeout };
    const envelope = { type: "call", room: this.name, data: this.#client._codec.copy(data), ...limit };
    return (await this.#request(new Call(envelope, signal, timeout))).data ?? null;
  }

  /** A page of what the room keeps: the latest messages, or those before or after a position. Oldest first. */
  async history({ limit = 50, before, after, signal } = {}) {
    this.#check();
    const edge = { ...(before && { before }), ...(after && { after }) };
    const answer = await this.#request(new Request({ type: "history", room: this.name, limit, ...edge }, signal));
    const { epoch } = answer.position;
    const messages = (answer.messages ?? []).map((item) => asMessage(item, { epoch, offset: item.offset }));
    return { messages, position: answer.position, more: answer.more ?? false };
  }

  /** A page of who is here, in the order of the users' ids, behind the user `after`. */
  async who({ limit = 100, after, signal } = {}) {
    this.#check();
    const edge = after === undefined ? {} : { after };
    const answer = await this.#request(new Request({ type: "who", room: this.name, limit, ...edge }, signal));
    const members = (answer.members ?? []).map(({ user, info }) => ({ user, info: info ?? null }));
    return { members, version: answer.version ?? 0, count: answer.count ?? 0, more: answer.more ?? false };
  }

  /** Leaves the room, for good. */
  leave() {
    this.#abandon(null);
  }

  // -- For the client

  /** The request to join, and what to do with its answer, which `connection` is for. */
  _joinRequest(connection) {
    const position = this.#position === null ? {} : { position: this.#position };
    const answered = (answer) => {
      if (answer === null || this.#over) return;
      if (answer.type === "ok") this.#joinedOver(connection, answer);
      else this.#refused(answer);
    };
    return [{ type: "join", room: this.name, ...position }, answered];
  }

  /** What the server says about the room. */
  _push(envelope) {
    if (this.#connection === null) return; // of a membership that has ended
    if (envelope.type === "message") this.#message(envelope);
    else if (envelope.type === "gap") this.#gap(envelope.reason, envelope.lost ?? null, envelope.position);
    else if (envelope.type === "position") this.#position = envelope.position;
    else if (envelope.type === "presence") this.#present?.push(envelope);
    else if (envelope.type === "kicked") this._end(new Kicked(envelope.code, envelope.reason));
  }

  /** The connection is lost; there will be another one. */
  _disconnected() {
    clearTimeout(this.#timer);
    this.#connection = null;
    this.#present?.stop();
  }

  /** The room is over: because of `error`, or of the application if that is null. */
  _end(error) {
    if (this.#over) return;
    this._disconnected();
    this.#over = true;
    this.#error = error;
    this.#unfollow();
    this.#client._forget(this);
    const left = error ?? new Disconnected(`room ${this.name} was left`);
    this.#settle.reject(left);
    for (const request of [...this.#requests]) request.ended(left);
    this.#inbox.end(error);
    this.#events.emit("end", error);
  }

  // -- Joining

  #abandon(error) {
    if (this.#over) return;
    const connection = this.#client._connection;
    this._end(error);
    connection?.ask([{ type: "leave", room: this.name }, () => {}]);
  }

  #joinedOver(connection, { state = null, position = null, recovered = false }) {
    const again = this.#entered;
    const lost = (again || this.#position !== null) && !recovered;
    this.#connection = connection;
    this.#entered = true;
    this.#state = state;
    this.#position = position;
    this.#backoff.reset();
    this.#unfollow();
    this.#settle.resolve(state);
    if (again) this.#tell("rejoined", { state, recovered });
    if (lost) this.#gap("reconnect", null, position);
    this.#present?.begin();
    this._sendAll();
  }

  #refused(error) {
    if (!error.retry && error.code !== "unavailable") return this._end(refusal(error));
    this.#timer = later(error.after ?? this.#backoff.next(), () => {
      const connection = this.#client._connection;
      connection?.ask(this._joinRequest(connection));
    });
  }

  // -- What comes

  #message(envelope) {
    let position = null; // of what was sent to us alone
    if (envelope.offset !== undefined && this.#position !== null) {
      position = { epoch: this.#position.epoch, offset: envelope.offset };
      this.#position = position;
    }
    this.#tell("message", asMessage(envelope, position));
  }

  #gap(reason, lost, position) {
    if (position) this.#position = position;
    this.#tell("gap", { reason, lost, position: position ?? null });
  }

  #tell(event, detail) {
    if (this.#collects) this.#inbox.put({ event, ...detail });
    this.#events.emit(event, detail);
  }

  /** What came before there was a listener for messages goes to it. */
  #empty() {
    if (this.#read) return; // it has a reader after all
    for (let item = this.#inbox.take(); item !== undefined; item = this.#inbox.take()) {
      const { event, ...detail } = item;
      if (event === "message" || detail.reason === "inbox") this.#events.emit(event, detail);
    }
  }

  // -- Requests

  #check() {
    if (this.#over) throw this.#error ?? new Disconnected(`room ${this.name} was left; join it again`);
  }

  async #request(request) {
    this.#requests.add(request);
    try {
      this.#send(request);
      return await request.promise;
    } finally {
      this.#requests.delete(request);
    }
  }

  /** What waits for an answer or to be sent, as far as it may go now. */
  _sendAll() {
    let free = this.#freePlaces;
    for (const request of [...this.#requests]) {
      if (this.#send(request, free) && request instanceof Publication) free--;
    }
  }

  /** How many more publications may be on their way. */
  get #freePlaces() {
    let sent = 0;
    for (const publication of this.#client._publications) if (publication.sent) sent++;
    return MAX_IN_FLIGHT - sent;
  }

  /** Whether it was sent now. */
  #send(request, freePlaces = this.#freePlaces) {
    if (request.done || request.sent || request.resting || this.#connection === null) return false;
    if (request instanceof Publication && freePlaces <= 0) return false;
    try {
      request.send(this.#connection);
    } catch (error) {
      request.reject(error); // what no codec has words for
    }
    return request.sent;
  }

  #publishUnconfirmed(data) {
    if (this.#connection === null) throw new Disconnected(`not in room ${this.name} at the moment`);
    if (this.#connection.bufferedBytes > MAX_BUFFERED_BYTES) {
      throw new TooManyPending(`more than ${MAX_BUFFERED_BYTES} bytes wait to be sent; publish less, or with an answer`);
    }
    this.#connection.send({ type: "publish", room: this.name, data: data ?? null });
  }
}

const asMessage = ({ data = null, from = null }, position) => ({ data, sender: from, position });

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- The client -----------------------------------------------------------------------------

const CODECS = { json: JsonCodec, msgpack: MsgpackCodec };

/** One connection to a server, made anew when it is lost, and the rooms one is in. Get it from `connect`. */
class Client {
  _connection = null; // that has said hello
  _publications = new Set();
  _codec;
  _options;
  #url;
  #token;
  #rooms = new Map();
  #attempt = null; // {connection}, the one that counts
  #state = { state: "connecting", after: null, error: null };
  #events = new Emitter(["state", "error"]);
  #backoff = new Backoff();
  #cameAtOnce = false;
  #timer = null; // the end of waiting, or of patience
  #renewal = null; // the timer for a fresh token
  #surroundings;

  constructor(url, { token, codec = "json", WebSocket, connectTimeout = CONNECT_TIMEOUT, maxPending = MAX_PENDING } = {}) {
    if (!CODECS[codec]) throw new TypeError(`there is no codec ${codec}; these are: ${Object.keys(CODECS).join(", ")}`);
    this.#url = absoluteUrl(url);
    this.#token = token;
    this._codec = new CODECS[codec]();
    this._options = { WebSocket: WebSocket ?? findWebSocket(), connectTimeout, maxPending };
    this.#surroundings = new Surroundings({ wake: () => this.#wake(), offline: () => this.#goneOffline() });
    this.#open();
  }

  /** `connecting`, `open`, `waiting` for the next try, or `closed` for good. */
  get state() {
    return this.#state.state;
  }

  /** Why the latest try failed, or what ended the client; null if nothing did. */
  get error() {
    return this.#state.error;
  }

  /** Calls `listener` at each `state` or `error`; returns a function that stops that. */
  on(event, listener) {
    return this.#events.on(event, listener);
  }

  off(event, listener) {
    this.#events.off(event, listener);
  }

  /** Goes into a room, and back into it after each reconnect, until it is left. */
  join(name, options = {}) {
    if (this.state === "closed") throw this.error ?? closedByUs();
    if (this.#rooms.has(name)) throw new TypeError(`already in room ${name}; use the Room that join returned, or leave it first`);
    const room = new Room(this, name, options);
    this.#rooms.set(name, room);
    this._connection?.ask(room._joinRequest(this._connection));
    return room;
  }

  /** From now on `token`, a string or a function, says who we are; if the server does not take it, all stays as it was. */
  async authenticate(token) {
    const before = this.#token;
    this.#token = token;
    try {
      const connection = this._connection;
      const shown = connection && (typeof token === "function" ? await token() : token);
      if (shown && this._connection === connection) await this.#show(connection, shown); // another one has begun with it
    } catch (error) {
      if (this.#token === token) this.#token = before;
      throw error;
    }
  }

  /** Does not wait any longer for the next try. */
  reconnect() {
    if (this.state === "waiting") this.#open();
  }

  /** Leaves all rooms and ends, for good. */
  close() {
    if (this.state !== "closed") this.#end(null);
  }

  /** A publication has come to its end, so another one may go, of whichever room. */
  _sendAll() {
    for (const room of [...this.#rooms.values()]) room._sendAll();
  }

  _forget(room) {
    if (this.#rooms.get(room.name) === room) this.#rooms.delete(room.name);
  }

  // -- The course of a connection

  async #open() {
    const attempt = (this.#attempt = { connection: null });
    const patience = this._options.connectTimeout;
    this.#wait(patience, () => this.#failed(attempt, new Disconnected(`the server has not said hello within ${patience} s`)));
    this.#enter("connecting", null, this.error);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (this.#attempt !== attempt) return;
      attempt.connection = new Connection(this.#url, this._options.WebSocket, this._codec, {
        onHello: (connection) => this.#greeted(connection, token),
        onPush: (envelope) => this.#push(envelope),
        onLost: (loss) => { if (this.#attempt === attempt) this.#lost(loss); },
      });
    } catch (error) {
      this.#failed(attempt, error);
    }
  }

  #failed(attempt, error) {
    if (this.#attempt !== attempt) return;
    this.#attempt = null;
    attempt.connection?.drop(CloseCode.ABNORMAL, "");
    this.#comeBack(this.#backoff.next(), error);
  }

  #greeted(connection, token) {
    clearTimeout(this.#timer);
    this._connection = connection;
    const joins = [...this.#rooms.values()].map((room) => room._joinRequest(connection));
    connection.ask(...(token ? [this.#firstAuth(connection, token)] : []), ...joins);
    this.#enter("open");
  }

  // -- Tokens

  /** What begins a connection. A token that is refused ends the client; nobody would have us. */
  #firstAuth(connection, token) {
    return [{ type: "auth", token }, (answer) => {
      if (answer?.type === "ok") this.#renewIn(connection, answer.expires_in);
      else if (answer?.retry) connection.drop(CloseCode.ABNORMAL, answer.message);
      else if (answer) this.#end(refusal(answer));
    }];
  }

  /** Shows another one over a connection that goes on. If that is lost, the next one begins with a token. */
  #show(connection, token) {
    return new Promise((resolve, reject) => {
      connection.ask([{ type: "auth", token }, (answer) => {
        if (answer?.type === "error") return reject(refusal(answer));
        if (answer) this.#renewIn(connection, answer.expires_in);
        resolve();
      }]);
    });
  }

  /** Has a fresh token shown before the one that lasts for so long expires. */
  #renewIn(connection, lasts) {
    clearTimeout(this.#renewal);
    if (typeof this.#token !== "function" || !(lasts > MIN_RENEWAL)) return;
    this.#renewal = later(Math.max(MIN_RENEWAL, lasts * between(...SPENT)), () => this.#renew(connection));
  }

  async #renew(connection) {
    try {
      const token = await this.#token();
      if (this._connection === connection && token) await this.#show(connection, token);
    } catch (error) { // at the latest the server closes with 4201
      if (this._connection !== connection || (error instanceof RequestRefused && !error.retry)) return;
      this.#renewal = later(MIN_RENEWAL, () => this.#renew(connection));
    }
  }

  // -- Its end

  #lost({ code, reason, bye, lived }) {
    this.#disconnect();
    if (lived >= SETTLED) {
      this.#backoff.reset();
      this.#cameAtOnce = false;
    }
    const error = new ConnectionClosed(code, reason, code === CloseCode.ABNORMAL ? reason || "there is no connection" : undefined);
    if (shouldReconnect(code)) this.#comeBack(this.#delay(code, bye), error);
    else this.#end(error);
  }

  /** How long to wait; at once only the first time, lest a server that closes each connection so is hammered. */
  #delay(code, bye) {
    if (Array.isArray(bye?.after)) return between(...bye.after);
    if (code < 4200 || code > 4299 || this.#cameAtOnce) return this.#backoff.next();
    this.#cameAtOnce = true;
    return between(0, AT_ONCE);
  }

  #comeBack(after, error) {
    this.#wait(after, () => this.#open());
    this.#enter("waiting", after, error);
  }

  #disconnect() {
    this.#attempt = null;
    this._connection = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    for (const room of [...this.#rooms.values()]) room._disconnected();
  }

  #end(error) {
    const attempt = this.#attempt;
    this.#disconnect();
    this.#surroundings.stop();
    attempt?.connection?.drop(CloseCode.NORMAL, "");
    this.#state = { state: "closed", after: null, error };
    for (const room of [...this.#rooms.values()]) room._end(error ?? null);
    this.#events.emit("state", this.#state);
  }

  #wait(seconds, then) {
    clearTimeout(this.#timer);
    this.#timer = later(seconds, then);
  }

  #enter(state, after = null, error = null) {
    this.#state = { state, after, error };
    this.#events.emit("state", this.#state);
  }

  #push(envelope) {
    if (envelope.type === "error") this.#events.emit("error", refusal(envelope)); // of a publication without confirmation
    else this.#rooms.get(envelope.room)?._push(envelope);
  }

  // -- What happens around us

  #wake() {
    this._connection?.probe(WAKE_TIMEOUT);
    this.reconnect();
  }

  #goneOffline() {
    const { connection } = this.#attempt ?? {};
    if (connection) connection.drop(CloseCode.ABNORMAL, "the browser is offline"); // the event online has it come back
  }
}

/** Where a page says "/", it means its own server. */
function absoluteUrl(url) {
  const absolute = new URL(url, globalThis.location?.href);
  absolute.hash = "";
  absolute.protocol = absolute.protocol.replace(/^http/, "ws");
  return absolute.href;
}

function findWebSocket() {
  if (globalThis.WebSocket) return globalThis.WebSocket;
  throw new TypeError(
    "there is no WebSocket here; use Node 22, run node --experimental-websocket, or pass { WebSocket } from the package ws",
  );
}

/**
 * A client of the server at `url`, which connects in the background and comes back whenever the connection is lost.
 *
 * @param {string | URL} url with ws, wss, http or https; in a page also relative to it, so "/" is its own server.
 * @param {object} [options] `token`: a string, or a function that returns one or a promise of one and is called before
 *   each connection, and before a token expires; `codec`: "json" or "msgpack"; `WebSocket`: a class to use instead of
 *   the global one; `connectTimeout`: seconds for each try; `maxPending`: publications that may wait for their answers.
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}
