"""Sections that begin with an entry of the codec's dictionary, of which the stream holds the rest alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError, DictionaryError

__all__ = ["ENTRY_BYTES", "NUMBER_BYTES", "expand", "find_entry", "split_sections", "write_shared"]

_CHECKSUM = struct.Struct("<I")
NUMBER_BYTES = 2  # of an entry's, at most
ENTRY_BYTES = 4 + _CHECKSUM.size  # of section 11 with one entry, number and length with it, at most
_KEPT = frozenset({Section.BOX, Section.MASK, Section.SCALE, Section.EXACT})
_ALONE = _KEPT | {Section.LINEAR_EXPERTS}  # that need no bytes of their own


def find_entry(dictionary: Dictionary | None, section: Section, payload: bytes) -> tuple[int, int] | None:
    """Find the longest entry that a payload begins with: its number and its bytes; None if there is none."""
    if dictionary is None:
        return None
    fits = [
        (len(entry.data), -number)
        for number, entry in enumerate(dictionary.entries)
        if entry.section == section and payload.startswith(entry.data)
    ]
    length, number = max(fits, default=(0, 0))
    return (-number, length) if length else None


def split_sections(
    sections: Mapping[Section, bytes], dictionary: Dictionary | None
) -> tuple[dict[Section, bytes], tuple[int, ...]]:
    """Return what sections hold beside the entries that they begin with, and the numbers of these.

    What is fitted is written to begin with an entry, or not.
    """
    own, taken = dict(sections), []
    for section in sorted(_KEPT & own.keys()):
        if (found := find_entry(dictionary, section, own[section])) is not None:
            number, length = found
            taken.append(number)
            own[section] = own[section][length:]
            if not own[section]:
                del own[section]
    return own, tuple(taken)


def write_shared(dictionary: Dictionary, taken: Iterable[int]) -> bytes:
    """Write the section that says which entries sections begin with; no two of one section."""
    numbers = sorted(taken, key=lambda number: dictionary.entries[number].section)
    return _CHECKSUM.pack(dictionary.checksum) + b"".join(map(write_varint, numbers))


def expand(
    sections: Mapping[Section, bytes], dictionary: Dictionary | None
) -> tuple[dict[Section, bytes], dict[Section, int]]:
    """Return whole payloads, and how many bytes of each an entry has.

    Raises
    ------
    DictionaryError
        If the sections take entries of another dictionary, or there is none.
    CorruptStreamError
        If no encoder writes such a section.
    """
    whole = dict(sections)
    if (data := whole.pop(Section.SHARED, None)) is None:
        return whole, {}
    if len(data) <= _CHECKSUM.size:
        raise CorruptStreamError(f"{len(data)} bytes name no entry of a dictionary; the stream is damaged")
    (checksum,) = _CHECKSUM.unpack_from(data)
    if dictionary is None or dictionary.checksum != checksum:
        raise DictionaryError(
            f"the stream takes entries of dictionary {checksum:08x}, "
            + ("the codec has none" if dictionary is None else f"the codec has {dictionary.checksum:08x}")
            + ". A dictionary stands in the codec's metadata: read the chunk through its store, or with the "
            "codec that wrote it"
        )
    offset = _CHECKSUM.size
    taken: dict[Section, int] = {}
    while offset < len(data):
        number, offset = read_varint(data, offset)
        if number >= len(dictionary.entries):
            raise CorruptStreamError(f"entry {number} of {len(dictionary.entries)}; the stream is damaged")
        entry = dictionary.entries[number]
        section = Section(entry.section)
        if section <= max(taken, default=0) or (section not in whole and section not in _ALONE):
            raise CorruptStreamError(f"entry {number} of no section {section}; the stream is damaged")
        taken[section] = len(entry.data)
        whole[section] = entry.data + whole.get(section, b"")
    return dict(sorted(whole.items())), taken
