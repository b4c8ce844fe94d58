"""The package's decoder and the independent one on the same bytes."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance import reference_decoder

from moec_zarr.errors import CorruptStreamError


def both(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any] | None:
    """What either finds; None where both refuse. One alone must not."""
    try:
        found = ours()
    except CorruptStreamError:
        with pytest.raises(reference_decoder.CorruptError):
            theirs()
        return None
    return found, theirs()
