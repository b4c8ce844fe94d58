/** The quantisation step of a step code, a byte: eight to the octave, from 2^-24. */
export function stepSize(code: number): number {
  return (8 + (code % 8)) * 2 ** (Math.floor(code / 8) - 27);
}
