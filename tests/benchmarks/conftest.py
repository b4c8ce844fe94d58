from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.lines import SHAPE
from tests.support.fields import smooth


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "waves.npz", data=smooth(SHAPE))
    return tmp_path
