/** What linear experts make of a transform: edges that quantised coefficients blur, and rings beside them. */

import type { LinearExperts } from "../bitstream/linear_experts.js";
import { stridesOf } from "./shapes.js";

const REACH = 2; // voxels that experts look at on either side
const PARTS = 256; // of the range of all ramps

/** Restore the values of a transform on a whole grid. */
export function restoreByExperts(
  experts: LinearExperts,
  shape: readonly number[],
  z: Float64Array,
): Float64Array {
  const restored = new Float64Array(z.length);
  const mixture = makeMixture(experts, shape.length);
  const strides = stridesOf(shape);
  const last = shape.length - 1;
  const columns = shape[last];
  const moves = new Array<number>(4 * mixture.axes).fill(0);
  // How far both next voxels along an axis are, and both next but one; beyond an end stands its last voxel.
  const look = (axis: number, i: number): void => {
    for (let k = 0; k < 2; k++) {
      moves[4 * axis + 2 * k] = Math.min(k + 1, shape[axis] - 1 - i) * strides[axis];
      moves[4 * axis + 2 * k + 1] = -Math.min(k + 1, i) * strides[axis];
    }
  };
  for (let row = 0; row < z.length; row += columns) {
    for (let axis = 0; axis < last; axis++) look(axis, Math.floor(row / strides[axis]) % shape[axis]);
    for (let column = 0, count: number; column < columns; column += count) {
      // All voxels that are far from both ends at once.
      count = column < REACH ? 1 : Math.max(columns - REACH - column, 1);
      look(last, column);
      addMixture(mixture, moves, z, restored, row + column, row + column + count);
    }
  }
  return restored;
}

/** What experts add, by the ramps that the steepness and the value of a voxel lie on. */
interface Mixture {
  steep: Ramps;
  level: Ramps;
  /** Those of the grid, and as many more as it takes to have three: where no voxel differs from the next. */
  axes: number;
  /** The constant's a, b, c, d and each weight's a, b, c, for each ramp of the steepness and each of the value. */
  table: Float64Array;
}

/**
 * Add the mixture to the voxels between two places, which have their neighbours at the same distances.
 *
 * Between two knots of each kind all weights are linear in both heights, s and t: ramps of lower knots are 1, those
 * of higher ones 0. A weight is thus a + b s + c t, and the constant a + b s + c t + d s t. Three axes are written
 * out, which takes two thirds of the time of a loop.
 */
function addMixture(
  { steep, level, axes, table }: Mixture,
  moves: readonly number[],
  z: Float64Array,
  out: Float64Array,
  start: number,
  end: number,
): void {
  const size = 4 + 6 * axes;
  const levels = level.starts.length;
  const [a, b, aFar, bFar, c, d, cFar, dFar, e, f, eFar, fFar] = moves;
  for (let place = start; place < end; place++) {
    const value = z[place];
    const twice = 2 * value;
    const za = z[place + a];
    const zb = z[place + b];
    const zc = z[place + c];
    const zd = z[place + d];
    const ze = z[place + e];
    const zf = z[place + f];
    let steepness = Math.abs(za - zb) + Math.abs(zc - zd) + Math.abs(ze - zf);
    for (let i = 12; i < moves.length; i += 4) {
      steepness += Math.abs(z[place + moves[i]] - z[place + moves[i + 1]]);
    }
    const g = hold(steep, steepness);
    const v = hold(level, value);
    const i = findRamp(steep, g);
    const k = findRamp(level, v);
    const s = (g - steep.starts[i]) * steep.slopes[i];
    const t = (v - level.starts[k]) * level.slopes[k];
    let w = (i * levels + k) * size;
    let sum =
      value +
      weigh(table, w, s, t) +
      s * t * table[w + 3] +
      (za + zb - twice) * weigh(table, w + 4, s, t) +
      (z[place + aFar] + z[place + bFar] - twice) * weigh(table, w + 7, s, t) +
      (zc + zd - twice) * weigh(table, w + 10, s, t) +
      (z[place + cFar] + z[place + dFar] - twice) * weigh(table, w + 13, s, t) +
      (ze + zf - twice) * weigh(table, w + 16, s, t) +
      (z[place + eFar] + z[place + fFar] - twice) * weigh(table, w + 19, s, t);
    for (let i = 12; i < moves.length; i += 2) {
      sum += (z[place + moves[i]] + z[place + moves[i + 1]] - twice) * weigh(table, w + 22, s, t);
      w += 3;
    }
    out[place] = sum;
  }
}

function weigh(table: Float64Array, w: number, s: number, t: number): number {
  return table[w] + s * table[w + 1] + t * table[w + 2];
}

/** Ramps between knots: where they start, how steep they are, and where the first one starts and the last one ends. */
interface Ramps {
  starts: Float64Array;
  slopes: Float64Array;
  first: number;
  end: number;
  /** The first ramp to look at of each part, and how many of these stand in a unit. */
  firsts: Uint8Array;
  scale: number;
}

/** Make the ramps between knots; where there are none, one that stays at 0. */
function makeRamps(knots: readonly number[]): Ramps {
  const starts = Float64Array.from(knots.length ? knots.slice(0, -1) : [0]);
  const first = starts[0];
  const end = knots.at(-1) ?? 0;
  const slopes = starts.map((start, i) => (knots.length ? 1 / (knots[i + 1] - start) : 0));
  const scale = knots.length ? (PARTS - 1) / (end - first) : 0;
  const firsts = Uint8Array.from(
    { length: PARTS },
    (_, part) => starts.filter((start) => (start - first) * scale <= part).length - 1,
  );
  return { starts, slopes, first, end, firsts, scale };
}

/** Hold a value between the ends of all ramps. */
function hold({ first, end }: Ramps, value: number): number {
  return value < first ? first : value < end ? value : end;
}

/** The last ramp that starts at or below a value that is held. */
function findRamp({ starts, firsts, first, scale }: Ramps, value: number): number {
  let i = firsts[((value - first) * scale) | 0];
  while (i + 1 < starts.length && value >= starts[i + 1]) i++;
  return i;
}

function makeMixture({ taps, constants, steepness, value }: LinearExperts, own: number): Mixture {
  const axes = Math.max(own, 3);
  const width = 2 * own;
  const steep = makeRamps(steepness);
  const level = makeRamps(value);
  const columns = Math.max(value.length, 1);
  const rows = Math.max(steepness.length, 1); // the rows of taps behind these are of the value
  const constant = (row: number, column: number) =>
    row < rows && column < columns ? constants[row * columns + column] : 0;
  const tap = (row: number, bend: number) =>
    bend < width && row * width < taps.length ? taps[row * width + bend] : 0;
  const table: number[] = [];
  for (let i = 0; i < steep.starts.length; i++) {
    for (let k = 0; k < level.starts.length; k++) {
      const cells = [0, 0, 0, 0];
      for (let row = 0; row <= i; row++) {
        for (let column = 0; column <= k; column++) cells[0] += constant(row, column);
        cells[2] += constant(row, k + 1);
      }
      for (let column = 0; column <= k; column++) cells[1] += constant(i + 1, column);
      cells[3] = constant(i + 1, k + 1);
      table.push(...cells);
      for (let bend = 0; bend < 2 * axes; bend++) {
        let sum = 0;
        for (let row = 0; row <= i; row++) sum += tap(row, bend);
        for (let row = 0; row < k; row++) sum += tap(rows + row, bend);
        table.push(sum, i + 1 < rows ? tap(i + 1, bend) : 0, tap(rows + k, bend));
      }
    }
  }
  return { steep, level, axes, table: Float64Array.from(table) };
}
