/** Values from coefficients in products of one basis for each axis. */

import { type Coefficients, jointDepth } from "../bitstream/coefficients.js";
import { type Basis, bandsOf } from "./basis.js";
import { multiplyAlong, multiplySparse } from "./multiply.js";
import { product, putInto, stridesOf } from "./shapes.js";
import { averageLengths, mergeAlong, norms } from "./wavelets.js";
import { waveMatrix } from "./waves.js";

/** The work of lifting a voxel of one axis, in multiplications of a matrix. */
const LIFTING = 12;
/** The work of multiplying a coefficient alone rather than with others in its row. */
const SPARSE = 8;

/** The share of its work that the last axis takes where it comes first. */
const EARLY_END = 0.5;

/** Axes that are brought from coefficients to voxels together: one, or all joint ones. */
interface Step {
  axes: number[];
  /** How much the array grows, and the work of each of its new elements. */
  growth: number;
  work: number;
}

/** Add up the functions of coefficients, in the folded shape of the axes, in C order. */
export function synthesise(coefficients: Coefficients): Float64Array {
  const { bases, extent, integers } = coefficients;
  const scale = waveletScale(bases, extent);
  const values = Float64Array.from(integers.values, (integer, i) => {
    return integer * coefficients.step * scale(integers.places[i]);
  });
  const shape = [...extent];
  const first = chooseFirst(coefficients);
  let array: Float64Array;
  if (first < 0) {
    array = new Float64Array(product(extent));
    for (let i = 0; i < values.length; i++) array[integers.places[i]] = values[i];
  } else {
    const { length, weights } = bases[first];
    const matrix = waveMatrix(length, weights, extent[first]);
    array = multiplySparse(integers.places, values, extent, first, matrix, length);
    shape[first] = length;
  }
  for (const { axes } of planSteps(bases, extent, first)) {
    const levels = Math.max(...axes.map((axis) => bases[axis].levels));
    const before = [...shape];
    for (const axis of axes) {
      const n = bases[axis].length;
      if (levels === 0) {
        array = multiplyAlong(array, shape, axis, waveMatrix(n, bases[axis].weights, shape[axis]), n);
      }
      shape[axis] = n;
    }
    if (array.length < product(shape))
      array = putInto(new Float64Array(product(shape)), shape, array, before);
    const lengths = axes.map((axis) => averageLengths(bases[axis].length, bases[axis].levels));
    const strides = stridesOf(shape);
    for (let level = levels - 1; level >= 0; level--) {
      // What is coarser than this level, on all of the axes.
      const box = [...shape];
      axes.forEach((axis, i) => {
        box[axis] = lengths[i][Math.min(level, bases[axis].levels)];
      });
      for (const axis of axes) if (level < bases[axis].levels) mergeAlong(array, strides, box, axis);
    }
  }
  return array;
}

/** The axis of waves that takes the most work, where few coefficients are not 0: they alone are multiplied. */
function chooseFirst({ bases, extent, integers }: Coefficients): number {
  if (integers.places.length * SPARSE > product(extent)) return -1;
  const waves = bases.map((_, axis) => axis).filter((axis) => bases[axis].levels === 0);
  return waves.reduce((best, axis) => (best < 0 || extent[axis] > extent[best] ? axis : best), -1);
}

/**
 * The order of axes that takes the least work: what makes the array grow much for little work comes late.
 *
 * Two neighbours stand in the wrong order where swapping them saves work, which for all orders means to sort.
 * The last axis may come first all the same: rows of few coefficients end early.
 */
function planSteps(bases: readonly Basis[], extent: readonly number[], done: number): Step[] {
  const joint = bases.map((_, axis) => axis).filter((axis) => bases[axis].joint);
  const groups = bases.flatMap((basis, axis) => (basis.joint || axis === done ? [] : [[axis]]));
  if (joint.length) groups.push(joint);
  const steps = groups.map((axes) => {
    const growth = product(axes.map((axis) => bases[axis].length / extent[axis]));
    const work = bases[axes[0]].levels ? LIFTING * axes.length : extent[axes[0]];
    return { axes, growth, work };
  });
  const rank = ({ growth, work }: Step) => (work * growth) / (growth - 1); // infinite where nothing grows
  const sorted = steps.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(b) - rank(a)));
  const isLast = ({ axes }: Step) => axes[0] === bases.length - 1 && bases[axes[0]].levels === 0;
  const other = [...sorted.filter(isLast), ...sorted.filter((step) => !isLast(step))];
  return workOf(other, other.some(isLast) ? EARLY_END : 1) < workOf(sorted, 1) ? other : sorted;
}

/** The work of steps in an order, of which the first takes a share of what it would take. */
function workOf(steps: readonly Step[], share: number): number {
  let [size, total] = [1, 0];
  steps.forEach(({ growth, work }, i) => {
    size *= growth;
    total += size * work * (i ? 1 : share);
  });
  return total;
}

/** What a coefficient is multiplied by so that its wavelets have unit norm. */
function waveletScale(bases: readonly Basis[], extent: readonly number[]): (place: number) => number {
  const strides = stridesOf(extent);
  const bands = bases.map((basis, axis) => bandsOf(basis, extent[axis]));
  const axes = bases.map((_, axis) => axis).filter((axis) => bases[axis].levels);
  const own = new Array<number>(bases.length).fill(0);
  // Of each axis, band by band, as details; averages of any levels when they are first met.
  const details = new Map<string, Float64Array>();
  const normsOf = (axis: number, level: number, detail: boolean): Float64Array => {
    const key = `${axis} ${level} ${detail}`;
    let found = details.get(key);
    if (!found) {
      const { length, levels, starts } = bases[axis];
      const lengths = averageLengths(length, level);
      const start = detail ? starts[levels - level + 1] : 0;
      const most = detail ? lengths[level - 1] - lengths[level] : lengths[level];
      found = norms(length, level, detail, Math.max(Math.min(most, extent[axis] - start), 0));
      details.set(key, found);
    }
    return found;
  };
  return (place) => {
    for (let axis = 0; axis < own.length; axis++) {
      own[axis] = bands[axis][Math.floor(place / strides[axis]) % extent[axis]];
    }
    const depth = jointDepth(bases, own);
    let norm = 1;
    for (const axis of axes) {
      const { levels, joint, starts } = bases[axis];
      const number = Math.floor(place / strides[axis]) % extent[axis];
      const band = own[axis];
      const detail = band > 0 && (!joint || levels - band === depth);
      if (detail) norm *= normsOf(axis, levels - band + 1, true)[number - starts[band]];
      else norm *= normsOf(axis, joint ? Math.min(depth + 1, levels) : levels, false)[number];
    }
    return 1 / norm;
  };
}
