#!/usr/bin/env bash
# Writes scopeward/scopewardv1 from ../../proto; with -check only compares. Run it after an edit of proto/.
set -euo pipefail
cd "$(dirname "$0")/tools"
exec go run ./generate "$@"
