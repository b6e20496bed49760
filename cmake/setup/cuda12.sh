#!/usr/bin/env bash
# Finds a CUDA 12 toolkit, or assembles one that compiles and links, and prints
# its folder. The wheels of Faiss are built with CUDA 12, and the headers of
# another major version describe other structures.
#
#   cmake/setup/cuda12.sh
#
# Environment: CUDA_HOME (a toolkit to take, if it is of CUDA 12). What is
# assembled is kept in the cache: the compiler of Debian's package, unpacked and
# not installed, and headers and the runtime of wheels. It has no cuBLAS to link
# to, no static libraries and no tools beside the compiler.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

toolkit=$(cuda_home)
if [ -n "$toolkit" ] && "$toolkit/bin/nvcc" --version | grep -q 'release 12\.'; then
    echo "$toolkit"
    exit
fi

# Compiler and headers are of one version. The last line is CUDA's C++ library,
# which serves all of CUDA 12 and whose first wheel is of 12.9.
wheels=(
    nvidia-cuda-runtime-cu12==12.4.127
    nvidia-cuda-nvcc-cu12==12.4.131
    nvidia-cuda-profiler-api-cu12==12.4.127
    nvidia-nvtx-cu12==12.4.127
    nvidia-cublas-cu12==12.4.5.8
    nvidia-cuda-cccl-cu12==12.9.27
)
# The Debian whose package `nvidia-cuda-toolkit` is of that version.
suite=trixie

toolkit="$cache_dir/cuda-12.4"
mkdir -p "$cache_dir/logs"
exec 9>"$toolkit.lock"
flock -n 9 || { say "another set-up of CUDA 12 is running; waiting for it"; flock 9; }
if [ -d "$toolkit" ]; then
    echo "$toolkit"
    exit
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    die "no CUDA 12 toolkit found, and no apt-get to get its compiler with" \
        "install CUDA 12 and set CUDA_HOME to its folder"
work="$cache_dir/work/cuda12"
apt="$work/apt"
building="$toolkit.building"
rm -rf "$work" "$building"
mkdir -p "$work/package" "$building"/{bin,include,lib64,nvvm/bin}

say "getting a CUDA 12.4 compiler and headers (500 MB, about 2 minutes, once)"
private_apt_sources "$apt"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || die "no release of Debian is named in /etc/os-release" \
    "install CUDA 12 and set CUDA_HOME to its folder"
# The machine's own sources for that release, with the section the package is in.
sed -i -E "/^Suites:/s/\b$codename\b/$suite/g; /^Components:/s/\$/ non-free/" \
    "$apt"/sources.d/*.sources 2>/dev/null || true
sed -i -E "/^deb[[:space:]]/{s/\b$codename\b/$suite/g;s/\$/ non-free/}" \
    "$apt/sources.list" "$apt"/sources.d/*.list 2>/dev/null || true
# A source that has no such release fails here without harm: what counts is
# whether the next step finds the package.
private_apt "$apt" update >"$cache_dir/logs/cuda12-update.log" 2>&1 || true
(cd "$work" && quietly "$cache_dir/logs/cuda12-download.log" \
    private_apt "$apt" download nvidia-cuda-toolkit) ||
    die "no package nvidia-cuda-toolkit in the machine's sources for $suite" \
        "install CUDA 12 and set CUDA_HOME to its folder"
dpkg-deb -x "$work"/nvidia-cuda-toolkit_*.deb "$work/package"
virtual_env "$work/venv" "${wheels[@]}"

package="$work/package/usr"
compiler="$package/lib/nvidia-cuda-toolkit"
cp -r "$compiler/bin/nvcc" "$compiler/bin/crt" "$building/bin/"
cp "$package"/bin/{bin2c,cudafe++,cuobjdump,fatbinary,nvlink,ptxas} "$building/bin/"
cp "$compiler/bin/cicc" "$building/nvvm/bin/"
cp -r "$compiler/libdevice" "$building/nvvm/"
cat >"$building/bin/nvcc.profile" <<'END'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(_HERE_):$(TOP)/nvvm/bin:
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64" $(_SPACE_)
END
for folder in "$work"/venv/lib/python*/site-packages/nvidia/*/include; do
    cp -r "$folder"/. "$building/include/"
done
cp "$work"/venv/lib/python*/site-packages/nvidia/cuda_runtime/lib/libcudart.so.12 "$building/lib64/"
ln -s libcudart.so.12 "$building/lib64/libcudart.so"
# What nvcc links a program to unless it is told otherwise, as CMake does when
# it tries the compiler.
echo 'INPUT(libcudart.so)' >"$building/lib64/libcudart_static.a"
ar rc "$building/lib64/libcudadevrt.a"

echo '__global__ void set(int* x) { *x = 1; } int main() { set<<<1, 1>>>(nullptr); }' >"$work/try.cu"
quietly "$cache_dir/logs/cuda12-try.log" "$building/bin/nvcc" -std=c++17 -o "$work/try" "$work/try.cu" ||
    die "the CUDA 12 compiler does not work with $(g++ --version | head -n 1)" \
        "install CUDA 12 and set CUDA_HOME to its folder"
mv "$building" "$toolkit"
rm -rf "$work"
echo "$toolkit"
