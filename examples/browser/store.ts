/** What a store holds, and how many bytes came over the wire to say so. */

import * as zarr from "zarrita";
import { register } from "./codecs.js";

register(zarr.registry);

type Attributes = Record<string, unknown>;
export type ZarrArray = zarr.Array<zarr.DataType, zarr.Readable>;

/** What was fetched: requests that were answered with something, and the bytes of the answers. */
export const traffic = { requests: 0, bytes: 0 };

async function countedFetch(request: Request): Promise<Response> {
  const response = await fetch(request);
  if (response.status !== 200 && response.status !== 206) return response;
  const body = await response.arrayBuffer();
  traffic.requests += 1;
  traffic.bytes += body.byteLength;
  return new Response(body, { status: response.status, headers: response.headers });
}

/** A variable of two axes or more. */
export interface Variable {
  name: string;
  array: ZarrArray;
  dimensions: string[];
  title: string;
  units: string;
  /** The value that an element stands for; NaN where it is missing. */
  meaning: (element: number | bigint) => number;
}

/** Labels of the steps of a dimension. */
export interface Axis {
  name: string;
  /** Name and units. */
  title: string;
  units: string;
  /** Numbers to place the steps by. */
  values: number[];
  label: (value: number) => string;
}

export interface Store {
  variables: Variable[];
  axisOf: (variable: Variable, dimension: number) => Promise<Axis>;
}

/** Open a store that lists its arrays in consolidated metadata, of zarr format 2 or 3. */
export async function openStore(url: string): Promise<Store> {
  const fetched = new zarr.FetchStore(url, { fetch: countedFetch });
  let format2 = false;
  const store = await zarr.withConsolidatedMetadata(fetched, { format: "v3" }).catch(() => {
    format2 = true;
    return zarr.withConsolidatedMetadata(fetched, { format: "v2" });
  });
  const arrays = new Map<string, ZarrArray>();
  for (const { path, kind } of store.contents()) {
    if (kind !== "array") continue;
    const place = zarr.root(store).resolve(path.slice(1));
    const open = format2 ? zarr.open.v2 : zarr.open.v3;
    arrays.set(path.slice(1), await open(place, { kind: "array" }));
  }
  const variables = [...arrays].flatMap(([name, array]) => describe(name, array, format2));
  if (!variables.length) throw new Error("the store holds no variable of two dimensions or more");
  return { variables, axisOf: (variable, dimension) => readAxis(arrays, variable, dimension) };
}

function describe(name: string, array: ZarrArray, format2: boolean): Variable[] {
  if (array.shape.length < 2 || !(array.is("number") || array.is("bigint"))) return [];
  const { attrs } = array;
  const names = array.dimensionNames ?? (attrs._ARRAY_DIMENSIONS as string[] | undefined);
  const dimensions = array.shape.map((_, axis) => names?.[axis] ?? `axis ${axis}`);
  const title = String(attrs.long_name ?? attrs.standard_name ?? name);
  return [
    { name, array, dimensions, title, units: String(attrs.units ?? ""), meaning: unpacker(array, format2) },
  ];
}

/** What CF says that elements stand for: missing values, a scale and an offset. */
function unpacker(array: ZarrArray, format2: boolean): (element: number | bigint) => number {
  const { attrs } = array;
  const missing = new Set<number>();
  for (const given of [attrs._FillValue, attrs.missing_value]) {
    if (typeof given === "number") missing.add(given);
    if (typeof given === "string") missing.add(decodeFill(given, array.dtype));
  }
  // In format 2 the fill value is what marks missing data, too; xarray reads it so.
  if (format2 && array.fillValue !== null) missing.add(Number(array.fillValue));
  const scale = Number(attrs.scale_factor ?? 1);
  const offset = Number(attrs.add_offset ?? 0);
  return (element) => {
    const number = Number(element);
    return missing.has(number) ? Number.NaN : number * scale + offset;
  };
}

/** A fill value as xarray writes it in format 3: the bytes of a float, in base64. */
function decodeFill(text: string, dtype: string): number {
  if (text === "NaN") return Number.NaN;
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return bytes.length === 8
    ? view.getFloat64(0, true)
    : dtype === "float32"
      ? view.getFloat32(0, true)
      : Number.NaN;
}

async function readAxis(
  arrays: ReadonlyMap<string, ZarrArray>,
  variable: Variable,
  dimension: number,
): Promise<Axis> {
  const name = variable.dimensions[dimension];
  const length = variable.array.shape[dimension];
  // In the variable's own group, or in one above it.
  let folder = variable.name.split("/").slice(0, -1);
  let array = arrays.get([...folder, name].join("/"));
  while (!array && folder.length) {
    folder = folder.slice(0, -1);
    array = arrays.get([...folder, name].join("/"));
  }
  const indices = Array.from({ length }, (_, i) => i);
  if (array?.shape.length !== 1 || array.shape[0] !== length || !isNumeric(array)) {
    return { name, title: `${name} (index)`, units: "", values: indices, label: formatNumber };
  }
  const { data } = await zarr.get(array);
  const values = Array.from(data as ArrayLike<number | bigint>, Number);
  const since = timeSince(array.attrs);
  if (since) {
    const times = values.map((value) => since.start + value * since.unit);
    return { name, title: `${name} (UTC)`, units: "UTC", values: times, label: formatTime };
  }
  const units = String(array.attrs.units ?? "");
  return { name, title: units ? `${name} (${units})` : name, units, values, label: formatNumber };
}

function isNumeric(array: ZarrArray): boolean {
  return array.is("number") || array.is("bigint");
}

const UNITS: Record<string, number> = {
  day: 86400e3,
  hour: 3600e3,
  minute: 60e3,
  second: 1e3,
  millisecond: 1,
};
const CALENDARS = ["standard", "gregorian", "proleptic_gregorian"];

/** Start and unit, in milliseconds, of times such as "hours since 1990-01-01". */
function timeSince({
  units,
  calendar = "standard",
}: Attributes): { start: number; unit: number } | undefined {
  const found = /^(\w+?)s? since (\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2}))?)?/.exec(
    String(units),
  );
  if (!found || !UNITS[found[1]] || !CALENDARS.includes(String(calendar))) return undefined;
  const [year, month, day, hour, minute, second] = found.slice(2).map((part) => Number(part ?? 0));
  return { start: Date.UTC(year, month - 1, day, hour, minute, second), unit: UNITS[found[1]] };
}

export function formatTime(time: number): string {
  return new Date(time).toISOString().slice(0, 16).replace("T", " ").replace(" 00:00", "");
}

export function formatNumber(value: number): string {
  const power = powerOf(value);
  if (value === 0 || (power >= -3 && power < 7)) return signed(Number(value.toPrecision(6)));
  return `${signed(Number((value / 10 ** power).toPrecision(3)))} × ${formatPower(power)}`;
}

/** The power of ten that a number is a multiple of. */
export function powerOf(value: number): number {
  return Math.floor(Math.log10(Math.abs(value)));
}

export function formatPower(power: number): string {
  return `10${[...String(power)].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("")}`;
}

function signed(value: number): string {
  return String(value).replace("-", "−");
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const power = bytes < 1e6 ? 1 : bytes < 1e9 ? 2 : 3;
  return `${(bytes / 1000 ** power).toPrecision(3)} ${["kB", "MB", "GB"][power - 1]}`;
}
