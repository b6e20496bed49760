# Shared by the set-up scripts: how they talk, and how they stop.
# Sourced, never run. Progress goes to standard error, so that a script's
# standard output stays free for the one path it may have to print.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# say TEXT: one line that tells what happens now and, where it is long, how
# long it will take.
say() { printf '==> %s\n' "$*" >&2; }

# die PROBLEM MEND: one line that names what is wrong and what mends it.
die() {
    printf 'error: %s. Mend: %s\n' "$1" "$2" >&2
    exit 1
}

# quietly LOG COMMAND...: runs the command with its output in LOG; shows the
# end of it if the command fails.
quietly() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        printf 'error: failed: %s (whole log: %s)\n' "$*" "$log" >&2
        return 1
    fi
}

# cuda_home: the folder of the CUDA toolkit, or nothing.
cuda_home() {
    local nvcc
    nvcc=$(command -v nvcc || true)
    if [ -n "${CUDA_HOME:-}" ] && [ -x "$CUDA_HOME/bin/nvcc" ]; then
        echo "$CUDA_HOME"
    elif [ -n "$nvcc" ]; then
        dirname "$(dirname "$(readlink -f "$nvcc")")"
    elif [ -x /usr/local/cuda/bin/nvcc ]; then
        echo /usr/local/cuda
    fi
}

# gpu_archs: compute capabilities of the GPUs present ("90" or "80;90"),
# or nothing where none is visible.
gpu_archs() {
    command -v nvidia-smi >/dev/null 2>&1 || return 0
    nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
        grep -E '^[0-9]+\.[0-9]+$' | tr -d . | sort -un | paste -sd';' || true
}

cache_dir="${XDG_CACHE_HOME:-$HOME/.cache}/faiss_ext"

# install_packages NAME...: installs the packages that are missing.
install_packages() {
    command -v apt-get >/dev/null || {
        say "no apt-get here: taking for granted that these are installed: $*"
        return 0
    }
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
            grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "missing system packages: ${missing[*]}" \
        "run 'apt-get install ${missing[*]}' as root"
    say "installing system packages (about 1 minute): ${missing[*]}"
    quietly "$cache_dir/logs/apt-install.log" sh -c \
        'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"' \
        sh "${missing[@]}" ||
        die "apt-get could not install ${missing[*]}" \
            "see the log above; 'apt-get install ${missing[*]}' must work"
}

# virtual_env FOLDER PACKAGE...: a virtual environment in FOLDER with these
# packages from the package index; made anew only when the list changes.
virtual_env() {
    local folder=$1 python=${PYTHON:-python3}
    shift
    local stamp="$folder/installed" wanted
    wanted=$(printf '%s\n' "$@" "$("$python" -c 'import sys; print(sys.version)')")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "Python 3.10 or newer is needed" "set PYTHON to such an interpreter"
    say "installing Python packages into ${folder#"$root"/} (about 1 minute): $*"
    rm -rf "$folder"
    "$python" -m venv "$folder" ||
        die "$python cannot make a virtual environment" \
            "install the package python3-venv"
    quietly "$cache_dir/logs/pip.log" \
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        die "pip could not install: $*" "see the log above"
    printf '%s' "$wanted" >"$stamp"
}
