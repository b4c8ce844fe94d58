import { check } from "../errors.js";

/** Reads little-endian numbers from bytes, from the start to the end. */
export class Reader {
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes that are left. */
  get left(): number {
    return this.bytes.length - this.at;
  }

  private advance(count: number): number {
    if (!(count <= this.left)) check(false, `${count} bytes where ${this.left} are left`);
    this.at += count;
    return this.at - count;
  }

  /** The next bytes, not copied. */
  take(count: number): Uint8Array {
    const start = this.advance(count);
    return this.bytes.subarray(start, start + count);
  }

  /** All bytes that are left, not copied, to look at. */
  peekRest(): Uint8Array {
    return this.bytes.subarray(this.at);
  }

  /** All bytes that are left, not copied. */
  rest(): Uint8Array {
    return this.take(this.left);
  }

  /** Bytes behind a varint that says how many they are. */
  block(): Uint8Array {
    return this.take(this.varint());
  }

  u8(): number {
    return this.view.getUint8(this.advance(1));
  }

  i8(): number {
    return this.view.getInt8(this.advance(1));
  }

  u16(): number {
    return this.view.getUint16(this.advance(2), true);
  }

  i16(): number {
    return this.view.getInt16(this.advance(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.advance(4), true);
  }

  i32(): number {
    return this.view.getInt32(this.advance(4), true);
  }

  i64(): bigint {
    return this.view.getBigInt64(this.advance(8), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.advance(8), true);
  }

  f32(): number {
    return this.view.getFloat32(this.advance(4), true);
  }

  f64(): number {
    return this.view.getFloat64(this.advance(8), true);
  }

  /** An unsigned LEB128 number; rounded where it is above 2^53, which no length may be. */
  varint(): number {
    let value = 0;
    for (let position = 0; position < 9; position++) {
      const byte = this.u8();
      value += (byte & 127) * 2 ** (7 * position);
      if (byte < 128) {
        check(byte > 0 || position === 0, "a number of more bytes than it needs");
        return value;
      }
    }
    check(false, "a number of more than nine bytes");
  }
}
