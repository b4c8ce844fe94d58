/** The CDF 9/7 wavelets of JPEG 2000, by lifting. */

const FACTORS = [0.443506852043971, 0.882911075530934, -0.052980118572961, -1.586134342059924];
const REACH = 4; // voxels on either side that a level's functions reach beyond

/** Lift rows of `width` numbers, averages and details in turn, of n voxels; those from `from` to `to` only. */
export function lift(x: Float64Array, n: number, width: number, from = 0, to = n): void {
  FACTORS.forEach((factor, turn) => {
    for (let i = from + ((from + turn) & 1); i < to; i += 2) {
      const own = i * width;
      const before = (i > 0 ? i - 1 : 1) * width;
      const behind = (i + 1 < n ? i + 1 : n - 2) * width;
      for (let k = 0; k < width; k++) x[own + k] -= factor * (x[before + k] + x[behind + k]);
    }
  });
}

/** Lengths of the averages after 0, 1, ... levels. */
export function averageLengths(n: number, levels: number): number[] {
  const lengths = [n];
  for (let level = 0; level < levels; level++) lengths.push(Math.ceil(lengths[level] / 2));
  return lengths;
}

/**
 * The norms of the first `count` averages, or details, of a level of n voxels.
 *
 * A function is as narrow as its level is fine, so that lifting it needs to look at few voxels.
 */
export function norms(n: number, level: number, detail: boolean, count: number): Float64Array {
  const lengths = averageLengths(n, level);
  const result = new Float64Array(count);
  let [coarse, fine] = [new Float64Array(n), new Float64Array(n)];
  for (let number = 0; number < count; number++) {
    let from = 2 * number + Number(detail);
    let to = from + 1;
    coarse[from] = 1;
    for (let each = level - 1; each >= 0; each--) {
      from = Math.max(from - REACH, 0);
      to = Math.min(to + REACH, lengths[each]);
      lift(coarse, lengths[each], 1, from, to);
      if (each === 0) break;
      for (let i = from; i < to; i++) fine[2 * i] = coarse[i];
      coarse.fill(0, from, to);
      [coarse, fine] = [fine, coarse];
      [from, to] = [2 * from, 2 * to - 1];
    }
    let sum = 0;
    for (let i = from; i < to; i++) sum += coarse[i] * coarse[i];
    coarse.fill(0, from, to);
    result[number] = Math.sqrt(sum);
  }
  return result;
}

/**
 * Undo a decomposition level along an axis of the corner `box` of an array, in place.
 *
 * The box has the averages, then the details, along this axis.
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
  const most = axis === last ? 1 : Math.min(box[last], 8); // columns that are lifted at a time
  const lines = new Float64Array(n * most);
  const index = new Array<number>(box.length).fill(0);
  for (;;) {
    const width = Math.min(most, box[last] - index[last]);
    let base = 0;
    for (let each = 0; each < box.length; each++) base += index[each] * strides[each];
    for (let i = 0; i < n; i++) {
      const from = base + (i % 2 ? averages + (i >> 1) : i >> 1) * stride;
      for (let k = 0; k < width; k++) lines[i * width + k] = array[from + k];
    }
    lift(lines, n, width);
    for (let i = 0; i < n; i++) {
      const to = base + i * stride;
      for (let k = 0; k < width; k++) array[to + k] = lines[i * width + k];
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
