/** Section 7: a logarithmic scale, and signs. */

import { check } from "../errors.js";
import type { Dtype } from "../model/dtype.js";
import { decodeMask } from "./masks.js";
import { Reader } from "./reader.js";

export interface Scale {
  /** 0 where there is none. */
  knee: number;
  centre: number;
  half: number;
  signs: Uint8Array | undefined;
}

export function readScale(bytes: Uint8Array, box: readonly number[], dtype: Dtype): Scale {
  const source = new Reader(bytes);
  const flags = source.u8();
  check(flags < 3, "a reserved bit of a scale, or signs beside a knee");
  check(flags !== 2 || dtype.kind !== "u", "signs of unsigned integers");
  const centre = source.f32();
  const half = source.f32();
  source.u32(); // the quality, which is information
  const knee = flags & 1 ? source.f64() : 0;
  check(Number.isFinite(centre) && half > 0 && Number.isFinite(half), "a scale without a range");
  check(!(flags & 1) || (knee > 0 && Number.isFinite(knee)), `a knee of ${knee}`);
  const signs = flags & 2 ? decodeMask(source.block(), box) : undefined;
  check(source.left === 0, "bytes behind a scale");
  return { knee, centre, half, signs };
}
