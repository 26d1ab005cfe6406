#!/usr/bin/env bash
# Who may import whom (CONTRIBUTING.md): fails with a line for each wall that has a hole.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0

# packages of PACKAGE's dependency tree, one a line, without dev-dependencies
tree() { cargo tree --locked --edges normal --prefix none --package "$@" | sed 's/ .*//' | sort -u; }

without() { # PACKAGE NAMES...: none of NAMES may be in PACKAGE's tree
    local package=$1 found
    shift
    found=$(tree "$package" | grep -xE "$(IFS='|'; echo "$*")")
    [ -z "$found" ] && return
    echo "wall: $package depends on" $found
    bad=1
}

without fcp-proto tokio tokio-util rustix socket2 libc getrandom fcp-common fcp-client fcpd
without fcp-common fcp-client fcpd tokio clap
without fcp-client fcpd fcp-tests
without fcpd fcp-client russh suppaftp zip rusqlite indicatif fcp-tests

# The pure part stands without I/O.
cargo check --locked --quiet -p fcp-common --no-default-features || bad=1
pure='tokio|std::fs|std::net|Instant::now|SystemTime|rustix|thread::'
holes=$(grep -rnE "$pure" fcp-proto/src fcp-common/src/transfer fcp-common/src/select \
    fcp-common/src/relay fcp-common/src/auth.rs fcp-common/src/range_set.rs \
    fcp-common/src/journal/record.rs fcp-common/src/journal/replay.rs \
    fcp-client/src/location/sftp/wire \
    --include='*.rs' | grep -vE "/tests/|/tests\.rs:|^[^:]*:[0-9]+: *//")
[ -z "$holes" ] || { echo "wall: pure code names I/O or a clock:"; echo "$holes"; bad=1; }

# Every call about a user's files goes through fcp-common/src/fs, and about the programs' own files
# through fcp-common/src/private.
shipped() { # the lines of each file before its test module, as FILE:LINE:TEXT
    find "$@" -name '*.rs' -not -path '*/tests/*' -not -name tests.rs -print0 |
        xargs -0 awk 'FNR == 1 { skip = test = 0 } test && /^mod .*\{/ { skip = 1 }
                      { test = /^#\[cfg\(test\)\]/ } !skip { print FILENAME ":" FNR ":" $0 }'
}
rooms=(
    fcp-common/src/fs/
    fcp-common/src/private/
    # What the kernel says of itself: /proc/net and the inode of a socket, /proc/sys/net.
    fcp-common/src/peer/
    fcp-common/src/tls/tune.rs
    # Opens /dev/null.
    fcpd/src/daemon.rs
)
holes=$(shipped fcp-common/src fcp-client/src fcpd/src | grep -E '(std|rustix|tokio)::fs\b' |
    grep -vE "^($(IFS='|'; echo "${rooms[*]}"))|:[0-9]+: *//")
[ -z "$holes" ] || { echo "wall: files are touched outside fcp-common/src/fs:"; echo "$holes"; bad=1; }

exit $bad
