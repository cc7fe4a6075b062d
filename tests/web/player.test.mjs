// The patterns of transcripts match what they should and nothing else, as those of tests/transcripts/test_player.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { pack, unpack } from "./messagepack.mjs";
import { toMsgpack, Values } from "./player.mjs";

const bytes = Uint8Array.of(0, 1, 2);

test("what matches", () => {
  for (const [pattern, value] of [
    [{ a: [1, { b: "x" }] }, { a: [1, { b: "x" }] }],
    [{ $any: "string" }, ""],
    [{ $any: "number" }, 2.5],
    [{ $about: 2 }, 2.9],
    [[{ $bind: "x" }, { $use: "x" }], ["v", "v"]],
    [{ data: { $bytes: "AAEC" } }, { data: bytes }],
    [{ id: 1, after: null }, { id: 1 }],
    [{ id: 1 }, { id: 1, after: null }],
    [{ data: null }, { data: null }],
  ]) assert.ok(new Values().matches(pattern, value), JSON.stringify(pattern));
});

test("what does not match", () => {
  for (const [pattern, value] of [
    [{ a: 1 }, { a: 1, b: 2 }],
    [{ a: 1, b: 2 }, { a: 1 }],
    [{ a: 1 }, [1]],
    [{}, undefined],
    [[1], [1, 2]],
    [[1], { 0: 1, length: 1 }],
    [1, true],
    [1, "1"],
    [{ $any: "string" }, 1],
    [{ $any: "number" }, true],
    [{ $about: 2 }, 3],
    [{ $about: 2 }, "2"],
    [{ $bind: "x" }, 1],
    [[{ $bind: "x" }, { $use: "x" }], ["v", "w"]],
    [[{ $bind: "x" }, { $bind: "x" }], ["v", "w"]],
    [{ data: { $bytes: "AAEC" } }, { data: "AAEC" }],
    [{ data: null }, {}],
    [{}, { data: null }],
    [{ data: { a: null } }, { data: {} }],
  ]) assert.ok(!new Values().matches(pattern, value), JSON.stringify(pattern));
});

test("an event is matched by the fields it names", () => {
  const seen = { event: "end", room: "a", error: { name: "Kicked", code: 4002 } };
  assert.ok(new Values().matches({ event: "end", error: { name: "Kicked" } }, seen, true));
  assert.ok(!new Values().matches({ event: "end", error: { name: "RequestRefused" } }, seen, true));
  assert.ok(!new Values().matches({ event: "end", error: null }, seen, true));
  assert.ok(!new Values().matches({ data: { a: 1 } }, { data: { a: 1, b: 2 } }, true));
});

test("a pattern is filled with what matches it", () => {
  const values = new Values();
  const pattern = { a: { $bind: "x" }, b: [{ $use: "x" }, { $bind: "y" }, { $any: "string" }, { $any: "number" }], c: { $bytes: "AA==" } };
  const filled = values.fill(pattern);
  assert.ok(values.matches(pattern, filled));
  assert.equal(filled.a, filled.b[0]);
  assert.notEqual(filled.a, filled.b[1]);
  assert.throws(() => values.fill({ $use: "z" }), /z is not bound yet/);
});

test("binary data is itself in MessagePack, wherever it stands", () => {
  const page = { type: "ok", messages: [{ data: "AAEC", encoding: "base64" }, { data: { encoding: "base64" } }] };
  assert.deepEqual(toMsgpack(page), { type: "ok", messages: [{ data: bytes }, { data: { encoding: "base64" } }] });
  assert.deepEqual(toMsgpack([{ data: "AAEC" }]), [{ data: "AAEC" }]);
});

test("MessagePack is read as it is written", () => {
  const value = { a: [null, true, false, 0, -1, 2 ** 40, 1.5, "ä😀", bytes], b: {} };
  assert.deepEqual(unpack(pack(value)), value);
  assert.deepEqual(unpack(Buffer.from("83a16101a1629102a163cb3ff8000000000000", "hex")), { a: 1, b: [2], c: 1.5 });
  assert.throws(() => unpack(Buffer.from("0101", "hex")), /1 bytes are left over/);
  assert.throws(() => unpack(Buffer.from("a261", "hex")), /ends too early/);
});
