#!/usr/bin/env bash
# Fuzzes the native parser, then the Python entry, for SECONDS each. Status 1,
# and the failing input named, if something is found.
#
#   tests/fuzz/run.sh BUILD_DIR SECONDS
#
# New inputs of the native parser go to build/fuzz/corpus; the kept ones are
# tests/fuzz/seeds. Needs the environment of build/setup.env.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
seconds=$2
fuzz=$root/build/fuzz

cd "$root"
echo "==> building the fuzzer of the native parser" >&2
mkdir -p build
cmake --preset fuzz -DCMAKE_PREFIX_PATH="$FAISS_PREFIX" >build/fuzz.configure.log ||
    { cat build/fuzz.configure.log; exit 1; }
cmake --build "$fuzz" --target dlpack_view_fuzz
mkdir -p "$fuzz/corpus" "$fuzz/crashes"
echo "==> the native parser, $seconds seconds" >&2
"$fuzz/tests/fuzz/dlpack_view_fuzz" -max_total_time="$seconds" -max_len=512 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$fuzz/crashes/" \
    "$fuzz/corpus" tests/fuzz/seeds/dlpack_view 2>&1 | tee "$fuzz/native.log" | grep -v '^INFO'

echo "==> the Python entry, $seconds seconds" >&2
cd tests
PYTHONPATH="$build/python:$FAISS_PYTHONPATH:$root/tests/python/native" \
LD_LIBRARY_PATH="$build/cuda_sim" \
LD_PRELOAD="$build/cuda_sim/libcuda_sim_faiss.so" \
FAISS_EXT_BUILD_DIR="$build" PYTHONFAULTHANDLER=1 \
    "$FAISS_EXT_PYTHON" fuzz/fuzz_array_entry.py "$seconds"
