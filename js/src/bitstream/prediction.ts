/** Integers of a grid, each coded as its distance from what its neighbours foretell (method 1 of section 8). */

import { check } from "../errors.js";
import { collect, type Lattice, makeLattice } from "./lattice.js";
import { RangeDecoder, zeroFrequency } from "./range_decoder.js";
import type { Reader } from "./reader.js";
import { makeWords, type Words } from "./words64.js";

const WITNESSES = 10;
const CANDIDATES = 6;
const [ACTIVITIES, RECENTS] = [96, 7];
const LARGEST_CLASS = 125;
const LARGEST_ERROR = 2 ** 30;
const LARGEST_STEP = 2 ** 40;
const TWO_32 = 2 ** 32;
const WHOLE = 2 ** 24;

/** Decode the integers of the valid voxels of a box, in C order. */
export function decodePredicted(
  source: Reader,
  box: readonly number[],
  valid: Uint8Array | undefined,
): Words {
  const flags = source.u8();
  const largest = source.u8();
  check(flags === 0 || flags === 1 || flags === 3, "a reserved bit of a prediction");
  check(largest <= LARGEST_CLASS, `a largest class of ${largest}`);
  const [startLow, startHigh] = [source.u32(), source.i32()];
  const [commonLow, commonHigh] = [source.u32(), source.i32()];
  const given = Array.from({ length: source.u8() }, () => source.i16());
  const words = source.block();
  const lattice = makeLattice(box, valid);
  check(
    given.length <= lattice.steps.length,
    `${given.length} weights of ${lattice.steps.length} neighbours`,
  );
  const weights = Float64Array.from(lattice.steps, (_, tap) => given[tap] ?? 0);
  const start = { high: startHigh, low: startLow };
  const common = { high: commonHigh, low: commonLow };
  const bits = new Bits(source.rest());
  const integers = follow(lattice, new RangeDecoder(words), bits, {
    weights,
    start,
    common,
    repeats: Boolean(flags & 1),
    blank: Boolean(flags & 2),
    classes: largest + 1,
  });
  bits.end();
  return collect(integers, lattice, box, valid);
}

/** Reads bits of bytes, the first in the highest place. */
class Bits {
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {}

  next(): number {
    check(this.at < 8 * this.bytes.length, "bits of a prediction that are missing");
    const bit = (this.bytes[this.at >> 3] >> (7 - (this.at & 7))) & 1;
    this.at++;
    return bit;
  }

  end(): void {
    check((this.at + 7) >> 3 === this.bytes.length, "bits of a prediction that are left over");
  }
}

interface Predictor {
  weights: Float64Array;
  start: { high: number; low: number };
  common: { high: number; low: number };
  repeats: boolean;
  blank: boolean;
  classes: number;
}

/** Half octaves of sizes, below 2^48. */
function sizeClass(size: number): number {
  if (size < 4) return size;
  let [rest, octave] = [size, 0];
  if (rest >= TWO_32) {
    rest = Math.floor(rest / 65536);
    octave = 16;
  }
  const own = 31 - Math.clz32(rest);
  return 2 * (octave + own) + ((rest >>> (own - 1)) & 1);
}

/** Decode the integers of a lattice, wavefront by wavefront. */
function follow(lattice: Lattice, decoder: RangeDecoder, bits: Bits, predictor: Predictor): Words {
  const { starts, places, columns, known, steps, moves, inside, nearness } = lattice;
  const { weights, start, common, repeats, blank } = predictor;
  const taps = steps.length;
  const values = makeWords(known.length);
  const { high, low } = values;
  const errors = new Int32Array(known.length);
  const rows = new ClassRows(predictor.classes);
  const flags = repeats ? new Repeats(lattice, values, common) : undefined;
  const here = new Int32Array(starts.length); // of each voxel of a wavefront: its row
  const repeated = new Uint8Array(starts.length);
  const table = new Int32Array(starts.length);
  const symbols = new Int32Array(starts.length);
  let [first, last] = [0, 0];
  for (let t = 0; t < starts[starts.length - 1] + columns; t++) {
    while (last < starts.length && starts[last] <= t) last++;
    while (first < last && starts[first] + columns <= t) first++;
    let size = 0;
    for (let line = first; line < last; line++)
      if (known[places[line] + t - starts[line]]) here[size++] = line;
    flags?.decode(decoder, here, size, t, repeated);
    for (let i = 0; i < size; i++) {
      const line = here[i];
      const column = t - starts[line];
      const place = places[line] + column;
      // The prediction, and how far off those of the neighbours were.
      let [baseHigh, baseLow, found] = [start.high, start.low, false];
      let [upper, lower] = [0, 512]; // of the weighted sum, apart at 2^20: together they need 62 bits
      let [activity, recent] = [0, 0];
      for (let tap = 0; tap < taps; tap++) {
        const beside = column + moves[tap];
        if (!inside[line * taps + tap] || beside < 0 || beside >= columns) continue;
        const at = place + steps[tap];
        if (!known[at]) continue;
        activity += nearness[tap] * errors[at];
        if (tap === 0) recent = 16 * errors[at];
        if (blank && high[at] === common.high && low[at] === common.low) continue;
        if (!found) {
          baseHigh = high[at];
          baseLow = low[at];
          found = true;
        } else if (weights[tap] !== 0) {
          const borrow = low[at] < baseLow ? 1 : 0;
          const away = ((high[at] - baseHigh - borrow) | 0) * TWO_32 + (low[at] - baseLow + borrow * TWO_32);
          const step = Math.min(Math.max(away, -LARGEST_STEP), LARGEST_STEP);
          const part = Math.floor(step / 2 ** 20);
          upper += weights[tap] * part;
          lower += weights[tap] * (step - part * 2 ** 20);
        }
      }
      const added = upper * 1024 + Math.floor(lower / 1024);
      const addedHigh = Math.floor(added / TWO_32);
      const sum = baseLow + (added - addedHigh * TWO_32);
      const guessLow = sum >= TWO_32 ? sum - TWO_32 : sum;
      const guessHigh = (baseHigh + addedHigh + (sum >= TWO_32 ? 1 : 0)) | 0;
      if (repeats && repeated[i]) {
        symbols[i] = -1;
      } else {
        const level = Math.min(sizeClass(activity), ACTIVITIES - 1);
        const near = Math.min(Math.max((sizeClass(recent) - level + 8) >> 1, 0), RECENTS - 1);
        table[i] = RECENTS * level + near;
        symbols[i] = rows.decode(decoder, table[i]);
        addError(values, place, guessHigh, guessLow, symbols[i], bits);
      }
      if (blank && high[place] === common.high && low[place] === common.low) {
        errors[place] = 0;
      } else {
        const borrow = low[place] < guessLow ? 1 : 0;
        const off =
          ((high[place] - guessHigh - borrow) | 0) * TWO_32 + (low[place] - guessLow + borrow * TWO_32);
        errors[place] = Math.min(Math.abs(off), LARGEST_ERROR);
      }
    }
    for (let i = 0; i < size; i++) if (symbols[i] >= 0) rows.count(table[i], symbols[i]);
  }
  return values;
}

/** Write a guess and the error that bits of a class say. */
function addError(values: Words, place: number, high: number, low: number, symbol: number, bits: Bits): void {
  let [upper, lower] = [0, Math.min(symbol, 3)];
  const negative = symbol > 0 && bits.next() === 1;
  if (symbol > 3) {
    lower = 2 + (symbol & 1);
    for (let i = (symbol >> 1) - 1; i > 0; i--) {
      lower = 2 * lower + bits.next();
      upper *= 2;
      if (lower >= TWO_32) {
        lower -= TWO_32;
        upper += 1;
      }
    }
  }
  const sum = negative ? low - lower : low + lower;
  const carry = Math.floor(sum / TWO_32);
  values.low[place] = sum - carry * TWO_32;
  values.high[place] = (negative ? high - upper : high + upper) + carry;
}

/** The frequencies of classes, of each row of activities. */
class ClassRows {
  private readonly counts: Int32Array;
  private readonly totals: Float64Array;
  private readonly renewed: Float64Array;
  private readonly tables: Int32Array;

  constructor(private readonly classes: number) {
    const rows = ACTIVITIES * RECENTS;
    this.counts = new Int32Array(rows * classes).fill(2);
    this.totals = new Float64Array(rows).fill(2 * classes);
    this.renewed = new Float64Array(rows);
    this.tables = new Int32Array(rows * (classes + 1));
  }

  decode(decoder: RangeDecoder, row: number): number {
    if (16 * this.totals[row] >= 17 * this.renewed[row]) this.renew(row);
    return decoder.symbol(this.tables, row * (this.classes + 1));
  }

  count(row: number, symbol: number): void {
    this.counts[row * this.classes + symbol] += 5;
    this.totals[row] += 5;
  }

  private renew(row: number): void {
    const { classes, counts, tables } = this;
    const [total, start, first] = [this.totals[row], row * (classes + 1), row * classes];
    let above = 0;
    for (let symbol = classes - 1; symbol > 0; symbol--) {
      above += 1 + Math.floor((counts[first + symbol] * (WHOLE - classes)) / total);
      tables[start + symbol] = WHOLE - above;
    }
    tables[start + classes] = WHOLE;
    this.renewed[row] = total;
  }
}

/** Flags that say whether a voxel's integer is the one that most of its neighbours have. */
class Repeats {
  private readonly zeros = new Int32Array(2 ** (WITNESSES + 1));
  private readonly ones = new Int32Array(2 ** (WITNESSES + 1));
  private readonly contexts: Int16Array;
  private readonly near = new Int32Array(WITNESSES); // places of the neighbours; -1 where one is not there

  constructor(
    private readonly lattice: Lattice,
    private readonly values: Words,
    private readonly common: { high: number; low: number },
  ) {
    this.contexts = new Int16Array(lattice.starts.length);
  }

  decode(decoder: RangeDecoder, here: Int32Array, size: number, t: number, repeated: Uint8Array): void {
    const { starts, places, columns, known, steps, moves, inside } = this.lattice;
    const { contexts, near, zeros, ones, common } = this;
    const { high, low } = this.values;
    const witnesses = Math.min(steps.length, WITNESSES);
    for (let i = 0; i < size; i++) {
      const line = here[i];
      const column = t - starts[line];
      const place = places[line] + column;
      for (let tap = 0; tap < witnesses; tap++) {
        const beside = column + moves[tap];
        const isThere = inside[line * steps.length + tap] && beside >= 0 && beside < columns;
        near[tap] = isThere && known[place + steps[tap]] ? place + steps[tap] : -1;
      }
      let [valueHigh, valueLow, most] = [common.high, common.low, 0];
      for (let tap = 0; tap < Math.min(witnesses, CANDIDATES); tap++) {
        if (near[tap] < 0) continue;
        const [ownHigh, ownLow] = [high[near[tap]], low[near[tap]]];
        let alike = 0;
        for (let other = 0; other < witnesses; other++) {
          if (near[other] >= 0 && high[near[other]] === ownHigh && low[near[other]] === ownLow) alike++;
        }
        if (alike > most) [valueHigh, valueLow, most] = [ownHigh, ownLow, alike];
      }
      let context = 0;
      for (let tap = 0; tap < witnesses; tap++) {
        const isSame = near[tap] >= 0 && high[near[tap]] === valueHigh && low[near[tap]] === valueLow;
        context = 2 * context + Number(isSame);
      }
      context = 2 * context + Number(valueHigh === common.high && valueLow === common.low);
      contexts[i] = context;
      repeated[i] = decoder.bit(zeroFrequency(zeros[context], ones[context]));
      if (repeated[i]) [high[place], low[place]] = [valueHigh, valueLow];
    }
    for (let i = 0; i < size; i++) {
      if (repeated[i]) ones[contexts[i]]++;
      else zeros[contexts[i]]++;
    }
  }
}
