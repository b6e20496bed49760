#!/usr/bin/env bash
# What fuzzing needs beyond building: clang with libFuzzer, and Hypothesis (in
# the virtual environment of the package without its native part).
#
#   cmake/setup/fuzz.sh

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_packages clang llvm
major=$(clang++ -dumpversion | cut -d. -f1)
install_packages "libclang-rt-$major-dev"
"$root/cmake/setup/cpu-env.sh"
