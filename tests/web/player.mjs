// What tests/transcripts/player.py is for Python: the golden transcripts, and the matching of their patterns.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

const PATH = new URL("../transcripts/v1.json", import.meta.url);

export const TRANSCRIPTS = JSON.parse(readFileSync(PATH, "utf-8")).filter((transcript) => !transcript.server_only);

const ANY = { string: "any", number: 100 };
const isObject = (value) => typeof value === "object" && value !== null && !(value instanceof Uint8Array);
const fromBase64 = (text) => new Uint8Array(Buffer.from(text, "base64"));
const mapFields = (object, fn) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, fn(value, key)]));

/** What the client has to show, one connection after another. */
export const tokensOf = ({ steps }) =>
  steps.filter(({ connect }) => connect).flatMap(({ connect: { token, later = [] } }) => [token, ...later]);

/** What the names of a transcript stand for in this run. */
export class Values {
  #bound = new Map();

  /** A value that matches `pattern`. */
  fill(pattern) {
    if (Array.isArray(pattern)) return pattern.map((item) => this.fill(item));
    if (!isObject(pattern)) return pattern;
    if ("$any" in pattern) return ANY[pattern.$any];
    if ("$about" in pattern) return pattern.$about;
    if ("$bind" in pattern) return this.#bind(pattern.$bind, `${pattern.$bind}-${this.#bound.size}`);
    if ("$use" in pattern) return this.#use(pattern.$use);
    if ("$bytes" in pattern) return fromBase64(pattern.$bytes);
    return mapFields(pattern, (value) => this.fill(value));
  }

  /** Whether `value` is as `pattern` says; with `partly` further fields do not matter, as in an `event`. */
  matches(pattern, value, partly = false) {
    if (Array.isArray(pattern)) {
      return Array.isArray(value) && value.length === pattern.length && pattern.every((item, at) => this.matches(item, value[at]));
    }
    if (!isObject(pattern)) return isDeepStrictEqual(pattern, value);
    if ("$any" in pattern) return typeof value === pattern.$any;
    if ("$about" in pattern) return typeof value === "number" && Math.abs(value - pattern.$about) < 1;
    if ("$bind" in pattern) return typeof value === "string" && this.#bind(pattern.$bind, value) === value;
    if ("$use" in pattern) return this.#use(pattern.$use) === value;
    if ("$bytes" in pattern) return isDeepStrictEqual(fromBase64(pattern.$bytes), value);
    return isObject(value) && !Array.isArray(value) && this.#fieldsMatch(pattern, withoutNull(value), partly);
  }

  #fieldsMatch(pattern, value, partly) {
    if (!partly && Object.keys(withoutNull(pattern)).length !== Object.keys(value).length) return false;
    return Object.entries(pattern).every(([key, expected]) => {
      if (!Object.hasOwn(value, key)) return expected === null && key !== "data";
      if (key === "data") return isDeepStrictEqual(this.fill(expected), value.data); // null counts within it too
      return this.matches(expected, value[key], partly && (key === "error" || key === "value"));
    });
  }

  #bind(name, value) {
    if (!this.#bound.has(name)) this.#bound.set(name, value);
    return this.#bound.get(name);
  }

  #use(name) {
    assert.ok(this.#bound.has(name), `${name} is not bound yet`);
    return this.#bound.get(name);
  }
}

const withoutNull = (fields) =>
  Object.fromEntries(Object.entries(fields).filter(([key, value]) => key === "data" || (value !== null && value !== undefined)));

/** An envelope of a transcript as MessagePack has it: binary data as it is, in a page of a history too. */
export function toMsgpack(envelope) {
  if (Array.isArray(envelope)) return envelope.map(toMsgpack);
  if (!isObject(envelope)) return envelope;
  const { encoding, ...fields } = mapFields(envelope, (value, key) => (key === "data" ? value : toMsgpack(value)));
  if (encoding === undefined) return fields;
  return encoding === "base64" ? { ...fields, data: fromBase64(fields.data) } : { ...fields, encoding };
}
