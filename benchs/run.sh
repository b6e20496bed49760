#!/usr/bin/env bash
# benchs/run.py with the libraries of a build folder; with --smoke on the
# simulated CUDA runtime.
#
#   benchs/run.sh BUILD_DIR [ARGUMENT...]
#
# Environment: FAISS_EXT_PYTHON, FAISS_PYTHONPATH (build/setup.env).

set -euo pipefail
build=$(cd "$1" && pwd)
shift
export FAISS_EXT_BUILD_DIR="$build"
export PYTHONPATH="$build/python:${FAISS_PYTHONPATH:-}"
here=$(dirname "${BASH_SOURCE[0]}")
case " $* " in
    *" --smoke "*)
        # Strict: what the benchmarks do is checked for races, too.
        export LD_LIBRARY_PATH="$build/cuda_sim" CUDA_SIM_STRICT=1
        exec env LD_PRELOAD="$build/cuda_sim/libcuda_sim_faiss.so" \
            "$FAISS_EXT_PYTHON" "$here/run.py" "$@"
        ;;
esac
exec "$FAISS_EXT_PYTHON" "$here/run.py" "$@"
