/** Section 6: the coefficients of a transform. */

import { check } from "../errors.js";
import { type Basis, bandCount, bandsOf, makeBasis, neighboursOf } from "../model/basis.js";
import { foldAxis, product, stridesOf } from "../model/shapes.js";
import { readContext } from "./classes.js";
import { decodeMask } from "./masks.js";
import { Reader } from "./reader.js";
import { type Grid, type JointBands, readWavefronts, type Sparse } from "./wavefronts.js";

const COEFFICIENTS_PER_BYTE = 8192;
const LONGEST_GRAPH_AXIS = 64;

/** Coefficients in products of one basis for each axis, all of which are folded. */
export interface Coefficients {
  bases: Basis[];
  step: number;
  /** Lengths of the grid that their places are numbers in, in C order. */
  extent: number[];
  integers: Sparse;
}

/** Read the coefficients of a box without its axes of length 1, of whose bytes a dictionary has `taken`. */
export function readCoefficients(bytes: Uint8Array, shape: readonly number[], taken = 0): Coefficients {
  check(shape.length > 0, "a transform without axes");
  const source = new Reader(bytes);
  const bases = shape.flatMap(foldAxis).map((n) => readBasis(source, n));
  check(bases.filter((basis) => basis.joint).length !== 1, "a single joint axis");
  let step = taken ? 0 : source.f32();
  const context = readContext(source, bases.length);
  const counts = bases.map(bandCount);
  const present = decodeMask(source.block(), counts);
  if (taken) step = source.f32(); // behind what chunks may share
  check(step >= 2 ** -64 && step <= 2 ** 64, `a step of ${step}`);
  const extent = presentExtent(bases, counts, present);
  const size = bytes.length - taken;
  check(product(extent) <= COEFFICIENTS_PER_BYTE * size, `${product(extent)} coefficients in ${size} bytes`);
  const grid: Grid = {
    extent,
    bands: bases.map((basis, axis) => bandsOf(basis, extent[axis])),
    neighbours: bases.map((basis, axis) => neighboursOf(basis, extent[axis])),
    ...productBands(bases, counts, present),
    counts,
  };
  return { bases, step, extent, integers: readWavefronts(source, size, grid, context) };
}

function readBasis(source: Reader, n: number): Basis {
  const head = source.u8();
  const levels = head & 15;
  const joint = Boolean(head & 16);
  const graph = Boolean(head & 32);
  check(head < 64, "a reserved bit of a basis");
  check(levels <= Math.ceil(Math.log2(n)), `${levels} levels of ${n} voxels`);
  check(!(levels && graph) && !(joint && !levels), "a basis of two kinds");
  if (!graph) return makeBasis(n, levels, joint);
  check(n >= 3 && n <= LONGEST_GRAPH_AXIS, `a graph of ${n} voxels`);
  const weights = [...source.take(n >> 1)].flatMap((byte) => [byte & 15, byte >> 4]);
  check(n % 2 === 1 || weights[n - 1] === 0, "padding of a graph");
  return makeBasis(n, 0, false, weights.slice(0, n - 1));
}

/** How many functions each axis has up to its highest band that is present. */
function presentExtent(bases: Basis[], counts: number[], present: Uint8Array): number[] {
  const highest = counts.map(() => -1);
  const strides = stridesOf(counts);
  present.forEach((held, band) => {
    if (!held) return;
    counts.forEach((count, axis) => {
      highest[axis] = Math.max(highest[axis], Math.floor(band / strides[axis]) % count);
    });
  });
  check(
    highest.every((band) => band >= 0),
    "a transform without bands",
  );
  return bases.map((basis, axis) => basis.starts[highest[axis] + 1]);
}

/** The octaves of the bands of the product, and what joint axes have in them. */
function productBands(bases: Basis[], counts: number[], present: Uint8Array) {
  const octaves = new Uint8Array(present.length).fill(255);
  const details = new Uint32Array(present.length);
  const halves = new Uint32Array(present.length);
  const axes = bases.map((basis) => basis.joint);
  const strides = stridesOf(counts);
  for (let band = 0; band < present.length; band++) {
    const own = counts.map((count, axis) => Math.floor(band / strides[axis]) % count);
    const depth = jointDepth(bases, own);
    let octave = 0;
    bases.forEach(({ joint, levels }, axis) => {
      if (!joint || (own[axis] > 0 && levels - own[axis] === depth)) {
        octave += own[axis];
        if (joint) details[band] |= 1 << axis;
      } else {
        octave += Math.max(levels - depth - 1, 0);
        if (depth + 1 < levels) halves[band] |= 1 << axis;
      }
    });
    if (present[band]) octaves[band] = octave;
  }
  const joint: JointBands | undefined = axes.includes(true) ? { details, halves, axes } : undefined;
  return { octaves, joint };
}

/** How many levels come before the finest one that coefficients of these bands take part in. */
export function jointDepth(bases: readonly Basis[], bands: readonly number[]): number {
  let depth = Number.POSITIVE_INFINITY;
  let levels = 0;
  bases.forEach((basis, axis) => {
    if (!basis.joint) return;
    levels = Math.max(levels, basis.levels);
    if (bands[axis] > 0) depth = Math.min(depth, basis.levels - bands[axis]);
  });
  return Math.min(depth, levels);
}
