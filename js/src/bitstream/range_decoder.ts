import { check } from "../errors.js";

const TWO_16 = 2 ** 16;
const TWO_24 = 2 ** 24;
const TWO_32 = 2 ** 32;

/**
 * The range decoder: 64-bit states as two unsigned halves of 32 bits, in doubles, which hold every number
 * here exactly. Frequencies add up to 2^24.
 */
export class RangeDecoder {
  private rangeHigh = TWO_32 - 1;
  private rangeLow = TWO_32 - 1;
  private pointHigh: number;
  private pointLow: number;
  private scale = 0;
  // The last product of `multiply`, and 2^24 times the scale, without its high half, which is the range's.
  private high = 0;
  private low = 0;
  private wholeLow = 0;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.pointHigh = this.word();
    this.pointLow = this.word();
  }

  /** One of two symbols, of which 0 has the frequency `zero`. */
  bit(zero: number): number {
    this.begin();
    this.multiply(zero);
    const { high, low } = this;
    if (this.pointHigh < high || (this.pointHigh === high && this.pointLow < low)) {
      this.rangeHigh = high;
      this.rangeLow = low;
      if (high === 0) this.refill();
      return 0;
    }
    this.subtract();
    this.rangeHigh -= high;
    this.rangeLow = this.wholeLow - low;
    if (this.rangeLow < 0) {
      this.rangeLow += TWO_32;
      this.rangeHigh -= 1;
    }
    if (this.rangeHigh === 0) this.refill();
    return 1;
  }

  /** A number of so many bits, at most 24, all equally likely. */
  number(length: number): number {
    const shift = 24 - length;
    const value = this.target() >> shift;
    this.take(value << shift, 1 << shift);
    return value;
  }

  /**
   * A symbol whose cumulative frequencies, those of the symbols before each and 2^24 at last, stand in
   * `table` from `start` on; searched from the first one on.
   */
  symbol(table: Int32Array, start: number): number {
    const target = this.target();
    let at = start + 1;
    while (target >= table[at]) at++;
    this.take(table[at - 1], table[at] - table[at - 1]);
    return at - 1 - start;
  }

  /** What lies behind the next symbol: `before <= target < before + frequency`. `take` must follow. */
  target(): number {
    this.begin();
    // The quotient in doubles is off by one at most; its product says which way.
    const quotient = Math.floor((this.pointHigh * TWO_32 + this.pointLow) / this.scale);
    this.multiply(quotient);
    const rest = (this.pointHigh - this.high) * TWO_32 + (this.pointLow - this.low);
    return rest < 0 ? quotient - 1 : rest >= this.scale ? quotient + 1 : quotient;
  }

  /** Take the symbol that the target belongs to. */
  take(before: number, frequency: number): void {
    this.multiply(before);
    this.subtract();
    this.multiply(frequency);
    this.rangeHigh = this.high;
    this.rangeLow = this.low;
    if (this.high === 0) this.refill();
  }

  private begin(): void {
    const top = Math.floor(this.rangeLow / TWO_24);
    this.scale = this.rangeHigh * 256 + top;
    this.wholeLow = top * TWO_24;
    check(
      this.pointHigh < this.rangeHigh || (this.pointHigh === this.rangeHigh && this.pointLow < this.wholeLow),
      "words that the range coder refuses",
    );
  }

  /** Multiply the scale, below 2^40, by a frequency, at most 2^24. */
  private multiply(factor: number): void {
    const upper = Math.floor(this.scale / TWO_16);
    const first = upper * factor;
    const second = (this.scale - upper * TWO_16) * factor;
    const carried = Math.floor(first / TWO_16);
    const low = (first - carried * TWO_16) * TWO_16 + second;
    const above = Math.floor(low / TWO_32);
    this.high = carried + above;
    this.low = low - above * TWO_32;
  }

  private subtract(): void {
    this.pointHigh -= this.high;
    this.pointLow -= this.low;
    if (this.pointLow < 0) {
      this.pointLow += TWO_32;
      this.pointHigh -= 1;
    }
  }

  private refill(): void {
    this.rangeHigh = this.rangeLow;
    this.rangeLow = 0;
    this.pointHigh = this.pointLow;
    this.pointLow = this.word();
  }

  /** The next word; zeros stand for the bytes beyond the end. */
  private word(): number {
    const { bytes, at } = this;
    this.at += 4;
    let word = 0;
    for (let i = Math.min(at + 4, bytes.length) - 1; i >= at; i--) word = word * 256 + bytes[i];
    return word;
  }
}

/** The frequency of 0 where so many zeros and ones were counted: of masks, and of flags of integers. */
export function zeroFrequency(zeros: number, ones: number): number {
  const chance = Math.floor(((2 * ones + 1) * TWO_16) / (2 * (zeros + ones) + 2));
  const c = Math.min(Math.max(chance, 1), TWO_16 - 1);
  return 1 + Math.floor(((TWO_16 - c) * (TWO_24 - 2)) / TWO_16);
}
