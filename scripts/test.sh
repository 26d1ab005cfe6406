#!/usr/bin/env bash
# Passes the tests: installs what real peers need where it may, then runs everything.
# Options: --fast leaves out the interop peers and the walls.
set -euo pipefail
cd "$(dirname "$0")/.."

install_peers() {
    local need=()
    command -v rsync >/dev/null || need+=(rsync)
    command -v python3 >/dev/null || need+=(python3)
    command -v setpriv >/dev/null || need+=(util-linux)
    command -v ssh >/dev/null || need+=(openssh-client)
    # Debian keeps sshd where a user's PATH does not look.
    PATH=$PATH:/usr/sbin command -v sshd >/dev/null || need+=(openssh-server)
    # A login shell that is no Bourne shell, and network namespaces as second hosts.
    command -v tcsh >/dev/null || need+=(tcsh)
    # Judges what jobs zip.
    command -v unzip >/dev/null || need+=(unzip)
    PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null || need+=(iproute2)
    python3 -c 'import venv, ensurepip' 2>/dev/null || need+=(python3-venv)
    [ ${#need[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" ||
            echo "test.sh: could not install ${need[*]}; tests that need them tell so"
    else
        echo "test.sh: not installed: ${need[*]}; tests that need them tell so"
    fi
}

fast=
[ "${1:-}" = --fast ] && fast=1
[ -n "$fast" ] || install_peers

if cargo fmt --version >/dev/null 2>&1; then cargo fmt --all --check; fi
if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
fi
[ -n "$fast" ] || scripts/walls.sh
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet
cargo test --locked --workspace --no-fail-fast
