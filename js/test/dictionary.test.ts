/** Entries of a dictionary: checksums, other dictionaries and what is none. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { sha256Start } from "../src/bitstream/sha256.js";
import { DictionaryError, decode, MoECError, UnsupportedVersionError } from "../src/index.js";
import { dictionaryOf } from "./dictionaries.js";

const STREAM = readFileSync(new URL("../../../tests/conformance/streams/v1_shared.moec", import.meta.url));
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
