"""A device of torch: full precision, arrays to it, and values from it while others are computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from moec_zarr.arrays import Array
from moec_zarr.model.network import Architecture

__all__ = ["Device", "on_device", "put"]

_NUMBERS = 1 << 27  # that a tile takes at most: half a gigabyte
_ON_THE_WAY = 2  # tiles whose copies to the host the device may have yet to finish


def put(array: Array, device: torch.device) -> torch.Tensor:
    """Send an array in native byte order to a device; through pinned memory if that is a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Device:
    """Where torch computes; made by :func:`on_device`.

    Nothing here waits for the device.
    """

    slab = transform_tile = restored_tile = (
        1 << 22
    )  # voxels that a transform is evaluated at together: tens of megabytes

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self._copies: torch.cuda.Stream | None = None
        self._sent: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()

    @property
    def is_cuda(self) -> bool:
        """Whether copies to and from the host take place beside computations."""
        return self.device.type == "cuda"

    def put(self, array: Array) -> torch.Tensor:
        """Send an array in native byte order to the device."""
        return put(array, self.device)

    def tile(self, architecture: Architecture) -> int:
        """Return the number of voxels to evaluate at a time: all that they take is below half a gigabyte."""
        # Phases in double precision and their sum, inputs twice, activations, logits.
        inputs = architecture.encoder + architecture.feature_count
        numbers = 6 * architecture.encoder + 4 * inputs + 3 * architecture.width + 3 * architecture.experts
        return max(1, _NUMBERS // numbers)

    def memory(self, nbytes: int) -> torch.Tensor:
        """Allocate bytes on the host; pinned if the device is a GPU."""
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=self.is_cuda)

    def send(self, values: torch.Tensor, memory: torch.Tensor) -> None:
        """Copy bytes from the device into a part of `memory`: complete once :func:`on_device` has ended.

        A GPU copies in a stream of its own while the next tile is evaluated. Before it starts on the tile
        after that, it waits for the copy: so it holds no more than two tiles that are on their way.
        """
        if not self.is_cuda:
            memory.copy_(values)
            return
        if self._copies is None:
            self._copies = torch.cuda.Stream(self.device)
        if len(self._sent) == _ON_THE_WAY:
            # The device waits, not the host. Then the memory may be used again: all that does so comes later.
            self._sent[0][1].wait()
            self._sent.popleft()
        self._copies.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._copies):
            memory.copy_(values, non_blocking=True)
            self._sent.append((values, self._copies.record_event()))

    def finish(self) -> None:
        """Wait until all that was sent has arrived."""
        if self._copies is not None:
            self._copies.synchronize()
        self._sent.clear()


@contextmanager
def on_device(name: str) -> Iterator[Device]:
    """Open a device, "cpu" or "cuda"; what it sent has arrived when this ends, by one synchronisation.

    Products of float32 are computed in float32: in here neither TF32 nor bfloat16 takes its place, whatever
    the process has chosen, and no autocast.
    """
    device = Device(name)
    with torch.no_grad(), torch.autocast(device.device.type, enabled=False), _full_precision():
        try:
            yield device
        finally:
            device.finish()


class _Precision:
    """Who needs full precision at present, and what the process had chosen before the first of them."""

    lock = threading.Lock()
    users = 0
    chosen: tuple[str | None, list[tuple[Any, str]]]


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 in float32, on any device, until nobody needs it any more.

    Torch has one setting for the process, which a product reads when it is submitted. It is changed while
    this lasts and put back at the end.
    """
    with _Precision.lock:
        if not _Precision.users:
            _Precision.chosen = _chosen_precision()
            torch.set_float32_matmul_precision("highest")
        _Precision.users += 1
    try:
        yield
    finally:
        with _Precision.lock:
            _Precision.users -= 1
            if not _Precision.users:
                _choose_precision(*_Precision.chosen)


def _chosen_precision() -> tuple[str | None, list[tuple[Any, str]]]:
    """Return what the process has set for all products, and since torch 2.9 for those of each library."""
    libraries: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    own = [(each, each.fp32_precision) for each in libraries if hasattr(each, "fp32_precision")]
    try:
        return torch.get_float32_matmul_precision(), own
    except RuntimeError:  # torch refuses to sum up what was set for each library
        return None, own


def _choose_precision(common: str | None, own: list[tuple[Any, str]]) -> None:
    if common is not None:
        torch.set_float32_matmul_precision(common)
    for library, precision in own:
        library.fp32_precision = precision
