# `make demo` and `make test` are all the set-up a fresh machine needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs wheel oldest downstream streams clean

demo: .venv/installed-demo
	$(BIN)/python -m moec_zarr.demo

# A file's tests share their fits, hence stay on one core.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

# The pages as a web site in site/; a broken link or an undocumented name is an error.
docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

# The wheel in an environment with nothing else but what it asks for: it must read a store.
wheel:
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel/dist .
	build/wheel/bin/python -m pip install --quiet -c constraints.txt build/wheel/dist/*.whl
	build/wheel/bin/python -I tests/read_with_wheel.py

# The codec, without torch, with the oldest dependencies that are allowed.
oldest:
	rm -rf build/oldest
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet -c constraints-oldest.txt '.[encode]' hypothesis pytest pytest-xdist scipy
	build/oldest/bin/python -m pytest -q --numprocesses auto --dist loadfile tests/bitstream tests/model \
		tests/codec/test_indexing.py tests/adapters/test_zarr_codec.py tests/adapters/test_numcodecs_codec.py

# The newest zarr, xarray and dask: their own tests, with this package as zarr's default serializer.
downstream:
	rm -rf build/downstream
	$(PYTHON) -m venv build/downstream
	build/downstream/bin/python -m pip install --quiet '.[encode]' zarr numcodecs xarray 'dask[distributed]' \
		cftime fsspec netCDF4 hypothesis pytest pytest-asyncio pytest-benchmark pytest-timeout requests tomlkit
	build/downstream/bin/python tests/downstream/run.py

# Writes the frozen streams in tests/conformance/streams anew; only for a new feature of the format.
streams: .venv/installed
	$(BIN)/python -m tests.conformance.freeze_streams

# The demo fits transforms, and draws: no torch, nothing that only tests need.
.venv/installed-demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[encode]' matplotlib scikit-image xarray -c constraints.txt
	touch $@

# torch comes first and pinned: left to the resolver, it would be the newest build with all of CUDA.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install -e '.[dev,docs]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv demo build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
