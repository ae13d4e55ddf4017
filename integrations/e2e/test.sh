#!/usr/bin/env bash
# Unmodified clients against the auth servers that have adapters, with the binary that SCOPEWARD_BIN names.
#   test.sh        a part, compared with what is written down (results.json, docs/guides/clients.md); a fault that must be seen
#   test.sh all    everything; writes both again
#   test.sh latency [ROUNDS [SERVER...]]    what Scopeward adds to a login; prints a table
# TEST_VENVS keeps the Python environments for the next run; otherwise they are made again in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")"
mode=${1:-part}
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venvs=${TEST_VENVS:-$folder}
mkdir -p "$venvs"
: "${SCOPEWARD_BIN:=$(cd ../.. && pwd)/target/debug/scopeward}"
SCOPEWARD_BIN=$(realpath "$SCOPEWARD_BIN")
export SCOPEWARD_BIN PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 E2E_VENVS=$venvs
unset PYTHONPATH

environment() { # NAME PIP-ARGUMENTS...
    [[ -x $venvs/$1/bin/python ]] || "$python" -m venv "$venvs/$1"
    "$venvs/$1/bin/pip" install --quiet --no-compile "${@:2}"
}
run() { "$venvs/test/bin/python" harness/run.py "$@"; }

environment test -r ../python/requirements-test.txt
"$venvs/test/bin/pip" wheel --quiet --no-deps --wheel-dir "$folder/dist" ../python
"$venvs/test/bin/pip" install --quiet --no-compile --no-deps --force-reinstall "$folder"/dist/scopeward-*.whl
environment client-1 -r clients/python/requirements-1.txt
npm ci --silent --no-progress --prefix clients/typescript
if [[ -z ${E2E_NODE:-} ]]; then # names a built integrations/node
    npm ci --silent --no-progress --ignore-scripts --prefix ../node
    npm run --silent build --prefix ../node
fi
# Where there is no Go, there is neither a server made with fosite nor Ory Hydra, and without Maven no Keycloak.
gateways=()
if command -v go >/dev/null; then
    go -C ../go/fosite build -o "$venvs/fosite-example" ./example
    HYDRA_BIN=$venvs/hydra servers/hydra/run.sh
    gateways+=(hydra-gateway)
fi
! command -v mvn >/dev/null || gateways+=(keycloak-gateway)

export MYPY_CACHE_DIR=$venvs/mypy-cache MYPYPATH=harness:servers:../python/tests:../python/examples
"$venvs/test/bin/mypy" --strict --explicit-package-bases --ignore-missing-imports harness servers/{upstreams,gateway_server}.py tests

case $mode in
    all)
        # Its dependencies take minutes to compile; E2E_RUST names a program that was built before.
        [[ -n ${E2E_RUST:-} ]] || cargo build --locked --quiet --manifest-path clients/rust/Cargo.toml
        # Of these two each builds what it lacks, modules of the other among it, and they start at one time.
        if command -v mvn >/dev/null; then
            mvn -B -q -ntp -f ../java -pl scopeward-spring-example,scopeward-keycloak -am -DskipTests -Dmaven.javadoc.skip pre-integration-test
        fi
        run --write
        "$venvs/test/bin/python" harness/table.py
        ;;
    part)
        "$venvs/test/bin/python" harness/table.py --check
        # All clients but those in Rust, which take minutes to compile.
        run --servers mcp_sdk --clients ts-1.20,ts-1.25,ts-1.32,ts-2.4,py-1.30,py-2.3
        others=fastmcp_own,fastmcp_proxy,authlib_flask,authlib_starlette,django_toolkit,oidc-provider,better-auth,mcp-sdk
        [[ ! -x $venvs/fosite-example ]] || others+=,fosite
        # It starts slowly, so it is the first.
        ! command -v mvn >/dev/null || others=keycloak,$others
        run --servers "$others" --clients ts-1.25,py-2.3
        run --servers oidc-provider --clients mcp-remote --cases narrow-wide,step-up,policy-edit
        for gateway in "${gateways[@]}"; do
            run --servers "$gateway" --clients ts-1.25,py-2.3 --cases narrow-wide,reused,absent,step-up,down-authorize,policy-edit
            # Without the gateway the clients fail.
            run --servers "$gateway" --clients py-2.3 --cases reused --fault no-adapter
        done
        "$venvs/test/bin/pytest" -q -p no:cacheprovider tests
        # The run must fail where the server does not ask, and where it does not heed the answer.
        run --servers mcp_sdk,authlib_flask,oidc-provider --clients ts-1.25 --cases narrow-wide,absent,step-up --fault no-adapter
        run --servers mcp_sdk,authlib_flask,oidc-provider --clients ts-1.25 --cases over-ask,policy-edit --fault ignore-answer
        ;;
    latency)
        "$venvs/test/bin/python" harness/latency.py "${@:2}"
        ;;
    *)
        echo "usage: test.sh [all|latency]" >&2
        exit 2
        ;;
esac
