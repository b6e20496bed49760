#!/usr/bin/env bash
# The demo, set up for what this machine has: with a GPU in sight, or GPU=1, the
# GPU library is built for it; otherwise a released CPU Faiss does the work.
#
#   cmake/setup/demo.sh [ARGUMENT...]     arguments go to examples/digits.py

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

if [ -n "$(gpu_archs)" ] || [ "${GPU:-0}" = 1 ]; then
    make --no-print-directory build PRESET=release
    . build/setup.env
    export PYTHONPATH="$root/build/release/python:$FAISS_PYTHONPATH"
    python=$FAISS_EXT_PYTHON
else
    say "no GPU in sight: the demo runs on Faiss' CPU index (GPU=1 builds the GPU library all the same)"
    cmake/setup/cpu-env.sh
    export PYTHONPATH="$root"
    python="$root/.cache/cpu-venv/bin/python"
fi
exec "$python" examples/digits.py --out demo "$@"
