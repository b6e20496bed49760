#!/usr/bin/env bash
# Everything that building and testing needs, in order: system packages, the
# virtual environment .cache/venv, Faiss. Writes what it found to build/setup.env.
#
#   cmake/setup/development.sh
#
# With CMAKE_PREFIX_PATH set, the Faiss there is taken and none is built; its
# Python module must then be importable by that environment's interpreter (PYTHONPATH), or
# lie in <prefix>/python-TAG.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
here="$root/cmake/setup"

"$here/system-packages.sh"
virtual_env "$root/.cache/venv" numpy tqdm pytest hypothesis scikit-learn matplotlib 'mypy==2.4.*'
python="$root/.cache/venv/bin/python"

if [ -n "${CMAKE_PREFIX_PATH:-}" ]; then
    prefix=${CMAKE_PREFIX_PATH//:/;}
    IFS=';' read -ra folders <<<"$prefix"
    found=
    for folder in "${folders[@]}"; do
        [ -z "$(find -L "$folder"/{lib,lib64,share} -maxdepth 4 -name faiss-config.cmake -print -quit 2>/dev/null)" ] ||
            found=$folder
    done
    [ -n "$found" ] || die "no Faiss in CMAKE_PREFIX_PATH=$CMAKE_PREFIX_PATH" \
        "name the folder that Faiss is installed in, or unset it to build Faiss"
    say "using the Faiss at $found"
else
    prefix=$("$here/faiss.sh" "$python")
fi
tag=$("$python" -c 'import sys, numpy; print(sys.implementation.cache_tag + "-numpy" + numpy.__version__.split(".")[0])')
module=${PYTHONPATH:-}
for folder in ${prefix//[:;]/ }; do
    [ ! -d "$folder/python-$tag" ] || module="$folder/python-$tag"
done

mkdir -p "$root/build"
cat >"$root/build/setup.env" <<END
export FAISS_EXT_PYTHON='$python'
export FAISS_PREFIX='$prefix'
export FAISS_PYTHONPATH='$module'
export CUDACXX='$(cuda_home)/bin/nvcc'
export CUDAToolkit_ROOT='$(cuda_home)'
END
