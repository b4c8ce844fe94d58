/** The frame, the header and the sections of a stream. */

import { crc32 } from "../bitstream/crc32.js";
import { Reader } from "../bitstream/reader.js";
import { check, know, UnsupportedVersionError } from "../errors.js";
import { DTYPE_NAMES, type Dtype, makeDtype, readValue, type Value } from "../model/dtype.js";
import { product } from "../model/shapes.js";

const VERSION = 1;
const MOST_VOXELS = 2 ** 32 - 1;
const MOST_AXES = 5;

/** Numbers of the sections. */
export const SECTION = {
  box: 1,
  masked: 2,
  lossless: 3,
  network: 4,
  residual: 5,
  transform: 6,
  scale: 7,
  integers: 8,
  exact: 9,
  linearExperts: 10,
  shared: 11,
} as const;
/** Sections that add up to the values, and those that hold the values alone. */
const FITTED = [SECTION.network, SECTION.residual, SECTION.transform];
const STORED = [SECTION.lossless, SECTION.integers];

export interface Header {
  dtype: Dtype;
  /** Whether the array was in Fortran memory order. */
  fortran: boolean;
  shape: number[];
  low: Value;
  high: Value;
}

/** The payloads of sections by their numbers. */
export type Sections = ReadonlyMap<number, Uint8Array>;

/** How many bytes of a section's payload an entry of a dictionary has, by its number. */
export type Taken = ReadonlyMap<number, number>;

/** Check the frame of a stream, and read its header and what sections it has. */
export function readStream(bytes: Uint8Array): { header: Header; sections: Sections } {
  const frame = new Reader(bytes);
  check(
    bytes.length >= 8 && String.fromCharCode(...frame.take(3)) === "MoE",
    "bytes that do not begin with 'MoE'",
  );
  const version = frame.u8();
  if (version !== VERSION) {
    throw new UnsupportedVersionError(
      `the stream has version ${version} of the format, this package reads ${VERSION}; ` +
        (version < VERSION ? "a development version wrote it: write it again" : "install a newer one"),
    );
  }
  const sum = frame.u32();
  const body = frame.rest();
  check(sum === crc32(body), "a checksum that differs");
  const source = new Reader(body);
  return { header: readHeader(source), sections: readSections(source) };
}

function readHeader(source: Reader): Header {
  const head = source.u8();
  check(head < 128, "a reserved bit of the header");
  know((head & 15) < DTYPE_NAMES.length, `type ${head & 15}`);
  const dtype = makeDtype(DTYPE_NAMES[head & 15]);
  const rank = source.u8();
  know(rank <= MOST_AXES, `${rank} axes`);
  const shape = Array.from({ length: rank }, () => source.varint());
  check(product(shape.map((n) => Math.max(n, 1))) <= MOST_VOXELS, `a shape of ${shape}`);
  const low = readValue(source, dtype);
  const high = readValue(source, dtype);
  const finite = dtype.kind !== "f" || (Number.isFinite(low) && Number.isFinite(high));
  check(finite && low <= high, `a range from ${low} to ${high}`);
  source.u32(); // the quality, which is information
  return { dtype, fortran: Boolean(head & 32), shape, low, high };
}

function readSections(source: Reader): Sections {
  const sections = new Map<number, Uint8Array>();
  let before = 0;
  while (source.left) {
    const number = source.u8();
    check(number > before, `section ${number} behind ${before}`);
    know(number <= SECTION.shared, `section ${number}`);
    sections.set(number, source.block());
    before = number;
  }
  return sections;
}

/** Refuse sections that do not go together. */
export function checkSections(sections: Sections): void {
  const has = (number: number) => sections.has(number);
  const fitted = FITTED.some(has);
  const stored = STORED.filter(has).length;
  check(stored === 0 || (stored === 1 && !fitted && !has(SECTION.exact)), "values that are held twice");
  check(fitted || !has(SECTION.scale), "a scale of nothing");
  check(has(SECTION.transform) || !has(SECTION.linearExperts), "linear experts that restore nothing");
}
