import type { TypedArray } from "./dtype.js";

const LONGEST_AXIS = 2048;

export function product(numbers: readonly number[]): number {
  return numbers.reduce((all, n) => all * n, 1);
}

/** The distance of neighbours along each axis of an array in C order. */
export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, axis) => product(shape.slice(axis + 1)));
}

/** The lengths of the axes that an axis becomes; where it is folded, their product may be a bit more. */
export function foldAxis(n: number): number[] {
  const parts = Math.ceil(n / LONGEST_AXIS);
  return parts <= 1 ? [n] : [...foldAxis(parts), Math.ceil(n / parts)];
}

/** The shape without axes of length 1, which models do not know. */
export function longAxes(shape: readonly number[]): number[] {
  return shape.filter((n) => n > 1);
}

/**
 * Call `visit` for each row of an array within a larger one: where it starts in each, in C order.
 *
 * Folded axes are such a larger array: a voxel stands on them at its own number.
 */
export function visitRows(
  shape: readonly number[],
  outer: readonly number[],
  visit: (inner: number, outer: number) => void,
): void {
  const rows = product(shape.slice(0, -1));
  const strides = stridesOf(outer);
  const index = new Array<number>(shape.length).fill(0);
  const length = shape.at(-1) ?? 1;
  for (let row = 0; row < rows; row++) {
    let place = 0;
    for (let axis = 0; axis < shape.length - 1; axis++) place += index[axis] * strides[axis];
    visit(row * length, place);
    for (let axis = shape.length - 2; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
}

/** Write an array into the corner of a larger one. */
export function putInto<T extends TypedArray>(
  larger: T,
  outer: readonly number[],
  array: T,
  shape: readonly number[],
): T {
  const length = shape[shape.length - 1];
  visitRows(shape, outer, (from, to) => larger.set(array.subarray(from, from + length) as never, to));
  return larger;
}

/** Lengths of axes with what folding adds. */
export function paddedShape(shape: readonly number[]): number[] {
  return shape.map((n) => product(foldAxis(n)));
}
