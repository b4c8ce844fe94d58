"""Streams that take entries of a dictionary: without it, with another one, corrupt ones, large entries."""

from __future__ import annotations

import base64
import hashlib
import struct
import time

import numpy as np
import pytest

from moec_zarr import (
    CorruptStreamError,
    DictionaryError,
    MoECError,
    MoECSerializer,
    UnsupportedVersionError,
)
from moec_zarr.bitstream.container import write_header
from moec_zarr.bitstream.masks import encode_mask, write_mask
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.codec.decode import decode
from moec_zarr.config import config
from moec_zarr.dictionary import MOST_BYTES, Dictionary, Entry, parse_dictionary
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import DICTIONARIES, paths
from tests.support.streams import ALL_BANDS, coefficients_section, experts_section, header, with_checksum

STREAM, DICTIONARY = paths("shared")[0].read_bytes(), DICTIONARIES["shared"]
PLAIN = write_header(header("u1", (2, 3), low=np.uint8(0), high=np.uint8(9)))
WHOLE = coefficients_section()
HEAD = WHOLE[:2] + WHOLE[6:-1]  # bases, context and bands, without the step and what follows
REST = WHOLE[2:6] + WHOLE[-1:]
EXPERTS = experts_section()
MASK = b"\7" + write_mask(np.ones((2, 3), bool))  # the value 7 everywhere


def section(number, payload):
    return bytes([number]) + write_varint(len(payload)) + payload


def shared(dictionary, *numbers):
    checksum = hashlib.sha256(base64.b64decode(dictionary.text)).digest()[:4]
    return section(11, checksum + b"".join(map(write_varint, numbers)))


def both_refuse(body, dictionary):
    with pytest.raises(CorruptStreamError):
        decode(with_checksum(body), dictionary=dictionary)
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.decode(with_checksum(body), base64.b64decode(dictionary.text))


def test_a_stream_is_refused_without_its_dictionary():
    other = Dictionary.make(DICTIONARY.entries, b"other advice")
    for given, has in (None, "the codec has none"), (other, f"the codec has {other.checksum:08x}"):
        with pytest.raises(DictionaryError, match=f"{DICTIONARY.checksum:08x}.*{has}.*metadata"):
            decode(STREAM, dictionary=given)
    decode(STREAM, dictionary=DICTIONARY)
    with pytest.raises(DictionaryError):  # though it was parsed before
        decode(STREAM)


def test_parts_of_a_chunk():
    whole = decode(STREAM, dictionary=DICTIONARY)
    part = decode(STREAM, (slice(2, 4), 3, slice(None, None, 3)), dictionary=DICTIONARY)
    np.testing.assert_allclose(part, whole[2:4, 3, ::3], rtol=1e-5)


def test_an_entry_stands_before_the_rest_of_its_section():
    """The stream of bytes put together by hand holds what the plain one does."""
    dictionary = Dictionary.make([Entry(2, MASK), Entry(6, HEAD)])
    plain = with_checksum(PLAIN + section(6, WHOLE))
    for own, rest in (HEAD, REST), (HEAD[:5], HEAD[5:] + REST), (HEAD + REST[:2], REST[2:]):
        dictionary = Dictionary.make([Entry(2, MASK), Entry(6, own)])
        stream = with_checksum(PLAIN + section(6, rest) + shared(dictionary, 1))
        np.testing.assert_array_equal(decode(stream, dictionary=dictionary), decode(plain))
    alone = with_checksum(PLAIN + shared(dictionary, 0))
    np.testing.assert_array_equal(decode(alone, dictionary=dictionary), np.full((2, 3), 7))
    partly = Dictionary.make([Entry(2, MASK[:1])])
    stream = with_checksum(PLAIN + section(2, MASK[1:]) + shared(partly, 0))
    np.testing.assert_array_equal(decode(stream, dictionary=partly), np.full((2, 3), 7))


@pytest.mark.parametrize("numbers", [(), (2,), (1, 0), (0, 0), (0, 1, 1), (128,)], ids=str)
def test_corrupt_entries(numbers):
    dictionary = Dictionary.make([Entry(2, MASK), Entry(6, HEAD)])
    both_refuse(PLAIN + section(6, REST) + shared(dictionary, *numbers), dictionary)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 8])
def test_a_fitted_section_is_never_an_entry_alone(number):
    dictionary = Dictionary.make([Entry(number, coefficients_section())])
    both_refuse(PLAIN + shared(dictionary, 0), dictionary)


@pytest.mark.parametrize(
    ("own", "shift"), [(b"", b"\x88"), (b"\0", b"\0"), (b"\xb1", b"\x91"), (b"\x5f", b"\x7f")], ids=str
)
def test_linear_experts_are_an_entry_with_a_shift_of_the_streams_own(own, shift):
    """The stream holds what one without a dictionary does, whose section has that shift; its code is less."""
    dictionary = Dictionary.make([Entry(10, EXPERTS), Entry(2, MASK)])
    rest = section(10, own) if own else b""
    stream = with_checksum(PLAIN + section(6, WHOLE) + rest + shared(dictionary, 0))
    whole = decode(with_checksum(PLAIN + section(6, WHOLE) + section(10, EXPERTS[:6] + shift + EXPERTS[7:])))
    np.testing.assert_array_equal(decode(stream, dictionary=dictionary), whole)
    reference = reference_decoder.decode(stream, base64.b64decode(dictionary.text))
    np.testing.assert_array_equal(reference.array, whole)
    part = decode(stream, (slice(None), slice(1, 3)), dictionary=dictionary)
    np.testing.assert_array_equal(part, whole[:, 1:3])


@pytest.mark.parametrize("own", [b"\x80", b"\0\0", EXPERTS], ids=str)
def test_corrupt_bytes_behind_linear_experts(own):
    dictionary = Dictionary.make([Entry(10, EXPERTS)])
    both_refuse(PLAIN + section(6, WHOLE) + section(10, own) + shared(dictionary, 0), dictionary)


@pytest.mark.parametrize("entry", [EXPERTS[:6], b"\x12" + EXPERTS[1:], b"\xff" + bytes(60_000)], ids=len)
def test_corrupt_entries_of_linear_experts(entry):
    """Cut ones, knots that do not rise, and large ones; what the stream holds does not complete them."""
    dictionary = Dictionary.make([Entry(10, entry)])
    for rest in b"", section(10, EXPERTS[len(entry) :]):
        both_refuse(PLAIN + section(6, WHOLE) + rest + shared(dictionary, 0), dictionary)


def test_linear_experts_of_a_dictionary_need_a_transform():
    dictionary = Dictionary.make([Entry(10, EXPERTS)])
    both_refuse(PLAIN + shared(dictionary, 0), dictionary)


def test_cut_sections():
    dictionary = Dictionary.make([Entry(2, MASK), Entry(6, HEAD)])
    own = shared(dictionary, 1)[2:]
    for length in range(len(own)):
        body = PLAIN + section(6, REST) + section(11, own[:length])
        with pytest.raises((CorruptStreamError, DictionaryError)):
            decode(with_checksum(body), dictionary=dictionary)
    for length in range(len(REST)):
        both_refuse(PLAIN + section(6, REST[:length]) + shared(dictionary, 1), dictionary)


def test_a_large_entry_allows_for_no_coefficients():
    """Neither in the extent, nor of those that are not zero: the stream's own bytes do."""
    every = encode_mask(np.ones((10, 10), bool))
    likely = coefficients_section(b"\0\0", mask=every, coded=b"\1\xff\xff\xff\xfe", likely=True)
    head = likely[:2] + likely[6:-5]
    padded = Dictionary.make([Entry(6, head + likely[2:6] + likely[-5:] + bytes(60_000))])
    small = write_header(header("u1", (513, 513), low=np.uint8(0)))
    both_refuse(small + section(6, bytes(20)) + shared(padded, 0), padded)
    for n in 10**3, 10**4:  # of a chunk of any size
        body = write_header(header("u1", (n, n), low=np.uint8(0))) + section(6, bytes(9)) + shared(padded, 0)
        before = time.process_time()
        with config.set(cache=0), pytest.raises(CorruptStreamError):
            decode(with_checksum(body), shape=(n, n), dictionary=padded)
        assert time.process_time() - before < 2


def raw(data):
    return base64.b64encode(data).decode()


ROW = struct.Struct("<BH")


@pytest.mark.parametrize(
    "text",
    [
        "", "A", "no base64!", "AA==\n", raw(b"\0"), raw(b"\1\0"), raw(b"\1\1" + bytes(5000)),
        raw(b"\1\0" + ROW.pack(0, 1) + b"a"), raw(b"\1\0" + ROW.pack(11, 1) + b"a"),
        raw(b"\1\0" + ROW.pack(6, 0)), raw(b"\1\0" + ROW.pack(6, 2) + b"a"), raw(b"\0\0" + bytes(MOST_BYTES)),
        "A" * 10**6, "AAB=",
    ],
)  # fmt: skip
def test_dictionaries_in_metadata_are_checked(text):
    with pytest.raises(MoECError, match="dictionary"):
        MoECSerializer(ratio=10, dictionary=text)
    with pytest.raises(MoECError, match="dictionary"):
        MoECSerializer.from_dict(
            {"name": "moec_zarr.moec", "configuration": {"ratio": 10, "dictionary": text}}
        )


def test_entries_of_later_releases_are_named():
    for section in 12, 255:
        with pytest.raises(UnsupportedVersionError, match=f"section {section}.*newer release"):
            MoECSerializer(ratio=10, dictionary=raw(b"\1\0" + ROW.pack(section, 1) + b"a"))


def test_dictionaries_of_other_types_are_refused():
    for wrong in b"AAA=", 3, ["AAA="]:
        with pytest.raises(MoECError, match="dictionary must be text"):
            MoECSerializer(ratio=10, dictionary=wrong)


def test_bytes_of_a_dictionary():
    """As the page lays them out."""
    made = Dictionary.make([Entry(2, b"mask"), Entry(6, b"hd")], b"advice")
    data = bytes([2, 0, 2, 4, 0, 6, 2, 0]) + b"maskhd" + b"advice"
    assert base64.b64decode(made.text) == data
    assert made.checksum == int.from_bytes(hashlib.sha256(data).digest()[:4], "little")
    assert parse_dictionary(made.text) == made


assert ALL_BANDS in HEAD
