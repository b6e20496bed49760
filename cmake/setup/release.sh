#!/usr/bin/env bash
# Makes a release of what is committed: for each published wheel of Faiss and each
# Python a wheel of ours, tested beside it, and the source distribution; with bills
# of materials and checksums. All of it in dist/VERSION.
#
#   FAISS_SOURCES=FOLDER cmake/setup/release.sh
#
# FOLDER/V holds Faiss' sources at the tag of each V of FAISS_GPUS. Environment:
# FAISS_GPUS, PYTHONS (default: below). A wheel that test-wheel.sh has passed on this
# commit is taken as it is; without the log of one, there is no release.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

version=$(cat VERSION)
commit=$(git rev-parse HEAD)
read -ra faiss_versions <<<"${FAISS_GPUS:-1.14.3 1.15.0 1.15.1}"
read -ra pythons <<<"${PYTHONS:-python3.10 python3.11 python3.12 python3.13 python3.14}"
sources=${FAISS_SOURCES:-}
release="$root/dist/$version"

[ -z "$(git status --porcelain)" ] ||
    die "there are changes that are not committed" "commit them, or put them aside"
grep -q "^## $version\b" CHANGELOG.md ||
    die "CHANGELOG.md has no entry for $version" "write '## $version', or set VERSION"
for faiss in "${faiss_versions[@]}"; do
    [ -f "$sources/$faiss/faiss/Index.h" ] ||
        die "there is no faiss/Index.h in '$sources/$faiss'" \
            "set FAISS_SOURCES to a folder with Faiss' sources of ${faiss_versions[*]}, or FAISS_GPUS to those that it has"
done
for python in "${pythons[@]}"; do
    command -v "$python" >/dev/null || die "$python is not installed" "install it, or set PYTHONS"
done

# has_passed LOG: whether it is of this commit, and of the wheel beside it.
has_passed() {
    [ -f "$1" ] && grep -qx "commit: $commit" "$1" && grep -qx 'result: passed' "$1" || return 1
    local name sum
    read -r name sum < <(sed -nE 's/^wheel: (.*), sha256 ([0-9a-f]+)$/\1 \2/p' "$1")
    echo "$sum  $(dirname "$1")/$name" | sha256sum --check --status
}

virtual_env "$root/.cache/release-venv" cyclonedx-bom build wheel
tools="$root/.cache/release-venv/bin"
rm -rf "$release"
mkdir -p "$release"
for faiss in "${faiss_versions[@]}"; do
    made="dist/faiss-gpu-$faiss"
    for python in "${pythons[@]}"; do
        tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
        log="$made/test-wheel-$tag.log"
        if ! has_passed "$log"; then
            say "the wheel for faiss-gpu $faiss and $tag"
            FAISS_GPU=$faiss FAISS_HEADERS="$sources/$faiss" PYTHON=$python cmake/setup/test-wheel.sh
        fi
        has_passed "$log" || die "$log does not say that the wheel of $commit passed" \
            "make test-wheel FAISS_GPU=$faiss FAISS_HEADERS=$sources/$faiss PYTHON=$python"
        wheel=$made/$(sed -nE 's/^wheel: (.*), sha256 .*/\1/p' "$log")
        mkdir -p "$release/faiss-gpu-$faiss"
        cp "$wheel" "$log" "$release/faiss-gpu-$faiss/"
        # What is installed with it; of others' code it holds none.
        unzip -p "$wheel" '*.dist-info/METADATA' |
            sed -nE '/extra ==/!s/^Requires-Dist: //p' |
            "$tools/cyclonedx-py" requirements --of JSON \
                -o "$release/faiss-gpu-$faiss/$(basename "$wheel" .whl).cdx.json" -
    done
done
quietly "$cache_dir/logs/sdist.log" "$tools/python" -m build --sdist --outdir "$release" .
(cd "$release" && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum >SHA256SUMS)
say "${release#"$root"/}: $(find "$release" -name '*.whl' | wc -l) wheels"
