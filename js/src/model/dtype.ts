/** The element types of the format, and numbers of them. */

import type { Reader } from "../bitstream/reader.js";

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

// biome-ignore format: one table
export const DTYPE_NAMES = [
  "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
] as const;

export type DtypeName = (typeof DTYPE_NAMES)[number];

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

/** `Float16Array` where the engine has one: of any number of them, a type of which TypeScript knows late. */
const Halves = (globalThis as { Float16Array?: Float32ArrayConstructor }).Float16Array;

/** Make an array of zeros; of halves it is a `Float32Array` where there is no `Float16Array`. */
export function makeArray({ name }: Dtype, length: number): TypedArray {
  switch (name) {
    case "int8":
      return new Int8Array(length);
    case "int16":
      return new Int16Array(length);
    case "int32":
      return new Int32Array(length);
    case "int64":
      return new BigInt64Array(length);
    case "uint8":
      return new Uint8Array(length);
    case "uint16":
      return new Uint16Array(length);
    case "uint32":
      return new Uint32Array(length);
    case "uint64":
      return new BigUint64Array(length);
    case "float16":
      return new (Halves ?? Float32Array)(length);
    case "float32":
      return new Float32Array(length);
    case "float64":
      return new Float64Array(length);
  }
}

/** The number that the bits of a half stand for. */
export function halfFromBits(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/** Round to the nearest integer, halves to the even one. */
export function rint(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest < 0.5) return below;
  if (rest > 0.5) return below + 1;
  return below % 2 === 0 ? below : below + 1;
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
