/** The codecs for zarrita: of zarr format 3, and of format 2, where zarrita calls it by numcodecs' name. */

import { decode } from "./codec/decode.js";
import { MoECError } from "./errors.js";
import type { DtypeName, TypedArray } from "./model/dtype.js";
import { product, stridesOf } from "./model/shapes.js";

/** What zarrita says of the chunks of an array. */
interface ChunkMetadata {
  dataType: string;
  shape: number[];
  codecs: { name: string; configuration: Record<string, unknown> }[];
}

/** The part of the codec's metadata that is needed to read. */
interface Configuration {
  dictionary?: string;
}

/** What zarrita takes for a decoded chunk. */
interface Chunk {
  data: TypedArray;
  shape: number[];
  stride: number[];
}

/** The part of zarrita's registry that is needed here. */
interface Registry {
  set(name: string, load: () => Promise<unknown>): unknown;
}

/** The order of axes that a transpose codec stores chunks in; undefined where there is none. */
function storedOrder({ codecs, shape }: ChunkMetadata): number[] | undefined {
  const order = codecs.find(({ name }) => name === "transpose")?.configuration.order;
  if (order === undefined || order === "C") return undefined;
  return order === "F" ? shape.map((_, axis) => shape.length - 1 - axis) : (order as number[]);
}

/** Make a codec that reads chunks, of a function that reads them in the shape in which they are stored. */
function makeCodec(
  read: (stored: (shape: readonly number[]) => TypedArray, shape: number[], order?: number[]) => TypedArray,
) {
  return {
    fromConfig({ dictionary }: Configuration, meta: ChunkMetadata) {
      const { shape } = meta;
      return {
        kind: "array_to_bytes",
        encode(): never {
          throw new MoECError("arrays are written in Python: https://pypi.org/project/moec-zarr");
        },
        decode(bytes: Uint8Array): Chunk {
          const dtype = meta.dataType as DtypeName;
          const stored = (own: readonly number[]) => decode(bytes, { shape: own, dtype, dictionary }).data;
          return { data: read(stored, shape, storedOrder(meta)), shape, stride: stridesOf(shape) };
        },
      };
    },
  };
}

/** `moec_zarr.moec` of zarr format 3; a transpose codec before it changes the shape that is stored. */
export const MoECSerializer = makeCodec((stored, shape, order) =>
  stored(order?.map((axis) => shape[axis]) ?? shape),
);

/** `moec` of numcodecs, in zarr format 2: the stored shape is the chunk's, whatever the order in memory. */
export const MoECCodec = makeCodec((stored, shape, order) =>
  order ? toFortran(stored(shape), shape) : stored(shape),
);

/** The same array in Fortran memory order, as zarrita expects it where metadata say so. */
function toFortran(data: TypedArray, shape: readonly number[]): TypedArray {
  const result = data.slice();
  const index = new Array<number>(shape.length).fill(0);
  const strides = shape.map((_, axis) => product(shape.slice(0, axis)));
  for (let place = 0; place < data.length; place++) {
    let to = 0;
    for (let axis = 0; axis < shape.length; axis++) to += index[axis] * strides[axis];
    result[to] = data[place] as never;
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return result;
}

/**
 * Make zarrita read arrays that moec_zarr wrote.
 *
 * @param registry zarrita's: `import { registry } from "zarrita"`.
 */
export function register(registry: Registry): void {
  registry.set("moec_zarr.moec", async () => MoECSerializer);
  registry.set("numcodecs.moec", async () => MoECCodec);
}
