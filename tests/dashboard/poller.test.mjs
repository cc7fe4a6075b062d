// When the page asks, and what it says of that.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Poller, WrongKey } from "../../trioroom/dashboard/poller.js";

let asked, told, answer, poller;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  asked = [];
  told = [];
  answer = async () => "report";
  poller = new Poller((signal) => (asked.push(signal), answer(signal)), (what) => told.push(what));
});

afterEach(() => mock.timers.reset());

const settle = async () => {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
};

async function pass(milliseconds) {
  mock.timers.tick(milliseconds);
  await settle();
}

test("asks at once, and then each second", async () => {
  poller.start();
  await settle();
  assert.deepEqual(told, [{ state: "live", report: "report" }]);
  await pass(999);
  assert.equal(asked.length, 1);
  await pass(1);
  assert.equal(asked.length, 2);
});

test("time that an answer takes counts", async () => {
  answer = () => new Promise((resolve) => setTimeout(resolve, 600, "report"));
  poller.start();
  await pass(600);
  assert.equal(told.length, 1);
  await pass(400);
  assert.equal(asked.length, 2);
});

test("a hidden page asks nothing, and at once when it is shown again", async () => {
  poller.start();
  await settle();
  poller.stop();
  await pass(60_000);
  assert.equal(asked.length, 1);
  assert.equal(told.at(-1).state, "paused");
  poller.start();
  await settle();
  assert.equal(asked.length, 2);
});

test("an answer that comes when nobody looks any more is not told", async () => {
  let resolve;
  answer = () => new Promise((done) => (resolve = done));
  poller.start();
  poller.stop();
  assert.ok(asked[0].aborted);
  resolve("late");
  await settle();
  assert.deepEqual(told, [{ state: "paused" }]);
  await pass(10_000);
  assert.equal(asked.length, 1);
});

test("starting twice asks once", async () => {
  poller.start();
  poller.start();
  await settle();
  poller.start();
  assert.equal(asked.length, 1);
});

test("failures are told, and pauses grow up to fifteen seconds", async () => {
  answer = async () => {
    throw new Error("broken");
  };
  poller.start();
  await settle();
  const pauses = [];
  for (let failure = 0; failure < 6; failure++) {
    const { state, error, retryIn } = told.at(-1);
    assert.deepEqual([state, error.message], ["failing", "broken"]);
    pauses.push(retryIn);
    await pass(retryIn * 1000);
  }
  assert.deepEqual(pauses, [1, 2, 4, 8, 15, 15]);
  answer = async () => "back";
  await pass(15_000);
  assert.deepEqual(told.at(-1), { state: "live", report: "back" });
  await pass(1000);
  assert.equal(told.at(-1).state, "live");
});

test("a server that says nothing is given up after eight seconds", async () => {
  answer = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  poller.start();
  await pass(8_000);
  assert.match(told.at(-1).error.message, /no answer within 8 s/);
});

test("a key that is refused is shown once", async () => {
  answer = async () => {
    throw new WrongKey("another key");
  };
  poller.start();
  await settle();
  poller.stop();
  poller.start();
  await pass(60_000);
  assert.equal(asked.length, 1);
  assert.deepEqual(told.map(({ state }) => state), ["locked"]);
});

test("what cannot be shown is a failure, not the end", async () => {
  poller = new Poller(async () => "report", (what) => {
    told.push(what);
    if (what.report) throw new Error("of another version");
  });
  poller.start();
  await settle();
  assert.deepEqual(told.map(({ state }) => state), ["live", "failing"]);
});
