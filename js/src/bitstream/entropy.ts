import { check } from "../errors.js";

const CODE_CUT_OFF = "a Huffman code that is cut off";
const BEFORE = 16; // zero bytes that stand before the first one, more than a sequence can ask for in vain

/** The smallest value of each code, of so many extra bits. */
export function basesFrom(first: number, bits: ArrayLike<number>): Uint32Array {
  const bases = new Uint32Array(bits.length).fill(first);
  for (let code = 1; code < bits.length; code++) bases[code] = bases[code - 1] + 2 ** bits[code - 1];
  return bases;
}

/** Reads bits of bytes backwards, as zstd's entropy coders were written (RFC 8878, section 4.1). */
export class BackwardBits {
  /** Bits that are left; below 0 where more were read than there are, for which zeros stand. */
  left: number;
  private readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    const last = bytes.length ? bytes[bytes.length - 1] : 0;
    check(last > 0, "bits without a mark of their end");
    this.left = 8 * bytes.length - 1 - Math.clz32(last << 24);
    this.bytes = new Uint8Array(BEFORE + bytes.length + 4);
    this.bytes.set(bytes, BEFORE);
  }

  /** The next bits, at most 24, the first one in the highest place; they stay to be read. */
  peek(count: number): number {
    const from = this.left - count + 8 * BEFORE;
    const { bytes } = this;
    const at = from >> 3;
    const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    return (word >>> (from & 7)) & ((1 << count) - 1);
  }

  /** The next bits, at most 31. */
  read(count: number): number {
    if (count > 24) return this.read(count - 16) * 65536 + this.read(16);
    const value = this.peek(count);
    this.left -= count;
    return value;
  }
}

/** A table of a finite-state entropy coder: what each state stands for, and which states may follow. */
export interface States {
  log: number;
  symbols: Uint8Array;
  bits: Uint8Array;
  bases: Uint16Array;
}

/** Make the table of a distribution; -1 counts as "less than one" (RFC 8878, section 4.1.1). */
export function makeStates(counts: ArrayLike<number>, log: number): States {
  const size = 1 << log;
  const symbols = new Uint8Array(size);
  const next = new Uint16Array(counts.length);
  let high = size;
  for (let symbol = 0; symbol < counts.length; symbol++) {
    next[symbol] = Math.abs(counts[symbol]);
    if (counts[symbol] < 0) symbols[--high] = symbol;
  }
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  for (let symbol = 0; symbol < counts.length; symbol++) {
    for (let i = 0; i < counts[symbol]; i++) {
      symbols[at] = symbol;
      do at = (at + step) & (size - 1);
      while (at >= high);
    }
  }
  check(at === 0, "a distribution that does not fill its table");
  const bits = new Uint8Array(size);
  const bases = new Uint16Array(size);
  for (let state = 0; state < size; state++) {
    const number = next[symbols[state]]++;
    bits[state] = log - (31 - Math.clz32(number));
    bases[state] = (number << bits[state]) - size;
  }
  return { log, symbols, bits, bases };
}

/** The table that always gives one symbol. */
export function oneState(symbol: number): States {
  return { log: 0, symbols: Uint8Array.of(symbol), bits: Uint8Array.of(0), bases: Uint16Array.of(0) };
}

/** Read a distribution; return its table, and how many bytes it took. */
export function readStates(bytes: Uint8Array, mostLog: number, mostSymbol: number): [States, number] {
  let at = 0;
  const peek = (count: number): number => {
    let value = 0;
    for (let i = at >> 3, shift = -(at & 7); shift < count; i++, shift += 8) {
      value += (i < bytes.length ? bytes[i] : 0) * 2 ** shift;
    }
    return Math.floor(value) % 2 ** count;
  };
  const log = peek(4) + 5;
  at = 4;
  check(log <= mostLog, "a distribution that is too fine");
  const counts: number[] = [];
  let rest = 1 << log;
  while (rest > 0) {
    check(at <= 8 * bytes.length, "a distribution that is cut off");
    // Values up to `rest + 1`; the smallest ones take a bit less.
    const width = 32 - Math.clz32(rest + 1);
    const short = 2 ** width - 1 - (rest + 1);
    let value = peek(width - 1);
    if (value < short) {
      at += width - 1;
    } else {
      value = peek(width);
      if (value >= 2 ** (width - 1)) value -= short;
      at += width;
    }
    const count = value - 1;
    check(counts.length <= mostSymbol, "a distribution of too many symbols");
    counts.push(count);
    rest -= Math.abs(count);
    while (count === 0) {
      const zeros = peek(2);
      at += 2;
      for (let i = 0; i < zeros; i++) counts.push(0);
      check(counts.length <= mostSymbol + 1 && at <= 8 * bytes.length, "a distribution of too many symbols");
      if (zeros < 3) break;
    }
  }
  check(rest === 0 && at <= 8 * bytes.length, "a distribution that is cut off");
  return [makeStates(counts, log), (at + 7) >> 3];
}

/** A table of a Huffman code: the symbol of each run of `log` bits, and how many of them it takes. */
export interface Words {
  log: number;
  symbols: Uint8Array;
  lengths: Uint8Array;
}

/** Read a Huffman code (RFC 8878, section 4.2.1); return it, and how many bytes it took. */
export function readWords(bytes: Uint8Array): [Words, number] {
  check(bytes.length > 0, CODE_CUT_OFF);
  const head = bytes[0];
  const [weights, end] = head < 128 ? packedWeights(bytes, head) : directWeights(bytes, head - 127);
  let total = 0;
  for (const weight of weights) {
    check(weight <= 11, "a Huffman code that is too long");
    if (weight) total += 1 << (weight - 1);
  }
  check(total > 0, "a Huffman code of no words");
  // The last weight fills up a power of two.
  const log = 32 - Math.clz32(total);
  const missing = (1 << log) - total;
  check(log <= 11 && (missing & (missing - 1)) === 0, "a Huffman code that does not add up");
  weights.push(32 - Math.clz32(missing));
  check(weights.filter((weight) => weight === 1).length >= 2, "a Huffman code that does not add up");
  const symbols = new Uint8Array(1 << log);
  const lengths = new Uint8Array(1 << log);
  let at = 0;
  for (let weight = 1; weight <= log; weight++) {
    weights.forEach((each, symbol) => {
      if (each !== weight) return;
      const next = at + (1 << (weight - 1));
      symbols.fill(symbol, at, next);
      lengths.fill(log + 1 - weight, at, next);
      at = next;
    });
  }
  return [{ log, symbols, lengths }, end];
}

function directWeights(bytes: Uint8Array, count: number): [number[], number] {
  const end = 1 + ((count + 1) >> 1);
  check(end <= bytes.length, CODE_CUT_OFF);
  const weights = Array.from({ length: count }, (_, i) =>
    i % 2 ? bytes[1 + (i >> 1)] & 15 : bytes[1 + (i >> 1)] >> 4,
  );
  return [weights, end];
}

function packedWeights(bytes: Uint8Array, size: number): [number[], number] {
  check(size > 0 && size < bytes.length, CODE_CUT_OFF);
  const [states, start] = readStates(bytes.subarray(1, 1 + size), 6, 12);
  check(start < size, CODE_CUT_OFF);
  const source = new BackwardBits(bytes.subarray(1 + start, 1 + size));
  const weights: number[] = [];
  // Two states take turns; the bits end with what one of them asks for.
  let own = source.read(states.log);
  let other = source.read(states.log);
  check(source.left >= 0, CODE_CUT_OFF);
  for (;;) {
    check(weights.length < 254, "a Huffman code of too many words");
    weights.push(states.symbols[own]);
    own = states.bases[own] + source.read(states.bits[own]);
    if (source.left < 0) {
      weights.push(states.symbols[other]);
      return [weights, 1 + size];
    }
    [own, other] = [other, own];
  }
}
