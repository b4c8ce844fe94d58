import { product } from "./shapes.js";

const ROWS = 8;
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

/** The same of an array that is 0 but for a few elements. */
export function multiplySparse(
  places: Int32Array,
  values: Float64Array,
  shape: readonly number[],
  axis: number,
  matrix: Float64Array,
  n: number,
): Float64Array {
  const old = shape[axis];
  const after = product(shape.slice(axis + 1));
  const result = new Float64Array((product(shape) / old) * n);
  const functions = new Int32Array(places.length);
  const firsts = new Int32Array(places.length);
  for (let i = 0; i < places.length; i++) {
    const own = Math.floor(places[i] / after);
    functions[i] = own % old;
    firsts[i] = ((own - functions[i]) / old) * n * after + (places[i] - own * after);
  }
  // A few rows at a time, which stay in the cache.
  for (let start = 0; start < n; start += ROWS) {
    const end = Math.min(start + ROWS, n);
    for (let i = 0; i < places.length; i++) {
      const value = values[i];
      const k = functions[i];
      const first = firsts[i];
      for (let x = start; x < end; x++) result[first + x * after] += value * matrix[x * old + k];
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
  // Two new rows of four old ones at a time: what is read once is used twice.
  let x = 0;
  for (; x + 2 <= n; x += 2) {
    const row = x * old;
    const next = (x + 1) * old;
    const here = x * after;
    const below = (x + 1) * after;
    let i = 0;
    for (; i + 4 <= used.length; i += 4) {
      const a = used[i];
      const b = used[i + 1];
      const c = used[i + 2];
      const d = used[i + 3];
      const fa = matrix[row + a];
      const fb = matrix[row + b];
      const fc = matrix[row + c];
      const fd = matrix[row + d];
      const ga = matrix[next + a];
      const gb = matrix[next + b];
      const gc = matrix[next + c];
      const gd = matrix[next + d];
      const pa = a * after;
      const pb = b * after;
      const pc = c * after;
      const pd = d * after;
      for (let k = start; k < end; k++) {
        const va = from[pa + k];
        const vb = from[pb + k];
        const vc = from[pc + k];
        const vd = from[pd + k];
        to[here + k] += fa * va + fb * vb + fc * vc + fd * vd;
        to[below + k] += ga * va + gb * vb + gc * vc + gd * vd;
      }
    }
    for (; i < used.length; i++) {
      const f = matrix[row + used[i]];
      const g = matrix[next + used[i]];
      const place = used[i] * after;
      for (let k = start; k < end; k++) {
        to[here + k] += f * from[place + k];
        to[below + k] += g * from[place + k];
      }
    }
  }
  for (; x < n; x++) {
    for (const i of used) {
      const factor = matrix[x * old + i];
      for (let k = start; k < end; k++) to[x * after + k] += factor * from[i * after + k];
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
  for (let i = 0; i < rows; i += 2) {
    // Two rows, or the last one twice, and four new elements of each at a time.
    const row = i;
    const next = Math.min(i + 1, rows - 1);
    const start = row * old;
    const below = next * old;
    let count = old;
    while (count > 0 && from[start + count - 1] === 0 && from[below + count - 1] === 0) count--;
    let x = 0;
    for (; x + 4 <= n; x += 4) {
      const a = x * old;
      const b = (x + 1) * old;
      const c = (x + 2) * old;
      const d = (x + 3) * old;
      let sa = 0;
      let sb = 0;
      let sc = 0;
      let sd = 0;
      let ta = 0;
      let tb = 0;
      let tc = 0;
      let td = 0;
      for (let k = 0; k < count; k++) {
        const s = from[start + k];
        const t = from[below + k];
        const ma = matrix[a + k];
        const mb = matrix[b + k];
        const mc = matrix[c + k];
        const md = matrix[d + k];
        sa += s * ma;
        sb += s * mb;
        sc += s * mc;
        sd += s * md;
        ta += t * ma;
        tb += t * mb;
        tc += t * mc;
        td += t * md;
      }
      const place = row * n + x;
      const other = next * n + x;
      to[other] = ta;
      to[other + 1] = tb;
      to[other + 2] = tc;
      to[other + 3] = td;
      to[place] = sa;
      to[place + 1] = sb;
      to[place + 2] = sc;
      to[place + 3] = sd;
    }
    for (; x < n; x++) {
      let s = 0;
      let t = 0;
      for (let k = 0; k < count; k++) {
        s += from[start + k] * matrix[x * old + k];
        t += from[below + k] * matrix[x * old + k];
      }
      to[next * n + x] = t;
      to[row * n + x] = s;
    }
  }
}
