#!/usr/bin/env bash
# Makes the virtual environment of the package without its native part, on a
# released CPU Faiss: for the demo where there is no GPU, and for its tests.
# Needs no compiler.
#
#   cmake/setup/cpu-env.sh

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

virtual_env "$root/.cache/cpu-venv" \
    faiss-cpu numpy scikit-learn matplotlib tqdm pytest hypothesis \
    scikit-build-core 'mypy==2.4.*'
