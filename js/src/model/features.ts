/** What a network reads of the transform around a voxel. */

import type { Coefficients } from "../bitstream/coefficients.js";
import type { Stencil } from "../bitstream/network.js";
import { product } from "./shapes.js";

/** The root mean square of a transform about its mean, by Parseval; 1 where it is 0. */
export function transformNorm({ integers, step }: Coefficients, shape: readonly number[]): number {
  let sum = 0;
  integers.values.forEach((integer, i) => {
    if (integers.places[i]) sum += (integer * step) ** 2;
  });
  return Math.sqrt(sum / product(shape)) || 1;
}

/** Four neighbours of each number of an axis, in the order of the features: how far each is, held inside. */
export function neighbourTables({ distance }: Stencil, n: number): Int32Array[] {
  return [distance, -distance, 3 * distance, -3 * distance].map((move) =>
    Int32Array.from({ length: n }, (_, i) => Math.min(Math.max(i + move, 0), n - 1) - i),
  );
}

/** What the differences to these neighbours are multiplied by. */
export function neighbourGains({ gain }: Stencil, norm: number): number[] {
  return [gain, gain, gain - 1, gain - 1].map((power) => 2 ** power / norm);
}
