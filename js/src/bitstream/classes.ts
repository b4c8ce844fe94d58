/** The classes of coefficients and corrections, and the frequencies that follow from them in integers. */

import type { Reader } from "./reader.js";

export const CLASSES = 64;
const WHOLE = 2 ** 24;
const ONE = 2 ** 30;

/** What the class of a coefficient follows from. */
export interface Context {
  /** Three of each axis. */
  weights: Uint8Array;
  floor: number;
  rise: number;
  power: number;
  offset: number;
  slope: number;
}

export function readContext(source: Reader, axes: number): Context {
  return {
    weights: source.take(3 * axes),
    floor: source.i8(),
    rise: source.i8(),
    power: source.u8(),
    offset: source.i16(),
    slope: source.i16(),
  };
}

/** The activity of a coefficient of an octave without neighbours. */
export function quietActivity({ floor, rise }: Context, octave: number): number {
  const k = Math.min(Math.max(floor + rise * octave, 0), 127);
  return Math.floor(((8 + (k % 8)) * 2 ** Math.floor(k / 8)) / 8);
}

/** The class of a coefficient of an octave, from its activity, at least 1 and below 2^31. */
export function classOf({ power, offset, slope }: Context, octave: number, activity: number): number {
  const exponent = 31 - Math.clz32(activity);
  const fine = exponent >= 3 ? activity >> (exponent - 3) : activity << (3 - exponent);
  const number = (power * (8 * exponent + fine - 8) + offset + slope * octave) >> 7;
  return Math.min(Math.max(number, 0), CLASSES - 1);
}

/** The share of 2^30 that a Laplace distribution of a class's scale keeps from one bin to the next. */
const DECAYS = Float64Array.from({ length: CLASSES }, (_, number) => {
  const scale = (4 + (number % 4)) * 2 ** (Math.floor(number / 4) - 7);
  return Math.floor(ONE * Math.exp(-1 / (2 * scale)));
});

/** The frequency of 0 among the flags of each class. */
export const FLAG_ZEROS = Int32Array.from(DECAYS, (decay) => {
  const c = Math.max(Math.floor(decay / 64), 256);
  return 1 + Math.floor(((WHOLE - c) * (WHOLE - 2)) / WHOLE);
});

/** Two whole numbers up to 2^30 multiplied, over 2^30, rounded down. */
function multiply(a: number, b: number): number {
  const upper = Math.floor(b / 32768);
  return Math.floor((a * upper + Math.floor((a * (b % 32768)) / 32768)) / 32768);
}

/** Cumulative frequencies of the magnitudes 1, ..., largest: `largest + 1` numbers of each class. */
export function magnitudeTables(largest: number): Int32Array {
  const tables = new Int32Array(CLASSES * (largest + 1));
  const squares = DECAYS.map((decay) => multiply(decay, decay));
  for (let number = 0; number < CLASSES; number++) {
    const first = squares[Math.max(number, 13)];
    const others = squares[Math.max(number, 18)];
    const frequencies: number[] = [];
    let rest = ONE;
    let total = 0;
    for (let k = 1; k <= largest; k++) {
      const above = k === largest ? 0 : multiply(rest, k === 1 ? first : others);
      frequencies.push(1 + multiply(rest - above, WHOLE - largest));
      total += frequencies[k - 1];
      rest = above;
    }
    frequencies[0] += WHOLE - total;
    const start = number * (largest + 1);
    frequencies.forEach((frequency, k) => {
      tables[start + k + 1] = tables[start + k] + frequency;
    });
  }
  return tables;
}
