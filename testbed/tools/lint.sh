#!/usr/bin/env bash
# Installs cargo-deny, once per version, into a cache. Prints the folder of the program.
set -euo pipefail
cache="${HARBINGER_CACHE:-$HOME/.cache/harbinger}"
version=0.20.2
root="$cache/cargo-deny-$version"
if [ ! -x "$root/bin/cargo-deny" ]; then
  # Unoptimised: it runs for a second, and optimising it takes minutes.
  CARGO_TARGET_DIR="$cache/cargo-deny-build" CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug \
    --root "$root" "cargo-deny@$version"
  rm -rf "$cache/cargo-deny-build"
fi
echo "$root/bin"
