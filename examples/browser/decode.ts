/** The worker that decodes chunks, so that the page does not stand still. */

import { MoECCodec, MoECSerializer } from "moec-zarr/zarrita";

/** A chunk to be decoded: the codec by its name in zarrita's registry, and what that was made of. */
export interface Question {
  id: number;
  name: "moec_zarr.moec" | "numcodecs.moec";
  configuration: object;
  meta: Parameters<typeof MoECCodec.fromConfig>[1];
  bytes: Uint8Array;
}

export interface Answer {
  id: number;
  chunk?: { data: ArrayLike<number | bigint>; shape: number[]; stride: number[] };
  error?: string;
}

const CODECS = { "moec_zarr.moec": MoECSerializer, "numcodecs.moec": MoECCodec };

addEventListener("message", ({ data }: MessageEvent<Question>) => {
  const { id, name, configuration, meta, bytes } = data;
  try {
    const chunk = CODECS[name].fromConfig(configuration, meta).decode(bytes);
    // biome-ignore lint/suspicious/noExplicitAny: the types are those of a page, not of a worker
    (postMessage as any)({ id, chunk } satisfies Answer, [chunk.data.buffer]);
  } catch (error) {
    postMessage({ id, error: (error as Error).message } satisfies Answer);
  }
});
