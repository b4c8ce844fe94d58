/** The page: which variable, step and point are shown. */

import { drawMap, drawSeries } from "./charts.js";
import { Chunks } from "./chunks.js";
import {
  type Axis,
  formatBytes,
  formatNumber,
  openStore,
  type Store,
  traffic,
  type Variable,
} from "./store.js";

const find = <T extends Element>(selector: string): T => document.querySelector(selector) as T;

/** What is shown: for the console, and for tests. */
interface Shown {
  variable: string;
  index: number[];
  values: number[];
  series: number[];
}

let turn = 0; // of the last thing that was asked for: answers to earlier ones come too late

function say(text: string): void {
  find("#message").textContent = text;
}

async function show(url: string): Promise<void> {
  say(`Opening ${url} …`);
  const store = await openStore(url);
  const select = document.createElement("select");
  select.id = "variable";
  for (const { name } of store.variables) select.add(new Option(name));
  select.addEventListener("change", () =>
    attempt(() => choose(store, store.variables[select.selectedIndex])),
  );
  const label = document.createElement("label");
  label.append("Variable", select);
  find("#controls").replaceChildren(label);
  // The first of those with the most dimensions.
  const first = store.variables.reduce((best, each) =>
    each.array.shape.length > best.array.shape.length ? each : best,
  );
  select.value = first.name;
  await choose(store, first);
}

/** Show a variable: a slider for each dimension but the last two. */
async function choose(store: Store, variable: Variable): Promise<void> {
  const { dimensions, array } = variable;
  const axes = await Promise.all(dimensions.map((_, axis) => store.axisOf(variable, axis)));
  const chunks = new Chunks(variable);
  const last = dimensions.length - 1;
  const index = array.shape.map((n, axis) => (axis < last - 1 ? 0 : n >> 1));
  const update = () => attempt(() => draw(chunks, axes, index, update));
  const controls = find("#controls");
  for (const old of controls.querySelectorAll(".step")) old.remove();
  axes.slice(0, -2).forEach((axis, number) => {
    controls.append(
      makeSlider(axis, (step) => {
        index[number] = step;
        update();
      }),
    );
  });
  await draw(chunks, axes, index, update);
}

function makeSlider(axis: Axis, move: (step: number) => void): HTMLElement {
  const label = document.createElement("label");
  label.className = "step";
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: "0", max: String(axis.values.length - 1), value: "0" });
  input.name = axis.name;
  const output = document.createElement("output");
  const tell = () => {
    output.value = `${axis.label(axis.values[input.valueAsNumber])} ${axis.units}`.trim();
  };
  input.addEventListener("input", () => {
    tell();
    move(input.valueAsNumber);
  });
  tell();
  label.append(axis.name, input, output);
  return label;
}

async function draw(chunks: Chunks, axes: Axis[], index: number[], update: () => void): Promise<void> {
  const own = ++turn;
  const { variable } = chunks;
  const last = axes.length - 1;
  const at = [...index];
  say("Reading …");
  const values = await chunks.read(at, [last - 1, last]);
  const along = last > 1 ? 0 : last; // the series runs along the first slider, or a row of a map without one
  const series = await chunks.read(at, [along]);
  if (own !== turn) return;
  const { title, units, array } = variable;
  for (const id of ["#controls", "#views", "#traffic"]) find<HTMLElement>(id).hidden = false;
  const point = axes
    .slice(-2)
    .map((axis, i) => `${axis.name} ${axis.label(axis.values[at[last - 1 + i]])}`)
    .join(", ");
  const here = formatNumber(values[at[last - 1] * array.shape[last] + at[last]]);
  caption("#map", title, units);
  caption("#series", `At ${point}`, here === "NaN" ? "missing" : `${here} ${units}`);
  drawMap(
    find("#map svg"),
    { values, axes: [axes[last - 1], axes[last]], units, point: [at[last - 1], at[last]], name: title },
    (row, column) => {
      [index[last - 1], index[last]] = [row, column];
      update();
    },
  );
  drawSeries(find("#series svg"), axes[along], series, at[along], units);
  tellTraffic(array.shape.reduce((all, n) => all * n, 1) * bytesOf(array.dtype));
  const shown: Shown = { variable: variable.name, index: at, values: [...values], series: [...series] };
  Object.assign(globalThis, { shown });
  say(
    `${variable.name}: ${variable.dimensions.map((name, axis) => `${name} ${array.shape[axis]}`).join(" × ")}, ${array.dtype}. Click on the map for the series of a point.`,
  );
}

function caption(figure: string, title: string, units: string): void {
  const small = document.createElement("small");
  small.textContent = units;
  find(`${figure} figcaption`).replaceChildren(title, " ", small);
}

function bytesOf(dtype: string): number {
  return Number(/\d+/.exec(dtype)?.[0] ?? 8) / 8;
}

function tellTraffic(size: number): void {
  const rows = [
    ["Over the wire", `${formatBytes(traffic.bytes)} in ${traffic.requests} requests`],
    ["The variable's values", formatBytes(size)],
  ];
  find("#traffic").replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("div");
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, description.textContent] = [name, value];
      row.append(term, description);
      return row;
    }),
  );
}

function attempt(action: () => Promise<void>): void {
  action().catch((error: Error) => {
    const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
    say(`This did not work: ${error.message}${cause}`);
  });
}

const input = find<HTMLInputElement>("#url");
find("#open").addEventListener("submit", (event) => {
  event.preventDefault();
  history.replaceState(null, "", `?store=${encodeURIComponent(input.value)}`);
  attempt(() => show(input.value));
});
const given = new URLSearchParams(location.search).get("store");
if (given) {
  input.value = new URL(given, location.href).href;
  attempt(() => show(input.value));
}
