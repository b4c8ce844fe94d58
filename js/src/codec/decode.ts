/** Arrays from streams. */

import { readCoefficients } from "../bitstream/coefficients.js";
import { inflate } from "../bitstream/inflate.js";
import { readIntegers } from "../bitstream/integers.js";
import { readLinearExperts } from "../bitstream/linear_experts.js";
import { decodeMask } from "../bitstream/masks.js";
import { readNetwork } from "../bitstream/network.js";
import { Reader } from "../bitstream/reader.js";
import { readResidual } from "../bitstream/residual.js";
import { readScale } from "../bitstream/scale.js";
import { CorruptStreamError, check, MoECError } from "../errors.js";
import {
  type Dtype,
  type DtypeName,
  makeArray,
  readValue,
  type TypedArray,
  type Value,
} from "../model/dtype.js";
import { addNetwork } from "../model/evaluate.js";
import { transformNorm } from "../model/features.js";
import { restoreByExperts } from "../model/linear_experts.js";
import { type Limits, restore, restoreFromScale } from "../model/restore.js";
import { longAxes, paddedShape, product, putInto, visitRows } from "../model/shapes.js";
import { synthesise } from "../model/transform.js";
import { expand } from "./dictionary.js";
import { checkSections, type Header, readStream, SECTION, type Sections, type Taken } from "./header.js";

const LARGEST = 2 ** 30;

export interface DecodeOptions {
  /** Shape that the stream must have; compared before anything of that size is allocated. */
  shape?: readonly number[];
  /** Type of its elements, likewise. */
  dtype?: DtypeName;
  /** Most bytes of values that are accepted where no shape is given: 1 GiB by default. */
  largest?: number;
  /** What the chunks of an array share, where there is one: `dictionary` of the codec's metadata. */
  dictionary?: string;
}

export interface Decoded {
  /** The values in C order, native byte order. */
  data: TypedArray;
  shape: number[];
  dtype: DtypeName;
}

/**
 * Decode a stream, which needs nothing but its bytes, and the dictionary where its array has one.
 *
 * Integers of 64 bits come as `BigInt64Array` and `BigUint64Array`; halves as `Float16Array`, and as a
 * `Float32Array` of the same values where the engine has none.
 *
 * @throws {CorruptStreamError} if the bytes are not a complete, undamaged stream, or not one of the shape and type
 * that are asked for.
 * @throws {DictionaryError} if it takes entries of another dictionary than the one given.
 * @throws {UnsupportedVersionError} if another version of the format wrote it, or a later release.
 * @throws {MoECError} if it holds more bytes than `largest`, or the dictionary is none.
 */
export function decode(bytes: Uint8Array, options: DecodeOptions = {}): Decoded {
  const { header, sections: held } = readStream(bytes);
  checkSize(header, options);
  const { sections, taken } = expand(held, options.dictionary);
  checkSections(sections);
  const { dtype, shape } = header;
  const [box, fill] = readBox(sections.get(SECTION.box), header);
  const inner = decodeBox(header, box, sections, taken);
  if (box === shape) return { data: inner, shape, dtype: dtype.name };
  const data = makeArray(dtype, product(shape));
  data.fill(fill as never);
  return { data: putInto(data, shape, inner, box), shape, dtype: dtype.name };
}

function checkSize({ shape, dtype }: Header, options: DecodeOptions): void {
  if (options.dtype !== undefined && options.dtype !== dtype.name) {
    throw new CorruptStreamError(`the stream holds ${dtype.name}, expected ${options.dtype}`);
  }
  const largest = options.largest ?? LARGEST;
  if (options.shape) {
    if (options.shape.length !== shape.length || options.shape.some((n, axis) => n !== shape[axis])) {
      throw new CorruptStreamError(`the stream holds shape [${shape}], expected [${options.shape}]`);
    }
  } else if (product(shape) * dtype.size > largest) {
    throw new MoECError(
      `the stream holds ${product(shape) * dtype.size} bytes of values, at most ${largest} are accepted where no ` +
        "shape is given; pass the shape, or a larger `largest`",
    );
  }
}

/** The leading part of the array that holds data, and what stands beyond it. */
function readBox(bytes: Uint8Array | undefined, { shape, dtype, low }: Header): [number[], Value] {
  if (!bytes) return [shape, low];
  const source = new Reader(bytes);
  const box = shape.map(() => source.varint());
  check(
    box.every((n, axis) => n >= 1 && n <= shape[axis]) && box.some((n, axis) => n < shape[axis]),
    `a box of ${box}`,
  );
  const fill = readValue(source, dtype);
  check(source.left === 0, "bytes behind a box");
  return [box, fill];
}

/** The values of the box, in C order. */
function decodeBox(header: Header, box: number[], sections: Sections, taken: Taken): TypedArray {
  const { dtype, low, high } = header;
  const masked = readMasks(sections.get(SECTION.masked), box, dtype);
  const finite = masked.filter(({ value }) => isFiniteValue(value));
  check(finite.length < 2, "two finite masked values");
  const limits: Limits = { dtype, low, high, missing: finite[0]?.value };
  const count = product(box);
  const values =
    readStored(header, box, masked, sections) ??
    decodeFitted(limits, box, sections, taken) ??
    (makeArray(dtype, count).fill(low as never) as TypedArray);
  const exact = readMasks(sections.get(SECTION.exact), box, dtype);
  check(
    exact.every(({ value }) => isFiniteValue(value)),
    "an exact value that is not finite",
  );
  for (const { value, mask } of [...exact, ...masked]) {
    for (let i = 0; i < count; i++) if (mask[i]) values[i] = value as never;
  }
  return values;
}

function isFiniteValue(value: Value): boolean {
  return typeof value === "bigint" || Number.isFinite(value);
}

/** A value, and where in the box it stands, one byte a voxel. */
interface MaskedValue {
  value: Value;
  mask: Uint8Array;
}

function readMasks(bytes: Uint8Array | undefined, box: readonly number[], dtype: Dtype): MaskedValue[] {
  const found: MaskedValue[] = [];
  if (!bytes) return found;
  const source = new Reader(bytes);
  // All values before any mask: a mask takes the most work.
  const coded: { value: Value; bytes: Uint8Array }[] = [];
  while (source.left) {
    const value = readValue(source, dtype);
    check(
      coded.every((other) => other.value !== value && !(Number.isNaN(value) && Number.isNaN(other.value))),
      "a masked value that stands there twice",
    );
    coded.push({ value, bytes: source.block() });
    check(coded.length <= 4, "more than four masked values");
  }
  check(coded.length > 0, "no masked values");
  return coded.map(({ value, bytes }) => ({ value, mask: decodeMask(bytes, box) }));
}

/** The values of sections 3 and 8, if there is one of them. */
function readStored(
  header: Header,
  box: number[],
  masked: MaskedValue[],
  sections: Sections,
): TypedArray | undefined {
  const { dtype, low, high } = header;
  const count = product(box);
  const lossless = sections.get(SECTION.lossless);
  if (lossless) return readLossless(lossless, count, dtype);
  const integers = sections.get(SECTION.integers);
  if (!integers) return undefined;
  const valid = masked.length ? new Uint8Array(count).fill(1) : undefined;
  for (const { mask } of masked) for (let i = 0; i < count; i++) if (mask[i]) (valid as Uint8Array)[i] = 0;
  const held = valid ? valid.reduce((all, bit) => all + bit, 0) : count;
  check(held > 0, "integers of no valid voxel");
  const values = readIntegers(integers, { box, valid, count: held, dtype, low, high });
  if (!valid) return values;
  const result = makeArray(dtype, count).fill(low as never) as TypedArray;
  for (let i = 0, at = 0; i < count; i++) if (valid[i]) result[i] = values[at++] as never;
  return result;
}

function readLossless(bytes: Uint8Array, count: number, dtype: Dtype): TypedArray {
  const planes = inflate(bytes, count * dtype.size);
  const joined = new Uint8Array(planes.length);
  for (let plane = 0; plane < dtype.size; plane++) {
    for (let i = 0; i < count; i++) joined[i * dtype.size + plane] = planes[plane * count + i];
  }
  const source = new Reader(joined);
  const result = makeArray(dtype, count);
  for (let i = 0; i < count; i++) result[i] = readValue(source, dtype) as never;
  return result;
}

/** The sum of the network, the residual and the transform, which experts may restore, if there is any of them. */
function decodeFitted(
  limits: Limits,
  box: number[],
  sections: Sections,
  taken: Taken,
): TypedArray | undefined {
  const parts = [SECTION.network, SECTION.residual, SECTION.transform].map((number) => sections.get(number));
  const [coded, corrections, transformed] = parts;
  if (!coded && !corrections && !transformed) return undefined;
  check(!box.includes(0), "a model of no voxels");
  const shape = longAxes(box);
  // All that is read is read before anything is evaluated.
  const network =
    coded && readNetwork(coded, shape.length, transformed !== undefined, taken.get(SECTION.network));
  const coefficients = transformed && readCoefficients(transformed, shape, taken.get(SECTION.transform));
  const restoring = sections.get(SECTION.linearExperts);
  const experts = restoring && readLinearExperts(restoring, shape.length, taken.get(SECTION.linearExperts));
  const residual = corrections && readResidual(corrections, box, taken.get(SECTION.residual));
  const scaled = sections.get(SECTION.scale);
  const scale = scaled && readScale(scaled, box, limits.dtype);
  const transform = coefficients && unfold(synthesise(coefficients), shape);
  const z = transform && experts ? restoreByExperts(experts, shape, transform) : transform;
  let y = z ?? new Float64Array(product(box));
  if (network) {
    if (z) y = z.slice();
    addNetwork(network, shape, y, z, coefficients ? transformNorm(coefficients, shape) : 1);
  }
  if (residual?.corrections) {
    const { places, values } = residual.corrections;
    const padded = paddedShape(shape);
    const isPlain = padded.every((n, axis) => n === shape[axis]);
    const all = isPlain ? y : new Float64Array(product(padded));
    for (let i = 0; i < places.length; i++) all[places[i]] += residual.spacing * values[i];
    if (!isPlain)
      unfold(all, shape).forEach((correction, i) => {
        y[i] += correction;
      });
  }
  const values = makeArray(limits.dtype, product(box));
  if (scale) restoreFromScale(y, scale, limits, values);
  else restore(y, limits, values);
  return values;
}

/** The voxels of a shape from an array of its folded axes. */
function unfold(array: Float64Array, shape: readonly number[]): Float64Array {
  const padded = paddedShape(shape);
  if (array.length === product(shape)) return array;
  const result = new Float64Array(product(shape));
  const length = shape[shape.length - 1];
  visitRows(shape, padded, (from, to) => result.set(array.subarray(to, to + length), from));
  return result;
}
