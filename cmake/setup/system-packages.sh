#!/usr/bin/env bash
# Installs what building and testing needs from the distribution's packages.
#
#   cmake/setup/system-packages.sh
#
# Does nothing, in a fraction of a second, where all of it is there.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(cmake ninja-build g++ make ccache swig patchelf libopenblas-dev libgtest-dev
    python3 python3-dev python3-venv dpkg-dev)

[ -n "$(cuda_home)" ] || die "no CUDA toolkit found (nvcc)" \
    "install CUDA 12 or 13 and put its bin folder on PATH, or set CUDA_HOME"

install_packages "${packages[@]}"
