// The lines.

import assert from "node:assert/strict";
import { test } from "node:test";

import { paths, Series } from "../../trioroom/dashboard/series.js";

const seriesOf = (...points) => {
  const series = new Series();
  for (const [at, value] of points) series.push(at, value);
  return series;
};

test("values that are older than five minutes go", () => {
  const series = new Series();
  for (let at = 0; at <= 1000; at++) series.push(at, at);
  const [piece] = series.pieces();
  assert.equal(piece[0][0], 696); // and a few for the line to begin at the edge
  assert.equal(series.highest, 1000);
});

test("where nobody looked, and where nothing is known, there is no line", () => {
  const series = seriesOf([0, 1], [1, 2], [20, 3], [21, null], [22, 5]);
  assert.deepEqual(series.pieces(), [[[0, 1], [1, 2]], [[20, 3]], [[22, 5]]]);
});

test("a moment has the latest value before it, if that is not long ago", () => {
  const series = seriesOf([0, 1], [1, 2], [20, 3]);
  assert.equal(series.valueAt(0.5), 1);
  assert.equal(series.valueAt(1), 2);
  assert.equal(series.valueAt(10), undefined);
  assert.equal(series.valueAt(-1), undefined);
  assert.equal(series.valueAt(20), 3);
});

test("a line shows a minute at first, and grows to five", () => {
  assert.equal(seriesOf([100, 1]).span(110), 60);
  assert.equal(seriesOf([100, 1]).span(220), 120);
  assert.equal(seriesOf([100, 1]).span(900), 300);
  assert.equal(new Series().span(900), 60);
});

test("line and area go from the bottom to the top of their box", () => {
  const { line, area } = paths(seriesOf([40, 0], [41, 10], [42, 20]), 100, 60, 11, 10);
  assert.equal(line, "M0 11L1 1L2 1"); // what is above the top is at the top
  assert.equal(area, "M0 11L0 11L1 1L2 1L2 11Z");
});

test("one value is a dash, and none is nothing", () => {
  assert.equal(paths(seriesOf([100, 5]), 100, 60, 11, 10).line, "M60 6L61 6");
  assert.deepEqual(paths(new Series(), 100, 60, 11, 10), { line: "", area: "" });
});
