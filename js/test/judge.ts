/**
 * Says of each line of base64 on the standard input what decoding it came to: "decoded" and a checksum of
 * the values, or an error's name. With `--values` the bytes of the values stand beside it, as base64.
 *
 * Behind the stream and a space may stand the text of a dictionary. `tests/conformance/test_typescript_reader.py`
 * asks it.
 */

import { createInterface } from "node:readline";
import { crc32 } from "../src/bitstream/crc32.js";
import { decode } from "../src/index.js";

for await (const line of createInterface({ input: process.stdin })) {
  const before = process.cpuUsage();
  let said = "decoded";
  let checksum = 0;
  let values: string | undefined;
  try {
    const [stream, dictionary] = line.split(" ");
    const { data } = decode(Buffer.from(stream, "base64"), { largest: 2 ** 26, dictionary });
    checksum = crc32(new Uint8Array(data.buffer));
    if (process.argv.includes("--values")) values = Buffer.from(data.buffer).toString("base64");
  } catch (error) {
    said = (error as Error).name;
  }
  const { user, system } = process.cpuUsage(before); // with the checksum, which takes next to nothing
  console.log(JSON.stringify({ said, checksum, seconds: (user + system) / 1e6, values }));
}
