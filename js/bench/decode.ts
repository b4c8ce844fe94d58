/**
 * Measures decoding in CPU seconds: `node build/bench/decode.js STREAM ...`, after `npx tsc`.
 *
 * Make a stream in Python: `open("t.moec", "wb").write(MoECCodec(ratio=1000, effort="fast").encode(array))`.
 */

import { readFileSync } from "node:fs";
import { decode } from "../src/index.js";

const RUNS = 9;

for (const path of process.argv.slice(2)) {
  const stream = new Uint8Array(readFileSync(path));
  const seconds: number[] = [];
  let voxels = 0;
  for (let run = 0; run < RUNS; run++) {
    const before = process.cpuUsage();
    voxels = decode(stream).data.length;
    const { user, system } = process.cpuUsage(before);
    seconds.push((user + system) / 1e6);
  }
  const median = [...seconds].sort((a, b) => a - b)[RUNS >> 1];
  const speed = (each: number) => Number((voxels / each / 1e6).toFixed(2));
  console.log(
    JSON.stringify({
      stream: path.split("/").at(-1),
      bytes: stream.length,
      voxels,
      million_voxels_a_second: { first: speed(seconds[0]), median: speed(median) },
      node: process.version,
    }),
  );
}
