"""Settings of the whole suite."""

import os

# One thread for the linear algebra: with more, each small step waits for whichever thread a busy
# machine has put aside, and the suite takes several times as long.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
