/** Values of a type from the numbers y that models add up to. */

import type { Scale } from "../bitstream/scale.js";
import { type Dtype, isWide, nextValue, rint, roundTo, type TypedArray, type Value } from "./dtype.js";

const LEAST_HALF = 2 ** -1000;

/** What values are restored to: their range, and the value of a mask that none may come out as. */
export interface Limits {
  dtype: Dtype;
  low: Value;
  high: Value;
  missing: Value | undefined;
}

/** The finite masked value, if it lies within the range. */
function takenValue({ low, high, missing }: Limits): Value | undefined {
  return missing !== undefined && low < missing && missing < high ? missing : undefined;
}

/** Write the values of y, in units of half the range about its centre, to `out`. */
export function restore(y: Float64Array, limits: Limits, out: TypedArray): void {
  if (isWide(limits.dtype)) restoreWide(y, limits, out as BigInt64Array);
  else restoreNumbers(y, limits, out as Float64Array);
}

function restoreNumbers(y: Float64Array, limits: Limits, out: Float64Array): void {
  const { dtype } = limits;
  const [low, high] = [Number(limits.low), Number(limits.high)];
  const half = Math.max(high / 2 - low / 2, LEAST_HALF);
  const centre = high / 2 + low / 2;
  const round = dtype.kind === "f" ? (x: number) => roundTo(dtype, x) : rint;
  const plain = dtype.kind === "f" && dtype.size > 2; // where the array rounds by itself
  for (let i = 0; i < y.length; i++) {
    const v = Math.min(Math.max(centre + half * y[i], low), high);
    out[i] = plain ? v : round(v);
  }
  const taken = takenValue(limits);
  if (taken === undefined) return;
  const [below, above] = [nextValue(dtype, taken, false), nextValue(dtype, taken, true)].map(Number);
  for (let i = 0; i < y.length; i++) {
    if (out[i] !== taken) continue;
    const v = Math.min(Math.max(centre + half * y[i], low), high);
    out[i] = v < Number(taken) ? below : above;
  }
}

/** Of 64-bit integers double precision holds the difference to their centre alone. */
function restoreWide(y: Float64Array, limits: Limits, out: BigInt64Array): void {
  const [low, high] = [BigInt(limits.low), BigInt(limits.high)];
  const sum = low + high;
  const centre = sum >= 0n ? (sum + 1n) / 2n : sum / 2n; // rounded up
  const half = Math.max(Number(high - low) / 2, LEAST_HALF);
  const [above, below] = [Number(high - centre), Number(low - centre)];
  const taken = takenValue(limits) as bigint | undefined;
  for (let i = 0; i < y.length; i++) {
    const v = half * y[i];
    const d = rint(v);
    let value = d >= above ? high : d <= below ? low : centre + BigInt(d);
    if (value === taken) value += v < Number(taken - centre) ? -1n : 1n;
    out[i] = value;
  }
}

/** The same on a logarithmic scale. */
export function restoreFromScale(y: Float64Array, scale: Scale, limits: Limits, out: TypedArray): void {
  const { dtype, low, high } = limits;
  const [bottom, top] = scaleRange(scale, limits);
  const [least, most] = [Number(bottom), Number(top)];
  const wide = isWide(dtype);
  const taken = takenValue(limits);
  for (let i = 0; i < y.length; i++) {
    const m = magnitude(scale, y[i]);
    let value: Value;
    if (dtype.kind === "f") value = roundTo(dtype, Math.min(Math.max(m, least), most));
    else if (m >= most) value = top;
    else if (m <= least) value = bottom;
    else value = wide ? BigInt(rint(m)) : rint(m);
    if (scale.signs) {
      if (scale.signs[i]) value = -value;
      value = value < low ? low : value > high ? high : value;
    }
    if (value === taken) value = nextValue(dtype, value, true);
    out[i] = value as never;
  }
}

/** What is on a scale before signs: magnitudes up to the largest one, or values of the range. */
function scaleRange({ knee }: Scale, { dtype, low, high }: Limits): [Value, Value] {
  if (knee) return [low, high];
  let largest: Value = high;
  if (-low > high) largest = -low;
  const zero = typeof low === "bigint" ? 0n : 0;
  if (dtype.kind !== "i") return [zero, largest];
  const most = typeof low === "bigint" ? 2n ** 63n - 1n : 2 ** (8 * dtype.size - 1) - 1;
  return [zero, largest > most ? most : largest];
}

function magnitude({ knee, centre, half }: Scale, y: number): number {
  const t = centre + half * Math.min(Math.max(y, -1), 1);
  if (!knee) return Math.exp(t);
  const own = Math.abs(t);
  return Math.sign(t) * knee * (own <= 1 ? own : Math.exp(own - 1));
}
