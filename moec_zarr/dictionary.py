"""What the chunks of a variable share: entries that sections of their streams begin with.

It is stored once, in the codec's metadata, as text in base64. Its bytes are those of ``docs/format.md``:

```text
[16 bits] entries        E, 0..256
          table          E times: [8 bits] section, [16 bits] length
          entries        one after the other
          advice         to the end
```
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from moec_zarr.errors import MoECError, UnsupportedVersionError

__all__ = ["MOST_BYTES", "MOST_ENTRIES", "Dictionary", "Entry", "parse_dictionary"]

MOST_BYTES = 1 << 16
MOST_ENTRIES = 256
_SECTIONS = range(1, 11)
_LAST_SECTION = 11
_COUNT, _ROW = struct.Struct("<H"), struct.Struct("<BH")


class Entry(NamedTuple):
    """Bytes that the payload of a section may begin with."""

    section: int
    data: bytes


@dataclass(frozen=True)
class Dictionary:
    """What the chunks of a variable share.

    Attributes
    ----------
    entries : tuple of Entry
        At most ``MOST_ENTRIES``, none of them empty.
    advice : bytes
        What an encoder is told; no decoder reads it.
    text : str
        All of it, as it stands in the codec's metadata.
    checksum : int
        The first 32 bits of the SHA-256 of its bytes, by which streams name it.
    """

    entries: tuple[Entry, ...]
    advice: bytes
    text: str
    checksum: int

    @property
    def nbytes(self) -> int:
        """Its length in bytes; the text is a third longer."""
        return 3 * (len(self.text) // 4) - self.text[-2:].count("=")

    @classmethod
    def make(cls, entries: Iterable[Entry], advice: bytes = b"") -> Dictionary:
        """Make one of entries and advice.

        Raises
        ------
        MoECError
            If it is larger than any may be.
        """
        entries = tuple(entries)
        rows = b"".join(_ROW.pack(entry.section, len(entry.data)) for entry in entries)
        data = _COUNT.pack(len(entries)) + rows + b"".join(entry.data for entry in entries) + advice
        return parse_dictionary(base64.b64encode(data).decode())


@lru_cache(maxsize=64)
def parse_dictionary(text: str) -> Dictionary:
    """Take apart a dictionary as it stands in metadata.

    Raises
    ------
    UnsupportedVersionError
        If it has entries for sections that only a newer release knows.
    MoECError
        If it is none.
    """
    if len(text) > 2 * MOST_BYTES:  # before anything is made of it
        raise MoECError(f"dictionary has {len(text)} characters; at most {MOST_BYTES} bytes can be stored")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refuse(f"it is no base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise _refuse("bits beyond its last byte are not 0")
    if len(data) > MOST_BYTES:
        raise _refuse(f"it has {len(data)} bytes, at most {MOST_BYTES} can be stored")
    if len(data) < _COUNT.size:
        raise _refuse(f"it has {len(data)} bytes")
    (count,) = _COUNT.unpack_from(data)
    offset = _COUNT.size + count * _ROW.size
    if count > MOST_ENTRIES or offset > len(data):
        raise _refuse(f"{count} entries in {len(data)} bytes, at most {MOST_ENTRIES}")
    entries = []
    for section, length in _ROW.iter_unpack(data[_COUNT.size : offset]):
        if section > _LAST_SECTION:
            raise UnsupportedVersionError(
                f"dictionary has an entry for section {section}, this moec_zarr knows those up to "
                f"{_LAST_SECTION}; read it with a newer release"
            )
        if section not in _SECTIONS or not 1 <= length <= len(data) - offset:
            raise _refuse(f"an entry of {length} bytes for section {section}")
        entries.append(Entry(section, data[offset : offset + length]))
        offset += length
    checksum = int.from_bytes(hashlib.sha256(data).digest()[:4], "little")
    return Dictionary(tuple(entries), data[offset:], text, checksum)


def _refuse(what: str) -> MoECError:
    return MoECError(
        f"dictionary cannot be read: {what}. Give what moec_zarr.train_dictionary made, or leave it out "
        "to write; to read, restore the store's metadata"
    )
