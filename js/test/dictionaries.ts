import { existsSync, readFileSync } from "node:fs";

const FOLDER = new URL("../../../tests/conformance/streams/", import.meta.url);

/** The dictionary that a frozen stream takes entries of, if there is one. */
export function dictionaryOf(name: string): string | undefined {
  const file = new URL(`${name}.dictionary`, FOLDER);
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}
