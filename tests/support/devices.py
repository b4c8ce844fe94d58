"""The devices that tests run on: the CPU, and a GPU where there is one."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["DEVICES"]


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not _has_gpu(), reason="there is no GPU"))]
