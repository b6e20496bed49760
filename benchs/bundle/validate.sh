#!/bin/sh
# Tests and measures faiss_ext on this machine, from this folder alone.
#
#   ./validate.sh OUTDIR [PART...] [--seconds S] [--simulated]
#
# In at most 9 minutes; ./validate.sh --help names the parts. Logs, the record of
# the benchmarks and summary.json go to OUTDIR. Exit status 0 if everything that
# ran passed, 1 if something failed, 3 if nothing could be run.
#
# PYTHON names the interpreter of the Python parts; by default the first one that
# fits is taken.

here=$(cd "$(dirname "$0")" && pwd)
for python in ${PYTHON:-} python3 python3.12 python3.13 python3.11 /usr/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        PYTHONDONTWRITEBYTECODE=1 exec "$python" "$here/validation" "$@"
    fi
done
echo "error: no Python 3.8 or newer, which runs the parts. Fix: install one, or set PYTHON" >&2
exit 2
