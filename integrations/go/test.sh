#!/usr/bin/env bash
# Tests the Go modules: generated code, lints, tests with the race detector, and what the pages tell their readers to run. Against the
# binary that SCOPEWARD_BIN names. Arguments go to `go test`; with `toolhive` as the first one only the module for ToolHive is tested,
# whose dependencies are a download of 1.2 GB and take minutes to compile.
set -euo pipefail
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
: "${SCOPEWARD_BIN:=$(cd ../.. && pwd)/target/debug/scopeward}"
SCOPEWARD_BIN=$(realpath "$SCOPEWARD_BIN")
export SCOPEWARD_BIN

if [[ ${1-} == toolhive ]]; then
    shift
    modules=(toolhive) pages=(../toolhive/README.md)
else
    modules=(scopeward fosite) pages=(../scopeward/README.md ../fosite/README.md ../../../docs/guides/fosite.md)
fi

./generate.sh -check
(cd tools && go build -o "$folder" ./pages honnef.co/go/tools/cmd/staticcheck)

for module in tools "${modules[@]}"; do
    unformatted=$(gofmt -l "$module")
    [[ -z $unformatted ]] || { echo "run gofmt: $unformatted" >&2; exit 1; }
    (
        cd "$module"
        go mod tidy -diff
        go vet ./...
        "$folder/staticcheck" ./...
    )
done
for module in "${modules[@]}"; do
    (cd "$module" && go test -race "$@" ./...)
done
(cd tools && "$folder/pages" "${pages[@]}")
