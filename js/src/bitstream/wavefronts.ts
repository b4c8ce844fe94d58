import { check } from "../errors.js";
import { product, stridesOf } from "../model/shapes.js";
import { type Context, classOf, FLAG_ZEROS, magnitudeTables, quietActivity } from "./classes.js";
import { RangeDecoder } from "./range_decoder.js";
import type { Reader } from "./reader.js";

const ABSENT = 255;
const LARGEST_NEIGHBOUR = 32767;
const WITH_EXCESS = 63;
const LARGEST = 2 ** 23 - 1;
const MOST_BITS = 23;

/** Bands of a product of axes that differ in what their coefficients' neighbours are. */
export interface JointBands {
  /** For each band of the product a bit of each axis: whether it has a detail there, of a joint axis. */
  details: Uint32Array;
  /** Likewise, whether the number of an average is halved on the way to its parent. */
  halves: Uint32Array;
  /** Axes that are joint. */
  axes: boolean[];
}

/** A grid of integers that are coded wavefront by wavefront. */
export interface Grid {
  /** How many of the integers on each axis may be other than 0. */
  extent: number[];
  /** The band of each of them, on each axis. */
  bands: Uint8Array[];
  /** The octave of each band of the product of all axes, in C order; 255 where it is not present. */
  octaves: Uint8Array;
  /** How many bands each axis has in it. */
  counts: number[];
  /** The three neighbours of each number, on each axis; -1 where there is none. */
  neighbours: Int32Array[][];
  /** Which places of the grid have an integer, one byte each; all where it is missing. */
  held?: Uint8Array;
  joint?: JointBands;
}

/** Integers that are not 0: where in the grid each stands, in the order of coding, and what it is. */
export interface Sparse {
  places: Int32Array;
  values: Int32Array;
}

/** Read the integers of a grid to the end of a section of `size` bytes. */
export function readWavefronts(source: Reader, size: number, grid: Grid, context: Context): Sparse {
  const largest = source.varint();
  check(largest >= 1 && largest <= WITH_EXCESS, `a largest magnitude of ${largest}`);
  const decoder = new RangeDecoder(source.rest());
  const { places, magnitudes } = decodeMagnitudes(decoder, grid, context, largest, 8 * size);
  const values = Int32Array.from(magnitudes, (magnitude) => (decoder.bit(2 ** 23) ? -magnitude : magnitude));
  return { places: Int32Array.from(places), values };
}

function decodeMagnitudes(
  decoder: RangeDecoder,
  grid: Grid,
  context: Context,
  largest: number,
  most: number,
) {
  const rows = orderRows(grid);
  const last = grid.extent.length - 1;
  const lastBands = grid.bands[last];
  const columns = grid.extent[last];
  const { octaves, held } = grid;
  const { starts, bands } = rows;
  const tables = magnitudeTables(largest);
  const quiet = Float64Array.from({ length: ABSENT }, (_, octave) => quietActivity(context, octave));
  const seen = new Uint16Array(product(grid.extent)); // magnitudes, as neighbours see them
  const activity = makeActivity(grid, context.weights, rows, seen);
  const places: number[] = [];
  const magnitudes: number[] = [];
  const classes: number[] = []; // of those of a wavefront
  const end = starts.length ? starts[starts.length - 1] + columns : 0;
  let [first, beyond] = [0, 0];
  for (let t = 0; t < end; t++) {
    while (beyond < starts.length && starts[beyond] <= t) beyond++;
    while (first < beyond && starts[first] + columns <= t) first++;
    const before = places.length;
    for (let row = first; row < beyond; row++) {
      const column = t - starts[row];
      const octave = octaves[bands[row] + lastBands[column]];
      const place = rows.places[row] + column;
      if (octave === ABSENT || (held && !held[place])) continue;
      const number = classOf(context, octave, quiet[octave] + activity(row, column, place));
      if (decoder.bit(FLAG_ZEROS[number])) {
        classes[places.length - before] = number;
        places.push(place);
      }
    }
    check(places.length <= most, `more than ${most} integers that are not zero`);
    for (let i = before; i < places.length; i++) {
      const start = classes[i - before] * (largest + 1);
      magnitudes.push(largest > 1 ? 1 + decoder.symbol(tables, start) : 1);
    }
    for (let i = before; i < places.length; i++) {
      if (magnitudes[i] === WITH_EXCESS) magnitudes[i] += readExcess(decoder, classes[i - before]);
      seen[places[i]] = Math.min(magnitudes[i], LARGEST_NEIGHBOUR);
    }
  }
  return { places, magnitudes };
}

/** An Exp-Golomb code, whose order follows from the class. */
function readExcess(decoder: RangeDecoder, number: number): number {
  const order = Math.max((number >> 2) - 5, 0);
  let length = order;
  while (decoder.bit(2 ** 23)) check(++length <= MOST_BITS, "an excess of too many bits");
  const excess = 2 ** length - 2 ** order + decoder.number(length);
  check(excess <= LARGEST - WITH_EXCESS, `an excess of ${excess}`);
  return excess;
}

/** Rows of a grid along its last axis, in the order in which wavefronts reach them. */
interface Rows {
  /** The wavefront that each begins on, rising. */
  starts: Int32Array;
  /** Where in the grid each begins. */
  places: Int32Array;
  /** The number of its bands in the product of all axes, without the last one. */
  bands: Int32Array;
  /** Its numbers on all axes but the last. */
  index: Int32Array[];
}

function orderRows(grid: Grid): Rows {
  const outer = grid.extent.slice(0, -1);
  const columns = grid.extent[outer.length];
  const strides = stridesOf(grid.counts);
  const present = findPresent(grid);
  // First how many rows begin on each wavefront, then where each of them stands.
  const ends = new Int32Array(outer.reduce((all, n) => all + n, 2));
  const visit = (found: (row: number, start: number, band: number, index: number[]) => void) => {
    const index = new Array<number>(outer.length).fill(0);
    for (let row = 0, rows = product(outer); row < rows; row++) {
      let [start, band] = [0, 0];
      for (let axis = 0; axis < outer.length; axis++) {
        start += index[axis];
        band += grid.bands[axis][index[axis]] * strides[axis];
      }
      if (present[band]) found(row, start, band, index);
      for (let axis = outer.length - 1; axis >= 0 && ++index[axis] === outer[axis]; axis--) index[axis] = 0;
    }
  };
  visit((_, start) => ends[start + 1]++);
  for (let start = 1; start < ends.length; start++) ends[start] += ends[start - 1];
  const make = () => new Int32Array(ends[ends.length - 1]);
  const rows: Rows = { starts: make(), places: make(), bands: make(), index: outer.map(make) };
  visit((row, start, band, index) => {
    const at = ends[start]++;
    rows.starts[at] = start;
    rows.places[at] = row * columns;
    rows.bands[at] = band;
    for (let axis = 0; axis < outer.length; axis++) rows.index[axis][at] = index[axis];
  });
  return rows;
}

/** For the first band on the last axis of each of the others' products, whether any of these is present. */
function findPresent({ octaves, counts }: Grid): Uint8Array {
  const present = new Uint8Array(octaves.length);
  const count = counts[counts.length - 1];
  octaves.forEach((octave, band) => {
    if (octave !== ABSENT) present[band - (band % count)] = 1;
  });
  return present;
}

/** What the neighbours of an integer add to its activity, by its row, its column and its place. */
type Activity = (row: number, column: number, place: number) => number;

function makeActivity(grid: Grid, weights: Uint8Array, rows: Rows, seen: Uint16Array): Activity {
  const last = grid.extent.length - 1;
  const strides = stridesOf(grid.extent);
  // Of each axis and neighbour how far back it stands in the grid; 0 where there is none, since an integer has not
  // been seen before it is read.
  const moves = grid.neighbours.flatMap((tables, axis) =>
    tables.map((table) => table.map((near, i) => (near < 0 ? 0 : (near - i) * strides[axis]))),
  );
  const alone = grid.extent.map((_, axis) => !grid.joint?.axes[axis]);
  const own = moves.map((_, slot) => alone[Math.floor(slot / 3)]);
  const slots = moves.map((_, slot) => slot).filter((slot) => own[slot] && weights[slot] > 0);
  const used = slots.map((slot) => moves[slot]);
  const factors = slots.map((slot) => weights[slot]);
  const numbers = slots.map((slot) => rows.index[Math.floor(slot / 3)]); // of the last axis there is none
  const separate: Activity = (row, column, place) => {
    let total = 0;
    for (let i = 0; i < used.length; i++) {
      total += factors[i] * seen[place + used[i][numbers[i] ? numbers[i][row] : column]];
    }
    return total;
  };
  const { joint } = grid;
  if (!joint) return separate;
  const { details, halves } = joint;
  // Of each number how far both neighbours and a share of the parent are: of averages, whose parents stand at the
  // same number or at half of it, and of details.
  const together = grid.extent.flatMap((n, axis) => {
    if (alone[axis]) return [];
    const own = new Int32Array(9 * n);
    const [near, next, parent] = moves.slice(3 * axis);
    for (let i = 0; i < n; i++) {
      const back = [i >= 1 ? -strides[axis] : 0, i >= 2 ? -2 * strides[axis] : 0];
      own.set([...back, 0], 3 * i);
      own.set([...back, ((i >> 1) - i) * strides[axis]], 3 * (n + i));
      own.set([near[i], next[i], parent[i]], 3 * (2 * n + i));
    }
    return {
      axis,
      n,
      own,
      numbers: rows.index[axis],
      first: weights[3 * axis],
      second: weights[3 * axis + 1],
    };
  });
  const parentWeight = weights[3 * together[0].axis + 2];
  return (row, column, place) => {
    const band = rows.bands[row] + grid.bands[last][column];
    let total = separate(row, column, place);
    let parent = place;
    for (let k = 0; k < together.length; k++) {
      const { axis, n, own, numbers, first, second } = together[k];
      const kind = 2 * ((details[band] >> axis) & 1) + ((halves[band] >> axis) & 1);
      const at = 3 * (kind * n + (numbers ? numbers[row] : column));
      total += first * seen[place + own[at]] + second * seen[place + own[at + 1]];
      parent += own[at + 2];
    }
    return total + parentWeight * seen[parent];
  };
}
