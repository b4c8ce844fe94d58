/** zarrita reads arrays of both formats whose chunks are frozen streams. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as zarr from "zarrita";
import { DictionaryError, decode } from "../src/index.js";
import { register } from "../src/zarrita.js";
import { dictionaryOf } from "./dictionaries.js";

register(zarr.registry);

const FOLDER = new URL("../../../tests/conformance/streams/", import.meta.url);
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const read = (name: string) => new Uint8Array(readFileSync(new URL(`v1_${name}.moec`, FOLDER)));

/** A store of one array of one chunk. */
function store3(
  stream: Uint8Array,
  shape: number[],
  type: string,
  before: unknown[] = [],
  dictionary?: string,
) {
  const metadata = {
    zarr_format: 3,
    node_type: "array",
    shape,
    data_type: type,
    chunk_grid: { name: "regular", configuration: { chunk_shape: shape } },
    chunk_key_encoding: { name: "default" },
    codecs: [...before, { name: "moec_zarr.moec", configuration: { ratio: 10, dictionary } }],
    fill_value: 0,
    attributes: {},
  };
  const key = `/c/${shape.map(() => 0).join("/")}`;
  return new Map<string, Uint8Array>([
    ["/zarr.json", json(metadata)],
    [key, stream],
  ]);
}

function store2(stream: Uint8Array, shape: number[], dtype: string, order: string, dictionary?: string) {
  const compressor = { id: "moec", ratio: 10, dictionary };
  const metadata = {
    zarr_format: 2,
    shape,
    chunks: shape,
    dtype,
    order,
    compressor,
    fill_value: 0,
    filters: null,
  };
  return new Map<string, Uint8Array>([
    ["/.zarray", json(metadata)],
    [`/${shape.map(() => 0).join(".")}`, stream],
  ]);
}

/** What zarrita reads, in C order of the axes `axes`. */
async function values(store: Map<string, Uint8Array>, axes = [0, 1, 2]): Promise<(number | bigint)[]> {
  const { data, shape, stride } = await zarr.get(await zarr.open(store, { kind: "array" }));
  const [n, m, l] = axes.map((axis) => shape[axis]);
  const [a, b, c] = axes.map((axis) => stride[axis]);
  const places = Array.from({ length: n * m * l }, (_, i) => {
    return a * Math.floor(i / (m * l)) + b * (Math.floor(i / l) % m) + c * (i % l);
  });
  return places.map((place) => (data as Float64Array)[place]);
}

for (const [name, type, dtype] of [
  ["mask", "float32", "<f4"],
  ["int16", "int16", "<i2"],
  ["uint64", "uint64", "<u8"],
  ["big_endian_f_order", "float32", ">f4"],
]) {
  test(`format 3, format 2 and Fortran order: ${name}`, async () => {
    const stream = read(name);
    const { data, shape } = decode(stream);
    const expected = [...(data as Float64Array)];
    assert.deepEqual(await values(store3(stream, shape, type)), expected);
    assert.deepEqual(await values(store2(stream, shape, dtype, "C")), expected);
    assert.deepEqual(await values(store2(stream, shape, dtype, "F")), expected);
  });
}

test("the dictionary stands in the metadata", async () => {
  const [stream, dictionary] = [read("shared"), dictionaryOf("v1_shared") as string];
  const { data, shape } = decode(stream, { dictionary });
  const expected = [...(data as Float32Array)];
  assert.deepEqual(await values(store3(stream, shape, "float32", [], dictionary)), expected);
  assert.deepEqual(await values(store2(stream, shape, "<f4", "C", dictionary)), expected);
  const array = await zarr.open(store3(stream, shape, "float32"), { kind: "array" });
  await assert.rejects(zarr.get(array), (error: Error) => error.cause instanceof DictionaryError);
});

test("transposed chunks", async () => {
  const stream = read("int16");
  const { data } = decode(stream); // 8 x 9 x 10, of an array of 9 x 10 x 8
  const transpose = { name: "transpose", configuration: { order: [2, 0, 1] } };
  const store = store3(stream, [9, 10, 8], "int16", [transpose]);
  assert.deepEqual(await values(store, [2, 0, 1]), [...(data as Int16Array)]);
});

test("a chunk of another shape or type is refused", async () => {
  for (const store of [
    store3(read("int16"), [9, 8, 10], "int16"),
    store3(read("int16"), [8, 9, 10], "uint16"),
    store2(read("int16"), [8, 9, 10], "<u2", "C"),
  ]) {
    const array = await zarr.open(store, { kind: "array" });
    await assert.rejects(zarr.get(array), (error: Error) => /expected/.test(String(error.cause)));
  }
});
