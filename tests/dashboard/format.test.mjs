// How numbers are written.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bytes, count, duration, NOTHING, of, percent, rate, seconds } from "../../trioroom/dashboard/format.js";

const table = (write, rows) => {
  for (const [value, text] of rows) assert.equal(write(value).replaceAll("\u00a0", " "), text, `${write.name}(${value})`);
};

test("whole numbers are short from ten thousand on", () => {
  table(count, [[0, "0"], [999, "999"], [9_999, "9,999"], [10_000, "10.0k"], [99_949, "99.9k"], [99_960, "100k"], [999_400, "999k"],
    [999_600, "1.00M"], [1_001_000, "1.00M"], [12_345_678, "12.3M"], [7e9, "7.00G"], [3e15, "3000T"]]);
});

test("rates have a decimal where it counts", () => {
  table(rate, [[0, "0"], [0.04, "<0.1"], [0.5, "0.5"], [9.94, "9.9"], [9.96, "10"], [1_388_000, "1.39M"]]);
});

test("bytes go by 1024", () => {
  table(bytes, [[0, "0 B"], [1_023, "1023 B"], [1_024, "1.00 KiB"], [65_536, "64.0 KiB"], [256 << 20, "256 MiB"], [1_048_550, "1.00 MiB"],
    [3e15, "2728 TiB"]]);
});

test("short times have two digits or more", () => {
  table(seconds, [[0, "0 ms"], [0.0004, "0.4 ms"], [0.012, "12 ms"], [0.9994, "999 ms"], [0.9996, "1.0 s"], [12.34, "12.3 s"], [100, "1 min 40 s"]]);
});

test("long times have their two largest units", () => {
  table(duration, [[0.5, "0 s"], [59, "59 s"], [60, "1 min 0 s"], [3_661, "1 h 1 min"], [90_061, "1 d 1 h"], [86_400 * 400, "400 d 0 h"]]);
});

test("shares are percents", () => {
  table(percent, [[0, "0 %"], [0.004, "0.4 %"], [0.0994, "9.9 %"], [0.0996, "10 %"], [1.02, "102 %"]]);
});

test("what is not known is a dash", () => {
  for (const write of [count, rate, bytes, seconds, duration, percent]) {
    for (const value of [null, undefined, NaN, Infinity, "1"]) assert.equal(write(value), NOTHING);
  }
  assert.equal(of(5, null), "5");
  assert.equal(of(5, 20_000), "5 / 20.0k");
  assert.equal(of(null, null), NOTHING);
});
