"""The package's decoder and the reference decoder on the same bytes."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr.bitstream.coefficients import read_coefficients
from moec_zarr.bitstream.residual import read_residual
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import synthesis_matrix
from tests.conformance import reference_decoder

USUAL_ERROR = 1e-5  # of half the range: of small networks and transforms


def decode_with_both(package: Callable[[], Any], reference: Callable[[], Any]) -> tuple[Any, Any] | None:
    """What both decoders return; None where both refuse. It is an error if only one of them does."""
    try:
        result = package()
    except CorruptStreamError:
        with pytest.raises(reference_decoder.CorruptError):
            reference()
        return None
    return result, reference()


def assert_same_coefficients(data: bytes, shape: tuple[int, ...]) -> None:
    """Both decoders read the same coefficients from a section, or both refuse it."""
    results = decode_with_both(
        lambda: read_coefficients(data, shape), lambda: reference_decoder.read_coefficients(data, shape)
    )
    if results:
        integers, expected = (coefficients.integers for coefficients in results)
        np.testing.assert_array_equal(integers, expected[tuple(slice(n) for n in integers.shape)])
        assert np.count_nonzero(integers) == np.count_nonzero(expected)


def assert_same_residual(data: bytes, shape: tuple[int, ...]) -> None:
    """Both decoders read the same corrections from a section, or both refuse it."""
    results = decode_with_both(
        lambda: read_residual(data, shape), lambda: reference_decoder.read_residual(data, shape)
    )
    if results:
        _assert_same_residual(*results)


def assert_agrees(
    stream: bytes, decoded: NDArray[Any], expected: NDArray[Any], dictionary: Dictionary | None = None
) -> None:
    """`decoded` is `expected` up to the rounding of a network's and a transform's values."""
    assert (decoded.shape, decoded.dtype) == (expected.shape, expected.dtype)
    reference = _decode_by_reference(stream, dictionary)
    half = float(reference.high) / 2 - float(reference.low) / 2
    if reference.network is None and reference.coefficients is None and reference.residual is None:
        np.testing.assert_array_equal(decoded, expected)
        return
    # A value near a half may round to either side, and to either side of a sentinel.
    own = decoded.dtype.newbyteorder("=")
    whole = 0 if own.kind == "f" else 2 if len(reference.masked_values) else 1
    finite = np.isfinite(expected.astype("f8"))
    np.testing.assert_array_equal(decoded[~finite], expected[~finite])
    # In halves: the range may exceed the largest double.
    error = np.abs(decoded[finite].astype("f8") / 2 - expected[finite].astype("f8") / 2)
    if (scale := reference.scale) is not None:
        # Halves of the range of the scale are shares of magnitude or knee.
        half = scale.half * np.maximum(np.abs(expected[finite].astype("f8")), scale.knee)
    spacing: Any = 0
    if own.kind == "f":  # two values of the dtype, of which the largest number has one neighbour alone
        below = np.nextafter(np.finfo(own).max, own.type(0))
        spacing = np.spacing(np.minimum(np.abs(expected[finite]), below)).astype("f8")
    assert (error <= (USUAL_ERROR * half + whole + spacing) / 2).all()
    for value, mask in reference.exact_values + reference.masked_values:
        inner = tuple(slice(n) for n in reference.bounding_box)
        np.testing.assert_array_equal(decoded[inner][mask], np.full(mask.sum(), value))


def _decode_by_reference(stream: bytes, dictionary: Dictionary | None) -> reference_decoder.Decoded:
    return reference_decoder.decode(stream, None if dictionary is None else b64decode(dictionary.text))


def assert_same_parts(stream: bytes, dictionary: Dictionary | None = None) -> None:
    """All that a stream holds is the same, and integers exactly so, to both decoders."""
    parts, reference = open_stream(stream, None, dictionary), _decode_by_reference(stream, dictionary)
    header = parts.header
    assert (header.dtype, header.order == "F") == (reference.dtype, reference.is_fortran)
    assert (header.shape, parts.shape) == (reference.shape, reference.bounding_box)
    assert (header.low, header.high) == (reference.low, reference.high)
    assert (header.psnr, header.max_error) == (reference.psnr, reference.max_error)
    for own, others in (
        (parts.masked_values, reference.masked_values),
        (parts.exact_values, reference.exact_values),
    ):
        for masked, (value, mask) in zip(own, others, strict=True):
            np.testing.assert_array_equal(masked.value, value)
            np.testing.assert_array_equal(masked.mask, mask)
    assert (parts.residual is None) == (reference.residual is None)
    if parts.residual is not None:
        _assert_same_residual(parts.residual, reference.residual)
    assert (parts.scaled is None) == (reference.scale is None)
    if parts.scaled is not None:
        _assert_same_scale(parts.scaled, reference.scale)
    assert (parts.network is None) == (reference.network is None)
    if parts.network is not None:
        _assert_same_network(parts.network, reference.network)
    assert (parts.coefficients is None) == (reference.coefficients is None)
    if parts.coefficients is not None:
        _assert_same_transform(parts.coefficients, reference.coefficients)
        _assert_same_experts(parts.linear_experts, reference.coefficients.experts)


def _assert_same_scale(scaled: Any, reference: Any) -> None:
    for name in "knee", "centre", "half":
        assert getattr(scaled.scale, name) == getattr(reference, name)
    assert (scaled.psnr, scaled.error) == (reference.psnr, reference.error)
    assert (scaled.signs is None) == (reference.signs is None)
    if scaled.signs is not None:
        np.testing.assert_array_equal(scaled.signs, reference.signs)


def _assert_same_network(network: Any, reference: Any) -> None:
    weights = network.weights()
    for (name, integers), title in zip(network.integers.items(), reference.integers, strict=True):
        np.testing.assert_array_equal(integers, reference.integers[title], err_msg=f"{name}, {title}")
        if not name.startswith("gate"):
            np.testing.assert_array_equal(weights[name], reference.weight(title))
    stencils = [stencil.distance + 16 * stencil.gain for stencil in network.stencils]
    assert stencils == reference.stencils


def _assert_same_transform(coefficients: Any, reference: Any) -> None:
    assert coefficients.step == reference.step
    integers = coefficients.integers
    np.testing.assert_array_equal(integers, reference.integers[tuple(slice(n) for n in integers.shape)])
    assert np.count_nonzero(integers) == np.count_nonzero(reference.integers)
    for functions, basis in zip(coefficients.functions, reference.bases, strict=True):
        assert (functions.basis.levels, functions.basis.joint) == (basis.levels, basis.joint)
        matrix = synthesis_matrix(functions.basis, len(functions.bands))
        np.testing.assert_allclose(matrix, basis.functions, atol=1e-6)


def _assert_same_experts(experts: Any, reference: Any) -> None:
    assert (experts is None) == (reference is None)
    if experts is not None:
        assert (list(experts.steepness), list(experts.value)) == (reference.steepness, reference.value)
        assert (list(experts.units), experts.shift) == (reference.units, reference.shift)
        np.testing.assert_array_equal(experts.taps, reference.taps)
        np.testing.assert_array_equal(experts.constants, reference.constants)


def _assert_same_residual(residual: Any, reference: Any) -> None:
    assert (residual.bound, residual.spacing) == (reference.bound, reference.spacing)
    corrections = 0 if residual.corrections is None else residual.corrections
    np.testing.assert_array_equal(corrections, reference.corrections)


def as_numbers(context: Any) -> tuple[int, ...]:
    """A context as the reference decoder holds it."""
    weights, *others = astuple(context)
    return (*weights, *others)
