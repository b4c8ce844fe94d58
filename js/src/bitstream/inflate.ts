import { check } from "../errors.js";
import { basesFrom } from "./entropy.js";

// RFC 1951, section 3.2.5: base and extra bits of the codes of lengths and of distances.
const bitsFrom = (length: number, run: number) =>
  Uint8Array.from({ length }, (_, code) => Math.max(Math.floor(code / run) - 1, 0));
const LENGTH_BITS = bitsFrom(29, 4);
const LENGTHS = basesFrom(3, LENGTH_BITS);
[LENGTHS[28], LENGTH_BITS[28]] = [258, 0]; // out of line
const DISTANCE_BITS = bitsFrom(30, 2);
const DISTANCES = basesFrom(1, DISTANCE_BITS);
// biome-ignore format: one table
const ORDER = Uint8Array.of(
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
);
const LONGEST = 15;
const END_OF_BLOCK = 256;

/** A canonical Huffman code: how many codes have each length, and the symbols in the order of codes. */
interface Code {
  counts: Uint16Array;
  symbols: Uint16Array;
}

/**
 * The code of the lengths of symbols.
 *
 * As zlib does, refuses codes with more words than fit, and with fewer, but for one of a single word.
 */
function makeCode(lengths: Uint8Array): Code {
  const counts = new Uint16Array(LONGEST + 1);
  for (const length of lengths) counts[length]++;
  const used = lengths.length - counts[0];
  counts[0] = 0;
  let room = 1;
  for (let length = 1; length <= LONGEST; length++) {
    room = 2 * room - counts[length];
    check(room >= 0, "a Huffman code of too many words");
  }
  check(room === 0 || used === 0 || (used === 1 && counts[1] === 1), "a Huffman code of too few words");
  const offsets = new Uint16Array(LONGEST + 2);
  for (let length = 1; length <= LONGEST; length++) offsets[length + 1] = offsets[length] + counts[length];
  const symbols = new Uint16Array(used);
  lengths.forEach((length, symbol) => {
    if (length) symbols[offsets[length]++] = symbol;
  });
  return { counts, symbols };
}

/** Reads bits of bytes, the lowest first. */
class BitReader {
  private held = 0;
  private count = 0;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {}

  bits(count: number): number {
    while (this.count < count) {
      check(this.at < this.bytes.length, "a deflated block that is cut off");
      this.held |= this.bytes[this.at++] << this.count;
      this.count += 8;
    }
    const value = this.held & ((1 << count) - 1);
    this.held >>>= count;
    this.count -= count;
    return value;
  }

  symbol({ counts, symbols }: Code): number {
    let code = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length <= LONGEST; length++) {
      code |= this.bits(1);
      const count = counts[length];
      if (code - first < count) return symbols[index + code - first];
      index += count;
      first = (first + count) << 1;
      code <<= 1;
    }
    check(false, "a word of no Huffman code");
  }

  /** Bytes from the next whole one on; the bits before it are dropped. */
  aligned(count: number): Uint8Array {
    this.held = this.count = 0; // never a whole byte: `bits` reads no more than it needs
    check(count <= this.bytes.length - this.at, "a deflated block that is cut off");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  get left(): number {
    return this.bytes.length - this.at;
  }
}

const FIXED: [Code, Code] = [
  makeCode(new Uint8Array(288).map((_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8))),
  makeCode(new Uint8Array(32).fill(5)),
];

function readCodes(source: BitReader): [Code, Code] {
  const literals = source.bits(5) + 257;
  const distances = source.bits(5) + 1;
  const meta = new Uint8Array(19);
  check(literals <= 286 && distances <= 30, "Huffman codes of too many symbols");
  for (let i = 0, n = source.bits(4) + 4; i < n; i++) meta[ORDER[i]] = source.bits(3);
  const code = makeCode(meta);
  const lengths = new Uint8Array(literals + distances);
  for (let i = 0; i < lengths.length; ) {
    const symbol = source.symbol(code);
    if (symbol < 16) {
      lengths[i++] = symbol;
      continue;
    }
    check(symbol > 16 || i > 0, "a length of nothing that is repeated");
    const value = symbol === 16 ? lengths[i - 1] : 0;
    const count =
      symbol === 16 ? 3 + source.bits(2) : symbol === 17 ? 3 + source.bits(3) : 11 + source.bits(7);
    check(i + count <= lengths.length, "more lengths than symbols");
    lengths.fill(value, i, i + count);
    i += count;
  }
  check(lengths[END_OF_BLOCK] > 0, "a block without an end");
  return [makeCode(lengths.subarray(0, literals)), makeCode(lengths.subarray(literals))];
}

function adler32(bytes: Uint8Array): number {
  let a = 1;
  let b = 0;
  for (let start = 0; start < bytes.length; start += 4096) {
    const end = Math.min(start + 4096, bytes.length);
    for (let i = start; i < end; i++) b += a += bytes[i];
    a %= 65521;
    b %= 65521;
  }
  return b * 65536 + a;
}

/** Inflate one zlib stream (RFC 1950) that holds exactly `size` bytes and is followed by none. */
export function inflate(bytes: Uint8Array, size: number): Uint8Array {
  check(bytes.length >= 2 && (bytes[0] & 15) === 8 && bytes[0] >> 4 <= 7, "no zlib stream");
  check(((bytes[0] << 8) | bytes[1]) % 31 === 0 && !(bytes[1] & 32), "no zlib stream");
  const source = new BitReader(bytes.subarray(2));
  const result = new Uint8Array(size);
  let at = 0;
  const room = (count: number) => check(count <= size - at, `more than ${size} bytes inflated`);
  let last = 0;
  while (!last) {
    last = source.bits(1);
    const kind = source.bits(2);
    check(kind < 3, "a deflated block of a reserved kind");
    if (kind === 0) {
      const head = source.aligned(4);
      const length = head[0] | (head[1] << 8);
      check((length ^ 0xffff) === (head[2] | (head[3] << 8)), "a stored block of two lengths");
      room(length);
      result.set(source.aligned(length), at);
      at += length;
      continue;
    }
    const [literals, distances] = kind === 1 ? FIXED : readCodes(source);
    for (;;) {
      const symbol = source.symbol(literals);
      if (symbol === END_OF_BLOCK) break;
      if (symbol < END_OF_BLOCK) {
        room(1);
        result[at++] = symbol;
        continue;
      }
      const number = symbol - 257;
      check(number < LENGTHS.length, "a reserved length");
      const length = LENGTHS[number] + source.bits(LENGTH_BITS[number]);
      const far = source.symbol(distances);
      check(far < DISTANCES.length, "a reserved distance");
      const distance = DISTANCES[far] + source.bits(DISTANCE_BITS[far]);
      check(distance <= at, "a distance beyond the start");
      room(length);
      for (const end = at + length; at < end; at++) result[at] = result[at - distance];
    }
  }
  check(at === size, `${at} bytes inflated, expected ${size}`);
  const sum = source.aligned(4);
  check(source.left === 0, "bytes behind a zlib stream");
  check(adler32(result) === new DataView(sum.buffer, sum.byteOffset).getUint32(0), "a checksum that differs");
  return result;
}
