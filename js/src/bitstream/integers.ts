/** Section 8: integers, and the values that they stand for. */

import { check } from "../errors.js";
import type { Dtype, TypedArray, Value } from "../model/dtype.js";
import { type Levels, restoreLevels } from "../model/levels.js";
import { decodePredicted } from "./prediction.js";
import { Reader } from "./reader.js";
import { makeWords, type Words } from "./words64.js";
import { unpack } from "./zstd.js";

const MOST_RUNGS = 2 ** 18;
const TWO_32 = 2 ** 32;
const [ABSOLUTE, RELATIVE, TABLE] = [32, 64, 128];

/** What the integers of a box are read for. */
export interface Target {
  box: readonly number[];
  /** Which voxels are valid, one byte each; all where it is missing. */
  valid: Uint8Array | undefined;
  /** How many are. */
  count: number;
  dtype: Dtype;
  low: Value;
  high: Value;
}

/** Read the values of the valid voxels of a box, in C order. */
export function readIntegers(bytes: Uint8Array, target: Target): TypedArray {
  const source = new Reader(bytes);
  const head = source.u8();
  for (const flag of [ABSOLUTE, RELATIVE]) {
    const bound = head & flag ? source.f64() : 1; // information
    check(bound > 0 && Number.isFinite(bound), `a bound of ${bound}`);
  }
  const levels = readLevels(source, head & 31, target.dtype);
  const table = head & TABLE ? readTable(source, target.count) : undefined;
  let integers = readCoded(source.rest(), target.box, target.valid, target.count);
  if (table) integers = lookUp(table, integers);
  if (levels.kind === "ladder") {
    check(
      integers.low.every((low, i) => Math.abs(integers.high[i] * TWO_32 + low) <= MOST_RUNGS),
      `a ladder of more than ${MOST_RUNGS} rungs`,
    );
  }
  return restoreLevels(levels, integers, target.dtype, target.low, target.high);
}

function readLevels(source: Reader, kind: number, { kind: type, size }: Dtype): Levels {
  check(kind < 2 || (kind === 2 && type === "f"), "reserved levels");
  if (kind === 0) {
    const shift = source.u8();
    check(shift < 8 * size, `a shift of ${shift} bits`);
    return { kind: "bits", shift };
  }
  if (type !== "f") return { kind: "whole", spacing: source.i64(), origin: source.i64() };
  const [first, second, third] = [source.f64(), source.f64(), source.f64()];
  check([first, second, third].every(Number.isFinite), "levels that are not finite");
  if (kind === 2) return { kind: "ladder", first, step: second, ratio: third };
  check(second !== 0, "a divisor of 0");
  return { kind: "grid", spacing: first, divisor: second, origin: third };
}

/** Rising integers, which those that are coded are numbers of. */
function readTable(source: Reader, most: number): Words {
  const count = source.varint();
  check(count >= 2 && count <= most, `a table of ${count} integers for ${most} voxels`);
  const table = makeWords(count);
  [table.low[0], table.high[0]] = [source.u32(), source.i32()];
  const gaps = readCoded(source.block(), [count - 1], undefined, count - 1);
  for (let i = 1; i < count; i++) {
    const sum = table.low[i - 1] + gaps.low[i - 1] + 1;
    table.low[i] = sum; // the array takes it modulo 2^32
    table.high[i] = table.high[i - 1] + gaps.high[i - 1] + Math.floor(sum / TWO_32);
  }
  return table;
}

function lookUp(table: Words, numbers: Words): Words {
  const found = makeWords(numbers.low.length);
  for (let i = 0; i < numbers.low.length; i++) {
    const number = numbers.low[i];
    check(numbers.high[i] === 0 && number < table.low.length, "a number beyond a table");
    found.low[i] = table.low[number];
    found.high[i] = table.high[number];
  }
  return found;
}

/** The integers of the valid voxels of a grid, in C order. */
function readCoded(
  bytes: Uint8Array,
  box: readonly number[],
  valid: Uint8Array | undefined,
  count: number,
): Words {
  const source = new Reader(bytes);
  const method = source.u8();
  check(method < 2, "integers that are coded in a reserved way");
  if (method === 1) return decodePredicted(source, box, valid);
  const size = source.u8();
  check([1, 2, 4, 8].includes(size), `integers of ${size} bytes`);
  return joinPlanes(unpack(source.rest(), count * size), size, count);
}

/** Integers from their bytes, of all the lowest first; the highest bit says that one is -1 less the rest. */
function joinPlanes(planes: Uint8Array, size: number, count: number): Words {
  const words = makeWords(count);
  for (let plane = 0; plane < size; plane++) {
    const half = plane < 4 ? words.low : words.high;
    const shift = 8 * (plane % 4);
    for (let i = 0; i < count; i++) half[i] |= planes[plane * count + i] << shift;
  }
  const top = size < 8 ? words.low : words.high;
  const sign = 2 ** ((8 * size - 1) % 32);
  for (let i = 0; i < count; i++) {
    const own = top[i] < 0 ? top[i] + TWO_32 : top[i];
    if (own < sign) continue;
    top[i] = own - sign;
    words.high[i] = ~words.high[i];
    words.low[i] = ~words.low[i];
  }
  return words;
}
