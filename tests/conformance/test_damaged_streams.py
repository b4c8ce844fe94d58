"""Frozen streams damaged at random, with a checksum that matches."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr.codec.decode import decode
from moec_zarr.errors import CorruptStreamError, DictionaryError, MoECError, UnsupportedVersionError
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import FEATURES, paths
from tests.support.decoders import assert_same_parts
from tests.support.streams import with_checksum

TRANSFORMS = sorted(feature for feature in FEATURES if feature.startswith(("transform", "scale")))
BODY = 8  # where the checksum ends
HEAD = 80  # bytes that hold the header and all of a transform but its words, about

positions = st.integers(0, HEAD) | st.integers(0, 10**4)  # beyond the body's end, from its start again


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(TRANSFORMS),
    st.lists(st.tuples(positions, st.integers(1, 255)), min_size=1, max_size=3),
)
def test_damaged_transform_is_the_same_to_both_decoders(feature, damages):
    """The package reads what the reference decoder reads, and refuses what it refuses."""
    body = bytearray(paths(feature)[0].read_bytes()[BODY:])
    for at, change in damages:
        body[at % len(body)] ^= change
    stream = with_checksum(bytes(body))
    shape = FEATURES[feature][0].shape
    try:
        decoded = decode(stream, shape=shape)
    except (CorruptStreamError, DictionaryError, UnsupportedVersionError):
        try:
            assert reference_decoder.decode(stream).shape != shape
        except (reference_decoder.CorruptError, reference_decoder.VersionError):
            return
    else:
        assert decoded.shape == shape
        assert_same_parts(stream)


@pytest.mark.parametrize("feature", TRANSFORMS)
def test_damaged_transform_takes_little_memory(feature):
    sound, shape = paths(feature)[0].read_bytes()[BODY:], FEATURES[feature][0].shape
    tracemalloc.start()
    try:
        # Every fifth byte of the head, other ones for each feature.
        for at in (*range(TRANSFORMS.index(feature) % 5, HEAD, 5), *range(HEAD, len(sound), 100)):
            body = bytearray(sound)
            body[at] ^= 0xFF
            with contextlib.suppress(MoECError):
                decode(with_checksum(bytes(body)), shape=shape)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
