// Values over the last minutes, and the line that they make.

const SPAN = 300; // seconds
const LEAST_SPAN = 60; // that a line shows, before there is more
const LONGEST_STEP = 4; // seconds between two values that one line joins: beyond that nobody looked

export class Series {
  #points = []; // [seconds, value], the oldest one first; the value is null where it is not known

  push(at, value) {
    this.#points.push([at, value ?? null]);
    while (this.#points[0][0] < at - SPAN - LONGEST_STEP) this.#points.shift();
  }

  // The value that was the latest one at a moment; undefined where nobody looked.
  valueAt(moment) {
    for (let index = this.#points.length - 1; index >= 0; index--) {
      const [at, value] = this.#points[index];
      if (at <= moment) return moment - at <= LONGEST_STEP ? value : undefined;
    }
    return undefined;
  }

  // Seconds that there is something to show of; it grows with what there is, up to five minutes.
  span(now) {
    return Math.min(SPAN, Math.max(LEAST_SPAN, now - (this.#points[0]?.[0] ?? now)));
  }

  get highest() {
    return this.#points.reduce((highest, [, value]) => Math.max(highest, value ?? 0), 0);
  }

  // Pieces of [seconds, value] that are each one line.
  pieces() {
    const pieces = [];
    let last = -Infinity;
    for (const [at, value] of this.#points) {
      if (value === null) {
        last = -Infinity;
        continue;
      }
      if (at - last > LONGEST_STEP) pieces.push([]);
      pieces.at(-1).push([at, value]);
      last = at;
    }
    return pieces;
  }
}

// Paths of a line and of the area below it, in a box; now is its right edge, and top the value at its upper one.
export function paths(series, now, width, height, top) {
  const span = series.span(now);
  const x = (at) => round(width * (1 - (now - at) / span));
  const y = (value) => round(height - (height - 1) * (top > 0 ? Math.min(1, value / top) : 0));
  let line = "";
  let area = "";
  for (const piece of series.pieces()) {
    const steps = piece.map(([at, value]) => `${x(at)} ${y(value)}`);
    if (steps.length === 1) steps.push(`${x(piece[0][0] + 1)} ${y(piece[0][1])}`); // one value is a dash
    line += `M${steps.join("L")}`;
    area += `M${x(piece[0][0])} ${height}L${steps.join("L")}L${x(piece.at(-1)[0])} ${height}Z`;
  }
  return { line, area };
}

const round = (value) => Math.round(value * 10) / 10;
