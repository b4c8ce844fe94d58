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

/** Decodes chunks. Only what this package can read back may be written: there is no `encode`. */
abstract class Codec {
  readonly kind = "array_to_bytes";

  constructor(
    private readonly configuration: Configuration,
    protected readonly meta: ChunkMetadata,
  ) {}

  encode(): never {
    throw new MoECError("arrays are written in Python: https://pypi.org/project/moec-zarr");
  }

  abstract decode(bytes: Uint8Array): Chunk;

  /** A stream of this shape and of the array's type, in C order. */
  protected read(bytes: Uint8Array, shape: readonly number[]): TypedArray {
    const { dictionary } = this.configuration;
    return decode(bytes, { shape, dtype: this.meta.dataType as DtypeName, dictionary }).data;
  }

  protected chunk(data: TypedArray): Chunk {
    return { data, shape: this.meta.shape, stride: stridesOf(this.meta.shape) };
  }
}

/** `moec_zarr.moec` of zarr format 3; a transpose codec before it changes the shape that is stored. */
export class MoECSerializer extends Codec {
  static fromConfig(configuration: Configuration, meta: ChunkMetadata): MoECSerializer {
    return new MoECSerializer(configuration, meta);
  }

  override decode(bytes: Uint8Array): Chunk {
    const { shape } = this.meta;
    return this.chunk(this.read(bytes, storedOrder(this.meta)?.map((axis) => shape[axis]) ?? shape));
  }
}

/** `moec` of numcodecs, in zarr format 2: the stored shape is the chunk's, whatever the order in memory. */
export class MoECCodec extends Codec {
  static fromConfig(configuration: Configuration, meta: ChunkMetadata): MoECCodec {
    return new MoECCodec(configuration, meta);
  }

  override decode(bytes: Uint8Array): Chunk {
    const { shape } = this.meta;
    const data = this.read(bytes, shape);
    return this.chunk(storedOrder(this.meta) ? toFortran(data, shape) : data);
  }
}

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
