/** The order in which the voxels of a box are predicted, and the neighbours of each. */

import { foldAxis, longAxes, paddedShape, product, stridesOf, visitRows } from "../model/shapes.js";
import { makeWords, type Words } from "./words64.js";

/** The order in which voxels are coded, and their neighbours: the longest axis is the last. */
export interface Lattice {
  /** Voxels of each row. */
  columns: number;
  /** The first wavefront of each row, rising, and where its first voxel stands. */
  starts: Int32Array;
  places: Int32Array;
  /** Whether the row of a neighbour is one: of each row a byte for each neighbour. */
  inside: Uint8Array;
  /** Where neighbours stand, seen from a voxel: in places, and in columns alone. */
  steps: Int32Array;
  moves: Int32Array;
  /** Weights of the neighbours' errors. */
  nearness: Float64Array;
  /** Which places hold a valid voxel. */
  known: Uint8Array;
  /** The padded axes of the box, and how far apart its voxels stand on each of their folded axes. */
  padded: number[];
  toPlace: (number: number) => number;
}

/** Arrange the voxels of a box. */
export function makeLattice(box: readonly number[], valid: Uint8Array | undefined): Lattice {
  const long = longAxes(box);
  if (long.length === 0) long.push(1);
  const folded = long.flatMap(foldAxis);
  const order = folded.map((_, axis) => axis).sort((a, b) => folded[a] - folded[b] || a - b);
  const shape = order.map((axis) => folded[axis]);
  const strides = stridesOf(shape);
  const foldedStrides = stridesOf(folded);
  const toPlace = (number: number): number => {
    let place = 0;
    order.forEach((axis, own) => {
      place += (Math.floor(number / foldedStrides[axis]) % folded[axis]) * strides[own];
    });
    return place;
  };
  const taps = listNeighbours(shape.length);
  const rows = orderRows(shape, taps);
  const padded = paddedShape(long);
  const known = new Uint8Array(product(shape));
  visitRows(long, padded, (from, to) => {
    const length = long[long.length - 1];
    for (let i = 0; i < length; i++) if (!valid || valid[from + i]) known[toPlace(to + i)] = 1;
  });
  return {
    columns: shape[shape.length - 1],
    ...rows,
    steps: Int32Array.from(taps, (tap) => tap.reduce((all, step, axis) => all + step * strides[axis], 0)),
    moves: Int32Array.from(taps, (tap) => tap[tap.length - 1]),
    nearness: Float64Array.from(taps, (tap) => [0, 4, 2][squaredLength(tap)] ?? 1),
    known,
    padded,
    toPlace,
  };
}

function squaredLength(tap: readonly number[]): number {
  return tap.reduce((all, step) => all + step * step, 0);
}

/** The neighbours of a voxel, the nearest first. */
function listNeighbours(axes: number): number[][] {
  let offsets: number[][] = [[]];
  for (let axis = 0; axis < axes; axis++)
    offsets = offsets.flatMap((o) => [1, 0, -1, -2].map((step) => [...o, step]));
  const found = offsets.filter((offset) => {
    const moved = offset.filter((step) => step).join();
    return ["-1", "-2", "-1,-1", "-1,1", "-1,-1,-1"].includes(moved);
  });
  // Falling offsets, as they were made, where lengths are the same: sorting is stable.
  return found.sort((a, b) => squaredLength(a) - squaredLength(b));
}

function orderRows(shape: readonly number[], taps: readonly number[][]) {
  const outer = shape.slice(0, -1);
  const count = product(outer);
  const columns = shape[outer.length];
  const begins = new Int32Array(count);
  const index = new Array<number>(outer.length).fill(0);
  let longest = 0;
  for (let row = 0; row < count; row++) {
    for (let axis = 0; axis < outer.length; axis++) begins[row] += index[axis] * 2 ** (outer.length - axis);
    longest = Math.max(longest, begins[row]);
    for (let axis = outer.length - 1; axis >= 0 && ++index[axis] === outer[axis]; axis--) index[axis] = 0;
  }
  const ends = new Int32Array(longest + 2);
  for (const start of begins) ends[start + 1]++;
  for (let start = 1; start < ends.length; start++) ends[start] += ends[start - 1];
  const starts = new Int32Array(count);
  const places = new Int32Array(count);
  const inside = new Uint8Array(count * taps.length);
  const strides = stridesOf(outer);
  for (let row = 0; row < count; row++) {
    const at = ends[begins[row]]++;
    starts[at] = begins[row];
    places[at] = row * columns;
    taps.forEach((tap, number) => {
      const isThere = outer.every((n, axis) => {
        const there = (Math.floor(row / strides[axis]) % n) + tap[axis];
        return there >= 0 && there < n;
      });
      inside[at * taps.length + number] = Number(isThere);
    });
  }
  return { starts, places, inside };
}

/** The integers of the valid voxels, in C order of the box. */
export function collect(
  integers: Words,
  lattice: Lattice,
  box: readonly number[],
  valid: Uint8Array | undefined,
): Words {
  const long = longAxes(box);
  if (long.length === 0) long.push(1);
  const length = long[long.length - 1];
  const result = makeWords(valid ? valid.reduce((all, bit) => all + bit, 0) : product(long));
  let at = 0;
  visitRows(long, lattice.padded, (from, to) => {
    for (let i = 0; i < length; i++) {
      if (valid && !valid[from + i]) continue;
      const place = lattice.toPlace(to + i);
      result.high[at] = integers.high[place];
      result.low[at++] = integers.low[place];
    }
  });
  return result;
}
