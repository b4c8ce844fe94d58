# `make demo` and `make test` are all the set-up a fresh machine needs.
PYTHON ?= python3
BIN := .venv/bin
# What the extra [all] brings, but torch; and what reads and writes the files of tests.
BESIDE := 'dask[distributed]' fsspec h5netcdf h5py jinja2 matplotlib netCDF4 ome-zarr psutil scikit-image typer xarray

.PHONY: demo test lint docs js peers wheel arm oldest newest downstream streams clean

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

# The reader in TypeScript, and the page that shows a store in a browser; needs Node 20 or later.
js:
	cd js && npm ci --no-audit --no-fund --loglevel=error && npm run --silent lint && npm run --silent types \
		&& npm run --silent test && npm run --silent build

# Beside this package, in its own environment: the native codecs that benchmarks compare with.
peers: .venv/installed
	$(BIN)/python -m pip install -e '.[dev,bench]' -c constraints.txt

# The wheel in an environment with nothing else but what it asks for: it must read a store.
wheel:
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel/dist .
	build/wheel/bin/python -m pip install --quiet -c constraints.txt build/wheel/dist/*.whl
	build/wheel/bin/python -I tests/smoke.py base

# The same for another processor: pip finds a wheel of everything that readers and writers need.
arm: wheel
	build/wheel/bin/python -m pip install --quiet --dry-run --ignore-installed --target build/arm --only-binary=:all: \
		--python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
		--platform manylinux2014_aarch64 "$$(echo build/wheel/dist/*.whl)[encode]"

# The codec, without torch, with the newest dependencies that this Python has, not those of constraints.txt. The kills
# of every pair of writes take a minute, and hang on the order of writes rather than on versions.
newest: NEWEST ?= tests/adapters tests/archive tests/cli tests/codec tests/compatibility tests/conversion \
	tests/report tests/test_fills.py tests/test_pages.py tests/test_statistics.py
newest:
	rm -rf build/newest
	$(PYTHON) -m venv build/newest
	build/newest/bin/python -m pip install --quiet --upgrade '.[encode]' $(BESIDE) hypothesis pytest pytest-xdist scipy
	build/newest/bin/python -m pip list
	build/newest/bin/python -m pytest -q --numprocesses auto --dist loadfile \
		--deselect tests/conversion/test_killed_anywhere.py::test_a_conversion_that_is_killed_twice_goes_on \
		--deselect tests/conversion/test_trees_growing.py::test_a_tree_that_dies_twice_goes_on $(NEWEST)

# The codec, without torch, with the oldest dependencies that are allowed.
oldest:
	rm -rf build/oldest
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet -c constraints-oldest.txt '.[encode]' hypothesis pytest pytest-xdist scipy
	build/oldest/bin/python -m pytest -q --numprocesses auto --dist loadfile tests/bitstream tests/model \
		tests/compatibility tests/codec/test_indexing.py tests/adapters/test_zarr_codec.py \
		tests/adapters/test_numcodecs_codec.py

# The newest zarr, xarray and dask: their own tests, with this package as zarr's default serializer.
downstream:
	rm -rf build/downstream
	$(PYTHON) -m venv build/downstream
	build/downstream/bin/python -m pip install --quiet '.[encode]' zarr numcodecs xarray 'dask[distributed]' \
		cftime fsspec netCDF4 hypothesis pytest pytest-asyncio pytest-benchmark pytest-timeout requests tomlkit
	build/downstream/bin/python tests/downstream/run.py

# A release but for its tag and its upload (docs/releases.md): dist/ has the sdist and the wheel that was built from it, which
# works in environments with nothing else but what its extras ask for.
.PHONY: release stores
release:
	test -z "$$(git status --porcelain)"  # what is not committed is not released
	rm -rf dist build/release
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/python -m pip install --quiet build twine
	build/release/tools/bin/python -m build --outdir dist
	build/release/tools/bin/python -m twine check --strict dist/*
	$(MAKE) --no-print-directory build/release/base build/release/encode build/release/all
	cd dist && sha256sum *

build/release/%:
	$(PYTHON) -m venv $@
	if [ $* = all ]; then $@/bin/python -m pip install --quiet $$(grep ^torch== constraints.txt); fi  # as in .venv
	$@/bin/python -m pip install --quiet -c constraints.txt "$$(echo dist/*.whl)$(if $(filter base,$*),,[$*])"
	$@/bin/python -I tests/smoke.py $*

# Writes all that holds the version of the format anew; streams that a release has written never change again.
streams: .venv/installed
	$(BIN)/python -m tests.conformance.freeze_streams

# Writes the stores of the version in pyproject.toml anew, until it is tagged: all later releases must read them.
stores: .venv/installed
	$(BIN)/python -m tests.compatibility.write_stores

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
	rm -rf js/build js/dist js/node_modules
	rm -rf .venv demo build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
