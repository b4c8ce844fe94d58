"""``python -m examples.demo``."""

from __future__ import annotations

from examples.demo.run import main

main()
