#!/usr/bin/env bash
# What fuzzing needs beyond building: clang with libFuzzer.
#
#   cmake/setup/fuzz.sh

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_packages clang llvm
major=$(clang++ -dumpversion | cut -d. -f1)
install_packages "libclang-rt-$major-dev"
