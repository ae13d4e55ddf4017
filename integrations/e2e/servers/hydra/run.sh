#!/usr/bin/env bash
# Builds Ory Hydra with SQLite and starts it, with a login and consent app that agrees to everything. For tests and guides.
#   run.sh                        only builds; the first time it compiles for minutes
#   run.sh CONFIG LISTEN ADMIN    LISTEN is the app's address, ADMIN the URL of Hydra's admin API
# HYDRA_BIN is the folder of the two programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${HYDRA_BIN:-$here/bin}
mkdir -p "$bin"
go -C "$here" build -tags sqlite,json1 -o "$bin/" github.com/ory/hydra/v2 ./login
[[ $# -gt 0 ]] || exit 0
trap 'kill $(jobs -p)' EXIT
trap exit INT TERM
"$bin/login" -listen "$2" -admin "$3" &
"$bin/hydra" serve all --dev --sqa-opt-out --config "$1" &
wait -n
