// From what nodes say to what is shown.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Holder, Model } from "../../trioroom/dashboard/model.js";

const POLICY = { offered: 0, sent: 0, queued: 0, dropped: 0, unsent: 0, slow_consumers: 0 };

const snapshot = (node, uptime, more = {}) => ({
  node, label: `host:${node}`, version: "0.1.0", time: 0, uptime, draining: false, backplane_ready: true,
  connections: 0, max_connections: 1000, refused_connections: 0, rooms: 0, members: 0, messages_received: 0,
  deliveries: { disconnect: POLICY, latest: POLICY }, queued_bytes: 0, max_queued_bytes: 1e6, loop_lag: 0.001, cpu_seconds: 0,
  resident_bytes: 1000, open_files: 10, max_open_files: 1000, busy_rooms: [], slow_connections: [], ...more,
});
const report = (...snapshots) => ({ format: 1, nodes: snapshots.map((one) => ({ snapshot: one, age: 0, silent: false })) });
const delivered = (more) => ({ deliveries: { disconnect: { ...POLICY, ...more }, latest: POLICY } });

test("counts become rates by the node's own time", () => {
  const model = new Model();
  const first = model.update(report(snapshot("a", 10, { messages_received: 100, cpu_seconds: 3, ...delivered({ offered: 50 }) })));
  assert.equal(first.totals.received, null);
  const { totals } = model.update(report(snapshot("a", 12, { messages_received: 130, cpu_seconds: 4, ...delivered({ offered: 90, dropped: 4 }) })));
  assert.deepEqual([totals.received, totals.deliveries, totals.dropped, totals.cpu], [15, 20, 2, 0.5]);
});

test("the same snapshot again changes no rate", () => {
  const model = new Model();
  model.update(report(snapshot("a", 10, { messages_received: 0 })));
  model.update(report(snapshot("a", 11, { messages_received: 7 })));
  assert.equal(model.update(report(snapshot("a", 11, { messages_received: 7 }))).totals.received, 7);
});

test("totals add what adds up, and take the worst of what does not", () => {
  const model = new Model();
  const nodes = (uptime, cpu) => report(
    snapshot("a", uptime, { connections: 3, members: 4, rooms: 1, loop_lag: 0.5, cpu_seconds: cpu, messages_received: uptime }),
    snapshot("b", uptime, { connections: 2, members: 2, rooms: 1, loop_lag: 0.001, cpu_seconds: cpu / 2, messages_received: uptime }));
  model.update(nodes(1, 0));
  const { totals } = model.update(nodes(2, 0.8));
  assert.equal(totals.connections, 5);
  assert.equal(totals.members, 6);
  assert.equal(totals.residentBytes, 2000);
  assert.equal(totals.received, 2);
  assert.equal(totals.loopLag, 0.5);
  assert.equal(totals.cpu, 0.8);
});

test("what no node tells is not known", () => {
  const { totals } = new Model().update(report(snapshot("a", 1, { resident_bytes: null })));
  assert.equal(totals.residentBytes, null);
});

test("a node that comes adds no burst, and one that starts again begins anew", () => {
  const model = new Model();
  model.update(report(snapshot("a", 1)));
  const { totals } = model.update(report(snapshot("a", 2, { messages_received: 10 }), snapshot("b", 500, { messages_received: 1e6 })));
  assert.equal(totals.received, 10);
  model.update(report(snapshot("c", 1, { messages_received: 3 })));
  assert.equal(model.update(report(snapshot("c", 2, { messages_received: 4 }))).totals.received, 1);
});

test("a silent node is shown and not counted", () => {
  const model = new Model();
  const both = report(snapshot("a", 1, { connections: 1 }), snapshot("b", 1, { connections: 10 }));
  both.nodes[1] = { ...both.nodes[1], silent: true, age: 4 };
  const view = model.update(both);
  assert.equal(view.totals.connections, 1);
  assert.deepEqual(view.nodes.map(({ state, age }) => [state, age]), [["up", 0], ["silent", 4]]);
  assert.deepEqual(view.problems, [{ node: "host:b", what: "does not answer" }]);
});

test("rooms of the same name are one, the largest first", () => {
  const model = new Model();
  const room = (name, members, offered) => ({ name, members, waiting: 1, offered });
  const nodes = (uptime, offered) => report(
    snapshot("a", uptime, { busy_rooms: [room("x", 1, offered), room("y", 2, 0)] }),
    snapshot("b", uptime, { busy_rooms: [room("x", 5, offered)] }));
  assert.equal(model.update(nodes(1, 0)).rooms[0].deliveries, null);
  assert.deepEqual(model.update(nodes(2, 6)).rooms, [
    { name: "x", members: 6, waiting: 2, deliveries: 12, nodes: 2 },
    { name: "y", members: 2, waiting: 1, deliveries: 0, nodes: 1 },
  ]);
});

test("a room's name is only a name", () => {
  const model = new Model();
  const room = { name: "__proto__", members: 1, waiting: 0, offered: 0 };
  model.update(report(snapshot("a", 1, { busy_rooms: [room] })));
  assert.equal(model.update(report(snapshot("a", 2, { busy_rooms: [{ ...room, offered: 3 }] }))).rooms[0].deliveries, 3);
});

test("slow connections of all nodes are told with the node, those with most first", () => {
  const slow = (id, queued_bytes) => ({ id, messages: 1, queued_bytes, age: 1 });
  const { slow: told } = new Model().update(report(
    snapshot("a", 1, { slow_connections: [slow("1", 10), slow("2", 5)] }), snapshot("b", 1, { slow_connections: [slow("3", 7)] })));
  assert.deepEqual(told.map(({ id, node }) => [id, node]), [["1", "host:a"], ["3", "host:b"], ["2", "host:a"]]);
});

test("no table has more than twenty rows of what may be very many", () => {
  const rooms = Array.from({ length: 20 }, (_, index) => ({ name: `room/${index}`, members: index, waiting: 0, offered: 0 }));
  const others = rooms.map((room) => ({ ...room, name: `other/${room.name}` }));
  const view = new Model().update(report(snapshot("a", 1, { busy_rooms: rooms }), snapshot("b", 1, { busy_rooms: others })));
  assert.equal(view.rooms.length, 20);
});

test("policies have rates, and what they have come to", () => {
  const model = new Model();
  model.update(report(snapshot("a", 1)));
  const { policies } = model.update(report(snapshot("a", 3, delivered({ offered: 20, sent: 10, queued: 4, dropped: 6, unsent: 2, slow_consumers: 1 }))));
  assert.deepEqual(policies[0], {
    name: "disconnect", offered: 10, sent: 5, dropped: 3, queued: 4, droppedInAll: 6, unsentInAll: 2, slowConsumers: 1,
  });
  assert.equal(policies[1].offered, 0);
});

for (const [what, more] of [
  ["is draining", { draining: true }],
  ["is cut off from its backplane", { backplane_ready: false }],
  ["has nearly as many connections as it takes", { connections: 901 }],
  ["has nearly as many files open as it may", { open_files: 999 }],
  ["has nearly used up its memory for queues", { queued_bytes: 950_000 }],
  ["is late: its event loop has stood still for a while", { loop_lag: 0.3 }],
]) {
  test(`a node that ${what} is told`, () => {
    assert.deepEqual(new Model().update(report(snapshot("a", 1, more))).problems, [{ node: "host:a", what }]);
  });
}

test("a node without bounds nears none", () => {
  const free = { max_connections: null, max_open_files: null, max_queued_bytes: null, open_files: null };
  assert.deepEqual(new Model().update(report(snapshot("a", 1, free))).problems, []);
});

test("a report of another format is an error that says what to do", () => {
  assert.throws(() => new Model().update({ format: 2, nodes: [] }), /reload/);
  assert.throws(() => new Model().update({}), /reload/);
});

test("a problem stays for ten seconds after it is over, where it was", () => {
  const holder = new Holder();
  assert.deepEqual(holder.hold(["late", "full"], 0), ["late", "full"]);
  assert.deepEqual(holder.hold(["full"], 5), ["late", "full"]);
  assert.deepEqual(holder.hold(["full", "late"], 9), ["late", "full"]);
  assert.deepEqual(holder.hold(["late"], 18), ["late", "full"]);
  assert.deepEqual(holder.hold([], 19), ["late"]);
  assert.deepEqual(holder.hold([], 28), []);
});
