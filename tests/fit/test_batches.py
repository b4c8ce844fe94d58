"""Points of several chunks, drawn on a device."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.field import Field  # noqa: E402
from moec_zarr.fit.network.batches import Batches  # noqa: E402
from moec_zarr.model.basis import AxisBasis  # noqa: E402
from moec_zarr.model.coefficients import CoefficientField, Coefficients  # noqa: E402
from moec_zarr.model.features import Stencil, values_and_features  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402

SHAPE = (6, 9, 2)
DTYPES = ["u1", "i1", "<u2", ">u2", ">i2", "<u4", "i4", "u8", ">i8", "f2", ">f4", "f8"]


def drawn(fields, device="cpu", chunks=None, seed=0):
    """A batch, and the indices of its points in each chunk, one array an axis."""
    batches = Batches(fields, 400, seed, torch.device(device))
    if chunks is not None:
        batches.of(chunks)
    batch = batches()
    u = batch.u.expand(len(batch.targets), -1, -1).cpu().numpy()
    places = (u.astype("f8") + 1) / 2 * (np.array(fields[0].array.shape) - 1)
    np.testing.assert_allclose(places, np.rint(places), atol=1e-5)
    return batch, [tuple(rows.T) for rows in np.rint(places).astype(int)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_are_normalised_values_of_every_dtype(dtype, device):
    rng, dtype = np.random.default_rng(0), np.dtype(dtype)
    fields = []
    for shift in (0, 3):
        array = rng.integers(0, 256, (*SHAPE, dtype.itemsize), dtype="u1").view(dtype)[..., 0]
        if dtype.kind == "f":
            array = rng.normal(3, 40, SHAPE).astype(dtype)
        low, high = (array.dtype.newbyteorder("=").type(end) for end in (array.min(), array.max()))
        fields.append(Field(array, None, replace(Normalisation.of_range(low, high), shift=shift)))
    batch, indices = drawn(fields, device)
    for row, field, index in zip(batch.targets.cpu().numpy(), fields, indices, strict=True):
        np.testing.assert_allclose(row, field.targets(index), rtol=1e-6, atol=1e-6)
    assert batch.features is None


def corrected(seed):
    """A chunk with a transform, whose targets a decoder can tell."""
    rng = np.random.default_rng(seed)
    stencils = (Stencil(2, 1 + seed), Stencil(3 - seed, 0), Stencil(1, 4))
    integers = rng.integers(-3, 4, SHAPE).astype(np.int32)
    bases = AxisBasis(), AxisBasis(2), AxisBasis()
    transform = CoefficientField(Coefficients(SHAPE, bases, 0.25, integers))
    array = rng.normal(size=SHAPE)
    normalisation = Normalisation(0.5, 2.0, shift=2)
    base = transform.whole()
    field = Field(array, None, normalisation, base=base, stencils=stencils, norm=transform.norm)
    return field, transform


def test_features_are_those_of_a_decoder_and_targets_what_the_transform_leaves(device):
    chunks = [corrected(seed) for seed in (0, 1)]
    batch, indices = drawn([field for field, _ in chunks], device)
    for row, (field, transform) in enumerate(chunks):
        index = indices[row]
        values, expected = values_and_features(transform, field.stencils, index, True)
        np.testing.assert_allclose(batch.features[row].cpu(), expected, atol=1e-5)
        left = 4 * ((field.array[index] - 0.5) / 2 - values)
        np.testing.assert_allclose(batch.targets[row].cpu(), left, atol=1e-5)


def test_only_valid_voxels_are_drawn_and_all_alike(device):
    valid = np.zeros(SHAPE, bool)
    valid[2:4, 3] = True
    array = np.arange(valid.size, dtype="f8").reshape(SHAPE)
    fields = [Field(array, mask, Normalisation(0.0, 1.0)) for mask in (None, valid)]
    _, (everywhere, inside) = drawn(fields, device)
    assert valid[inside].all()
    counts = np.bincount(np.ravel_multi_index(inside, SHAPE), minlength=valid.size)[valid.ravel()]
    assert 60 < counts.min() <= counts.max() < 140
    assert not valid[everywhere].all()


@pytest.mark.parametrize("masked", [False, True])
def test_points_of_a_chunk_do_not_depend_on_the_others(masked):
    rng = np.random.default_rng(0)
    fields = [
        Field(rng.normal(size=SHAPE), (rng.random(SHAPE) < 0.5) if masked and seed != 1 else None,
              Normalisation(0.0, 1.0))
        for seed in range(3)
    ]  # fmt: skip
    together, _ = drawn(fields)
    some, _ = drawn(fields, chunks=[2, 0])
    for row, chunk in enumerate([2, 0]):
        (alone,) = drawn([fields[chunk]])[0].targets
        np.testing.assert_array_equal(alone, together.targets[chunk])
        np.testing.assert_array_equal(alone, some.targets[row])


def test_points_are_those_of_the_seed():
    field = Field(np.random.default_rng(0).normal(size=SHAPE), None, Normalisation(0.0, 1.0))
    first, again, other = (drawn([field], seed=seed)[0].targets for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("order", ["C", "F"])
def test_chunks_are_read_in_any_layout(order):
    whole = np.random.default_rng(0).normal(size=(8, 12, 4))
    for array in (np.asarray(whole, order=order), whole[::-1, 1:-2, ::2]):
        array = array.view()
        array.setflags(write=False)
        field = Field(array, None, Normalisation(0.0, 1.0))
        batch, (index,) = drawn([field])
        np.testing.assert_allclose(batch.targets[0], array[index], rtol=1e-6)
