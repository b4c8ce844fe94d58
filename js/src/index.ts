export { type Decoded, type DecodeOptions, decode } from "./codec/decode.js";
export { CorruptStreamError, DictionaryError, MoECError, UnsupportedVersionError } from "./errors.js";
export type { DtypeName, TypedArray } from "./model/dtype.js";
