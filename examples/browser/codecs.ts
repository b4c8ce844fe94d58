/** Codecs of zarrita that let a worker decode. */

import type { registry as Registry } from "zarrita";
import type { Answer, Question } from "./decode.js";

type Chunk = NonNullable<Answer["chunk"]>;

let latest = 0;
const waiting = new Map<number, { resolve: (chunk: Chunk) => void; reject: (error: Error) => void }>();
const worker = new Worker(new URL("./decode.js", import.meta.url), { type: "module" });

worker.addEventListener("message", ({ data: { id, chunk, error } }: MessageEvent<Answer>) => {
  const asked = waiting.get(id);
  waiting.delete(id);
  if (chunk) asked?.resolve(chunk);
  else asked?.reject(new Error(error));
});
worker.addEventListener("error", ({ message }) => {
  for (const { reject } of waiting.values())
    reject(new Error(`the worker that decodes has ended: ${message}`));
  waiting.clear();
});

function ask(question: Omit<Question, "id">): Promise<Chunk> {
  const id = ++latest;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, ...question });
  });
}

/** Make zarrita read arrays that moec_zarr wrote, in a worker. */
export function register(registry: typeof Registry): void {
  for (const name of ["moec_zarr.moec", "numcodecs.moec"] as const) {
    const fromConfig = (configuration: object, meta: Question["meta"]) => ({
      kind: "array_to_bytes",
      decode: (bytes: Uint8Array) => ask({ name, configuration, meta, bytes }),
    });
    registry.set(name, async () => ({ fromConfig }) as never);
  }
}
