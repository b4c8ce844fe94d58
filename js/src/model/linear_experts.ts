/** What linear experts make of a transform: edges that quantised coefficients blur, and rings beside them. */

import type { LinearExperts } from "../bitstream/linear_experts.js";
import { stridesOf } from "./shapes.js";

const LANES = 512; // voxels that are looked around together: what they take stays in the nearest cache
const OFFSETS = [1, -1, 2, -2];

/** What experts read around the voxels of a block. */
interface Surroundings {
  /** The sum over the axes of the difference of both next voxels, without its sign. */
  steepness: Float64Array;
  /** Of each voxel and axis: both next voxels less twice the voxel, and both next but one likewise. */
  bends: Float64Array;
}

/** Restore the values of a transform on a whole grid. */
export function restoreByExperts(
  experts: LinearExperts,
  shape: readonly number[],
  z: Float64Array,
): Float64Array {
  const lanes = Math.min(LANES, z.length);
  const around = { steepness: new Float64Array(lanes), bends: new Float64Array(lanes * 2 * shape.length) };
  const restored = new Float64Array(z.length);
  const lookAround = makeLook(shape, z, lanes, around);
  const mixture = makeMixture(experts, 2 * shape.length);
  for (let start = 0; start < z.length; start += lanes) {
    const end = Math.min(start + lanes, z.length);
    lookAround(start, end);
    addMixture(mixture, around, 2 * shape.length, z, restored, start, end);
  }
  return restored;
}

/** Make what reads around the voxels between two places, row by row; beyond an end stands its last voxel. */
function makeLook(shape: readonly number[], z: Float64Array, lanes: number, around: Surroundings) {
  const strides = stridesOf(shape);
  const last = shape.length - 1;
  const columns = shape[last];
  const padded = new Float64Array(lanes + 4);
  return (start: number, end: number): void => {
    around.steepness.fill(0);
    for (let place = start; place < end; ) {
      const column = place % columns;
      const count = Math.min(columns - column, end - place);
      const to = place - start;
      for (let axis = 0; axis < last; axis++) {
        const i = Math.floor(place / strides[axis]) % shape[axis];
        const moves = OFFSETS.map((offset) => (hold(i + offset, shape[axis]) - i) * strides[axis]);
        lookAlong(z, place, moves, count, around, to, 2 * axis, 2 * shape.length);
      }
      const row = place - column;
      for (let i = 0; i < count + 4; i++) padded[i] = z[row + hold(column + i - 2, columns)];
      lookAlong(padded, 2, OFFSETS, count, around, to, 2 * last, 2 * shape.length);
      place += count;
    }
  };
}

/** Hold a number inside an axis. */
function hold(i: number, n: number): number {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

/** Look along an axis around `count` voxels from `place` on. */
function lookAlong(
  z: Float64Array,
  place: number,
  moves: readonly number[],
  count: number,
  { steepness, bends }: Surroundings,
  to: number,
  first: number,
  width: number,
): void {
  const [next, before, far, farBefore] = moves.map((move) => place + move);
  for (let i = 0, at = to * width + first; i < count; i++, at += width) {
    const [behind, ahead, twice] = [z[next + i], z[before + i], 2 * z[place + i]];
    steepness[to + i] += Math.abs(behind - ahead);
    bends[at] = behind + ahead - twice;
    bends[at + 1] = z[far + i] + z[farBefore + i] - twice;
  }
}

/** What experts add, by the ramps that the steepness and the value of a voxel lie on. */
interface Mixture {
  steep: Ramps;
  level: Ramps;
  /** The constant's a, b, c, d and each weight's a, b, c, for each ramp of the steepness and each of the value. */
  table: Float64Array;
}

/**
 * Add the mixture to the voxels between two places.
 *
 * Between two knots of each kind all weights are linear in both heights, s and t: ramps of lower knots are 1, those
 * of higher ones 0. A weight is thus a + b s + c t, and the constant a + b s + c t + d s t.
 */
function addMixture(
  { steep, level, table }: Mixture,
  { steepness, bends }: Surroundings,
  width: number,
  z: Float64Array,
  out: Float64Array,
  start: number,
  end: number,
): void {
  const { starts: steepStarts, slopes: steepSlopes } = steep;
  const { starts: levelStarts, slopes: levelSlopes } = level;
  const size = 4 + 3 * width;
  let [i, k] = [0, 0]; // neighbours mostly lie between the same knots
  for (let place = start, at = 0; place < end; place++) {
    const [value, own] = [z[place], steepness[place - start]];
    i = findRamp(steepStarts, own, i);
    k = findRamp(levelStarts, value, k);
    const s = Math.min(Math.max((own - steepStarts[i]) * steepSlopes[i], 0), 1);
    const t = Math.min(Math.max((value - levelStarts[k]) * levelSlopes[k], 0), 1);
    let w = (i * levelStarts.length + k) * size;
    let sum = value + table[w] + s * table[w + 1] + t * (table[w + 2] + s * table[w + 3]);
    w += 4;
    for (const stop = at + width; at < stop; at++, w += 3) {
      sum += bends[at] * (table[w] + s * table[w + 1] + t * table[w + 2]);
    }
    out[place] = sum;
  }
}

/** Where ramps between knots start, and how steep they are. */
interface Ramps {
  starts: Float64Array;
  slopes: Float64Array;
}

/** Make the ramps between knots; where there are none, one that stays at 0. */
function makeRamps(knots: readonly number[]): Ramps {
  const starts = Float64Array.from(knots.length ? knots.slice(0, -1) : [0]);
  const slopes = starts.map((start, i) => (knots.length ? 1 / (knots[i + 1] - start) : 0));
  return { starts, slopes };
}

/** The last ramp that starts at or below a value, or the first one, searched from a ramp on. */
function findRamp(starts: Float64Array, value: number, from: number): number {
  let i = from;
  while (i > 0 && value < starts[i]) i--;
  while (i + 1 < starts.length && value >= starts[i + 1]) i++;
  return i;
}

function makeMixture({ taps, constants, steepness, value }: LinearExperts, width: number): Mixture {
  const [steep, level] = [makeRamps(steepness), makeRamps(value)];
  const columns = Math.max(value.length, 1);
  const rows = Math.max(steepness.length, 1); // the rows of taps behind these are of the value
  const constant = (row: number, column: number) =>
    row < rows && column < columns ? constants[row * columns + column] : 0;
  const tap = (row: number, bend: number) => (row * width < taps.length ? taps[row * width + bend] : 0);
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
      for (let bend = 0; bend < width; bend++) {
        let sum = 0;
        for (let row = 0; row <= i; row++) sum += tap(row, bend);
        for (let row = 0; row < k; row++) sum += tap(rows + row, bend);
        table.push(sum, i + 1 < rows ? tap(i + 1, bend) : 0, tap(rows + k, bend));
      }
    }
  }
  return { steep, level, table: Float64Array.from(table) };
}
