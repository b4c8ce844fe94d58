/** Integers in groups, each with a distribution of its own: of networks, and of linear experts. */

import { check } from "../errors.js";
import { RangeDecoder } from "./range_decoder.js";
import type { Reader } from "./reader.js";

const LARGEST_INTEGER = 32767;
const WHOLE = 2 ** 24;

/** The integers of groups of so many each, to the end of the section. */
export function readGroups(source: Reader, counts: number[]): Float64Array[] {
  const heads = counts.map(() => {
    const largest = source.varint();
    check(largest <= LARGEST_INTEGER, `a largest integer of ${largest}`);
    return { largest, distribution: largest ? source.u8() : 0 };
  });
  const decoder = new RangeDecoder(source.rest());
  return heads.map(({ largest, distribution }, i) => {
    const integers = new Float64Array(counts[i]);
    if (largest === 0) return integers;
    const table = cumulativeFrequencies(largest, distribution);
    for (let element = 0; element < integers.length; element++) {
      const target = decoder.target();
      let [low, high] = [0, table.length - 1];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (table[middle] <= target) low = middle;
        else high = middle;
      }
      decoder.take(table[low], table[high] - table[low]);
      integers[element] = low - largest;
    }
    return integers;
  });
}

/** Cumulative frequencies of -largest, ..., largest, then 2^24. */
function cumulativeFrequencies(largest: number, distribution: number): Int32Array {
  const t = distribution >> 5;
  const j = distribution & 31;
  const a = BigInt((8 - (j % 4)) * 2 ** (29 - (j >> 2)) * 2 ** (t + 1));
  const shares = Float64Array.from({ length: largest + 1 }, (_, k) => {
    const x = BigInt(Math.floor((65536 * k) / (largest + 1)));
    let share = Number(((1n << 20n) * a) / (a + x * x)); // up to 2^60 above the line
    for (let turn = 0; turn < t; turn++) share = Math.floor((share * share) / 2 ** 20);
    return share;
  });
  const total = 2 * shares.reduce((all, share) => all + share, 0) - shares[0];
  const frequencies = shares.map((share) => 1 + Math.floor((share * (WHOLE - 2 * largest - 1)) / total));
  const others = 2 * frequencies.reduce((all, frequency) => all + frequency, 0) - frequencies[0];
  frequencies[0] += WHOLE - others;
  const table = new Int32Array(2 * largest + 2);
  for (let i = 0; i <= 2 * largest; i++) table[i + 1] = table[i] + frequencies[Math.abs(i - largest)];
  return table;
}
