const PRIMES: number[] = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
/** The first 32 bits behind the point of roots of primes; doubles hold twenty more. */
const CUBE_ROOTS = PRIMES.map((prime) => (Math.cbrt(prime) * 2 ** 32) | 0);
const SQUARE_ROOTS = PRIMES.slice(0, 8).map((prime) => (Math.sqrt(prime) * 2 ** 32) | 0);

const rotate = (word: number, by: number) => (word >>> by) | (word << (32 - by));

/** The first four bytes of SHA-256 (FIPS 180-4), as a little-endian number. */
export function sha256Start(bytes: Uint8Array): number {
  const padded = new Uint8Array(64 * Math.ceil((bytes.length + 9) / 64));
  const view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 128;
  view.setUint32(padded.length - 4, 8 * bytes.length); // below 2^32: dictionaries are small
  const sums = Int32Array.from(SQUARE_ROOTS);
  const words = new Int32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    let [a, b, c, d, e, f, g, h] = sums;
    for (let i = 0; i < 64; i++) {
      const [x, y] = [words[i - 15], words[i - 2]];
      words[i] =
        i < 16
          ? view.getInt32(block + 4 * i)
          : words[i - 16] +
            words[i - 7] +
            (rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3)) +
            (rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10));
      const first =
        h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + CUBE_ROOTS[i] + words[i];
      const second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => {
      sums[i] += word;
    });
  }
  view.setInt32(0, sums[0]);
  return view.getUint32(0, true);
}
