/** Entries of a dictionary: checksums, other dictionaries and what is none. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { crc32 } from "../src/bitstream/crc32.js";
import { Reader } from "../src/bitstream/reader.js";
import { sha256Start } from "../src/bitstream/sha256.js";
import {
  CorruptStreamError,
  DictionaryError,
  decode,
  MoECError,
  UnsupportedVersionError,
} from "../src/index.js";
import { dictionaryOf } from "./dictionaries.js";

const FOLDER = new URL("../../../tests/conformance/streams/", import.meta.url);
const STREAM = readFileSync(new URL("v1_shared.moec", FOLDER));
const DICTIONARY = dictionaryOf("v1_shared") as string;

test("the checksum is the start of SHA-256", () => {
  for (const length of [...Array(200).keys(), 1000, 65535, 65536]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (7 * i + length) % 251);
    const expected = createHash("sha256").update(bytes).digest().readUInt32LE(0);
    assert.equal(sha256Start(bytes), expected);
  }
});

test("a stream is refused without its dictionary", () => {
  assert.throws(() => decode(STREAM), DictionaryError);
  const bytes = Buffer.from(DICTIONARY, "base64");
  const other = Buffer.concat([bytes, Uint8Array.of(0)]).toString("base64"); // more advice
  decode(STREAM, { dictionary: DICTIONARY });
  assert.throws(() => decode(STREAM, { dictionary: other }), /dictionary [0-9a-f]{8}, [0-9a-f]{8} was given/);
  decode(STREAM, { dictionary: DICTIONARY });
});

/** Sections of a stream by their numbers, and what stands before them. */
function split(stream: Uint8Array): { head: Uint8Array; sections: Map<number, Uint8Array> } {
  const source = new Reader(stream.subarray(8));
  const code = source.u8() & 15;
  for (let axes = source.u8(); axes > 0; axes--) source.varint();
  source.take(2 * [1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8][code] + 4);
  const head = stream.subarray(8, stream.length - source.left);
  const sections = new Map<number, Uint8Array>();
  while (source.left) sections.set(source.u8(), source.block());
  return { head, sections };
}

function varint(n: number): number[] {
  return n < 128 ? [n] : [(n & 127) | 128, ...varint(n >> 7)];
}

function join(head: Uint8Array, sections: Map<number, Uint8Array>): Uint8Array {
  const parts = [...sections].flatMap(([number, bytes]) => [number, ...varint(bytes.length), ...bytes]);
  const body = Uint8Array.from([...head, ...parts]);
  const stream = Uint8Array.from([77, 111, 69, 1, 0, 0, 0, 0, ...body]);
  new DataView(stream.buffer).setUint32(4, crc32(body), true);
  return stream;
}

// How many bytes of which section an entry has; all of them where the stream need not hold the section.
for (const [name, number, count] of [
  ["bounding_box", 1],
  ["mask", 2],
  ["lossless", 3, 9],
  ["one_expert", 4, 9],
  ["residual", 5, 12],
  ["scale", 7],
  ["integers_bits", 8, 9],
  ["exact", 9],
  ["restored", 10],
] as [string, number, number?][]) {
  test(`an entry that section ${number} begins with`, () => {
    const stream = readFileSync(new URL(`v1_${name}.moec`, FOLDER));
    const { head, sections } = split(stream);
    const whole = sections.get(number) as Uint8Array;
    for (const length of [count ?? whole.length, 1]) {
      const data = Uint8Array.from([1, 0, number, length & 255, length >> 8, ...whole.subarray(0, length)]);
      const rest = new Map([...sections, [number, whole.subarray(length)], [11, new Uint8Array(5)]]);
      new DataView((rest.get(11) as Uint8Array).buffer).setUint32(0, sha256Start(data), true);
      if (length === whole.length) rest.delete(number);
      const dictionary = Buffer.from(data).toString("base64");
      if (number === 10 && length < whole.length) {
        // Experts are whole; behind them stands at most a shift.
        assert.throws(() => decode(join(head, rest), { dictionary }), CorruptStreamError);
        continue;
      }
      assert.deepEqual(decode(join(head, rest), { dictionary }), decode(stream));
      if (count === undefined) continue;
      rest.delete(number); // what is fitted, or stored, is never an entry alone
      assert.throws(() => decode(join(head, rest), { dictionary }), CorruptStreamError);
    }
  });
}

test("entries of later releases are named", () => {
  const dictionary = Buffer.from([1, 0, 12, 1, 0, 97]).toString("base64");
  assert.throws(() => decode(STREAM, { dictionary }), UnsupportedVersionError);
});

test("what is no dictionary is refused", () => {
  const texts = ["A", "no base64!", "AA==", "AQA=", "A".repeat(200_000)];
  const rows = [
    [0, 1, 0, 97],
    [11, 1, 0, 97],
    [6, 0, 0],
    [6, 2, 0, 97],
  ];
  texts.push(...rows.map((row) => Buffer.from([1, 0, ...row]).toString("base64")));
  for (const dictionary of texts) {
    assert.throws(
      () => decode(STREAM, { dictionary }),
      (error: Error) => {
        return error instanceof MoECError && /dictionary cannot be read/.test(error.message);
      },
    );
  }
});
