// The figures with their lines: one tile each, and a moment of the past that all of them show while one is pointed at.

import { element, setText, shape } from "./dom.js";
import { bytes, count, NOTHING, percent, rate, seconds } from "./format.js";
import { LATE } from "./model.js";
import { paths, Series } from "./series.js";

const WIDTH = 300; // of a line's box, which the style sheet stretches
const HEIGHT = 56;

// What of the totals, how it is called, how it is written, and its unit where the writing has none. A line that never
// leaves a small value would fill its box with noise: `least` is the lowest value that does.
const FIGURES = [
  { of: "connections", label: "Connections", write: count, least: 10 },
  { of: "members", label: "Members", write: count, least: 10, hint: "Places in rooms; a connection may have several" },
  { of: "rooms", label: "Active rooms", write: count, least: 10, hint: "A room counts once for each node that it is active on" },
  { of: "received", label: "Messages in", write: rate, unit: "/s", least: 10, hint: "From members; requests, in protocol v1" },
  { of: "deliveries", label: "Deliveries", write: rate, unit: "/s", least: 10, hint: "Messages times the members they are for" },
  { of: "dropped", label: "Dropped", write: rate, unit: "/s", least: 1, bad: (value) => value > 0, hint: "Deliveries given up because a member did not keep up" },
  { of: "queuedBytes", label: "Queued", write: bytes, least: 65_536, hint: "Memory of all that waits for members, and of messages that rooms keep" },
  { of: "loopLag", label: "Event-loop lag", write: seconds, least: 0.02, bad: (value) => value >= LATE, hint: "How late the latest node's event loop came at most" },
  { of: "cpu", label: "CPU, busiest node", write: percent, least: 1, hint: "Of one core; a node cannot use more than a little over one" },
  { of: "residentBytes", label: "Memory", write: bytes, least: 1 << 20, hint: "Resident, of all nodes" },
];

class Tile {
  #series = new Series();
  #figure;
  #number = element("span", "number", NOTHING);
  #range = element("span", "range", "");
  #line = shape("path", "line");
  #area = shape("path", "area");
  #cursor = shape("line", "cursor");
  #plot = shape("svg", "plot");

  constructor(figure) {
    this.#figure = figure;
    this.element = element("li", "tile");
    const label = element("h3", "label", figure.label);
    if (figure.hint) label.title = figure.hint;
    const value = element("p", "value");
    value.append(this.#number, element("span", "unit", figure.unit ?? ""), this.#range);
    this.#plot.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#plot.setAttribute("preserveAspectRatio", "none");
    this.#plot.setAttribute("aria-hidden", "true");
    this.#cursor.setAttribute("y2", String(HEIGHT));
    this.#plot.append(this.#area, this.#line, this.#cursor);
    this.element.append(label, value, this.#plot);
  }

  push(at, totals) {
    this.#series.push(at, totals[this.#figure.of]);
  }

  // At `now`, or as it was some seconds ago.
  draw(now, ago) {
    const { write, unit, least, bad } = this.#figure;
    const highest = this.#series.highest;
    const { line, area } = paths(this.#series, now, WIDTH, HEIGHT, Math.max(least, highest * 1.08));
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    const value = this.#series.valueAt(now - (ago ?? 0));
    setText(this.#number, write(value));
    setText(this.#range, highest > 0 ? `max ${write(highest)}${unit ?? ""}` : "");
    this.element.classList.toggle("bad", bad !== undefined && bad(value));
    this.#plot.classList.toggle("pointed", ago !== null);
    if (ago !== null) {
      const x = String(WIDTH * (1 - ago / this.#series.span(now)));
      this.#cursor.setAttribute("x1", x);
      this.#cursor.setAttribute("x2", x);
    }
  }

  span(now) {
    return this.#series.span(now);
  }

  // How many seconds ago a point of the screen is here; null where there is no line.
  agoAt(x, now) {
    const box = this.#plot.getBoundingClientRect();
    const share = (x - box.left) / box.width;
    return share >= 0 && share <= 1 ? this.#series.span(now) * (1 - share) : null;
  }
}

export class Tiles {
  #tiles = FIGURES.map((figure) => new Tile(figure));
  #now = 0;
  #ago = null; // where the pointer is
  #moment; // the words that tell it

  constructor(list, moment) {
    this.#moment = moment;
    list.append(...this.#tiles.map((tile) => tile.element));
    list.addEventListener("pointermove", (event) => this.#point(event));
    list.addEventListener("pointerleave", () => this.#point(null));
  }

  push(now, totals) {
    this.#now = now;
    for (const tile of this.#tiles) tile.push(now, totals);
    this.#draw();
  }

  #point(event) {
    const tile = event && this.#tiles.find((tile) => tile.element.contains(event.target));
    this.#ago = tile ? tile.agoAt(event.clientX, this.#now) : null;
    this.#draw();
  }

  #draw() {
    for (const tile of this.#tiles) tile.draw(this.#now, this.#ago);
    setText(this.#moment, this.#ago === null ? lastMinutes(this.#tiles[0].span(this.#now)) : agoInWords(this.#ago));
  }
}

function lastMinutes(span) {
  const minutes = Math.ceil(span / 60 - 0.01);
  return minutes > 1 ? `the last ${minutes} minutes` : "the last minute";
}

function agoInWords(ago) {
  const whole = Math.round(ago);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min ago`;
}
