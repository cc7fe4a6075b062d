// What the page shows, made of what the nodes say: rates from counts, totals, the largest of all, and what is wrong.

export const FORMAT = 1;
const ROWS = 20;
const NEARLY = 0.9; // of a bound
export const LATE = 0.25; // seconds of an event loop's lag that members notice

const COUNTED = ["offered", "sent", "dropped", "unsent", "slow_consumers"]; // by each policy of rooms

// Of one node, from one snapshot to the next; calls with the same snapshot change nothing.
class Meter {
  #before = null;
  #rates = new Map();

  update(snapshot) {
    const counts = countsOf(snapshot);
    const before = this.#before;
    if (before !== null && snapshot.uptime <= before.uptime) return;
    this.#rates = new Map();
    if (before !== null) {
      const seconds = snapshot.uptime - before.uptime;
      for (const [name, value] of counts) {
        const earlier = before.counts.get(name);
        if (earlier !== undefined) this.#rates.set(name, Math.max(0, value - earlier) / seconds);
      }
    }
    this.#before = { uptime: snapshot.uptime, counts };
  }

  rate(name) {
    return this.#rates.get(name) ?? null;
  }
}

function countsOf(snapshot) {
  const counts = new Map([["cpu", snapshot.cpu_seconds], ["received", snapshot.messages_received]]);
  for (const [policy, deliveries] of Object.entries(snapshot.deliveries)) {
    for (const what of COUNTED) counts.set(`${what} ${policy}`, deliveries[what]);
  }
  for (const what of ["offered", "dropped"]) {
    counts.set(what, sum(Object.values(snapshot.deliveries).map((deliveries) => deliveries[what])));
  }
  for (const room of snapshot.busy_rooms) counts.set(`room ${room.name}`, room.offered);
  return counts;
}

// The sum of what is known; null when nothing is.
export function sum(values) {
  const known = values.filter((value) => typeof value === "number");
  return known.length ? known.reduce((total, value) => total + value, 0) : null;
}

function highest(values) {
  const known = values.filter((value) => typeof value === "number");
  return known.length ? Math.max(...known) : null;
}

export class Model {
  #meters = new Map(); // by node

  // All that is to be shown, from the latest answer of the server.
  update(report) {
    if (report?.format !== FORMAT || !Array.isArray(report.nodes)) {
      throw new Error("this page is of another version than its server; reload it");
    }
    const before = this.#meters;
    this.#meters = new Map();
    const nodes = report.nodes.map((node) => {
      const meter = before.get(node.snapshot.node) ?? new Meter();
      if (!node.silent) meter.update(node.snapshot);
      this.#meters.set(node.snapshot.node, meter);
      return viewOf(node, meter);
    });
    const live = nodes.filter((node) => node.state !== "silent");
    return {
      totals: totalsOf(live),
      nodes,
      rooms: roomsOf(live),
      slow: slowOf(live),
      policies: policiesOf(live),
      problems: nodes.flatMap(problemsOf),
    };
  }
}

function stateOf({ snapshot, silent }) {
  if (silent) return "silent";
  if (snapshot.draining) return "draining";
  return snapshot.backplane_ready ? "up" : "cut off";
}

function viewOf(node, meter) {
  const { snapshot } = node;
  return {
    snapshot,
    meter,
    state: stateOf(node),
    age: node.age,
    received: meter.rate("received"),
    deliveries: meter.rate("offered"),
    dropped: meter.rate("dropped"),
    cpu: meter.rate("cpu"),
  };
}

function totalsOf(live) {
  const all = (name) => live.map((node) => node.snapshot[name]);
  return {
    connections: sum(all("connections")) ?? 0,
    rooms: sum(all("rooms")) ?? 0,
    members: sum(all("members")) ?? 0,
    queuedBytes: sum(all("queued_bytes")) ?? 0,
    refused: sum(all("refused_connections")) ?? 0,
    received: sum(live.map((node) => node.received)),
    deliveries: sum(live.map((node) => node.deliveries)),
    dropped: sum(live.map((node) => node.dropped)),
    // What is full on one node is full, however idle the others are.
    loopLag: highest(all("loop_lag")),
    cpu: highest(live.map((node) => node.cpu)),
    residentBytes: sum(all("resident_bytes")),
  };
}

function roomsOf(live) {
  const rooms = new Map();
  for (const { snapshot, meter } of live) {
    for (const { name, members, waiting } of snapshot.busy_rooms) {
      const room = rooms.get(name) ?? { name, members: 0, waiting: 0, deliveries: null, nodes: 0 };
      room.members += members;
      room.waiting += waiting;
      room.deliveries = sum([room.deliveries, meter.rate(`room ${name}`)]);
      room.nodes++;
      rooms.set(name, room);
    }
  }
  return [...rooms.values()].sort((a, b) => b.members - a.members || (a.name < b.name ? -1 : 1)).slice(0, ROWS);
}

function slowOf(live) {
  const slow = live.flatMap(({ snapshot }) => snapshot.slow_connections.map((one) => ({ ...one, node: snapshot.label })));
  return slow.sort((a, b) => b.queued_bytes - a.queued_bytes || (a.id < b.id ? -1 : 1)).slice(0, ROWS);
}

function policiesOf(live) {
  const names = new Set(live.flatMap(({ snapshot }) => Object.keys(snapshot.deliveries)));
  return [...names].map((name) => {
    const total = (what) => sum(live.map(({ snapshot }) => snapshot.deliveries[name]?.[what])) ?? 0;
    const rate = (what) => sum(live.map(({ meter }) => meter.rate(`${what} ${name}`)));
    return {
      name,
      offered: rate("offered"),
      sent: rate("sent"),
      dropped: rate("dropped"),
      queued: total("queued"),
      droppedInAll: total("dropped"),
      unsentInAll: total("unsent"),
      slowConsumers: total("slow_consumers"),
    };
  });
}

// Without numbers: a screen reader says what is new here, and not the same each second.
function problemsOf({ snapshot, state }) {
  const nearly = (value, bound) => typeof bound === "number" && typeof value === "number" && value >= bound * NEARLY;
  const found = [
    [state === "silent", "does not answer"],
    [state === "draining", "is draining"],
    [state === "cut off", "is cut off from its backplane"],
    [nearly(snapshot.connections, snapshot.max_connections), "has nearly as many connections as it takes"],
    [nearly(snapshot.open_files, snapshot.max_open_files), "has nearly as many files open as it may"],
    [nearly(snapshot.queued_bytes, snapshot.max_queued_bytes), "has nearly used up its memory for queues"],
    [snapshot.loop_lag >= LATE, "is late: its event loop has stood still for a while"],
  ];
  const mattering = state === "silent" ? found.slice(0, 1) : found;
  return mattering.filter(([is]) => is).map(([, what]) => ({ node: snapshot.label, what }));
}

const HELD = 10; // seconds

// What is wrong stays for a while after it is over: what comes and goes with each look can be read by nobody, and all
// that stands below would jump.
export class Holder {
  #until = new Map();

  // What is to be shown now that there is this.
  hold(texts, now) {
    for (const text of texts) this.#until.set(text, now + HELD);
    for (const [text, until] of this.#until) {
      if (until <= now) this.#until.delete(text);
    }
    return [...this.#until.keys()];
  }
}
