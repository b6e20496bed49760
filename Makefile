# The front door. CMake is the build; this file only calls it.
#
#   make demo    sets up, then finds neighbours among handwritten digits
#   make test    sets up, builds, runs every test that this machine can run
#   make help    the rest

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test faiss-tests faiss-benchs fuzz mutation sanitize soak
.PHONY: setup build install wheel test-wheel format clean
.PHONY: bench bench-smoke bench-report bundle

PRESET ?= ci
BUILD := build/$(PRESET)
JOBS ?= $(shell nproc)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## neighbours among handwritten digits; GPU=1 builds the GPU library
	@cmake/setup/demo.sh

test: build ## every test that this machine can run
	@cmake/setup/cpu-env.sh
	@cmake/setup/tools-env.sh
	@. build/setup.env && tests/run_tests.py $(BUILD)

faiss-tests: build ## Faiss' own Python tests, with stock Faiss and with ours
	@. build/setup.env && tests/faiss_tests.py $(BUILD)

faiss-benchs: build ## Faiss' own benchmark scripts, with both; GPU=1 on this machine's GPU
	@. build/setup.env && "$$FAISS_EXT_PYTHON" tests/faiss_benchs.py $(BUILD) $(if $(GPU),--gpu)

fuzz: build ## the array parsers and the array entry, for SECONDS each (default 60)
	@cmake/setup/fuzz.sh
	@. build/setup.env && tests/fuzz/run.sh $(BUILD) $(or $(SECONDS),60)

setup: ## system packages, Python packages, Faiss (10 minutes on 2 cores the first time)
	@cmake/setup/development.sh

build: setup ## the library, the Python module and the tests
	@echo "==> building faiss_ext, preset $(PRESET) (about 3 minutes on 2 cores the first time)" >&2
	@. build/setup.env && \
	cmake --preset $(PRESET) -U faiss_DIR -U '*Python_*' -DCMAKE_PREFIX_PATH="$$FAISS_PREFIX" \
	    -DPython_EXECUTABLE="$$FAISS_EXT_PYTHON" \
	    $$(command -v ccache >/dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache) \
	    >$(BUILD).configure.log || { cat $(BUILD).configure.log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)

bench: build ## the benchmarks, on a GPU: SECONDS=1800, record into benchs/results
	@. build/setup.env && benchs/run.sh $(BUILD) --out benchs/results --seconds $(or $(SECONDS),1800)

bench-smoke: build ## the benchmarks, tiny and on the simulator: no figures, keeps nothing
	@. build/setup.env && benchs/run.sh $(BUILD) --smoke

bench-report: setup ## benchs/RESULTS.md of the records in benchs/results
	@. build/setup.env && for folder in benchs/results/faiss-*; do \
	    $$FAISS_EXT_PYTHON benchs/report.py --records $$folder --out $$folder/RESULTS.md || exit 1; \
	done && $$FAISS_EXT_PYTHON benchs/report.py

bundle: build ## dist/*-gpu-host.tar.gz: all that a GPU machine needs; PYTHONS="python3.12 ..."
	@benchs/bundle/make_bundle.sh

mutation: setup ## take out each wait and keep-alive of gpu/: the tests must fail
	@. build/setup.env && tests/mutation/run.py build/mutation

sanitize: setup ## the C++ tests under AddressSanitizer, UBSan and ThreadSanitizer
	@. build/setup.env && for preset in asan tsan; do \
	    cmake --preset $$preset -DCMAKE_PREFIX_PATH="$$FAISS_PREFIX" \
	        -DCMAKE_CUDA_ARCHITECTURES=90 \
	        $$(command -v ccache >/dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache) \
	        >build/$$preset.configure.log && \
	    cmake --build build/$$preset -j $(JOBS) && \
	    TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp" \
	    ctest --test-dir build/$$preset -L '^sim$$' -E 'consumer|python' -j $(JOBS) \
	        --output-on-failure --no-tests=error || exit 1; \
	done

soak: build ## more seeds for the scenarios: SECONDS=60
	@$(BUILD)/tests/scenarios --soak=$(or $(SECONDS),60)

install: ## the C++ library to PREFIX (default /usr/local), from the preset `release`
	@$(MAKE) --no-print-directory build PRESET=release
	@cmake --install build/release --prefix "$(or $(PREFIX),/usr/local)"

wheel: ## a Python wheel for a published Faiss: FAISS_GPU=1.15.0 FAISS_HEADERS=DIR PYTHON=python3.12
	@cmake/setup/wheel.sh

test-wheel: ## that wheel, made and tested in a fresh environment beside Faiss'
	@cmake/setup/test-wheel.sh

release: ## every wheel, tested, with checksums: FAISS_SOURCES=DIR, which has Faiss' of each version
	@cmake/setup/release.sh

format: ## lay out the C++ code
	@git ls-files -- '*.h' '*.cpp' | xargs clang-format -i

clean: ## remove what was built here; the cached Faiss stays
	@rm -rf build demo dist
