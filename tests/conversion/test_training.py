"""Dictionaries that conversions train by themselves: once, before anything is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECCodec, MoECError, trial, verify
from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.training import LEAST, MOST, _Tried, train_codec
from moec_zarr.conversion.work import training
from moec_zarr.conversion.work.run import convert
from moec_zarr.dictionary import Dictionary, Entry
from tests.conversion.conversions import DIMS, plan, records, stored
from tests.conversion.test_killed_anywhere import counted
from tests.support.faults import dying
from tests.support.fields import steps

xr = pytest.importorskip("xarray")

GRID = (16, 20)
STEPS = 8  # of a chunk
CODEC = MoECCodec(ratio=30, effort="fast")
CHUNKS = {"time": STEPS}
METADATA = {2: ".zarray", 3: "zarr.json"}


def days(chunks, first=0):
    """A field of waves with land that never moves, of so many chunks."""
    t, y, x = np.meshgrid(
        np.arange(first * STEPS, (first + chunks) * STEPS) / STEPS,
        np.linspace(0, 1, GRID[0]), np.linspace(0, 1, GRID[1]), indexing="ij",
    )  # fmt: skip
    field = sum(np.sin(2 * (2 + i) * x + (3 + i) * y + 0.7 * t * (i + 1) + i) for i in range(4))
    noise = [np.random.default_rng(n).normal(0, 0.1, (STEPS, *GRID)) for n in range(first, first + chunks)]
    field = (10 * field + np.concatenate(noise)).astype("f4")
    field[:, (y[0] - 0.3) ** 2 + (x[0] - 0.4) ** 2 < 0.1] = np.nan
    hours = np.datetime64("2026-01-01", "ns") + np.arange(first * STEPS, (first + chunks) * STEPS).astype(
        "m8[h]"
    )
    return xr.Dataset({"a": (DIMS, field)}, {"time": hours})


def begin(src, dst, client, **options):
    return convert(src, dst, CODEC, client=client, **{"chunks": CHUNKS, "train": True} | options)


def codec_at(dst):
    return codec_of(zarr.open_group(dst, mode="r", use_consolidated=False)["a"])


def hand_over(patch, codec):
    """Let trainings give a codec that was trained before; return a list with an item for each of them."""
    calls = []

    def train(connected, needed, planned, *args):
        calls.append(1)
        return planned.with_codecs({each.name: codec for each in planned.compressed if each.training})

    patch.setattr("moec_zarr.conversion.work.run.train_dictionaries", train)
    return calls


@pytest.fixture(scope="module")
def trained(tmp_path_factory, client):
    """An archive of six chunks in either format."""
    folder = tmp_path_factory.mktemp("trained")
    begin(days(6), folder / "3.zarr", client, zarr_format=3)
    with pytest.MonkeyPatch.context() as patch:
        hand_over(patch, codec_at(folder / "3.zarr"))
        begin(days(6), folder / "2.zarr", client, zarr_format=2)
    return folder


@pytest.fixture(params=[2, 3])
def archive(request, trained, tmp_path):
    shutil.copytree(trained / f"{request.param}.zarr", tmp_path / "d.zarr")
    return tmp_path / "d.zarr"


@pytest.fixture
def trainings(monkeypatch):
    """An item for each time that dictionaries are trained."""
    return hand_over(monkeypatch, CODEC)


def test_streams_take_entries_of_a_dictionary_in_the_metadata(archive):
    codec = codec_at(archive)
    assert codec.dictionary
    assert replace(codec, dictionary=None) == replace(CODEC, missing=codec.missing)
    array = zarr.open_group(archive, mode="r")["a"]
    assert array.attrs["moec_zarr_dictionary_bytes"] == codec.shared.nbytes
    assert len(json.dumps(array.attrs.asdict())) < 2000
    sections = [moec_zarr.inspect(data, codec=codec).sections for key, data in stored(archive).items()
                if key.startswith("a/")]  # fmt: skip
    assert len(sections) == 6
    taken = [each for each in sections if "shared" in each]  # small chunks may come out better without
    assert len(taken) > 2
    assert all(each["mask"] == 0 for each in taken)
    held = json.loads((archive / "a/.moec_zarr/plan.json").read_text())["plan"]["variables"]["a"]["codec"]
    assert held["dictionary"] == codec.dictionary
    again, original = xr.open_zarr(archive).a.values, days(6).a.values
    np.testing.assert_array_equal(np.isnan(again), np.isnan(original))
    assert np.nanmax(np.abs(again - original)) < 3
    assert verify(archive, days(6)).ok


def test_the_same_call_changes_nothing_and_another_is_refused(archive, client, trainings):
    before, made = stored(archive), records(archive)
    form = zarr.open_group(archive, mode="r").metadata.zarr_format
    for train in (True, None):
        begin(days(6), archive, client, train=train, zarr_format=form)
    assert (stored(archive), records(archive), trainings) == (before, made, [])
    with pytest.raises(MoECError, match=r"codec dictionary was \"\S{12}\.\.\.\", got absent"):
        begin(days(6), archive, client, train=False, zarr_format=form)


def test_a_chunk_that_is_lost_is_made_again_with_it(archive, client, trainings):
    before = stored(archive)
    lost = next(archive / key for key in before if key.startswith("a/"))
    lost.unlink()
    begin(days(6), archive, client, zarr_format=zarr.open_group(archive, mode="r").metadata.zarr_format)
    assert stored(archive) == before
    lost.write_bytes(b"damaged")
    assert verify(archive, days(6), repair=True, client=client).ok
    assert (stored(archive), trainings) == (before, [])


def test_an_append_takes_that_of_the_archive(archive, client, trainings):
    codec = codec_at(archive)
    with pytest.raises(MoECError, match="leave them out"):
        convert(days(2, 6), archive, append="time", train=True, client=client)
    convert(days(2, 6), archive, append="time", client=client)
    assert (codec_at(archive), trainings) == (codec, [])
    added = [data for key, data in stored(archive).items() if key.startswith("a/")]
    assert len(added) == 8
    assert any("shared" in moec_zarr.inspect(data, codec=codec).sections for data in added[6:])
    assert verify(archive, xr.concat([days(6), days(2, 6)], "time")).ok


def edit(path, change):
    """Change the codec that a JSON file names, wherever it stands there."""

    def walk(value):
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(each)
        if isinstance(value, dict) and "dictionary" in value:
            change(value)

    loaded = json.loads(path.read_text())
    walk(loaded)
    path.write_text(json.dumps(loaded))


@pytest.mark.parametrize("other", [None, Dictionary.make([Entry(6, b"other")]).text])
def test_metadata_of_another_dictionary_are_refused_and_repaired(archive, client, trainings, other):
    form = zarr.open_group(archive, mode="r").metadata.zarr_format
    before = stored(archive)
    edit(archive / "a" / METADATA[form], lambda codec: codec.update(dictionary=other))
    with pytest.raises(moec_zarr.DictionaryError):
        xr.open_zarr(archive, consolidated=False).load()
    assert [(each.variable, each.chunk) for each in verify(archive).problems] == [("a", "metadata")]
    for options in (
        {"zarr_format": form},
        {"append": "time", "codec": None, "chunks": "auto", "train": None},
    ):
        with pytest.raises(MoECError, match="metadata of 'a' in the store is damaged; moec-zarr verify"):
            convert(days(6), archive, **{"codec": CODEC, "chunks": CHUNKS, "train": True} | options,
                    client=client)  # fmt: skip
    assert verify(archive, days(6), repair=True, client=client).ok
    assert (stored(archive), trainings) == (before, [])
    for file in METADATA[form], "../.zmetadata" if form == 2 else "../zarr.json":  # and what is consolidated
        edit(archive / "a" / file, lambda codec: codec.update(dictionary=other))
    with pytest.raises(MoECError, match="and so is what consolidated metadata keeps of it"):
        verify(archive, days(6), repair=True, client=client)


@pytest.mark.parametrize("dictionary", ["AAAA=", "AQAGBQBh", "", 5, [1]])
def test_a_plan_whose_dictionary_cannot_be_read_is_named(trained, tmp_path, client, dictionary):
    dst = tmp_path / "d.zarr"
    shutil.copytree(trained / "3.zarr", dst)
    edit(dst / "a/.moec_zarr/plan.json", lambda codec: codec.update(dictionary=dictionary))
    said = "codec of 'a' in the manifest .moec_zarr/plan.json .* cannot be read: dictionary .*--overwrite"
    for command in (
        lambda: begin(days(6), dst, client),
        lambda: convert(days(1, 6), dst, append="time", client=client),
        lambda: verify(dst),
    ):
        with pytest.raises(MoECError, match=said):
            command()


def test_what_was_begun_without_goes_on_without(tmp_path, client, trainings, caplog):
    dst = tmp_path / "d.zarr"
    begin(days(6), dst, client, train=False)
    before = stored(dst)
    (dst / "a/c/3/0/0").unlink()
    begin(days(6), dst, client)
    assert "goes on without a dictionary for 'a', as it was begun" in caplog.text
    assert (stored(dst), trainings) == (before, [])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_wherever_a_run_is_killed_chunks_and_metadata_agree(
    trained, tmp_path, client, monkeypatch, zarr_format
):
    """What is there is read with the metadata that are there, and the same command makes the same archive."""
    whole, dst = trained / f"{zarr_format}.zarr", tmp_path / "d.zarr"
    codec, source = codec_at(whole), days(6)
    calls = hand_over(monkeypatch, codec)
    options = {"zarr_format": zarr_format, "break_lock": True}
    with dying(monkeypatch, counts=counted) as death:
        begin(source, dst, client, **options)
    begun = [death.done.index(f"set a/{key}") for key in (".moec_zarr/plan.json", METADATA[zarr_format])]
    first = next(i for i, change in enumerate(death.done) if change.endswith("0.0.0.json"))
    places = {0, *range(1, len(death.done), 20), *range(first - 2, first + 2)}
    for last in sorted(places.union(*(range(place, place + 2) for place in begun))):
        shutil.rmtree(dst)
        calls.clear()
        with dying(monkeypatch, last, counted), pytest.raises((MoECError, OSError), match="killed"):
            begin(source, dst, client, **options)
        has_plan = (dst / "a/.moec_zarr/plan.json").exists()
        if any(key.startswith("a/") for key in stored(dst)):
            read = zarr.open_group(dst, mode="r", use_consolidated=False)["a"][...]
            there = ~np.isnan(read)
            assert np.abs(read - source.a.values)[there].max() < 3, death.done[last]
        begin(source, dst, client, **options)
        assert len(calls) == (1 if has_plan or not last else 2), death.done[last]
        assert codec_at(dst) == codec
        assert {key: data for key, data in stored(dst).items() if key.startswith("a/")} == {
            key: data for key, data in stored(whole).items() if key.startswith("a/")
        }


SCRIPT = """
import sys
from tests.conversion.test_training import CHUNKS, CODEC, days
from moec_zarr import convert

if __name__ == "__main__":
    convert(days(6), sys.argv[1], CODEC, chunks=CHUNKS, train=True, workers=1)
"""


@pytest.mark.parametrize("sign", ["d.zarr.lock", "d.zarr/a/.moec_zarr/1.0.0.json"])
def test_a_run_that_is_really_killed_goes_on(trained, tmp_path, client, sign):
    """As it trains, and as it fits."""
    dst, script = tmp_path / "d.zarr", tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), str(dst)], env=os.environ | {"PYTHONPATH": paths}
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / sign).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begin(days(6), dst, client)
    assert stored(dst) == stored(trained / "3.zarr")
    assert codec_at(dst) == codec_at(trained / "3.zarr")
    assert verify(dst, days(6)).ok


def test_each_array_of_a_tree_has_its_own_and_small_ones_none(tmp_path, client):
    parts = {"/one": days(6), "/two": days(6, 50).transpose(), "/small": days(3)}
    sizes = {"time": STEPS}
    tree = xr.DataTree.from_dict(parts)
    convert(tree, tmp_path / "d.zarr", CODEC, chunks=sizes, train=True, client=client)
    group = zarr.open_group(tmp_path / "d.zarr", mode="r")
    one, two, small = (codec_of(group[f"{path}/a"]) for path in ("one", "two", "small"))
    assert small.dictionary is None
    assert len({one.dictionary, two.dictionary, None}) == 3
    before = stored(tmp_path / "d.zarr")
    (tmp_path / "d.zarr/two/a/c/0/0/0").unlink()
    convert(tree, tmp_path / "d.zarr", CODEC, chunks=sizes, client=client)
    assert stored(tmp_path / "d.zarr") == before


def test_a_single_array_keeps_its_own(tmp_path, client, monkeypatch, trained):
    """It has no group that it lies in."""
    calls = hand_over(monkeypatch, replace(codec_at(trained / "3.zarr"), missing=None))
    values = np.nan_to_num(days(6).a.values)
    zarr.save_array(tmp_path / "s.zarr", values)
    for _ in range(2):
        convert(
            tmp_path / "s.zarr",
            tmp_path / "d.zarr",
            CODEC,
            chunks={"dim_0": STEPS},
            train=True,
            client=client,
        )
    array = zarr.open_array(tmp_path / "d.zarr", mode="r")
    assert codec_of(array).dictionary
    assert calls == [1]
    assert np.abs(array[...] - values).max() < 5


def test_nothing_is_shared_by_what_needs_no_fit_or_is_constant(tmp_path, client):
    shape = (7 * STEPS, *GRID)
    ds = xr.Dataset({"a": (DIMS, steps(shape)), "b": (DIMS, np.full(shape, 3, "f4"))})
    convert(
        ds, tmp_path / "d.zarr", MoECCodec(ratio=2, effort="fast"), chunks=CHUNKS, train=True, client=client
    )
    group = zarr.open_group(tmp_path / "d.zarr", mode="r")
    # All that is known of the first one is that no fit is needed.
    assert codec_of(group["a"]).shared.entries == ()
    assert codec_of(group["b"]).dictionary is None


def test_a_dictionary_is_kept_where_it_helps_chunks_that_it_was_not_trained_on(monkeypatch):
    blocks = [days(1, n).a.values for n in range(6)]
    kept = train_codec(CODEC, blocks)
    assert (kept.codec.dictionary is None, kept.chunks) == (False, 6)
    assert f"a dictionary of {kept.codec.shared.nbytes} bytes, trained on 4 chunks" in kept.told
    monkeypatch.setattr("moec_zarr.codec.train.train_dictionary", lambda codec, chunks: kept.codec)
    assert train_codec(CODEC, blocks).codec == kept.codec
    with monkeypatch.context() as patched:
        # Neither takes an entry: what is left tells the encoder what it need not try.
        patched.setattr("moec_zarr.adapters.training._try", lambda *_: _Tried(0.0, 1.0, False))
        left = train_codec(CODEC, blocks)
    assert (left.codec.shared.entries, left.codec.shared.advice) == ((), kept.codec.shared.advice)
    worse = replace(kept.codec, ratio=60)
    monkeypatch.setattr("moec_zarr.codec.train.train_dictionary", lambda codec, chunks: worse)
    assert train_codec(CODEC, blocks).codec == CODEC


def test_a_training_that_fails_leaves_the_variable_without(tmp_path, client, monkeypatch, caplog):
    def fails(*args):
        raise OSError("cut off")

    monkeypatch.setattr(training, "train_on", fails)
    begin(days(6), tmp_path / "d.zarr", client)
    assert (
        "'a' is converted without a dictionary, which could not be trained: OSError('cut off')" in caplog.text
    )
    assert codec_at(tmp_path / "d.zarr").dictionary is None
    assert verify(tmp_path / "d.zarr", days(6)).ok


def blank(chunks):
    field = np.broadcast_to(np.zeros((), "f4"), (10 * chunks, 100, 100))
    return xr.Dataset({"a": (DIMS, field)})


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("target", [{"ratio": 100}, {"max_error": 0.1}, {"psnr": 50}])
def test_a_plan_trains_where_that_takes_less_than_an_eighth_of_the_fits(target, effort):
    codec = MoECCodec(**target, effort=effort)
    seen = []
    for chunks in (8, 30, 80, 160, 240, 2000):
        (each,) = plan(blank(chunks), codec, chunks={"time": 10, "lat": -1, "lon": -1}).compressed
        seen.append(each.training)
        assert each.training_seconds <= each.seconds / 8
        assert each.training == 0 or LEAST <= each.training <= MOST
    assert seen == sorted(seen)
    assert (seen[1], seen[-1]) == (0, MOST)
    assert seen[3] >= LEAST


def test_a_plan_trains_where_it_is_asked_to_and_can():
    def trains(chunks, codec=CODEC, train=True, time=10):
        sizes = {"time": time, "lat": -1, "lon": -1}
        (each,) = plan(blank(chunks), codec, chunks=sizes, train=train).compressed
        return each.training

    assert [trains(n) for n in (1, 5, 6, 7, 10, 500)] == [0, 0, LEAST, LEAST + 1, MOST, MOST]
    assert trains(500, train=False) == 0
    assert trains(500, MoECCodec(max_error=0)) == 0
    with_one = train_codec(CODEC, [days(1, n).a.values for n in range(7)]).codec
    assert trains(500, with_one) == 0
    # Eight chunks of 80 MB are too much memory; four are as few as it takes.
    assert [trains(20_000, train=train, time=2000) for train in (None, True)] == [0, LEAST]


def test_a_trial_tells_what_a_dictionary_brings():
    plain, at, harder, trained_on_others = trial(days(10), CODEC, 2, chunks=CHUNKS, train=True)
    assert [each.codec.dictionary for each in (plain, at, harder)] == [None] * 3
    assert trained_on_others.codec.shared is not None
    assert replace(trained_on_others.codec, dictionary=None) == at.codec
    assert trained_on_others.quality.rmse < at.quality.rmse
    assert (trained_on_others.training > 0, at.training) == (True, 0)
    assert len(trial(days(10), CODEC, 2, chunks=CHUNKS)) == 3
    again = trial(days(10), trained_on_others.codec, 1, chunks=CHUNKS)
    assert [each.codec.dictionary is None for each in again] == [False, False, False, True]
