#!/usr/bin/env bash
# Tests the package against the binary that SCOPEWARD_BIN names, and as a tarball in a fresh project.
set -euo pipefail
cd "$(dirname "$0")"
: "${SCOPEWARD_BIN:=$(cd ../.. && pwd)/target/debug/scopeward}"
SCOPEWARD_BIN=$(realpath "$SCOPEWARD_BIN")
export SCOPEWARD_BIN
node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' || { echo "Node 20 or newer is needed, and this is $(node -v)" >&2; exit 1; }

npm ci --silent --ignore-scripts --no-audit --no-fund
node generate.mjs --check
npm run --silent build
npx tsc -p tests
(($#)) || set -- tests/*.test.mjs
# A file that hangs fails, with its name.
node --test --test-timeout=900000 "$@"
