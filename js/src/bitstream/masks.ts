import { check } from "../errors.js";
import { product } from "../model/shapes.js";
import { inflate } from "./inflate.js";
import { RangeDecoder, zeroFrequency } from "./range_decoder.js";
import { Reader } from "./reader.js";

// Offsets of the context of a voxel: plane, row, column.
// biome-ignore format: one table
const NEIGHBOURS = [
  [0, 0, -1], [0, 0, -2], [0, -1, -1], [0, -1, 0], [0, -1, 1], [0, -2, 0],
  [-1, 0, 0], [-1, 0, 1], [-1, 1, 0], [-1, 1, 1],
];
const PACKED = 0x80;

/** Decode a mask of the bits of a grid, in C order, one byte each. */
export function decodeMask(bytes: Uint8Array, shape: readonly number[]): Uint8Array {
  const source = new Reader(bytes);
  const head = source.u8();
  const constant = head & ~PACKED;
  check(constant >> shape.length === 0, "a mask that does not fit the shape");
  const core = shape.map((n, axis) => ((constant >> axis) & 1 ? 1 : n));
  const long = core.filter((n) => n !== 1);
  const columns = long.at(-1) ?? 1;
  const rows = long.at(-2) ?? 1;
  const planes = product(long.slice(0, -2));
  const size = planes * rows * columns;
  // Only where an axis is empty can the core have more voxels than the mask: no writer makes such a one.
  check(size <= Math.max(product(shape), 1), "a mask of more voxels than its shape");
  const packed = columns + 2 * rows + 4 * planes > 4096 + Math.floor(size / 64);
  check(packed === Boolean(head & PACKED), "a mask that is coded in another way");
  const bits = packed
    ? unpackBits(inflate(source.rest(), Math.ceil(size / 8)), size)
    : decodeWavefronts(source.rest(), planes, rows, columns);
  return repeatAlong(bits, core, shape);
}

function unpackBits(bytes: Uint8Array, size: number): Uint8Array {
  const bits = new Uint8Array(size);
  for (let i = 0; i < size; i++) bits[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1;
  return bits;
}

function decodeWavefronts(bytes: Uint8Array, planes: number, rows: number, columns: number): Uint8Array {
  const result = new Uint8Array(planes * rows * columns);
  if (result.length === 0) return result;
  // A margin of zeros, as wide as contexts reach.
  const [height, width] = [rows + 3, columns + 3];
  const cells = new Uint8Array((planes + 1) * height * width);
  const reach = NEIGHBOURS.map(([plane, row, column]) => (plane * height + row) * width + column);
  const { starts, places, numbers } = orderRows(planes, rows, height, width);
  const zeros = new Int32Array(1024);
  const ones = new Int32Array(1024);
  const contexts = new Int16Array(starts.length);
  const decoder = new RangeDecoder(bytes);
  let [first, last] = [0, 0];
  for (let t = 0; t < starts[starts.length - 1] + columns; t++) {
    while (last < starts.length && starts[last] <= t) last++;
    while (first < last && starts[first] + columns <= t) first++;
    for (let line = first; line < last; line++) {
      const place = places[line] + t - starts[line];
      let context = 0;
      for (let i = 0; i < 10; i++) context = (context << 1) | cells[place + reach[i]];
      contexts[line] = context;
      cells[place] = decoder.bit(zeroFrequency(zeros[context], ones[context]));
    }
    for (let line = first; line < last; line++) {
      if (cells[places[line] + t - starts[line]]) ones[contexts[line]]++;
      else zeros[contexts[line]]++;
    }
  }
  for (let line = 0; line < starts.length; line++) {
    result.set(cells.subarray(places[line], places[line] + columns), numbers[line] * columns);
  }
  return result;
}

/** The first wavefront of each row, rising, where its first cell stands, and its number in C order. */
function orderRows(planes: number, rows: number, height: number, width: number) {
  const starts = new Int32Array(planes * rows);
  const places = new Int32Array(planes * rows);
  const numbers = new Int32Array(planes * rows);
  let at = 0;
  for (let half = 0; half <= 2 * (planes - 1) + rows - 1; half++) {
    for (
      let plane = Math.max(0, Math.ceil((half - rows + 1) / 2));
      2 * plane <= half && plane < planes;
      plane++
    ) {
      const row = half - 2 * plane;
      starts[at] = 2 * half;
      places[at] = ((plane + 1) * height + row + 2) * width + 2;
      numbers[at++] = plane * rows + row;
    }
  }
  return { starts, places, numbers };
}

/** Repeat an array along the axes where it has length 1 and `shape` another one. */
function repeatAlong(array: Uint8Array, core: readonly number[], shape: readonly number[]): Uint8Array {
  let result = array;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (core[axis] === shape[axis]) continue;
    const before = product(core.slice(0, axis));
    const after = product(shape.slice(axis + 1));
    const repeated = new Uint8Array(before * shape[axis] * after);
    for (let i = 0; i < before; i++) {
      const own = result.subarray(i * after, (i + 1) * after);
      for (let k = 0; k < shape[axis]; k++) repeated.set(own, (i * shape[axis] + k) * after);
    }
    result = repeated;
  }
  return result;
}
