#!/usr/bin/env bash
# Makes the virtual environment of the demo that needs no GPU and no compiler,
# once, and prints its interpreter.
#
#   cmake/setup/demo-env.sh
#
# Environment: PYTHON (default: python3), 3.10 or newer. It lies in
# .cache/demo-venv inside the tree; a stamp, written last, names everything
# that shapes it, so that an interrupted or outdated one is made again.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(faiss-cpu numpy scikit-learn matplotlib tqdm)
venv="$root/.cache/demo-venv"
log="$root/.cache/demo-venv.log"

# install_from_distribution PACKAGE...: from the distribution, where that is possible.
install_from_distribution() {
    [ "$(id -u)" = 0 ] && [ "$python" = python3 ] && command -v apt-get >/dev/null || return 1
    say "installing $* with apt-get (about 20 seconds)"
    quietly "$log" apt-get install -y --no-install-recommends "$@" ||
        { quietly "$log" apt-get update &&
            quietly "$log" apt-get install -y --no-install-recommends "$@"; }
}

python=${PYTHON:-python3}
has_python() { command -v "$python" >/dev/null; }
# Debian keeps what makes an environment in a package of its own.
has_venv() { "$python" -c 'import venv, ensurepip' 2>/dev/null; }

has_python || { install_from_distribution python3 python3-venv && has_python; } ||
    die "$python is not installed" "install Python 3.10 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$python is $("$python" -V 2>&1), expected Python 3.10 or newer" "set PYTHON"

stamp="$("$python" -c 'import sys; print(sys.version, sys.executable)')
$root
${packages[*]}"
up_to_date() {
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ] && "$venv/bin/python" -c ''
}

mkdir -p "$root/.cache"
exec 9>"$root/.cache/demo-venv.lock"
flock -n 9 || { say "another set-up of the demo is running; waiting for it"; flock 9; }

if ! up_to_date; then
    has_venv || { install_from_distribution python3-venv && has_venv; } ||
        die "$python cannot make virtual environments" \
            "as root, 'apt-get install python3-venv', or set PYTHON to another one"
    say "getting ${packages[*]} for the demo (about 30 seconds, once)"
    rm -rf "$venv"
    quietly "$log" "$python" -m venv "$venv"
    quietly "$log" "$venv/bin/python" -m pip install --disable-pip-version-check \
        --prefer-binary "${packages[@]}" ||
        die "pip cannot install the packages of the demo" \
            "check that pip reaches a package index, then run this again"
    "$venv/bin/python" -c 'import faiss, sklearn, matplotlib, tqdm' 2>>"$log" ||
        die "the packages of the demo do not work (see $log)" "set PYTHON to another one"
    printf '%s\n' "$stamp" >"$venv/stamp"
fi
echo "$venv/bin/python"
