/** Section 10: linear experts that restore a transform. */

import { check } from "../errors.js";
import { stepSize } from "../model/steps.js";
import { readGroups } from "./groups.js";
import { Reader } from "./reader.js";

const LARGEST_WEIGHT = 16;
const VALUE_KNOTS = 128; // to half the range
const SHARED = 32; // what codes of shifts are larger by, behind experts of a dictionary

/**
 * Filters of a voxel's neighbours, and constants.
 *
 * A ramp rises from 0 at one knot to 1 at the next, and is constant beyond them. The first row counts at every
 * voxel, each other one as much as its ramp is high: those of the steepness stand before those of the value.
 */
export interface LinearExperts {
  /** Knots of the steepness, and of the value: rising, none or two and more. */
  steepness: number[];
  value: number[];
  /** Rows of two weights for each axis: of both next voxels, and of both next but one. */
  taps: Float64Array;
  /** Rows of the first and of ramps of the steepness; in each, the first constant and those of ramps of the value. */
  constants: Float64Array;
}

/** Read the experts of a grid of so many axes: the first bytes may be an entry, behind which stands a shift in place of theirs. */
export function readLinearExperts(bytes: Uint8Array, axes: number, entry = bytes.length): LinearExperts {
  const source = new Reader(bytes.subarray(0, entry));
  const ramps = source.u8();
  const [steep, level] = [ramps & 15, ramps >> 4];
  const steepness = Array.from({ length: steep }, () => source.u8());
  const value = Array.from({ length: level ? level + 1 : 0 }, () => source.i8());
  check(rises(steepness) && rises(value), `knots ${steepness} and ${value}, which do not rise`);
  const units = [source.u8(), source.u8()].map(stepSize);
  let shift = source.i8();
  check(shift !== -128, "a reserved shift");
  const own = new Reader(bytes.subarray(entry));
  if (own.left) {
    shift = own.i8();
    check(shift !== -128 && !own.left, "more than a shift behind experts of the dictionary");
    shift += SHARED * Math.sign(shift);
  }
  const counts = [(1 + steep + level) * axes * 2, (1 + steep) * (1 + level)];
  const [taps, constants] = readGroups(source, counts).map((integers, i) => {
    const weights = integers.map((k) => k * units[i]);
    check(
      weights.every((weight) => Math.abs(weight) <= LARGEST_WEIGHT),
      "a weight of linear experts that is too large",
    );
    return weights;
  });
  if (shift) constants[0] += Math.sign(shift) * stepSize(Math.abs(shift));
  return {
    steepness: steep ? [0, ...steepness.map(stepSize)] : [],
    value: value.map((knot) => knot / VALUE_KNOTS),
    taps,
    constants,
  };
}

function rises(codes: readonly number[]): boolean {
  return codes.every((code, i) => i === 0 || code > codes[i - 1]);
}
