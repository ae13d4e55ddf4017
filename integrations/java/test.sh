#!/usr/bin/env bash
# Tests the packages against the binary that SCOPEWARD_BIN names, then the READMEs and guides in projects of their own, with what `install`
# puts into a repository that has nothing else of ours. Arguments go to the first of the two.
set -euo pipefail
cd "$(dirname "$0")"
: "${SCOPEWARD_BIN:=$(cd ../.. && pwd)/target/debug/scopeward}"
SCOPEWARD_BIN=$(realpath "$SCOPEWARD_BIN")
export SCOPEWARD_BIN
export MAVEN_OPTS="${MAVEN_OPTS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC}"
mvn -B -q -ntp verify "$@"

fresh=$PWD/target/fresh
mkdir -p "$fresh"
downloaded="file://${HOME}/.m2/repository"
cat > "$fresh/settings.xml" <<XML
<settings>
  <profiles>
    <profile>
      <id>downloaded</id>
      <repositories><repository><id>downloaded</id><url>$downloaded</url></repository></repositories>
      <pluginRepositories><pluginRepository><id>downloaded</id><url>$downloaded</url></pluginRepository></pluginRepositories>
    </profile>
  </profiles>
  <activeProfiles><activeProfile>downloaded</activeProfile></activeProfiles>
</settings>
XML
fresh_mvn() {
    mvn -B -q -ntp -s "$fresh/settings.xml" -Dmaven.repo.local="$fresh/repository" "$@"
}
fresh_mvn -pl scopeward-client,scopeward-spring-boot-starter -am -DskipTests -Dmaven.javadoc.skip install
{
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>'
    sed -n '/^```xml$/,/^```$/{//!p}' README.md
    echo '</dependencies></project>'
} > "$fresh/pom.xml"
fresh_mvn -f "$fresh/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath \
    -DincludeScope=runtime -Dmdep.outputFile="$fresh/classpath"
README_CLASSPATH=$(< "$fresh/classpath") fresh_mvn -pl scopeward-client surefire:test -Dtest=ReadmeTest

# What pages call `mvn` is one that knows this repository.
mkdir -p "$fresh/bin"
printf '#!/usr/bin/env bash\nexec %q -B -ntp -s %q -Dmaven.repo.local=%q "$@"\n' \
    "$(command -v mvn)" "$fresh/settings.xml" "$fresh/repository" > "$fresh/bin/mvn"
ln -sf "$SCOPEWARD_BIN" "$fresh/bin/scopeward"
chmod +x "$fresh/bin/mvn"
PAGES_BIN=$fresh/bin fresh_mvn -pl scopeward-spring-example surefire:test -Dtest=PagesTest
