#!/usr/bin/env bash
# cargo-deny over the dependency tree: bans, licences, sources, and advisories where their database can be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    "${PYTHON:-python3}" -B scripts/fetch.py cargo-deny
    deny=.cache/bin/cargo-deny
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
