// MessagePack apart from the client's own, so that a mistake there does not cancel itself out.

/** `value` with each type in its longest form, which a reader has to take. */
export function pack(value) {
  return Buffer.concat([...pieces(value)]);
}

function* pieces(value) {
  if (value === null) yield Buffer.of(0xc0);
  else if (typeof value === "boolean") yield Buffer.of(value ? 0xc3 : 0xc2);
  else if (Number.isInteger(value)) yield head(0xd3, 8, (view) => view.setBigInt64(1, BigInt(value)));
  else if (typeof value === "number") yield head(0xcb, 8, (view) => view.setFloat64(1, value));
  else if (typeof value === "string") yield* withLength(0xdb, Buffer.from(value, "utf-8"));
  else if (value instanceof Uint8Array) yield* withLength(0xc6, value);
  else if (Array.isArray(value)) yield* several(0xdd, value.length, value);
  else yield* several(0xdf, Object.keys(value).length, Object.entries(value).flat());
}

function head(type, size, write) {
  const bytes = Buffer.alloc(1 + size, type);
  write(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  return bytes;
}

const length = (type, count) => head(type, 4, (view) => view.setUint32(1, count));

function* withLength(type, bytes) {
  yield length(type, bytes.length);
  yield bytes;
}

function* several(type, count, items) {
  yield length(type, count);
  for (const item of items) yield* pieces(item);
}

/** The value that `bytes` are. */
export function unpack(bytes) {
  const reader = new Reader(Buffer.from(bytes));
  const value = reader.read();
  if (reader.at !== bytes.length) throw new RangeError(`${bytes.length - reader.at} bytes are left over`);
  return value;
}

class Reader {
  at = 0;

  constructor(bytes) {
    this.bytes = bytes;
  }

  read() {
    const type = this.unsigned(1);
    if (type <= 0x7f) return type;
    if (type <= 0x8f) return this.map(type & 0x0f);
    if (type <= 0x9f) return this.array(type & 0x0f);
    if (type <= 0xbf) return this.text(type & 0x1f);
    if (type >= 0xe0) return type - 0x100;
    const read = READ[type];
    if (!read) throw new RangeError(`type ${type}`);
    return read(this);
  }

  take(size) {
    if (this.at + size > this.bytes.length) throw new RangeError("it ends too early");
    return this.bytes.subarray(this.at, (this.at += size));
  }

  unsigned(size) {
    return this.take(size).readUIntBE(0, size);
  }

  array(count) {
    return Array.from({ length: count }, () => this.read());
  }

  map(count) {
    return Object.fromEntries(Array.from({ length: count }, () => [this.read(), this.read()]));
  }

  text(size) {
    return this.take(size).toString("utf-8");
  }
}

const READ = {
  0xc0: () => null,
  0xc2: () => false,
  0xc3: () => true,
  0xc4: (reader) => new Uint8Array(reader.take(reader.unsigned(1))),
  0xc5: (reader) => new Uint8Array(reader.take(reader.unsigned(2))),
  0xc6: (reader) => new Uint8Array(reader.take(reader.unsigned(4))),
  0xca: (reader) => reader.take(4).readFloatBE(),
  0xcb: (reader) => reader.take(8).readDoubleBE(),
  0xcc: (reader) => reader.unsigned(1),
  0xcd: (reader) => reader.unsigned(2),
  0xce: (reader) => reader.unsigned(4),
  0xcf: (reader) => Number(reader.take(8).readBigUInt64BE()),
  0xd0: (reader) => reader.take(1).readInt8(),
  0xd1: (reader) => reader.take(2).readInt16BE(),
  0xd2: (reader) => reader.take(4).readInt32BE(),
  0xd3: (reader) => Number(reader.take(8).readBigInt64BE()),
  0xd9: (reader) => reader.text(reader.unsigned(1)),
  0xda: (reader) => reader.text(reader.unsigned(2)),
  0xdb: (reader) => reader.text(reader.unsigned(4)),
  0xdc: (reader) => reader.array(reader.unsigned(2)),
  0xdd: (reader) => reader.array(reader.unsigned(4)),
  0xde: (reader) => reader.map(reader.unsigned(2)),
  0xdf: (reader) => reader.map(reader.unsigned(4)),
};
