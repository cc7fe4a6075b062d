// Tables whose cells are written anew and whose rows stay.

import { element, setText } from "./dom.js";
import { bytes, count, duration, NOTHING, of, percent, rate, seconds } from "./format.js";
import { LATE } from "./model.js";

const TABLES = {
  nodes: {
    title: "Nodes",
    columns: [
      { label: "Node", value: ({ snapshot }) => snapshot.label, kind: "name" },
      { label: "State", value: ({ state, age }) => (state === "silent" ? `silent for ${duration(age)}` : state), kind: "state" },
      { label: "Connections", value: ({ snapshot }) => of(snapshot.connections, snapshot.max_connections) },
      { label: "Members", value: ({ snapshot }) => count(snapshot.members) },
      { label: "Rooms", value: ({ snapshot }) => count(snapshot.rooms) },
      { label: "In /s", value: ({ received }) => rate(received) },
      { label: "Deliveries /s", value: ({ deliveries }) => rate(deliveries) },
      { label: "Dropped /s", value: ({ dropped }) => rate(dropped), bad: ({ dropped }) => dropped > 0 },
      { label: "Queued", value: ({ snapshot }) => bytes(snapshot.queued_bytes) },
      { label: "Refused", value: ({ snapshot }) => count(snapshot.refused_connections) },
      { label: "Lag", value: ({ snapshot }) => seconds(snapshot.loop_lag), bad: ({ snapshot }) => snapshot.loop_lag >= LATE },
      { label: "CPU", value: ({ cpu }) => percent(cpu) },
      { label: "Memory", value: ({ snapshot }) => bytes(snapshot.resident_bytes) },
      { label: "Files", value: ({ snapshot }) => of(snapshot.open_files, snapshot.max_open_files) },
      { label: "Up", value: ({ snapshot }) => duration(snapshot.uptime) },
      { label: "Version", value: ({ snapshot }) => snapshot.version, kind: "text" },
    ],
  },
  rooms: {
    title: "Largest rooms",
    nothing: "No room is active.",
    columns: [
      { label: "Room", value: ({ name }) => name, kind: "name" },
      { label: "Members", value: ({ members }) => count(members) },
      { label: "Deliveries /s", value: ({ deliveries }) => rate(deliveries) },
      { label: "Waiting", value: ({ waiting }) => count(waiting), hint: "Publications that wait for the fan-out" },
      { label: "Nodes", value: ({ nodes }) => count(nodes) },
    ],
  },
  slow: {
    title: "Slow consumers",
    nothing: "Nobody is behind.",
    columns: [
      { label: "Connection", value: ({ id }) => id, kind: "id" },
      { label: "Queued", value: ({ queued_bytes }) => bytes(queued_bytes) },
      { label: "Messages", value: ({ messages }) => count(messages) },
      { label: "Behind", value: ({ age }) => seconds(age) },
      { label: "Node", value: ({ node }) => node, kind: "text" },
    ],
  },
  policies: {
    title: "Deliveries by policy",
    columns: [
      { label: "Overflow", value: ({ name }) => name, kind: "id" },
      { label: "Offered /s", value: ({ offered }) => rate(offered) },
      { label: "Sent /s", value: ({ sent }) => rate(sent) },
      { label: "Dropped /s", value: ({ dropped }) => rate(dropped), bad: ({ dropped }) => dropped > 0 },
      { label: "Queued now", value: ({ queued }) => count(queued) },
      { label: "Dropped in all", value: ({ droppedInAll }) => count(droppedInAll) },
      { label: "Unsent in all", value: ({ unsentInAll }) => count(unsentInAll), hint: "Given up because the connection ended" },
      { label: "Closed as slow", value: ({ slowConsumers }) => count(slowConsumers), hint: "Members closed with 4108" },
    ],
  },
};

class Table {
  #columns;
  #body = element("tbody");
  #nothing;

  constructor(section, { title, columns, nothing }) {
    this.#columns = columns;
    const heading = element("h2", "", title);
    heading.id = `${section.id}-title`;
    section.setAttribute("aria-labelledby", heading.id);
    const head = element("tr");
    for (const { label, kind, hint } of columns) {
      const cell = element("th", kind ?? "", label);
      cell.scope = "col";
      if (hint) cell.title = hint;
      head.append(cell);
    }
    const top = element("thead");
    top.append(head);
    const table = element("table");
    table.setAttribute("aria-labelledby", heading.id);
    table.append(top, this.#body);
    // It may be wider than the window: then it is moved by keys too.
    const frame = element("div", "frame");
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-labelledby", heading.id);
    frame.append(table);
    this.#nothing = element("p", "nothing", nothing ?? "");
    section.append(heading, frame);
    frame.append(this.#nothing);
  }

  draw(rows) {
    while (this.#body.rows.length > rows.length) this.#body.deleteRow(-1);
    while (this.#body.rows.length < rows.length) this.#body.append(this.#newRow());
    rows.forEach((row, index) => this.#write(this.#body.rows[index], row));
    this.#nothing.hidden = rows.length > 0;
  }

  #newRow() {
    const row = element("tr");
    this.#columns.forEach(({ kind }, index) => {
      const cell = element(index ? "td" : "th", kind ?? "");
      if (!index) cell.scope = "row";
      row.append(cell);
    });
    return row;
  }

  #write(row, values) {
    row.dataset.state = values.state ?? "";
    this.#columns.forEach(({ value, kind, bad }, index) => {
      const cell = row.cells[index];
      const text = value(values);
      setText(cell, text);
      cell.classList.toggle("idle", text === "0" || text === NOTHING);
      if (kind === "name" && cell.title !== text) cell.title = text; // it may be cut off
      if (bad) cell.classList.toggle("bad", bad(values));
    });
  }
}

export class Tables {
  #tables = new Map(Object.entries(TABLES).map(([id, table]) => [id, new Table(document.getElementById(id), table)]));

  draw(view) {
    for (const [id, table] of this.#tables) table.draw(view[id]);
  }
}
