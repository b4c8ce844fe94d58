/** Integers of 64 bits, modulo 2^64, as arrays of halves: bigints would take many times as long. */

const TWO_32 = 2 ** 32;

/** Arrays of signed integers of 64 bits. */
export interface Words {
  high: Int32Array;
  low: Uint32Array;
}

export function makeWords(count: number): Words {
  return { high: new Int32Array(count), low: new Uint32Array(count) };
}

/** The nearest double. */
export function toNumber({ high, low }: Words, i: number): number {
  return high[i] * TWO_32 + low[i];
}

/** The same words as bigints, without a copy where the machine is little endian. */
export function toBigInts(words: Words): BigInt64Array {
  const result = new BigInt64Array(words.high.length);
  const view = new DataView(result.buffer);
  const little = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
  for (let i = 0; i < result.length; i++) {
    view.setInt32(8 * i + (little ? 4 : 0), words.high[i], little);
    view.setUint32(8 * i + (little ? 0 : 4), words.low[i], little);
  }
  return result;
}
