"""Chunks that are fitted side by side, a thread each, and train their networks together.

What a chunk calls for is fitted as if it were alone. Where it asks for a network, its thread waits until
all other chunks of its group have asked for one too, or are done. These networks are trained as one, then
each thread goes on with its own. Other fits have the cores of those that wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from moec_zarr.errors import MoECError
from moec_zarr.runtime import choose_device, fit_slot, lend_slot, renew_after_fork

if TYPE_CHECKING:
    from moec_zarr.fit.network.network_fit import NetworkFit
    from moec_zarr.fit.network.train import Outcome

__all__ = ["Group", "fit_in_group", "join_group"]

_log = logging.getLogger(__name__)
_QUIET = 0.1  # seconds without another chunk after which a group is complete
_ROOM = 0.8  # of the memory that is free on a device
_free: AbstractContextManager[object] = nullcontext()
_thread = threading.local()  # the group that this thread is a member of, and its number there


class _Asked(NamedTuple):
    fit: NetworkFit
    outcome: Future[Outcome]


class Group:
    """Chunks that are fitted side by side.

    Parameters
    ----------
    count : int
        Their number; each has a thread that is a `member`.
    """

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._members = count
        self._asked: dict[int, _Asked] = {}

    @contextmanager
    def member(self, number: int) -> Iterator[None]:
        """Make this thread the one of a chunk, numbered from 0; once it ends, no other waits for it."""
        _thread.group = self, number
        try:
            yield
        finally:
            _thread.group = None
            with self._changed:
                self._members -= 1
                self._changed.notify_all()

    def fit(self, number: int, fit: NetworkFit) -> Outcome:
        """Return what comes of a fit, trained together with those that all other members ask for."""
        asked = _Asked(fit, Future())
        with lend_slot():
            with self._changed:
                self._asked[number] = asked
                self._changed.notify_all()
                self._changed.wait_for(lambda: asked.outcome.done() or len(self._asked) == self._members)
                together = []
                if not asked.outcome.done():  # this thread trains for all, in the order of their numbers
                    together, self._asked = [self._asked[n] for n in sorted(self._asked)], {}
            if together:
                _train(together)
                with self._changed:
                    self._changed.notify_all()
        return asked.outcome.result()


def fit_in_group(fit: NetworkFit) -> Outcome:
    """Return what comes of a fit, trained together with those of this thread's group, if it is in one.

    Raises
    ------
    MoECError
        If the device is not there, or has no room for one fit.
    """
    group, number = getattr(_thread, "group", None) or (Group(1), 0)
    outcome: Outcome = group.fit(number, fit)
    return outcome


def _train(asked: Sequence[_Asked]) -> None:
    """Train networks, as many as one as are alike and have room on the device; sets their outcomes."""
    from moec_zarr.fit.network.train import fit_networks

    kinds: dict[Hashable, list[_Asked]] = {}
    for each in asked:
        kinds.setdefault(each.fit.kind, []).append(each)
    try:
        device = choose_device()
        for alike in kinds.values():
            left = alike
            while left:
                with _device if device == "cuda" else _free, fit_slot():
                    some, left = _with_room(left, device)
                    if len(some) > 1:
                        _log.info("%d networks are trained together", len(some))
                    outcomes = fit_networks([each.fit for each in some], device)
                for each, outcome in zip(some, outcomes, strict=True):
                    each.outcome.set_result(outcome)
    except BaseException as error:
        for each in asked:
            if not each.outcome.done():
                each.outcome.set_exception(error)


def _with_room(asked: list[_Asked], device: str) -> tuple[list[_Asked], list[_Asked]]:
    """Those of some fits that the device has memory for, and the others.

    Raises
    ------
    MoECError
        If it has none for one.
    """
    if device == "cpu":
        return asked, []
    import torch

    from moec_zarr.fit.network.training import device_bytes

    # What torch keeps for later tensors is free too.
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    largest = max(device_bytes(each.fit) for each in asked)
    count = int(_ROOM * free / largest)
    if not count:
        shape = asked[0].fit.field.array.shape
        raise MoECError(
            f"a fit of shape {shape} takes about {largest / 2**20:.0f} MiB of the GPU, which has "
            f"{free / 2**20:.0f} MiB free; write smaller chunks, free the GPU, or set config device to 'cpu'"
        )
    return asked[:count], asked[count:]


class _OpenGroup:
    """A group that is not complete yet."""

    def __init__(self) -> None:
        self.count = 0
        self.group: Group | None = None


_gatherings: dict[Hashable, _OpenGroup] = {}
_arrived = threading.Condition()
_device = threading.Lock()  # a GPU trains one group at a time: another one uses the cores meanwhile


@renew_after_fork
def _renew() -> None:
    global _arrived, _device
    _arrived, _device = threading.Condition(), threading.Lock()
    _gatherings.clear()


@contextmanager
def join_group(kind: Hashable, size: int) -> Iterator[None]:
    """Make this thread a member of a group, with others that begin at about the same time.

    A group is complete with `size` members, or a tenth of a second after the last one came.

    Parameters
    ----------
    kind : hashable
        What chunks have in common that are fitted together.
    size : int
        Number of chunks at most; 1 for no group.
    """
    if size == 1:
        yield
        return
    with lend_slot(), _arrived:
        mine = _gatherings.setdefault(kind, _OpenGroup())
        number = mine.count
        mine.count += 1
        if mine.count == size:
            _complete(kind, mine)
        while mine.group is None:
            before = mine.count
            _arrived.wait_for(lambda: mine.group is not None, timeout=_QUIET)
            if mine.group is None and mine.count == before:
                _complete(kind, mine)
    group = mine.group
    with group.member(number):
        yield


def _complete(kind: Hashable, gathering: _OpenGroup) -> None:
    del _gatherings[kind]
    gathering.group = Group(gathering.count)
    _arrived.notify_all()
