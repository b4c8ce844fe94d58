/** Base of every error that this package raises itself, wrong options included. */
export class MoECError extends Error {
  override readonly name: string = "MoECError";
}

/** Bytes that are not a complete, undamaged stream, or not of the shape and type that was asked for. */
export class CorruptStreamError extends MoECError {
  override readonly name: string = "CorruptStreamError";
}

/** A stream of another version of the format, or of a later release of this one. */
export class UnsupportedVersionError extends MoECError {
  override readonly name: string = "UnsupportedVersionError";
}

/** A stream that takes entries of a dictionary, where another one was given, or none. */
export class DictionaryError extends MoECError {
  override readonly name: string = "DictionaryError";
}

/** Refuse a stream unless a rule of the format holds. */
export function check(holds: boolean, message: string): asserts holds {
  if (!holds) throw new CorruptStreamError(`${message}; the stream is damaged, fetch it again`);
}

/** Refuse a stream with what later releases may have added. */
export function know(known: boolean, what: string): void {
  if (!known) {
    throw new UnsupportedVersionError(
      `the stream has ${what}, which this package does not know; install a newer one`,
    );
  }
}
