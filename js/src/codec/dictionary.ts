/** What the chunks of an array share: entries that sections of their streams begin with. */

import { Reader } from "../bitstream/reader.js";
import { sha256Start } from "../bitstream/sha256.js";
import { check, DictionaryError, know, MoECError, UnsupportedVersionError } from "../errors.js";
import { SECTION, type Sections, type Taken } from "./header.js";

const MOST_BYTES = 2 ** 16;
const MOST_ENTRIES = 256;
/** Sections that may consist of an entry alone. */
const ALONE: ReadonlySet<number> = new Set([
  SECTION.box,
  SECTION.masked,
  SECTION.scale,
  SECTION.exact,
  SECTION.linearExperts,
]);

interface Dictionary {
  text: string;
  entries: { section: number; bytes: Uint8Array }[];
  checksum: number;
}

let latest: Dictionary | undefined; // the chunks of an array have one

/** Take apart a dictionary as it stands in metadata: base64 of its bytes. */
function parse(text: string): Dictionary {
  if (latest?.text === text) return latest;
  try {
    const data = Uint8Array.from(atob(text.slice(0, 2 * MOST_BYTES)), (byte) => byte.charCodeAt(0));
    const source = new Reader(data);
    const rows = Array.from({ length: source.u16() }, () => [source.u8(), source.u16()]);
    const entries = rows.map(([section, length]) => ({ section, bytes: source.take(length) }));
    check(data.length <= MOST_BYTES && rows.length <= MOST_ENTRIES, "a dictionary that is too large");
    for (const [section, length] of rows) {
      know(section <= SECTION.shared, `an entry for section ${section}`);
      check(section >= 1 && section < SECTION.shared && length > 0, "a dictionary of other sections");
    }
    latest = { text, entries, checksum: sha256Start(data) };
    return latest;
  } catch (cause) {
    if (cause instanceof UnsupportedVersionError) throw cause;
    throw new MoECError("the dictionary cannot be read; give the text in the store's metadata", { cause });
  }
}

/** Payloads with the entries that they begin with, and how many bytes of each section an entry has. */
export function expand(held: Sections, text: string | undefined): { sections: Sections; taken: Taken } {
  const sections = new Map(held);
  const taken = new Map<number, number>();
  const shared = held.get(SECTION.shared);
  if (!shared) return { sections, taken };
  const dictionary = text ? parse(text) : undefined;
  const source = new Reader(shared);
  const checksum = source.u32();
  if (!dictionary || dictionary.checksum !== checksum) {
    throw new DictionaryError(
      `the stream takes entries of dictionary ${hexadecimal(checksum)}, ` +
        (dictionary ? `${hexadecimal(dictionary.checksum)} was given` : "none was given") +
        "; give the one in the metadata of its store",
    );
  }
  let before = 0;
  do {
    const entry = dictionary.entries[source.varint()];
    const own = entry && held.get(entry.section);
    check(
      entry && entry.section > before && (own !== undefined || ALONE.has(entry.section)),
      "an entry of no section",
    );
    const whole = new Uint8Array(entry.bytes.length + (own?.length ?? 0));
    whole.set(entry.bytes);
    if (own) whole.set(own, entry.bytes.length);
    before = entry.section;
    sections.set(before, whole);
    taken.set(before, entry.bytes.length);
  } while (source.left);
  return { sections, taken };
}

const hexadecimal = (checksum: number) => checksum.toString(16).padStart(8, "0");
