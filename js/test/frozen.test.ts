/** The frozen streams of the format decode to the values that stand beside them. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { decode } from "../src/index.js";
import { dictionaryOf } from "./dictionaries.js";
import { readNpz } from "./npz.js";

const FOLDER = new URL("../../../tests/conformance/streams/", import.meta.url);
const NAMES = readdirSync(FOLDER).flatMap((name) => (name.endsWith(".moec") ? [name.slice(0, -5)] : []));
const DTYPES: Record<string, string> = { i: "int", u: "uint", f: "float" };

/** Sections of a stream by their numbers, and half of its range. */
function look(stream: Uint8Array): { sections: Map<number, Uint8Array>; half: number; scale: number } {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  let at = 8;
  const varint = () => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = stream[at++];
      value += (byte & 127) * factor;
      factor *= 128;
      if (byte < 128) return value;
    }
  };
  const code = stream[at] & 15;
  const rank = stream[at + 1];
  at += 2;
  for (let axis = 0; axis < rank; axis++) varint();
  const size = [1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8][code];
  const range = [at, at + size].map((place) => {
    if (code === 9) return view.getFloat32(place, true);
    if (code === 10) return view.getFloat64(place, true);
    if (code === 1) return view.getInt16(place, true);
    return code === 7 ? Number(view.getBigUint64(place, true)) : Number.NaN;
  });
  at += 2 * size + 4;
  const sections = new Map<number, Uint8Array>();
  while (at < stream.length) {
    const number = stream[at++];
    const length = varint();
    sections.set(number, stream.subarray(at, at + length));
    at += length;
  }
  const scaled = sections.get(7);
  const scale = scaled ? new DataView(scaled.buffer, scaled.byteOffset).getFloat32(5, true) : 0;
  return { sections, half: range[1] / 2 - range[0] / 2, scale };
}

test("there are frozen streams", () => assert.ok(NAMES.length > 40));

for (const name of NAMES) {
  test(name, () => {
    const stream = readFileSync(new URL(`${name}.moec`, FOLDER));
    const expected = readNpz(readFileSync(new URL(`${name}.npz`, FOLDER)));
    const { data, shape, dtype } = decode(stream, { dictionary: dictionaryOf(name) });
    assert.deepEqual(shape, expected.shape);
    assert.equal(dtype, DTYPES[expected.dtype[0]] + 8 * Number(expected.dtype[1]));
    const { sections, half, scale } = look(stream);
    const isExact = ![4, 5, 6].some((number) => sections.has(number));
    let worst = 0;
    for (let i = 0; i < data.length; i++) {
      const [own, other] = [data[i], expected.data[i]];
      if (own === other || (Number.isNaN(own) && Number.isNaN(other))) continue;
      assert.ok(!isExact, `${own} at ${i}, expected ${other}`);
      const error = Math.abs(Number(own) - Number(other));
      const rounding = dtype.startsWith("f")
        ? Math.abs(Number(other)) * (dtype === "float16" ? 2 ** -10 : 2 ** -22)
        : 1;
      // What the page allows; corrections, of a transform alone, hang on more.
      const share = sections.has(5) && !sections.has(4) ? 2 ** -27 : 1e-4;
      const allowed = sections.has(7)
        ? share * scale * Math.max(Math.abs(Number(other)), knee(sections)) + rounding
        : share * half + rounding;
      assert.ok(error <= allowed, `${own} at ${i}, expected ${other} +- ${allowed}`);
      worst = Math.max(worst, error / allowed);
    }
    if (process.env.VERBOSE) console.log(name, worst);
  });
}

function knee(sections: Map<number, Uint8Array>): number {
  const scaled = sections.get(7) as Uint8Array;
  return scaled[0] & 1 ? new DataView(scaled.buffer, scaled.byteOffset).getFloat64(13, true) : 0;
}
