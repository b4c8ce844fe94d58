"""A process that dies at a moment of one's choice, as far as a local store can tell."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from zarr.storage import LocalStore

_CHANGES = ("set", "set_if_not_exists", "delete", "delete_dir")


@dataclass
class Death:
    """What a store was asked to change, until it died and after."""

    last: float
    done: list[str] = field(default_factory=list)
    died: bool = False
    under_way: int = 0


@contextmanager
def dying(patch: pytest.MonkeyPatch, last: float = float("inf"), counts: Any = None) -> Iterator[Death]:
    """Let local stores make so many changes and no more, as those of a process that is killed.

    `counts` says by its key whether a change is one of them; others are made while the store lives.
    """
    death = Death(last)

    def watched(name: str) -> Any:
        real = getattr(LocalStore, name)

        async def change(self: LocalStore, key: str, *args: Any, **kwargs: Any) -> Any:
            if counts is None or counts(key) or death.died:
                if death.died or len(death.done) >= death.last:
                    death.died = True
                    raise OSError(errno.EROFS, "the process was killed")
                death.done.append(f"{name} {key}")
            death.under_way += 1
            try:
                return await real(self, key, *args, **kwargs)
            finally:
                death.under_way -= 1

        return change

    with patch.context() as inner:
        for name in _CHANGES:
            inner.setattr(LocalStore, name, watched(name))
        yield death
        # What was begun beside the last change ends before anyone looks: the dead change nothing later.
        deadline = time.monotonic() + 20
        while death.under_way and time.monotonic() < deadline:
            time.sleep(0.001)
