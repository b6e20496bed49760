#!/usr/bin/env bash
# Makes the virtual environment of what reads the Python code without running it:
# a type checker beside mypy (pyright, in the packaging that brings its own Node),
# and ruff. Versions are named: each new one finds more.
#
#   cmake/setup/tools-env.sh

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

virtual_env "$root/.cache/tools-venv" 'basedpyright==1.40.*' 'ruff==0.17.*'
