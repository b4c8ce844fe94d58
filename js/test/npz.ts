/** Arrays of NumPy's files. */

import { inflateRawSync } from "node:zlib";

export interface NumpyArray {
  /** Numbers, or bigints of 64-bit integers, in C order. */
  data: ArrayLike<number | bigint>;
  shape: number[];
  /** NumPy's name of the type, without the byte order. */
  dtype: string;
}

/** Read the only array of a .npz file. */
export function readNpz(file: Uint8Array): NumpyArray {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  // The directory at the end of the zip file says where the array begins.
  let end = file.length - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end--;
  const entry = view.getUint32(end + 16, true);
  const size = view.getUint32(entry + 20, true);
  const local = view.getUint32(entry + 42, true);
  const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
  const raw = file.subarray(start, start + size);
  return readNpy(view.getUint16(entry + 10, true) ? inflateRawSync(raw) : raw);
}

function readNpy(file: Uint8Array): NumpyArray {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = view.getUint16(8, true);
  const head = new TextDecoder().decode(file.subarray(10, 10 + length));
  const [, order, dtype] = /'descr': '([<>|])([iuf]\d)'/.exec(head) as RegExpExecArray;
  const shape = [...(/'shape': \(([^)]*)\)/.exec(head) as RegExpExecArray)[1].matchAll(/\d+/g)].map(Number);
  const count = shape.reduce((all, n) => all * n, 1);
  const values = Array.from({ length: count }, (_, i) =>
    readValue(view, 10 + length, i, dtype, order !== ">"),
  );
  if (!head.includes("'fortran_order': True")) return { data: values, shape, dtype };
  return { data: fromFortran(values, shape), shape, dtype };
}

function readValue(
  view: DataView,
  start: number,
  i: number,
  dtype: string,
  little: boolean,
): number | bigint {
  const size = Number(dtype[1]);
  const at = start + i * size;
  switch (dtype) {
    case "i1":
      return view.getInt8(at);
    case "u1":
      return view.getUint8(at);
    case "i2":
      return view.getInt16(at, little);
    case "u2":
      return view.getUint16(at, little);
    case "i4":
      return view.getInt32(at, little);
    case "u4":
      return view.getUint32(at, little);
    case "i8":
      return view.getBigInt64(at, little);
    case "u8":
      return view.getBigUint64(at, little);
    case "f4":
      return view.getFloat32(at, little);
    case "f8":
      return view.getFloat64(at, little);
    default:
      return half(view.getUint16(at, little));
  }
}

function half(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

function fromFortran(values: (number | bigint)[], shape: number[]): (number | bigint)[] {
  return values.map((_, place) => {
    let [rest, at] = [place, 0];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const i = rest % shape[axis];
      rest = Math.floor(rest / shape[axis]);
      at += i * shape.slice(0, axis).reduce((all, n) => all * n, 1);
    }
    return values[at];
  });
}
