/** The values that integers of 64 bits stand for. */

import { toBigInts, toNumber, type Words } from "../bitstream/words64.js";
import {
  type Dtype,
  halfFromBits,
  isWide,
  makeArray,
  roundTo,
  type TypedArray,
  type Value,
} from "./dtype.js";

export type Levels =
  /** Values whose last bits are 0, in the order of the type's values. */
  | { kind: "bits"; shift: number }
  /** Floats, and integers, at equal distances. */
  | { kind: "grid"; spacing: number; divisor: number; origin: number }
  | { kind: "whole"; spacing: bigint; origin: bigint }
  /** 0, and on both sides of it magnitudes at distances that grow with them. */
  | { kind: "ladder"; first: number; step: number; ratio: number };

export function restoreLevels(
  levels: Levels,
  integers: Words,
  dtype: Dtype,
  low: Value,
  high: Value,
): TypedArray {
  const count = integers.low.length;
  const out = makeArray(dtype, count);
  if (dtype.kind !== "f" && (levels.kind === "whole" || isWide(dtype))) {
    return restoreWhole(levels, integers, dtype, low, high, out);
  }
  const restored = makeValues(levels, integers, dtype);
  const [least, most] = [Number(low), Number(high)];
  const numbers = out as Float64Array;
  for (let i = 0; i < count; i++) {
    const value = restored(i);
    numbers[i] =
      value < least ? least : value > most ? most : dtype.kind === "f" ? roundTo(dtype, value) : value;
  }
  return out;
}

/** The value of each integer, before it is brought into the range and rounded. */
function makeValues(levels: Levels, integers: Words, dtype: Dtype): (i: number) => number {
  if (levels.kind === "grid") {
    const { spacing, divisor, origin } = levels;
    return (i) => (toNumber(integers, i) * spacing) / divisor + origin;
  }
  if (levels.kind === "ladder") {
    const rungs = listRungs(levels, integers);
    return (i) => {
      const k = toNumber(integers, i);
      return k ? Math.sign(k) * rungs[Math.abs(k) - 1] : 0;
    };
  }
  const shift = levels.kind === "bits" ? levels.shift : 0;
  return dtype.kind === "f" ? floatsOfBits(integers, shift, dtype.size) : wholeOfBits(integers, shift, dtype);
}

function listRungs(levels: { first: number; step: number; ratio: number }, integers: Words): Float64Array {
  let most = 0;
  for (let i = 0; i < integers.low.length; i++) most = Math.max(most, Math.abs(toNumber(integers, i)));
  const rungs = new Float64Array(most);
  let rung = levels.first;
  for (let i = 0; i < most; i++) {
    rungs[i] = rung;
    rung = Math.max(rung + levels.step, rung * levels.ratio);
  }
  return rungs;
}

/** Floats of bits in the order of values: below 0 they are those of -1 less the integer, with a sign. */
function floatsOfBits({ high, low }: Words, shift: number, size: number): (i: number) => number {
  const view = new DataView(new ArrayBuffer(8));
  return (i) => {
    const flip = high[i] < 0 ? -1 : 0;
    const [upper, lower] = shiftLeft(high[i] ^ flip, low[i] ^ flip, shift);
    if (size === 2) return halfFromBits((lower & 0xffff) | (flip & 0x8000));
    if (size === 4) {
      view.setInt32(0, lower | (flip & 0x80000000));
      return view.getFloat32(0);
    }
    view.setInt32(0, upper | (flip & 0x80000000));
    view.setInt32(4, lower);
    return view.getFloat64(0);
  };
}

/** Integers of up to 32 bits, of which the last bits count. */
function wholeOfBits({ high, low }: Words, shift: number, { kind, size }: Dtype): (i: number) => number {
  const unused = 32 - 8 * size;
  return (i) => {
    const lower = shiftLeft(high[i], low[i], shift)[1] << unused;
    return kind === "i" ? lower >> unused : lower >>> unused;
  };
}

function shiftLeft(high: number, low: number, by: number): [number, number] {
  if (by === 0) return [high, low];
  if (by >= 32) return [low << (by - 32), 0];
  return [(high << by) | (low >>> (32 - by)), low << by];
}

/** Integers at equal distances, and those of 64 bits: sums and products are taken modulo 2^64. */
function restoreWhole(
  levels: Levels,
  integers: Words,
  dtype: Dtype,
  low: Value,
  high: Value,
  out: TypedArray,
): TypedArray {
  const unsigned = dtype.name === "uint64";
  const [least, most] = [BigInt(low), BigInt(high)];
  const wide = out as BigInt64Array;
  const numbers = out as Float64Array;
  toBigInts(integers).forEach((k, i) => {
    let value = k;
    if (levels.kind === "bits") {
      value = BigInt.asIntN(64, k << BigInt(levels.shift));
      if (unsigned) value += 2n ** 63n;
    } else if (levels.kind === "whole") {
      value = k * levels.spacing + levels.origin;
      value = unsigned ? BigInt.asUintN(64, value) : BigInt.asIntN(64, value);
    }
    value = value < least ? least : value > most ? most : value;
    if (isWide(dtype)) wide[i] = value;
    else numbers[i] = Number(value);
  });
  return out;
}
