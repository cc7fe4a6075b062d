// Numbers as people read them. Each is short enough for its cell, however large it gets.

export const NOTHING = "–"; // not known, or not yet

const SCALES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];
const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SPACE = "\u00a0"; // between a number and its unit no line breaks

const known = (value) => typeof value === "number" && Number.isFinite(value);

// Three digits that count, so that what changes each second keeps its width.
function three(value) {
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toFixed(digits);
}

// A whole number: 9,999 as it is, 12.3k from ten thousand on.
export function count(value) {
  if (!known(value)) return NOTHING;
  if (value < 9_999.5) return GROUPED.format(value);
  return scaled(value);
}

function scaled(value) {
  const [scale, letter] = SCALES.find(([scale]) => value >= scale * 0.9995) ?? [1, ""];
  return three(value / scale) + letter;
}

// What happens in a second.
export function rate(value) {
  if (!known(value)) return NOTHING;
  if (value === 0) return "0";
  if (value < 0.05) return "<0.1";
  if (value < 9.95) return value.toFixed(1);
  return count(value);
}

export function bytes(value) {
  if (!known(value)) return NOTHING;
  let power = 0;
  while (value >= 1023.5 && power < BYTES.length - 1) {
    value /= 1024;
    power++;
  }
  return `${power === 0 ? value.toFixed(0) : three(value)}${SPACE}${BYTES[power]}`;
}

// A short time, such as a lag.
export function seconds(value) {
  if (!known(value)) return NOTHING;
  if (value < 0.00005) return `0${SPACE}ms`;
  if (value < 0.00995) return `${(value * 1000).toFixed(1)}${SPACE}ms`;
  if (value < 0.9995) return `${(value * 1000).toFixed(0)}${SPACE}ms`;
  return value < 99.95 ? `${value.toFixed(1)}${SPACE}s` : duration(value);
}

// A long time, such as since a start: its two largest units.
export function duration(value) {
  if (!known(value)) return NOTHING;
  const whole = Math.floor(value);
  const parts = [[Math.floor(whole / 86_400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([number]) => number > 0);
  if (first < 0) return `0${SPACE}s`;
  return parts.slice(first, first + 2).map(([number, unit]) => `${number}${SPACE}${unit}`).join(" ");
}

export function percent(share) {
  if (!known(share)) return NOTHING;
  return `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)}${SPACE}%`;
}

// So many of so many, where there is a bound.
export function of(value, bound) {
  return known(bound) ? `${count(value)} / ${count(bound)}` : count(value);
}
