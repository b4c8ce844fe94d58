/** The element types of the format, and numbers of them. */

import type { Reader } from "../bitstream/reader.js";

const WHOLE = 2 ** 52;

export type TypedArray =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float32Array
  | Float64Array;

/** One element: a bigint of the types of 64-bit integers, else a number. */
export type Value = number | bigint;

/** `Float16Array` where the engine has one: of any number of them, a type of which TypeScript knows late. */
const Halves = (globalThis as { Float16Array?: Float32ArrayConstructor }).Float16Array;

/** The arrays of all types, in the order of their numbers; halves that are a `Float32Array` are exact too. */
const ARRAYS = {
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float16: Halves ?? Float32Array,
  float32: Float32Array,
  float64: Float64Array,
};

export type DtypeName = keyof typeof ARRAYS;

export const DTYPE_NAMES = Object.keys(ARRAYS) as DtypeName[];

export interface Dtype {
  name: DtypeName;
  kind: "i" | "u" | "f";
  /** Bytes of an element. */
  size: number;
}

export function makeDtype(name: DtypeName): Dtype {
  const kind = name[0] as "i" | "u" | "f";
  return { name, kind, size: Number(name.slice(kind === "i" ? 3 : kind === "u" ? 4 : 5)) / 8 };
}

/** Whether elements are bigints. */
export function isWide({ kind, size }: Dtype): boolean {
  return kind !== "f" && size === 8;
}

/** Make an array of zeros. */
export function makeArray({ name }: Dtype, length: number): TypedArray {
  return new ARRAYS[name](length);
}

/** The number that the bits of a half stand for. */
export function halfFromBits(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/** Round to the nearest integer, halves to the even one: doubles from 2^52 on are whole. */
export function rint(x: number): number {
  if (!(Math.abs(x) < WHOLE)) return x;
  return x < 0 ? x - WHOLE + WHOLE : x + WHOLE - WHOLE;
}

/** The nearest half, as a number; halves of its last place to even. */
function roundToHalf(x: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), -14);
  // A logarithm may be off by one next to a power of two, where the finer unit, tried again, is right.
  const unit = 2 ** ((Math.abs(x) < 2 ** exponent && exponent > -14 ? exponent - 1 : exponent) - 10);
  const rounded = rint(x / unit) * unit;
  if (Math.abs(rounded) >= 65536) return Math.sign(x) * Number.POSITIVE_INFINITY;
  return rounded;
}

/** Round a double to a float type. */
export function roundTo({ name }: Dtype, x: number): number {
  return name === "float64" ? x : name === "float32" ? Math.fround(x) : roundToHalf(x);
}

export function readValue(source: Reader, { kind, size }: Dtype): Value {
  if (kind === "f") return size === 2 ? halfFromBits(source.u16()) : size === 4 ? source.f32() : source.f64();
  const signed = kind === "i";
  if (size === 1) return signed ? source.i8() : source.u8();
  if (size === 2) return signed ? source.i16() : source.u16();
  if (size === 4) return signed ? source.i32() : source.u32();
  return signed ? source.i64() : source.u64();
}

/** The next number of a type above a value, or below it. */
export function nextValue({ kind, size }: Dtype, value: Value, up: boolean): Value {
  if (typeof value === "bigint") return value + (up ? 1n : -1n);
  if (kind !== "f") return value + (up ? 1 : -1);
  if (value === 0) {
    const least = size === 2 ? 2 ** -24 : size === 4 ? 2 ** -149 : Number.MIN_VALUE;
    return up ? least : -least;
  }
  const away = up === value > 0; // whether the magnitude grows
  if (size === 2) {
    const magnitude = Math.abs(value);
    const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
    const isPower = magnitude === 2 ** exponent && exponent > -14;
    const unit = 2 ** (exponent - 10 - (isPower && !away ? 1 : 0));
    return value + (up ? unit : -unit);
  }
  const view = new DataView(new ArrayBuffer(8));
  if (size === 4) {
    view.setFloat32(0, value);
    view.setInt32(0, view.getInt32(0) + (away ? 1 : -1));
    return view.getFloat32(0);
  }
  view.setFloat64(0, value);
  view.setBigInt64(0, view.getBigInt64(0) + (away ? 1n : -1n));
  return view.getFloat64(0);
}
