#!/usr/bin/env bash
# Holds a node to its own description: schemathesis reads /openapi.json, makes requests that are valid by it and requests that
# are not, and judges every answer by it. Once without tokens and once with them.
#
#   tests/openapi_conformance.sh [EXAMPLES]     EXAMPLES for each call, 50 by default
#
# Needs Python 3.10 or newer. The fuzzer is installed into target/, once. TIDEGATE_BINARY names another program than the debug build.
set -euo pipefail
cd "$(dirname "$0")/.."

examples=${1:-50}
version=4.32.5
venv=target/schemathesis-$version
if [ ! -x "$venv/bin/st" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version" tomli-w==1.2.0
fi
binary=${TIDEGATE_BINARY:-}
if [ -z "$binary" ]; then
    cargo build --locked
    binary=target/debug/tidegate
fi

node=
dir=$(mktemp -d)
finish() {
    [ -z "$node" ] || kill "$node" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

# Starts a node whose configuration ends with $1, and leaves its URL in `url`.
start() {
    mkdir -p "$dir/$2"
    cp tests/conformance/policy.toml "$dir/$2"
    {
        printf '[[nodes]]\nid = "n1"\nhttp = "127.0.0.1:0"\ndata_dir = "data"\n'
        printf '[policy]\nfile = "policy.toml"\n%s\n' "$1"
    } >"$dir/$2/cluster.toml"
    "$binary" serve --config "$dir/$2/cluster.toml" >"$dir/$2/out" 2>"$dir/$2/log" &
    node=$!
    for _ in $(seq 300); do
        url=$(sed -n 's|.*\(http://[0-9.:]*\).*|\1|p' "$dir/$2/out" | head -1)
        [ -z "$url" ] || return 0
        kill -0 "$node" 2>/dev/null || break
        sleep 0.1
    done
    echo "the node didn't start:" >&2
    cat "$dir/$2/log" >&2
    exit 1
}

stop() {
    kill "$node"
    wait "$node"
    node=
}

fuzz() {
    SCHEMATHESIS_HOOKS=$PWD/tests/conformance/hooks.py \
        "$venv/bin/st" --config-file tests/conformance/schemathesis.toml run "$url/openapi.json" \
        --max-examples "$examples" --seed 1 --max-failures 40 "$@"
}

printf -- '-- without tokens\n'
start "" open
fuzz --exclude-checks ignored_auth # nothing is guarded
stop

printf -- '-- with tokens\n'
start '[[auth.tokens]]
name = "checker"
role = "check"
value = "a-token-for-checks-of-the-fuzzer"
[[auth.tokens]]
name = "admin"
role = "admin"
value = "a-token-for-the-fuzzer-to-change-all"' guarded
fuzz --header "X-Tidegate-Token: a-token-for-the-fuzzer-to-change-all" --phases examples,fuzzing,stateful
stop
