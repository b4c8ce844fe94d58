/** A slice with its colour bar, and a series, as SVG. */

import { type Axis, formatNumber, formatPower, formatTime, powerOf } from "./store.js";

// Anchors of the colour map viridis (Smith and van der Walt), from low to high.
const VIRIDIS = [
  "440154",
  "482878",
  "3e4a89",
  "31688e",
  "26828e",
  "1f9e89",
  "35b779",
  "6dcd59",
  "b4de2c",
  "fde725",
];
const COLOURS = VIRIDIS.map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
const SPACE = "http://www.w3.org/2000/svg";

function add(
  parent: Element,
  name: string,
  attributes: Record<string, string | number>,
  text = "",
): SVGElement {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

function colourOf(share: number): number[] {
  const at = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const i = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[i].map((from, channel) => from + (COLOURS[i + 1][channel] - from) * (at - i));
}

/** Round numbers between two, about `count` of them. */
function roundTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.ceil(low / step - 1e-9);
  const ticks: number[] = [];
  for (let i = first; i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** The power of ten that labels leave out, since the title says it; 0 where they are short as they are. */
function sharedPower(ticks: readonly number[]): number {
  const power = powerOf(Math.max(...ticks.map(Math.abs)));
  return Number.isFinite(power) && (power < -2 || power > 4) ? power : 0;
}

/** Units with the power of ten that labels leave out. */
function withPower(units: string, power: number): string {
  return power ? `${formatPower(power)} ${units}`.trim() : units;
}

/** Where along an axis, in steps, its labels stand, and what the axis is called. */
function axisTicks(axis: Axis, count: number): { title: string; ticks: { at: number; text: string }[] } {
  const { values, label, title, name, units } = axis;
  const last = values.length - 1;
  const step = last > 0 ? (values[last] - values[0]) / last : 0;
  const uniform = values.every((value, i) => Math.abs(value - values[0] - i * step) <= 1e-3 * Math.abs(step));
  if (step !== 0 && uniform && label !== formatTime) {
    const ends = [values[0], values[last]].sort((a, b) => a - b);
    const numbers = roundTicks(ends[0], ends[1], count);
    const power = sharedPower(numbers);
    const ticks = numbers.map((value) => {
      return { at: (value - values[0]) / step, text: formatNumber(value / 10 ** power) };
    });
    return { title: power ? `${name} (${withPower(units, power)})` : title, ticks };
  }
  const between = Math.max(Math.ceil(last / count), 1);
  return { title, ticks: values.flatMap((value, i) => (i % between ? [] : [{ at: i, text: label(value) }])) };
}

export function rangeOf(values: ArrayLike<number>): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return low <= high ? [low, high] : [0, 0];
}

export interface Slice {
  values: Float64Array;
  /** Of rows and of columns. */
  axes: [Axis, Axis];
  units: string;
  /** The row and column that the series is of. */
  point: [number, number];
  name: string;
}

/** Draw a slice; `choose` is called with the row and column of a click. */
export function drawMap(
  svg: SVGSVGElement,
  slice: Slice,
  choose: (row: number, column: number) => void,
): void {
  const [rows, columns] = slice.axes.map(({ values }) => values.length);
  const [left, top, bottom, right] = [66, 12, 48, 104];
  const width = 660 - left - right;
  const height = Math.min(Math.max((width * rows) / columns, 160), 460);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 660 ${top + height + bottom}`);
  svg.setAttribute("aria-label", slice.name);
  // Coordinates rise to the top, as on a map.
  const upward = slice.axes[0].values[rows - 1] >= slice.axes[0].values[0];
  const rowAt = (line: number) => (upward ? rows - 1 - line : line);
  const [low, high] = rangeOf(slice.values);
  const image = add(svg, "image", { x: left, y: top, width, height, preserveAspectRatio: "none" });
  image.setAttribute("href", paint(slice.values, rows, columns, rowAt, low, high, getComputedStyle(svg)));
  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const line = Math.floor(((event.clientY - box.top) / box.height) * rows);
    choose(rowAt(Math.min(line, rows - 1)), Math.min(column, columns - 1));
  });
  const x = (column: number) => left + ((column + 0.5) / columns) * width;
  const y = (row: number) => top + ((rowAt(row) + 0.5) / rows) * height;
  add(svg, "rect", { class: "axis", x: left, y: top, width, height });
  const across = axisTicks(slice.axes[1], 6);
  for (const { at, text } of across.ticks) {
    add(svg, "line", { class: "axis", x1: x(at), x2: x(at), y1: top + height, y2: top + height + 5 });
    add(svg, "text", { x: x(at), y: top + height + 18, "text-anchor": "middle" }, text);
  }
  const down = axisTicks(slice.axes[0], 5);
  for (const { at, text } of down.ticks) {
    const line = upward ? rows - 1 - at : at;
    const place = top + ((line + 0.5) / rows) * height;
    add(svg, "line", { class: "axis", x1: left - 5, x2: left, y1: place, y2: place });
    add(svg, "text", { x: left - 8, y: place + 4, "text-anchor": "end" }, text);
  }
  add(svg, "text", { x: left + width / 2, y: top + height + 38, "text-anchor": "middle" }, across.title);
  const middle = `translate(14 ${top + height / 2}) rotate(-90)`;
  add(svg, "text", { transform: middle, "text-anchor": "middle" }, down.title);
  const [row, column] = slice.point;
  for (const name of ["mark", "mark inner"])
    add(svg, "circle", { class: name, cx: x(column), cy: y(row), r: 6 });
  drawBar(svg, left + width + 18, top, height, low, high, slice);
}

function drawBar(
  svg: Element,
  x: number,
  top: number,
  height: number,
  low: number,
  high: number,
  slice: Slice,
) {
  const hasMissing = slice.values.some(Number.isNaN);
  const length = height - (hasMissing ? 44 : 18);
  const gradient = add(add(svg, "defs", {}), "linearGradient", { id: "bar", x1: 0, y1: 1, x2: 0, y2: 0 });
  VIRIDIS.forEach((hex, i) => {
    add(gradient, "stop", { offset: i / (VIRIDIS.length - 1), "stop-color": `#${hex}` });
  });
  const ticks = roundTicks(low, high, 5);
  const power = sharedPower(ticks);
  add(svg, "text", { x, y: top + 9 }, withPower(slice.units, power) || "value");
  add(svg, "rect", { x, y: top + 18, width: 16, height: length, fill: "url(#bar)" });
  for (const tick of ticks) {
    const y = top + 18 + length * (high > low ? 1 - (tick - low) / (high - low) : 0.5);
    add(svg, "line", { class: "axis", x1: x + 16, x2: x + 20, y1: y, y2: y });
    add(svg, "text", { x: x + 23, y: y + 4 }, formatNumber(tick / 10 ** power));
  }
  if (!hasMissing) return;
  add(svg, "rect", { class: "missing", x, y: top + height - 14, width: 16, height: 14 });
  add(svg, "text", { x: x + 23, y: top + height - 3 }, "missing");
}

/** A picture of a pixel for each value. */
function paint(
  values: Float64Array,
  rows: number,
  columns: number,
  rowAt: (line: number) => number,
  low: number,
  high: number,
  style: CSSStyleDeclaration,
): string {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  // The colour of missing values, as numbers.
  const probe = document.createElement("span");
  probe.style.color = style.getPropertyValue("--missing");
  document.body.append(probe);
  context.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  context.fillRect(0, 0, columns, rows);
  const pixels = context.getImageData(0, 0, columns, rows);
  for (let line = 0; line < rows; line++) {
    for (let column = 0; column < columns; column++) {
      const value = values[rowAt(line) * columns + column];
      if (Number.isNaN(value)) continue;
      pixels.data.set(
        colourOf(high > low ? (value - low) / (high - low) : 0.5),
        4 * (line * columns + column),
      );
    }
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

/** Draw the values of a point along an axis, with a dot at the step that is shown. */
export function drawSeries(
  svg: SVGSVGElement,
  axis: Axis,
  values: Float64Array,
  step: number,
  units: string,
): void {
  const [left, right, top, height, bottom] = [64, 500, 22, 290, 48];
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${right + 16} ${top + height + bottom}`);
  svg.setAttribute("aria-label", `Values along ${axis.name}`);
  const [least, most] = rangeOf(values);
  const ticks = roundTicks(least, most, 5);
  const power = sharedPower(ticks);
  const margin = 0.05 * (most - least);
  const [low, high] = [least - margin, most + margin];
  const y = (value: number) => top + height * (high > low ? 1 - (value - low) / (high - low) : 0.5);
  const [first, last] = [axis.values[0], axis.values[axis.values.length - 1]];
  const x = (at: number) => left + 8 + ((right - left - 16) * (at - first)) / (last - first || 1);
  add(svg, "text", { x: 4, y: 11 }, withPower(units, power) || "value");
  for (const tick of ticks) {
    add(svg, "line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) });
    add(svg, "text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, formatNumber(tick / 10 ** power));
  }
  add(svg, "path", { class: "axis", d: `M${left} ${top}V${top + height}H${right}` });
  const along = axisTicks(axis, axis.label === formatTime ? 3 : 6);
  for (const { at, text } of along.ticks) {
    const [before, behind] = [axis.values[Math.floor(at)], axis.values[Math.ceil(at)]];
    const place = x(before + (behind - before) * (at % 1));
    add(svg, "line", { class: "axis", x1: place, x2: place, y1: top + height, y2: top + height + 5 });
    add(svg, "text", { x: place, y: top + height + 18, "text-anchor": "middle" }, text);
  }
  add(svg, "text", { x: (left + right) / 2, y: top + height + 38, "text-anchor": "middle" }, along.title);
  let path = "";
  values.forEach((value, i) => {
    const isNext = i > 0 && !Number.isNaN(values[i - 1]);
    if (!Number.isNaN(value))
      path += `${isNext ? "L" : "M"}${x(axis.values[i]).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  if (path) add(svg, "path", { class: "curve", d: path });
  else
    add(svg, "text", { x: (left + right) / 2, y: top + height / 2, "text-anchor": "middle" }, "missing here");
  if (!Number.isNaN(values[step]))
    add(svg, "circle", { class: "dot", cx: x(axis.values[step]), cy: y(values[step]), r: 4 });
}
