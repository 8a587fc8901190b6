#!/usr/bin/env bash
# Set-up for Debian 12 / Ubuntu 22.04 and later: system packages, libtorch, weights, demo recording.
# Safe to run again at any time: it does only what is missing. Usage: scripts/setup.sh [--cuda] [--verify]
# Exit codes: 0 all is there, 1 something failed, 2 wrong usage, 3 packages are missing that only root can install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PACKAGES=(
    ca-certificates pkg-config g++ python3-pip
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-tools
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
    gstreamer1.0-libav gstreamer1.0-x gstreamer1.0-gl
)
RUST_MINIMUM=1.92
PYTHON=${PYTHON:-python3}

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

# True where version $1 is at least version $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_tools() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "Python 3.10 or later is needed, as $PYTHON (PYTHON=... names another one)"
    command -v cargo >/dev/null ||
        fail "Rust is missing: install Rust $RUST_MINIMUM or later with rustup (https://rustup.rs), then run this again"
    local rust
    rust=$(rustc --version | cut -d ' ' -f 2)
    at_least "$rust" "$RUST_MINIMUM" ||
        fail "Rust $rust is too old: $RUST_MINIMUM or later is needed (rustup update stable)"
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        # A Python from elsewhere may bring its own pip.
        if [ "$package" = python3-pip ] && "$PYTHON" -m pip --version >/dev/null 2>&1; then
            continue
        fi
        if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
            printf '%s\n' "$package"
        fi
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        # Not a Debian: the packages have other names, what they have to bring is the same.
        pkg-config --exists 'gstreamer-1.0 >= 1.20' gstreamer-app-1.0 gstreamer-video-1.0 2>/dev/null ||
            fail "GStreamer 1.20 or later with its development files and pkg-config is needed" \
                "this system has no apt; on Debian 12 and Ubuntu the packages are: ${PACKAGES[*]}"
        command -v g++ >/dev/null || fail "a C++ compiler is needed (g++)"
        echo "ok       GStreamer $(pkg-config --modversion gstreamer-1.0) (not from apt)"
        return
    fi
    local missing
    mapfile -t missing < <(missing_packages)
    if [ "${#missing[@]}" -eq 0 ]; then
        echo "ok       system packages (GStreamer $(pkg-config --modversion gstreamer-1.0))"
        return
    fi
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            root=(sudo -n)
        elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 1 ]; then
            root=(sudo) # asks for the password on this terminal
        else
            echo "error: ${#missing[@]} system packages are missing and there is neither root nor sudo here to install them." >&2
            echo "As root, run the next line, then repeat your make command:" >&2
            echo "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 3
        fi
    fi
    echo "installing ${#missing[@]} system packages: ${missing[*]}"
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

fetch_options=()
for option in "$@"; do
    case $option in
        --cuda | --verify) fetch_options+=("$option") ;;
        *)
            echo "usage: scripts/setup.sh [--cuda] [--verify]" >&2
            exit 2
            ;;
    esac
done

check_tools
install_packages
"$PYTHON" -B scripts/fetch.py "${fetch_options[@]}" libtorch weights demo
