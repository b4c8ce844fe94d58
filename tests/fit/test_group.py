"""Chunks that are fitted side by side and train their networks together."""

import threading
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr import config, runtime  # noqa: E402
from moec_zarr.errors import MoECError  # noqa: E402
from moec_zarr.fit.field import Field  # noqa: E402
from moec_zarr.fit.network import group, train  # noqa: E402
from moec_zarr.fit.network.group import Group, fit_in_group, join_group  # noqa: E402
from moec_zarr.fit.network.network_fit import prepare_fit  # noqa: E402
from moec_zarr.fit.network.training import device_bytes  # noqa: E402
from moec_zarr.fit.payloads import encode_network  # noqa: E402
from moec_zarr.fit.presets import PRESETS  # noqa: E402
from moec_zarr.model.network import Architecture  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402
from moec_zarr.runtime import fit_slot, group_size, lend_slot  # noqa: E402

SECONDS = 30  # after which a test that waits has failed
FAST = PRESETS["fast"][0]
PRESET = replace(FAST, steps=100, batch=256, starts=FAST.starts[:1])


def fit_of(seed, layers=1):
    array = np.random.default_rng(seed).normal(size=(12, 14)).cumsum(axis=0)
    field = Field(array, None, Normalisation.of_range(array.min(), array.max()))
    return prepare_fit(field, Architecture(2, 6, 1, 6, layers), PRESET, 200)


def side_by_side(jobs):
    """What functions return or raise, each called in a thread of its own with its number."""
    futures = [Future() for _ in jobs]

    def run(number):
        try:
            futures[number].set_result(jobs[number](number))
        except BaseException as error:
            futures[number].set_exception(error)

    for number in range(len(jobs)):  # daemons: a thread that waits for ever fails its test and no more
        threading.Thread(target=run, args=(number,), daemon=True).start()
    return [future.exception(SECONDS) or future.result() for future in futures]


def in_group(jobs):
    """The same, as the members of a group."""
    members = Group(len(jobs))

    def as_member(job):
        def run(number):
            with members.member(number):
                return job()

        return run

    return side_by_side([as_member(job) for job in jobs])


def payloads(outcomes):
    return [encode_network(outcome.network) for outcome in outcomes]


def test_members_train_as_one_in_the_order_of_their_numbers(trained):
    fits = [fit_of(seed) for seed in range(3)]
    outcomes = in_group([lambda fit=fit: fit_in_group(fit) for fit in fits])
    assert trained == [3]
    assert payloads(outcomes) == payloads(train.fit_networks(fits, "cpu"))


def test_nobody_waits_for_a_member_that_ends(trained):
    """One never asks, one raises, one asks once, two ask twice."""

    def fails():
        raise KeyError("broken")

    def twice():
        return [fit_in_group(fit_of(3)), fit_in_group(fit_of(4))]

    outcomes = in_group([lambda: "nothing", fails, lambda: fit_in_group(fit_of(1)), twice, twice])
    assert outcomes[0] == "nothing"
    assert isinstance(outcomes[1], KeyError)
    assert trained == [3, 2]
    assert payloads(outcomes[3]) == payloads(outcomes[4])


def test_fits_of_several_kinds_are_trained_apart(trained):
    fits = [fit_of(0), fit_of(1, layers=2), fit_of(2)]
    outcomes = in_group([lambda fit=fit: fit_in_group(fit) for fit in fits])
    assert trained == [2, 1]
    assert [o.network.architecture.layers for o in outcomes] == [1, 2, 1]


def test_an_error_of_training_reaches_every_member(monkeypatch):
    def broken(fits, device):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train, "fit_networks", broken)
    outcomes = in_group([lambda: fit_in_group(fit_of(0)), lambda: fit_in_group(fit_of(1))])
    assert [str(outcome) for outcome in outcomes] == ["out of memory"] * 2


def test_a_fit_without_a_group_is_trained_alone(trained):
    (outcome,) = payloads([fit_in_group(fit_of(0))])
    assert trained == [1]
    assert outcome == payloads(train.fit_networks([fit_of(0)], "cpu"))[0]


def test_members_that_wait_lend_their_cores(monkeypatch, trained):
    """With a single slot, a member would otherwise keep the others from ever asking."""
    monkeypatch.setattr(runtime, "_slots", threading.BoundedSemaphore(1))

    def encode():
        with fit_slot():
            return fit_in_group(fit_of(0))

    in_group([encode] * 3)
    assert trained == [3]
    with fit_slot():  # all slots came back
        assert not runtime._slots.acquire(blocking=False)


def test_a_slot_is_lent_once_and_only_by_who_has_it(monkeypatch):
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(runtime, "_slots", slots)
    with lend_slot():
        assert slots.acquire(blocking=False)
        slots.release()
    with fit_slot():
        with lend_slot(), lend_slot():
            assert slots.acquire(blocking=False)
            slots.release()
        assert not slots.acquire(blocking=False)


def gather(count, size, kind="kind"):
    """The groups that threads are members of which begin together."""

    def run(number):
        with join_group(kind, size):
            return group._thread.group

    return side_by_side([run] * count)


def test_threads_that_begin_together_are_a_group():
    members = gather(3, size=3)
    assert len({id(own) for own, _ in members}) == 1
    assert sorted(number for _, number in members) == [0, 1, 2]


def test_groups_are_no_larger_than_asked_for():
    sizes = {}
    for own, _ in gather(7, size=3):
        sizes[own] = sizes.get(own, 0) + 1
    assert sorted(sizes.values()) == [1, 3, 3]
    assert not group._gatherings


def test_a_group_of_one_is_none():
    with join_group("kind", 1):
        assert getattr(group._thread, "group", None) is None


def test_a_thread_alone_does_not_wait_for_long():
    (member,) = gather(1, size=50)
    assert member[1] == 0


@pytest.mark.parametrize(
    ("setting", "device", "voxels", "expected"),
    [
        ("auto", "cpu", 1000, 1),
        ("auto", "cuda", 2**21, 128),
        ("auto", "cuda", 2**25, 8),
        ("auto", "cuda", 2**40, 1),
        (5, "cpu", 2**40, 5),
    ],
)
def test_size_of_a_group(setting, device, voxels, expected):
    with config.set(group=setting, device=device):
        assert group_size(voxels) == expected


@pytest.mark.parametrize("setting", [0, -1, 2.5, True, "all", None])
def test_size_of_a_group_is_checked(setting):
    with config.set(group=setting), pytest.raises(MoECError, match="config group is"):
        group_size(10)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that there is not: what is free of it, and the fits that it is given."""
    state = {"free": 0, "trained": []}
    monkeypatch.setattr(group, "choose_device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (state["free"], 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)

    def train_fits(fits, device):
        assert device == "cuda"
        state["trained"].append([fit.budget for fit in fits])
        return [None] * len(fits)

    monkeypatch.setattr(train, "fit_networks", train_fits)
    return state


def test_a_group_without_room_is_trained_in_parts(gpu):
    fits = [replace(fit_of(seed), budget=seed) for seed in range(5)]
    gpu["free"] = int(2.1 / 0.8 * device_bytes(fits[0]))
    assert in_group([lambda fit=fit: fit_in_group(fit) for fit in fits]) == [None] * 5
    assert gpu["trained"] == [[0, 1], [2, 3], [4]]


def test_a_gpu_without_room_for_one_fit_is_named(gpu):
    with pytest.raises(MoECError, match=r"shape \(12, 14\) takes .* of the GPU, which has 0 MiB free"):
        fit_in_group(fit_of(0))


def test_memory_of_a_fit_grows_with_all_that_it_holds():
    fit = fit_of(0)
    whole = device_bytes(fit)
    assert whole >= fit.field.array.nbytes + 4 * 6 * fit.architecture.parameter_count
    masked = replace(fit, field=replace(fit.field, valid=np.ones((12, 14), bool)))
    corrects = replace(fit, field=replace(fit.field, base=np.zeros((12, 14), "f4")))
    for more in (masked, corrects):
        assert device_bytes(more) == whole + 4 * 12 * 14
    assert device_bytes(replace(fit, starts=fit.starts * 3)) > 2 * whole - fit.field.array.nbytes
    assert device_bytes(replace(fit, preset=replace(PRESET, batch=512))) > whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_memory_of_a_fit_is_no_less_than_it_takes():
    fits = [fit_of(seed) for seed in range(8)]
    train.fit_networks(fits[:1], "cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train.fit_networks(fits, "cuda")
    assert torch.cuda.max_memory_allocated() - before < sum(map(device_bytes, fits))
