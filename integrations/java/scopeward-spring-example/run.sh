#!/usr/bin/env bash
# Runs the example with the arguments of Main, and builds it before the first time. Without arguments it needs the binary that
# SCOPEWARD_BIN names, that of this checkout, or scopeward of the path.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ ! -f $here/target/classpath ]]; then
    mvn -B -q -ntp -f "$here/.." -pl scopeward-spring-example -am -DskipTests -Dmaven.javadoc.skip package >&2
fi
cd "$here"
exec java -cp "target/classes:$(< target/classpath)" dev.scopeward.spring.example.Main "$@"
