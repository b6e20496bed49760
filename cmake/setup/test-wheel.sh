#!/usr/bin/env bash
# Makes the wheel for a published wheel of Faiss and tests it beside that: in a
# fresh virtual environment with both, the C++ and Python tests on the simulated
# CUDA runtime, and what the import says beside another Faiss. Skips nothing
# because it cannot run; the log, in dist/faiss-gpu-VERSION, names the commit.
#
#   FAISS_GPU=VERSION FAISS_HEADERS=FOLDER cmake/setup/test-wheel.sh
#
# Environment: as faiss-wheel.sh says; JOBS.

. "$(dirname "${BASH_SOURCE[0]}")/faiss-wheel.sh"

log="$out/test-wheel-$tag.log"
rm -f "$log" "$log.part"
commit=$(git rev-parse HEAD)
[ -z "$(git status --porcelain)" ] || commit="$commit, with changes that are not committed"
{
    echo "commit: $commit"
    echo "faiss-gpu: $version"
    echo "Python: $("$python" -V)"
    echo "date: $(date -u +%FT%TZ)"
} | tee "$log.part"
wheel=$(cmake/setup/wheel.sh)
echo "wheel: $(basename "$wheel"), sha256 $(sha256sum "$wheel" | cut -d' ' -f1)" | tee -a "$log.part"

say "building the tests beside faiss-gpu $version (about 8 minutes on 2 cores the first time)"
build="$work/ci"
quietly "$logs/configure.log" cmake --preset ci -B "$build" "${options[@]}" \
    -DPython_EXECUTABLE="$python" -DCMAKE_CUDA_ARCHITECTURES=90
quietly "$logs/build.log" cmake --build "$build" -j "${JOBS:-$(nproc)}"

say "installing both into a fresh environment"
venv="$work/venv"
rm -rf "$venv"
"$interpreter" -m venv "$venv"
quietly "$logs/venv.log" "$venv/bin/python" -m pip install --disable-pip-version-check \
    --prefer-binary "faiss-gpu==$version" "$wheel" pytest hypothesis scikit-learn matplotlib \
    'mypy==2.4.*'
quietly "$logs/check.log" "$venv/bin/python" -m pip check

cmake/setup/tools-env.sh
status=0
FAISS_EXT_PYTHON="$venv/bin/python" FAISS_PYTHONPATH="$build/cuda_sim/wheels" \
    tests/run_tests.py "$build" --installed --only sim --only python --only libraries 2>&1 |
    tee "$logs/tests.log" || status=1
"$python" tests/wheel/beside_others.py "$interpreter" "$wheel" "$version" "$headers" "$build" "$cuda" 2>&1 |
    tee "$logs/beside_others.log" || status=1
{
    grep -E '^    [a-z]+: [0-9]+ passed' "$logs/tests.log" || true
    tail -n 1 "$logs/beside_others.log"
    [ $status = 0 ] && echo "result: passed" || echo "result: FAILED"
} | tee -a "$log.part"
mv "$log.part" "$log"
say "${log#"$root"/}"
exit $status
