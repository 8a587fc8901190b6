#!/usr/bin/env bash
# cargo-deny over the dependency tree: bans, licences, sources, and advisories where their database can be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Built from its authors' own release on crates.io, whose lock file has the checksums of all it is made of. Not
# optimised: the check takes two seconds even so.
VERSION=0.20.2
root=$PWD/.cache/cargo-deny-$VERSION

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    deny=$root/bin/cargo-deny
    if [ ! -x "$deny" ]; then
        echo "building cargo-deny $VERSION, once: about two minutes of CPU time"
        # From elsewhere: this repository's settings for cargo are not meant for it.
        (cd / && env -u CARGO_TARGET_DIR -u LIBTORCH CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --quiet --locked --debug --no-track --root "$root" "cargo-deny@$VERSION")
    fi
fi
"$deny" --locked check --hide-inclusion-graph bans licenses sources

# Its database is a git repository on GitHub: out of reach is not the same as clean, so it is said.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if "$deny" --locked fetch >"$log" 2>&1; then
    "$deny" --locked check --hide-inclusion-graph --disable-fetch advisories
else
    echo "advisories SKIPPED, nothing was checked: the advisory database could not be fetched"
    sed 's/^/    /' "$log" | tail -n 3
fi
