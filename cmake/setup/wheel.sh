#!/usr/bin/env bash
# Makes the wheel that is installed beside a published wheel of Faiss, looks into
# it, and prints its path, in dist/faiss-gpu-VERSION.
#
#   FAISS_GPU=VERSION FAISS_HEADERS=FOLDER cmake/setup/wheel.sh
#
# Environment: as faiss-wheel.sh says; CUDA_ARCHS (default: all that the wheel is
# for, and PTX for later ones); JOBS.

. "$(dirname "${BASH_SOURCE[0]}")/faiss-wheel.sh"

archs=${CUDA_ARCHS:-75-real;80-real;86-real;89-real;90}
rm -rf "$work"/{build,plain,unpacked,named,whole}
mkdir -p "$work"/{plain,unpacked,named,whole}

say "building the wheel for faiss-gpu $version, $tag (about 4 minutes on 2 cores)"
# In a folder that has the same name each time: a compiler's cache then knows what
# is compiled again, above all the C++ library for another Python.
settings=("--config-settings=build-dir=$work/build")
for option in "${options[@]}" "-DCMAKE_CUDA_ARCHITECTURES=$archs" "-DPython_EXECUTABLE=$python"; do
    settings+=("--config-settings=cmake.define.${option#-D}")
done
CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)} \
    quietly "$logs/wheel.log" "$python" -m pip wheel --disable-pip-version-check --no-deps \
    --wheel-dir "$work/plain" . "${settings[@]}"

# It needs that very Faiss; and nobody who has it wants the extra `cpu`, which
# would install another one over it.
quietly "$logs/unpack.log" "$python" -m wheel unpack -d "$work/unpacked" "$work"/plain/*.whl
metadata=$(echo "$work"/unpacked/*/*.dist-info/METADATA)
sed -i -E -e '/^Provides-Extra: cpu$/d' -e '/^Requires-Dist: .*extra == .cpu.$/d' \
    -e "0,/^Requires-Dist:/s//Requires-Dist: faiss-gpu==$version\n&/" "$metadata"
quietly "$logs/pack.log" "$python" -m wheel pack -d "$work/named" "$work"/unpacked/*

quietly "$logs/auditwheel.log" "$(dirname "$python")/auditwheel" repair --strip --wheel-dir "$work/whole" \
    --exclude libfaiss.so --exclude 'libcudart.so.*' --exclude 'libcublas.so.*' "$work"/named/*.whl
wheel=$(echo "$work"/whole/*.whl)
"$python" tests/wheel/check_wheel.py "$wheel" "$version" "$cuda"
rm -f "$out"/faiss_ext-*-"$tag-$tag"-*.whl
mv "$wheel" "$out/"
wheel="$out/$(basename "$wheel")"
say "${wheel#"$root"/}, $(du -h "$wheel" | cut -f1)"
echo "$wheel"
