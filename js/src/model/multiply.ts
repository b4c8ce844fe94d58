import { product } from "./shapes.js";

const TILE = 512; // numbers of a row that are multiplied at a time, so that many rows stay in the cache

/**
 * Apply a matrix of n rows, one for each new element, along an axis of an array in C order.
 *
 * Rows of the array that are all 0 take no time: of coefficients most are.
 */
export function multiplyAlong(
  array: Float64Array,
  shape: readonly number[],
  axis: number,
  matrix: Float64Array,
  n: number,
): Float64Array {
  const before = product(shape.slice(0, axis));
  const old = shape[axis];
  const after = product(shape.slice(axis + 1));
  const result = new Float64Array(before * n * after);
  if (after === 1) multiplyRows(array, before, old, matrix, n, result);
  else {
    for (let i = 0; i < before; i++) {
      const from = array.subarray(i * old * after, (i + 1) * old * after);
      const to = result.subarray(i * n * after, (i + 1) * n * after);
      for (let start = 0; start < after; start += TILE) {
        addRows(from, old, after, start, Math.min(start + TILE, after), matrix, n, to);
      }
    }
  }
  return result;
}

/** New rows from old ones of `after` elements, those from `start` to `end` only. */
function addRows(
  from: Float64Array,
  old: number,
  after: number,
  start: number,
  end: number,
  matrix: Float64Array,
  n: number,
  to: Float64Array,
): void {
  const used: number[] = [];
  for (let i = 0; i < old; i++) {
    let k = i * after + start;
    while (k < i * after + end && from[k] === 0) k++;
    if (k < i * after + end) used.push(i);
  }
  for (let x = 0; x < n; x++) {
    const row = x * old;
    const here = x * after;
    let i = 0;
    for (; i + 4 <= used.length; i += 4) {
      const [a, b, c, d] = [used[i], used[i + 1], used[i + 2], used[i + 3]];
      const [fa, fb, fc, fd] = [matrix[row + a], matrix[row + b], matrix[row + c], matrix[row + d]];
      const [pa, pb, pc, pd] = [a * after, b * after, c * after, d * after];
      for (let k = start; k < end; k++) {
        to[here + k] += fa * from[pa + k] + fb * from[pb + k] + fc * from[pc + k] + fd * from[pd + k];
      }
    }
    for (; i < used.length; i++) {
      const factor = matrix[row + used[i]];
      const place = used[i] * after;
      for (let k = start; k < end; k++) to[here + k] += factor * from[place + k];
    }
  }
}

/** The same along the last axis: each new element is a product of two rows. */
function multiplyRows(
  from: Float64Array,
  rows: number,
  old: number,
  matrix: Float64Array,
  n: number,
  to: Float64Array,
): void {
  for (let i = 0; i < rows; i++) {
    const start = i * old;
    let end = start + old;
    while (end > start && from[end - 1] === 0) end--;
    const count = end - start;
    let x = 0;
    for (; x + 4 <= n; x += 4) {
      const [a, b, c, d] = [x * old, (x + 1) * old, (x + 2) * old, (x + 3) * old];
      let [sa, sb, sc, sd] = [0, 0, 0, 0];
      for (let k = 0; k < count; k++) {
        const value = from[start + k];
        sa += value * matrix[a + k];
        sb += value * matrix[b + k];
        sc += value * matrix[c + k];
        sd += value * matrix[d + k];
      }
      const place = i * n + x;
      to[place] = sa;
      to[place + 1] = sb;
      to[place + 2] = sc;
      to[place + 3] = sd;
    }
    for (; x < n; x++) {
      let sum = 0;
      for (let k = 0; k < count; k++) sum += from[start + k] * matrix[x * old + k];
      to[i * n + x] = sum;
    }
  }
}
