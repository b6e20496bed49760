#!/usr/bin/env bash
# Makes dist/faiss_ext-VERSION-gpu-host.tar.gz: everything that a machine with a
# GPU, and without a network or compilers, needs to test and to measure this
# project. README.md beside this script tells what is in it.
#
#   benchs/bundle/make_bundle.sh
#
# Environment: PYTHONS, one or more interpreters (default: PYTHON, or those of
# 3.11 to 3.13 that are installed), each of which gets its modules in the archive;
# JOBS.
# FAISS_PREFIX, FAISS_PYTHONPATH come from build/setup.env.

# Read as a whole before it runs, so that an edit meanwhile does no harm.
{

. "$(dirname "${BASH_SOURCE[0]}")/../../cmake/setup/common.sh"
cd "$root"
. build/setup.env
jobs=${JOBS:-$(nproc)}
build="$root/build/bundle"
version=$(cat VERSION)
name="faiss_ext-$version-gpu-host"
stage="$build/$name"
limit_mb=60

# interpreters: the paths of those that PYTHON names, or that are there.
interpreters() {
    local candidate
    for candidate in ${PYTHONS:-${PYTHON:-python3.12 python3.13 python3.11}}; do
        if "$candidate" -c '' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
        elif [ -n "${PYTHONS:-${PYTHON:-}}" ]; then
            die "$candidate does not run" "name interpreters that do, as PYTHONS='python3.11 python3.12'"
        fi
    done
}

launcher=()
! command -v ccache >/dev/null || launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache
    -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)

configure() { # FOLDER OPTION...
    local folder=$1
    shift
    quietly "$folder.configure.log" cmake --preset bundle -B "$folder" \
        -U faiss_DIR -DCMAKE_PREFIX_PATH="$FAISS_PREFIX" "${launcher[@]}" "$@"
}

# The libraries, the simulator, the benchmarks and the tests that run on a GPU.
gpu_tests() { # EXPRESSION: of each test with the label gpu, as Python has it
    ctest --test-dir "$build/cpp" --show-only=json-v1 -L '^gpu$' |
        "$FAISS_EXT_PYTHON" -c "import json, sys
for test in json.load(sys.stdin)['tests']: print($1)"
}
say "building libraries and test programs (about 4 minutes on 2 cores the first time)"
configure "$build/cpp" -DFAISS_EXT_BUILD_PYTHON=OFF
# A test is named after its program; where that lies is known once it is there.
mapfile -t targets < <(gpu_tests 'test["name"].removeprefix("gpu.")')
quietly "$build/cpp.log" cmake --build "$build/cpp" -j "$jobs" --target \
    faiss_ext_gpu faiss_ext_benchs cuda_sim_cudart cuda_sim_cublas cuda_sim_faiss \
    "${targets[@]}"
mapfile -t programs < <(gpu_tests 'test["command"][0]')

rm -rf "$stage"
mkdir -p "$stage"/{lib/fallback,simulator,tests/bin,benchs}
faiss=
for folder in ${FAISS_PREFIX//[:;]/ }; do
    for library in "$folder"/lib{,64}/libfaiss.so; do
        [ ! -f "$library" ] || faiss=$library
    done
done
[ -n "$faiss" ] || die "no libfaiss.so in $FAISS_PREFIX" "build Faiss with BUILD_SHARED_LIBS=ON"
cp -L "$build/cpp/gpu/libfaiss_ext_gpu.so.${version%.*}" "$faiss" \
    "$build/cpp/benchs/cpp/libfaiss_ext_benchs.so" "$stage/lib/"
cp "${programs[@]}" "$stage/tests/bin/"
for library in "$build"/cpp/cuda_sim/*.so*; do
    # Under the name that programs ask for.
    cp -L "$library" "$stage/simulator/"
done

# What these need and CUDA, glibc and the kernel do not give. The C++ runtime is
# carried apart: the host's own is taken where it is new enough.
while read -r name_asked _ library _; do
    case $name_asked in
        libcu* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux*) ;;
        libfaiss*) ;; # there already
        libstdc++.so.* | libgcc_s.so.*) cp -L "$library" "$stage/lib/fallback/" ;;
        *)
            [ -f "$library" ] || die "$name_asked is not found, which the bundle needs" \
                "install the package that has it"
            cp -L "$library" "$stage/lib/"
            ;;
    esac
done < <(LD_LIBRARY_PATH="$stage/lib" ldd "$stage"/lib/*.so* "$stage"/tests/bin/* |
    grep -F ' => ' | sort -u)

tags=()
found=$(interpreters) || exit 1
for python in $found; do
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    PYTHON=$python virtual_env "$root/.cache/bundle-$tag" numpy
    venv="$root/.cache/bundle-$tag/bin/python"
    if [ -n "${CMAKE_PREFIX_PATH:-}" ]; then
        module=$FAISS_PYTHONPATH
        PYTHONPATH=$module "$venv" -c 'import faiss' ||
            die "the Faiss at $FAISS_PREFIX has no Python module for $python" \
                "make the bundle with the interpreter that it was built for: PYTHONS=..."
    else
        prefix=$(cmake/setup/faiss.sh "$venv")
        module="$prefix/python-$("$venv" -c 'import sys, numpy
print(sys.implementation.cache_tag + "-numpy" + numpy.__version__.split(".")[0])')"
    fi
    say "building the module for $tag (about 1 minute)"
    configure "$build/$tag" -DFAISS_EXT_BUILD_TESTS=OFF -DPython_EXECUTABLE="$venv"
    quietly "$build/$tag.log" cmake --build "$build/$tag" -j "$jobs" --target swigfaiss_ext
    mkdir -p "$stage/python-$tag"
    cp -rL "$module/faiss" "$build/$tag/python/faiss_ext" "$stage/python-$tag/"
    cp VERSION "$stage/python-$tag/"
    tags+=("$tag")
done
[ ${#tags[@]} -gt 0 ] || die "no Python of 3.11 to 3.13 is installed" "name one: PYTHONS=..."

# Pure Python, each used where the host has none.
for package in pytest tqdm; do
    quietly "$build/$package.log" "$root/.cache/bundle-${tags[0]}/bin/python" -m pip install \
        --disable-pip-version-check --no-compile --upgrade \
        --target "$build/site/$package" "$package"
done
cp -r "$build/site" "$stage/site"
rm -rf "$stage"/site/*/bin

mkdir -p "$stage/tests/python/native"
cp -r tests/python/gpu_libraries "$stage/tests/python/"
cp tests/python/native/{dlpack_capsules,exchange_tables}.py "$stage/tests/python/native/"
cp -r benchs/{run.py,measure,cases} "$stage/benchs/"
cp benchs/bundle/{validate.sh,README.md} LICENSE "$stage/"
cp -r benchs/bundle/validation "$stage/"
find "$stage" -name __pycache__ -prune -exec rm -rf {} +
find "$stage" -type f \( -name '*.so*' -o -path '*/tests/bin/*' \) \
    -exec sh -c 'case $(head -c4 "$1") in *ELF) strip --strip-unneeded "$1" ;; esac' sh {} \;

needed() { # NAME: the newest symbol version of NAME_ that anything here needs
    find "$stage" -type f \( -name '*.so*' -o -path '*/tests/bin/*' \) -not -path '*/fallback/*' \
        -exec objdump -T {} + 2>/dev/null | grep -oE "\b$1_[0-9.]+" | sort -uV | tail -n 1
}
cat >"$stage/MANIFEST.json" <<END
{
 "version": "$version",
 "commit": "$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)",
 "faiss": "$(basename "$(dirname "$(dirname "$faiss")")")",
 "cuda_major": "$(objdump -p "$stage/lib/libfaiss.so" | sed -n 's/.*NEEDED.*libcudart\.so\.//p')",
 "glibc": "$(needed GLIBC)",
 "libstdcxx": "$(needed GLIBCXX)",
 "pythons": [$(printf '"%s", ' "${tags[@]}" | sed 's/, $//')],
 "programs": [$(printf '"%s", ' "${programs[@]##*/}" | sed 's/, $//')]
}
END

mkdir -p dist
archive="dist/$name.tar.gz"
say "packing $archive"
tar -C "$build" --owner=0 --group=0 --sort=name -cf - "$name" | gzip -9 >"$archive.part"
mv "$archive.part" "$archive"
mb=$(($(stat -c %s "$archive") / 1000000))
[ "$mb" -lt "$limit_mb" ] ||
    die "$archive has $mb MB; less than $limit_mb are allowed" "carry fewer Pythons: PYTHONS=python3.12"
say "$archive: $mb MB, for ${tags[*]}"
exit
}
