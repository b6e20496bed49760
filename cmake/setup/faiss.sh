#!/usr/bin/env bash
# Builds Faiss for the GPU from the distribution's own source package, once,
# and prints the folder it is installed in.
#
#   cmake/setup/faiss.sh PYTHON
#
# PYTHON is the interpreter that Faiss' Python module is built for; its NumPy
# must be installed. Environment: CUDA_ARCHS (default: the GPU present, else
# 90), XDG_CACHE_HOME.
#
# Two results are cached, each under a key of everything that shapes it:
#   <cache>/faiss-VERSION-smARCHS-HASH/          library, headers, CMake config
#   <cache>/faiss-VERSION-smARCHS-HASH/python-TAG/   the module `faiss`
# Work happens in a sibling folder `*.building` and is renamed at the end, so
# an interrupted build is never mistaken for a finished one; the next run
# continues it.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python=${1:?usage: faiss.sh PYTHON}
archs=${CUDA_ARCHS:-$(gpu_archs)}
archs=${archs:-90}
cuda=$(cuda_home)
[ -n "$cuda" ] || die "no CUDA toolkit found (nvcc)" \
    "install CUDA 12 or 13 and put its bin folder on PATH, or set CUDA_HOME"
for tool in cmake ninja swig g++ apt-get dpkg-source; do
    command -v "$tool" >/dev/null ||
        die "$tool is not installed" "run 'make setup' as root"
done
export PATH="$cuda/bin:$PATH"

work="$cache_dir/work"
logs="$cache_dir/logs"
mkdir -p "$work" "$logs" 2>/dev/null && [ -w "$cache_dir" ] ||
    die "cannot write to $cache_dir, where Faiss is kept" \
        "set XDG_CACHE_HOME to a folder that you may write to"

# One builder at a time; a second one waits and then finds the result.
exec 9>"$cache_dir/lock"
flock -n 9 || { say "another build of Faiss is running; waiting for it"; flock 9; }

# Prints the folder of the unpacked source. It is unpacked and changed under
# another name, so that what has the right name is whole.
source_package() {
    local apt="$work/apt" unpacking="$work/unpacking" found
    find_source() { find "$1" -maxdepth 1 -type d -name 'faiss-[0-9]*' | sort -V | tail -n 1; }
    found=$(find_source "$work")
    if [ -z "$found" ]; then
        say "getting the source package of Faiss (about 10 seconds)"
        rm -rf "$unpacking"
        mkdir -p "$unpacking"
        private_apt_sources "$apt"
        # With source packages.
        sed -i -E 's/^Types:[[:space:]]*deb[[:space:]]*$/Types: deb deb-src/' \
            "$apt"/sources.d/*.sources 2>/dev/null || true
        sed -i -E '/^deb[[:space:]]/{p;s/^deb/deb-src/}' \
            "$apt/sources.list" "$apt"/sources.d/*.list 2>/dev/null || true
        # A source without source packages fails here without harm: what counts
        # is whether the next step finds Faiss.
        private_apt "$apt" update >"$logs/apt-update.log" 2>&1 || true
        (cd "$unpacking" && quietly "$logs/apt-source.log" private_apt "$apt" source faiss) ||
            die "the distribution has no source package 'faiss'" \
                "point CMAKE_PREFIX_PATH at an installed GPU Faiss"
        found=$(find_source "$unpacking")
        # Debian builds it as C++11; CUDA 13 needs 17, and nothing else changes.
        sed -i 's/set(CMAKE_CXX_STANDARD 11)/set(CMAKE_CXX_STANDARD 17)/' \
            "$found/CMakeLists.txt" "$found/faiss/python/CMakeLists.txt"
        mv "$found" "$work/"
        rm -rf "$unpacking"
        found=$(find_source "$work")
    fi
    echo "$found"
}

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
fi

compiler_key=$(printf '%s\n' "recipe 1" "$archs" "$(g++ -dumpfullversion)" \
    "$(nvcc --version | tail -n 2)" | sha256sum | cut -c1-10)

build_library() { # SOURCE PREFIX
    local source=$1 prefix=$2 building="$2.building"
    say "building Faiss ${source##*-} for CUDA architecture ${archs} (about 8 minutes on 2 cores, once)"
    quietly "$logs/faiss-configure.log" cmake -S "$source" -B "$building/build" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DBUILD_TESTING=OFF \
        -DFAISS_ENABLE_GPU=ON -DFAISS_ENABLE_PYTHON=OFF -DFAISS_OPT_LEVEL=generic \
        -DCMAKE_CUDA_ARCHITECTURES="$archs" -DCMAKE_CUDA_RUNTIME_LIBRARY=Shared \
        -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON \
        -DCMAKE_INSTALL_PREFIX="$building/prefix" "${launcher[@]}"
    quietly "$logs/faiss-build.log" cmake --build "$building/build" --target faiss
    quietly "$logs/faiss-install.log" env DESTDIR= cmake --install "$building/build"
    mv "$building/prefix" "$prefix"
    rm -rf "$building"
}

build_module() { # SOURCE PREFIX MODULE
    local source=$1 prefix=$2 building="$3.building"
    say "building Faiss' Python module (about 2 minutes on 2 cores, once)"
    quietly "$logs/module-configure.log" cmake -S "$source/faiss/python" -B "$building/build" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DFAISS_ENABLE_GPU=ON -Dfaiss_ROOT="$prefix" \
        -DPython_EXECUTABLE="$python" -DCMAKE_BUILD_RPATH='$ORIGIN/../../lib' \
        "${launcher[@]}"
    quietly "$logs/module-build.log" cmake --build "$building/build" --target swigfaiss
    mkdir -p "$building/out/faiss"
    cp -r "$building"/build/{__init__,loader,class_wrappers,gpu_wrappers,extra_wrappers,array_conversions,swigfaiss}.py \
        "$building"/build/_swigfaiss.so "$building/build/contrib" "$building/out/faiss/"
    # Python 3.12 has no distutils, which 1.7.3 compares versions of NumPy with.
    sed -i -e 's/^from distutils.version import LooseVersion$/from numpy.lib import NumpyVersion/' \
        -e 's/LooseVersion(numpy.__version__) >= "1.19"/NumpyVersion(numpy.__version__) >= "1.19.0"/' \
        "$building/out/faiss/loader.py"
    mv "$building/out" "$3"
    rm -rf "$building"
}

source=$(source_package)
prefix="$cache_dir/faiss-${source##*-}-sm${archs//;/_}-$compiler_key"
[ -d "$prefix" ] || build_library "$source" "$prefix"

tag=$("$python" -c 'import sys, numpy; print(sys.implementation.cache_tag + "-numpy" + numpy.__version__.split(".")[0])') ||
    die "$python has no NumPy" "run 'make setup'"
module="$prefix/python-$tag"
[ -d "$module" ] || build_module "$source" "$prefix" "$module"

echo "$prefix"
