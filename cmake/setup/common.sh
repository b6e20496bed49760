# Shared by the set-up scripts: how they talk, and how they stop.
# Sourced, never run. Progress goes to standard error, so that a script's
# standard output stays free for the one path it may have to print.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# say TEXT: one line that tells what happens now and, where it is long, how
# long it will take.
say() { printf '==> %s\n' "$*" >&2; }

# die PROBLEM FIX: one line that names what is wrong and what fixes it.
die() {
    printf 'error: %s. Fix: %s\n' "$1" "$2" >&2
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

home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
cache_dir="${XDG_CACHE_HOME:-$home/.cache}/faiss_ext"

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

# private_apt_sources FOLDER: begins a state for apt in FOLDER, with a copy of
# the machine's sources, which may then be changed.
private_apt_sources() {
    rm -rf "$1"
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/sources.d"
    : >"$1/sources.list"
    [ ! -f /etc/apt/sources.list ] || cp /etc/apt/sources.list "$1/"
    find /etc/apt/sources.list.d -maxdepth 1 \( -name '*.sources' -o -name '*.list' \) \
        -exec cp {} "$1/sources.d/" \;
}

# private_apt FOLDER ARGUMENT...: apt-get with that state; the machine's own
# lists and caches are not touched.
private_apt() {
    local state=$1
    shift
    apt-get -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" \
        -o Dir::Etc::sourcelist="$state/sources.list" \
        -o Dir::Etc::sourceparts="$state/sources.d" -o APT::Sandbox::User=root "$@"
}

# virtual_env FOLDER PACKAGE...: a virtual environment in FOLDER with these
# packages, by PYTHON (default: python3, installed if need be). A stamp, written
# last, names everything that shapes it, so that an interrupted or outdated one
# is made again.
virtual_env() {
    local folder=$1 python=${PYTHON:-python3} log=$1.log stamp
    shift
    [ -n "${PYTHON:-}" ] || "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        install_packages python3 python3-venv
    command -v "$python" >/dev/null ||
        die "$python is not installed" "install Python 3.10 or newer, or set PYTHON"
    [[ $("$python" -V 2>&1) == Python* ]] || die "$python is no Python interpreter" "set PYTHON to one"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$python is $("$python" -V 2>&1), expected Python 3.10 or newer" "set PYTHON"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python cannot make virtual environments" \
            "as root, 'apt-get install python3-venv', or set PYTHON to another one"

    stamp="$("$python" -c 'import sys; print(sys.version, sys.executable)')
$folder
$*"
    mkdir -p "$(dirname "$folder")"
    (
        exec 8>"$folder.lock"
        flock -n 8 || { say "another set-up of ${folder#"$root"/} is running; waiting for it"; flock 8; }
        if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] && "$folder/bin/python" -c ''; then
            exit 0
        fi
        say "getting Python packages into ${folder#"$root"/} (about 30 seconds, once): $*"
        rm -rf "$folder"
        quietly "$log" "$python" -m venv "$folder"
        quietly "$log" "$folder/bin/python" -m pip install --disable-pip-version-check \
            --prefer-binary "$@" ||
            die "pip cannot install $*" \
                "check that pip reaches a package index, then run this again"
        printf '%s\n' "$stamp" >"$folder/stamp"
    )
}
