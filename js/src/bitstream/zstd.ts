import { check } from "../errors.js";
import {
  BackwardBits,
  basesFrom,
  makeStates,
  oneState,
  readStates,
  readWords,
  type States,
  type Words,
} from "./entropy.js";
import { Reader } from "./reader.js";
import { xxh64Low } from "./xxhash.js";

const MAGIC = 0xfd2fb528;
const LARGEST_BLOCK = 1 << 17;

/** What a part of a sequence is coded by: its extra bits, smallest values, usual table and limits. */
interface Part {
  bits: Uint8Array;
  bases: Uint32Array;
  usual: States;
  mostLog: number;
}

function part(first: number, bits: number[], counts: number[], log: number, mostLog: number): Part {
  return {
    bits: Uint8Array.from(bits),
    bases: basesFrom(first, bits),
    usual: makeStates(counts, log),
    mostLog,
  };
}

const repeat = (value: number, count: number): number[] => Array(count).fill(value);

// RFC 8878, section 3.1.1.3.2.1.1 and 3.1.1.3.2.2: of literals, offsets and matches.
const LITERALS = part(
  0,
  [...repeat(0, 16), 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
  [4, 3, ...repeat(2, 11), 1, 1, 1, ...repeat(2, 9), 3, 2, ...repeat(1, 5), ...repeat(-1, 4)],
  6,
  9,
);
const OFFSETS = part(
  1,
  Array.from({ length: 32 }, (_, code) => code),
  [...repeat(1, 6), 2, 2, 2, ...repeat(1, 15), ...repeat(-1, 5)],
  5,
  8,
);
const MATCHES = part(
  3,
  [...repeat(0, 32), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
  [1, 4, 3, ...repeat(2, 6), ...repeat(1, 37), ...repeat(-1, 7)],
  6,
  9,
);
const PARTS = [LITERALS, OFFSETS, MATCHES];

/** The size of the content that the header of a frame states; -1 where it states none. */
function readHeader(source: Reader): { size: number; summed: boolean } {
  check(source.u32() === MAGIC, "no zstd frame");
  const head = source.u8();
  check(!(head & 8), "a reserved bit of a zstd frame");
  const single = Boolean(head & 32);
  if (!single) source.u8(); // the window: no more than the content, which is held as a whole
  for (const byte of source.take([0, 1, 2, 4][head & 3])) check(byte === 0, "a zstd frame of a dictionary");
  const flag = head >> 6;
  let size = -1;
  if (flag === 0 && single) size = source.u8();
  if (flag === 1) size = source.u16() + 256;
  if (flag === 2) size = source.u32();
  if (flag === 3) size = Number(source.u64());
  return { size, summed: Boolean(head & 4) };
}

/** Decodes the blocks of a frame into its content. */
class Frame {
  readonly content: Uint8Array;
  at = 0;
  private words: Words | undefined;
  private states: (States | undefined)[] = [undefined, undefined, undefined];
  private recent = [1, 4, 8];

  constructor(size: number) {
    this.content = new Uint8Array(size);
  }

  private room(count: number): void {
    check(count <= this.content.length - this.at, `more than ${this.content.length} bytes in a zstd frame`);
  }

  raw(bytes: Uint8Array): void {
    this.room(bytes.length);
    this.content.set(bytes, this.at);
    this.at += bytes.length;
  }

  repeated(byte: number, count: number): void {
    this.room(count);
    this.content.fill(byte, this.at, this.at + count);
    this.at += count;
  }

  compressed(bytes: Uint8Array): void {
    const source = new Reader(bytes);
    const literals = this.literals(source);
    let count = source.u8();
    if (count === 255) count = source.u16() + 0x7f00;
    else if (count >= 128) count = (count - 128) * 256 + source.u8();
    if (count === 0) {
      check(source.left === 0, "bytes behind a zstd block");
      this.raw(literals);
      return;
    }
    const modes = source.u8();
    check(!(modes & 3), "a reserved bit of a zstd block");
    const tables = PARTS.map((each, i) => {
      const table = this.table(source, (modes >> (6 - 2 * i)) & 3, each, this.states[i]);
      this.states[i] = table;
      return table;
    });
    this.sequences(new BackwardBits(source.rest()), count, tables, literals);
  }

  private table(source: Reader, mode: number, { bits, usual, mostLog }: Part, before?: States): States {
    if (mode === 0) return usual;
    if (mode === 1) {
      const symbol = source.u8();
      check(symbol < bits.length, "a reserved code of a zstd sequence");
      return oneState(symbol);
    }
    if (mode === 2) {
      const rest = source.peekRest();
      const [states, length] = readStates(rest, mostLog, bits.length - 1);
      source.take(length);
      return states;
    }
    check(before !== undefined, "a zstd table that nothing was before");
    return before;
  }

  private literals(source: Reader): Uint8Array {
    const head = source.u8();
    const [kind, format] = [head & 3, (head >> 2) & 3];
    if (kind < 2) {
      let size = head >> 3;
      if (format === 1) size = (head >> 4) + source.u8() * 16;
      if (format === 3) size = (head >> 4) + source.u16() * 16;
      this.room(size);
      return kind === 0 ? source.take(size) : new Uint8Array(size).fill(source.u8());
    }
    const width = [10, 10, 14, 18][format];
    let sizes = head >> 4;
    for (let i = 0; i < [2, 2, 3, 4][format]; i++) sizes += source.u8() * 2 ** (4 + 8 * i);
    const size = sizes % 2 ** width;
    const coded = source.take(Math.floor(sizes / 2 ** width));
    check(size <= LARGEST_BLOCK, "a zstd block that is too large");
    this.room(size);
    let start = 0;
    if (kind === 2) [this.words, start] = readWords(coded);
    check(this.words !== undefined, "a zstd code that nothing was before");
    const result = new Uint8Array(size);
    const streams = new Reader(coded.subarray(start));
    if (format === 0) {
      readLiterals(streams.rest(), this.words, result);
      return result;
    }
    const lengths = [streams.u16(), streams.u16(), streams.u16()];
    const share = (size + 3) >> 2;
    check(3 * share <= size, "zstd literals of too few for four streams");
    for (let i = 0; i < 4; i++) {
      const own = result.subarray(i * share, i < 3 ? (i + 1) * share : size);
      readLiterals(i < 3 ? streams.take(lengths[i]) : streams.rest(), this.words, own);
    }
    return result;
  }

  private sequences(source: BackwardBits, count: number, tables: States[], literals: Uint8Array): void {
    const [lengths, offsets, matches] = tables;
    let length = source.read(lengths.log);
    let offset = source.read(offsets.log);
    let match = source.read(matches.log);
    let used = 0;
    for (let i = 0; i < count; i++) {
      const far = offsets.symbols[offset];
      const code = matches.symbols[match];
      const own = lengths.symbols[length];
      const farther = OFFSETS.bases[far] + source.read(far);
      const matched = MATCHES.bases[code] + source.read(MATCHES.bits[code]);
      const plain = LITERALS.bases[own] + source.read(LITERALS.bits[own]);
      if (i + 1 < count) {
        length = lengths.bases[length] + source.read(lengths.bits[length]);
        match = matches.bases[match] + source.read(matches.bits[match]);
        offset = offsets.bases[offset] + source.read(offsets.bits[offset]);
      }
      check(source.left >= 0, "zstd sequences that are cut off");
      check(plain <= literals.length - used, "more zstd literals than there are");
      this.raw(literals.subarray(used, used + plain));
      used += plain;
      this.copy(this.distance(farther, plain === 0), matched);
    }
    check(source.left === 0, "bits behind zstd sequences");
    this.raw(literals.subarray(used));
  }

  /** The distance that a number stands for: one of the last three, or a new one. */
  private distance(value: number, empty: boolean): number {
    const { recent } = this;
    let distance = value - 3;
    let from = 2;
    if (value <= 3) {
      from = value - 1 + Number(empty);
      distance = from < 3 ? recent[from] : recent[0] - 1;
      from = Math.min(from, 2);
    }
    for (let i = from; i > 0; i--) recent[i] = recent[i - 1];
    recent[0] = distance;
    return distance;
  }

  private copy(distance: number, count: number): void {
    const { content } = this;
    check(distance > 0 && distance <= this.at, "a distance beyond the start of a zstd frame");
    this.room(count);
    for (const end = this.at + count; this.at < end; this.at++)
      content[this.at] = content[this.at - distance];
  }
}

function readLiterals(bytes: Uint8Array, { log, symbols, lengths }: Words, result: Uint8Array): void {
  const source = new BackwardBits(bytes);
  for (let i = 0; i < result.length && source.left >= 0; i++) {
    const word = source.peek(log);
    result[i] = symbols[word];
    source.left -= lengths[word];
  }
  check(source.left === 0, "zstd literals that do not end with their bits");
}

/** Unpack one zstd frame (RFC 8878) that states, and holds, exactly `size` bytes, and is followed by none. */
export function unpack(bytes: Uint8Array, size: number): Uint8Array {
  const source = new Reader(bytes);
  const header = readHeader(source);
  check(header.size === size, `a zstd frame that does not state ${size} bytes`);
  const frame = new Frame(size);
  for (let last = false; !last; ) {
    const head = source.u16() + source.u8() * 65536;
    const [kind, length] = [(head >> 1) & 3, head >> 3];
    last = Boolean(head & 1);
    if (kind === 0) frame.raw(source.take(length));
    else if (kind === 1) frame.repeated(source.u8(), length);
    else {
      check(kind === 2 && length <= LARGEST_BLOCK, "a zstd block of a reserved kind or size");
      frame.compressed(source.take(length));
    }
  }
  check(frame.at === size, `${frame.at} bytes unpacked, expected ${size}`);
  if (header.summed) check(source.u32() === xxh64Low(frame.content), "a checksum that differs");
  check(source.left === 0, "bytes behind a zstd frame");
  return frame.content;
}
