"""Bases and contexts that a dictionary holds: a fit takes them where they suit a chunk as well as its own."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from moec_zarr.bitstream.coefficients import read_bases, read_context, write_bases, write_context
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.contexts import Context
from moec_zarr.bitstream.shared import ENTRY_BYTES
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError
from moec_zarr.fit.transform.basis_search import Bases

__all__ = ["Head", "find_head", "heads_for", "is_advised"]

_MOST = 8  # bases that are measured


class Head(NamedTuple):
    """Bases of the folded axes, and what coefficients in them are coded with."""

    bases: Bases
    context: Context

    @property
    def side_bits(self) -> int:
        """Bits that a stream with this entry takes beside one that says the least of its own bases."""
        return 8 * (ENTRY_BYTES - len(write_bases(self.bases)) - len(write_context(self.context)))


@lru_cache(maxsize=64)
def heads_for(dictionary: Dictionary | None, folded: tuple[int, ...]) -> tuple[Head, ...]:
    """Return the heads of a dictionary that folded axes of these lengths can have, one for each bases."""
    heads: dict[Bases, Head] = {}
    for entry in () if dictionary is None else dictionary.entries:
        if entry.section != Section.TRANSFORM:
            continue
        try:
            bases, offset = read_bases(entry.data, folded)
            context, end = read_context(entry.data, offset, len(folded))
        except CorruptStreamError:
            continue  # it is for chunks of another shape
        if end != len(entry.data):
            continue
        heads.setdefault(bases, Head(bases, context))
    return tuple(heads.values())[:_MOST]


def find_head(dictionary: Dictionary | None, bases: Bases, folded: tuple[int, ...]) -> Head | None:
    """Find the head of these bases; None where a dictionary has none."""
    return next((head for head in heads_for(dictionary, folded) if head.bases == bases), None)


def is_advised(dictionary: Dictionary | None, bases: Bases, folded: tuple[int, ...]) -> bool:
    """Say whether a dictionary's advice holds in these bases: not where its heads have others alone."""
    return not heads_for(dictionary, folded) or find_head(dictionary, bases, folded) is not None
