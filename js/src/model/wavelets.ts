/** The CDF 9/7 wavelets of JPEG 2000, by lifting. */

const FIRST = 0.443506852043971;
const SECOND = 0.882911075530934;
const THIRD = -0.052980118572961;
const FOURTH = -1.586134342059924;
const REACH = 4; // numbers beyond either end that lifting reads, and functions next to it that the end changes
const WIDTH = 8; // lines that are lifted together: numbers beside one another share a cache line

/** Lengths of the averages after 0, 1, ... levels. */
export function averageLengths(n: number, levels: number): number[] {
  const lengths = [n];
  for (let level = 0; level < levels; level++) lengths.push(Math.ceil(lengths[level] / 2));
  return lengths;
}

/** The norms of the first `count` averages, or details, of a level of n voxels. All those far from the ends are alike. */
export function norms(n: number, level: number, detail: boolean, count: number): Float64Array {
  const lengths = averageLengths(n, level);
  const start = detail ? lengths[level] : 0;
  const last = lengths[Math.max(level - Number(detail), 0)] - start - REACH;
  const result = new Float64Array(count);
  for (let number = 0; number < count; number++) {
    if (number > REACH && number < last) {
      result[number] = result[REACH];
      continue;
    }
    const values = new Float64Array(n);
    values[start + number] = 1;
    for (let each = level - 1; each >= 0; each--) mergeAlong(values, [1], [lengths[each]], 0);
    result[number] = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  }
  return result;
}

/**
 * Undo a decomposition level along an axis of the corner `box` of an array, in place.
 *
 * The box has the averages, then the details, along this axis. Lines that are all 0 take little time: most are.
 */
export function mergeAlong(
  array: Float64Array,
  strides: readonly number[],
  box: readonly number[],
  axis: number,
): void {
  const n = box[axis];
  const stride = strides[axis];
  const last = box.length - 1;
  const averages = Math.ceil(n / 2);
  const most = axis === last ? 1 : Math.min(box[last], WIDTH);
  const lines = new Float64Array((n + 2 * REACH) * most);
  const index = new Array<number>(box.length).fill(0);
  for (;;) {
    const width = Math.min(most, box[last] - index[last]);
    let base = 0;
    for (let each = 0; each < box.length; each++) base += index[each] * strides[each];
    // Averages and details in turn, mirrored at both ends.
    let isEmpty = true;
    for (let i = 0; i < n; i++) {
      const from = base + (i & 1 ? averages + (i >> 1) : i >> 1) * stride;
      const to = (i + REACH) * most;
      for (let k = 0; k < width; k++) {
        const value = array[from + k];
        lines[to + k] = value;
        if (value !== 0) isEmpty = false;
      }
    }
    if (!isEmpty) {
      for (let i = 1; i <= REACH; i++) {
        const far = i % (2 * n - 2);
        const own = far < n ? far : 2 * n - 2 - far;
        for (let k = 0; k < width; k++) {
          lines[(REACH - i) * most + k] = lines[(REACH + own) * most + k];
          lines[(REACH + n - 1 + i) * most + k] = lines[(REACH + n - 1 - own) * most + k];
        }
      }
      for (let k = 0; k < width; k++) lift(lines, k, most, array, base + k, stride, n);
    }
    let each = last;
    for (; each >= 0; each--) {
      if (each === axis) continue;
      index[each] += each === last ? width : 1;
      if (index[each] < box[each]) break;
      index[each] = 0;
    }
    if (each < 0) return;
  }
}

/**
 * Lift a line from `x`, which is longer at both ends, to `out`, all four turns in one sweep.
 *
 * Each turn takes place one number behind the one before it.
 */
function lift(
  x: Float64Array,
  from: number,
  step: number,
  out: Float64Array,
  to: number,
  stride: number,
  n: number,
): void {
  let odd = x[from + step];
  let even = 0;
  let liftedOdd = 0;
  let liftedEven = 0;
  for (let i = 0, at = from + 2 * step; i <= n + 4; i += 2, at += 2 * step) {
    const odd1 = x[at + step];
    const even1 = x[at] - FIRST * (odd + odd1);
    const odd2 = odd - SECOND * (even + even1);
    const even2 = even - THIRD * (liftedOdd + odd2);
    if (i > 4) out[to + (i - 5) * stride] = liftedOdd - FOURTH * (liftedEven + even2);
    if (i > 2 && i < n + 4) out[to + (i - 4) * stride] = even2;
    odd = odd1;
    even = even1;
    liftedOdd = odd2;
    liftedEven = even2;
  }
}
