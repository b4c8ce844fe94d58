/** Section 5: corrections with which a bound on the error is kept. */

import { check } from "../errors.js";
import { foldAxis, longAxes, paddedShape, product, visitRows } from "../model/shapes.js";
import { readContext } from "./classes.js";
import { Reader } from "./reader.js";
import { type Grid, readWavefronts, type Sparse } from "./wavefronts.js";

/** Corrections, whose places are numbers in the padded shape of the axes, in C order. */
export interface Residual {
  spacing: number;
  corrections: Sparse | undefined;
}

/** Read the corrections of a box, of whose bytes a dictionary has `taken`. */
export function readResidual(bytes: Uint8Array, box: readonly number[], taken = 0): Residual {
  const source = new Reader(bytes);
  const bound = source.f64();
  const spacing = source.f32();
  check(bound >= 0 && Number.isFinite(bound), `a bound of ${bound}`);
  check(spacing > 0 && Number.isFinite(spacing), `a spacing of ${spacing}`);
  if (source.left === 0) return { spacing, corrections: undefined };
  const shape = longAxes(box);
  check(shape.length > 0, "corrections without axes");
  const extent = shape.flatMap(foldAxis);
  const context = readContext(source, extent.length);
  const grid: Grid = {
    extent,
    bands: extent.map((n) => new Uint8Array(n)),
    octaves: Uint8Array.of(0),
    counts: extent.map(() => 1),
    neighbours: extent.map((n) =>
      [1, 2, 3].map((back) => new Int32Array(n).map((_, i) => Math.max(i - back, -1))),
    ),
    held: heldPlaces(shape),
  };
  return { spacing, corrections: readWavefronts(source, bytes.length - taken, grid, context) };
}

/** Where voxels stand on folded axes; nothing where they stand everywhere. */
function heldPlaces(shape: readonly number[]): Uint8Array | undefined {
  const padded = paddedShape(shape);
  if (product(padded) === product(shape)) return undefined;
  const held = new Uint8Array(product(padded));
  const length = shape[shape.length - 1];
  visitRows(shape, padded, (_, place) => held.fill(1, place, place + length));
  return held;
}
