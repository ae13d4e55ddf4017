#!/usr/bin/env bash
# Tests the package as a wheel in environments of its own, against the binary that SCOPEWARD_BIN names.
# TEST_VENVS keeps the environments for the next run; otherwise they are made again in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venvs=${TEST_VENVS:-$folder}
mkdir -p "$venvs"
: "${SCOPEWARD_BIN:=$(cd ../.. && pwd)/target/debug/scopeward}"
SCOPEWARD_BIN=$(realpath "$SCOPEWARD_BIN")
export SCOPEWARD_BIN PIP_DISABLE_PIP_VERSION_CHECK=1
export MYPY_CACHE_DIR=$venvs/mypy-cache
unset PYTHONPATH

environment() { # NAME PIP-ARGUMENTS...
    [[ -x $venvs/$1/bin/python ]] || "$python" -m venv "$venvs/$1"
    "$venvs/$1/bin/pip" install --quiet --no-compile "${@:2}"
}

environment generator "$(sed -n 's/^GENERATOR = "\(.*\)"$/grpcio-tools==\1/p' generate.py)" hatchling
"$venvs/generator/bin/python" generate.py --check

if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    environment test -r requirements-test.txt
else # for what pip finds for it; there is no FastMCP
    environment test '.[authlib-flask,authlib-starlette,django,mcp]' httpx mypy pytest pytest-asyncio types-grpcio types-protobuf uvicorn
fi
# The wheel is built from the source distribution, so that both are whole.
"$venvs/generator/bin/python" -c 'import sys, hatchling.build; hatchling.build.build_sdist(sys.argv[1])' "$folder/dist"
"$venvs/test/bin/pip" wheel --quiet --no-deps --wheel-dir "$folder/dist" "$folder"/dist/scopeward-*.tar.gz
"$venvs/test/bin/pip" install --quiet --no-compile --no-deps --force-reinstall "$folder"/dist/scopeward-*.whl
"$venvs/test/bin/mypy"
"$venvs/test/bin/pytest" -q -p no:cacheprovider "$@"
