/** Frozen streams that were cut off or changed, with a checksum that matches, decode or are refused, soon. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { crc32 } from "../src/bitstream/crc32.js";
import { CorruptStreamError, decode, MoECError, UnsupportedVersionError } from "../src/index.js";
import { dictionaryOf } from "./dictionaries.js";

const FOLDER = new URL("../../../tests/conformance/streams/", import.meta.url);
const STREAMS = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".moec"))
  .map((name) => ({
    name,
    stream: new Uint8Array(readFileSync(new URL(name, FOLDER))),
    dictionary: dictionaryOf(name.slice(0, -5)),
  }));
const SECONDS = 2;

function mended(stream: Uint8Array): Uint8Array {
  new DataView(stream.buffer).setUint32(4, crc32(stream.subarray(8)), true);
  return stream;
}

/** Whether a stream decodes; fails where it does neither that nor raises an error of the package. */
function decodes(stream: Uint8Array, dictionary: string | undefined): boolean {
  const before = performance.now();
  try {
    decode(stream, { largest: 2 ** 24, dictionary });
    return true;
  } catch (error) {
    assert.ok(error instanceof MoECError, String((error as Error).stack));
    return false;
  } finally {
    assert.ok(performance.now() - before < 1000 * SECONDS);
  }
}

/** Numbers below 2^31 that are the same in every run (Park and Miller, 1988). */
function* numbers(seed: number): Generator<number, never> {
  for (let x = seed; ; ) {
    x = (x * 48271) % 2147483647;
    yield x;
  }
}

test("the checksum is that of zlib", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test("streams that are cut off are refused", () => {
  for (const { name, stream } of STREAMS) {
    for (let length = 0; length < stream.length; length++) {
      assert.throws(() => decode(stream.slice(0, length)), CorruptStreamError, `${name}, ${length} bytes`);
    }
  }
});

test("streams that are cut off and have their checksum mended decode or are refused", () => {
  for (const { stream, dictionary } of STREAMS) {
    for (let length = 8; length < stream.length; length += 1 + (length >> 5)) {
      decodes(mended(stream.slice(0, length)), dictionary);
    }
  }
});

test("streams with changed bytes decode or are refused", () => {
  const random = numbers(1);
  let decoded = 0;
  let refused = 0;
  for (const { stream, dictionary } of STREAMS) {
    for (let i = 0; i < 25; i++) {
      const changed = stream.slice();
      for (let k = 0; k < 1 + (i % 3); k++) {
        const room = (i % 2 ? 80 : changed.length) - 8; // every other one near the start, where the numbers are
        changed[8 + (random.next().value % Math.min(room, changed.length - 8))] ^=
          1 + (random.next().value % 255);
      }
      if (decodes(mended(changed), dictionary)) decoded++;
      else refused++;
    }
  }
  assert.ok(decoded > 100 && refused > 100);
});

test("a changed byte without its checksum is refused", () => {
  const stream = STREAMS[0].stream.slice();
  stream[stream.length - 1] ^= 1;
  assert.throws(() => decode(stream), CorruptStreamError);
});

test("another version is named", () => {
  const stream = STREAMS[0].stream.slice();
  stream[3] = 9;
  assert.throws(() => decode(stream), UnsupportedVersionError);
  assert.throws(() => decode(stream), /version 9 .* reads 1/);
});

test("what is asked for is compared first", () => {
  const { stream } = STREAMS.find(({ name }) => name === "v1_int16.moec") as (typeof STREAMS)[0];
  const { shape, dtype } = decode(stream, { shape: [8, 9, 10], dtype: "int16", largest: 0 });
  assert.deepEqual([shape, dtype], [[8, 9, 10], "int16"]);
  assert.throws(() => decode(stream, { shape: [8, 9] }), CorruptStreamError);
  assert.throws(() => decode(stream, { dtype: "uint16" }), CorruptStreamError);
  assert.throws(() => decode(stream, { largest: 1439 }), /1440 bytes of values, at most 1439/);
  assert.equal(decode(stream, { largest: 1440 }).data.length, 720);
});
