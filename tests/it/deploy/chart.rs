//! The Helm chart: five sets of values, what they render, whether Kubernetes takes that, and whether the server starts with it.
//!
//! The renders are kept in `tests/chart`. `CHART_BLESS=1 TEST_TOOLS=helm cargo test --test it deploy::chart` writes them again, and
//! with them the table of values in the README of the chart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use super::manifest::{document, documents, text};
use crate::tools;

mod objects;
mod page;
mod started;
mod values;

const SETS: [&str; 5] = ["minimal", "mtls", "ha", "monitoring", "everything"];
/// What renders are made for; nothing in the chart depends on it.
const KUBERNETES: &str = "1.34.0";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("deploy/chart")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn values_file(set: &str) -> PathBuf {
    chart().join(format!("ci/{set}-values.yaml"))
}

/// The objects that are kept for a set of values.
fn kept(set: &str) -> Vec<Value> {
    documents(&read(format!("tests/chart/{set}.yaml")))
}

/// Compares a text with a file, or writes the file where that was asked for.
#[track_caller]
fn compare(path: &str, text: &str) {
    if env::var_os("CHART_BLESS").is_some() {
        fs::write(root().join(path), text).unwrap();
        return;
    }
    let kept = read(path);
    let line = kept.lines().zip(text.lines()).position(|(kept, new)| kept != new);
    assert!(
        kept == text,
        "{path} differs, first in line {:?}; CHART_BLESS=1 writes it again",
        line.map(|at| at + 1)
    );
}

/// Runs helm; what it printed, and whether it succeeded.
fn helm(verb: &[&str], args: &[&str]) -> (bool, String, String) {
    let mut path = PathBuf::from(env::var_os("HOME").unwrap()).join("go/bin/helm");
    if !path.exists() {
        path = "helm".into();
    }
    let output = Command::new(path)
        .args(verb)
        .arg(chart())
        .args(["--namespace", "auth", "--kube-version", KUBERNETES])
        .args(args)
        .output()
        .expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn render(values: &Path) -> String {
    let (is_rendered, manifests, error) =
        helm(&["template", "scopeward"], &["--values", values.to_str().unwrap()]);
    assert!(is_rendered, "{}: {error}", values.display());
    manifests
}

#[test]
fn renders_are_what_is_kept() {
    if !tools::wanted("helm") {
        return;
    }
    for set in SETS {
        compare(&format!("tests/chart/{set}.yaml"), &render(&values_file(set)));
    }
}

#[test]
fn helm_lint_has_nothing_to_say() {
    if !tools::wanted("helm") {
        return;
    }
    for set in SETS {
        let values = values_file(set);
        let (is_fine, printed, error) =
            helm(&["lint"], &["--strict", "--quiet", "--values", values.to_str().unwrap()]);
        assert!(is_fine && printed.trim().is_empty(), "{set}: {printed}{error}");
    }
}

#[test]
fn values_that_are_wrong_are_refused_and_named() {
    if !tools::wanted("helm") {
        return;
    }
    let check = |set: &str, change: &[&str], expected: &str| {
        let values = values_file(set);
        let mut args = vec!["--values", values.to_str().unwrap()];
        args.extend(change.iter().flat_map(|change| ["--set", *change]));
        let (is_rendered, _, error) = helm(&["template", "scopeward"], &args);
        assert!(!is_rendered, "{set} {change:?} is rendered");
        assert!(error.contains(expected), "{set} {change:?}: {error}");
    };
    // The schema: keys that it does not know, types, words and ranges.
    check("minimal", &["replcas=2"], "additional properties 'replcas' not allowed");
    check("minimal", &["tls.existingsecret=a"], "additional properties 'existingsecret' not allowed");
    check("minimal", &["settings.auditRetentoin=1d"], "additional properties 'auditRetentoin' not allowed");
    check("minimal", &["settings.tlsCertFile=a"], "additional properties 'tlsCertFile' not allowed");
    check("minimal", &["replicas=two"], "got string, want integer");
    check("minimal", &["replicas=0"], "replicas");
    check("minimal", &["settings.auditRetention=30"], "auditRetention");
    check("minimal", &["settings.auditRetention=30 days"], "auditRetention");
    check("minimal", &["settings.auditMode=never"], "auditMode");
    check("minimal", &["settings.maxCalls=0"], "maxCalls");
    check("minimal", &["policies.files.mcp=x"], "additional properties 'mcp' not allowed");
    check("minimal", &["persistence.accessModes={ReadWriteMany}"], "accessModes");
    check("minimal", &["extraArgs={verbose}"], "extraArgs");
    // What has to be chosen, and is chosen once.
    check("minimal", &["image.repository="], "image.repository: name the registry");
    check("minimal", &["policies.files=null"], "policies: set exactly one of");
    check("minimal", &["policies.existingConfigMap=a"], "not policies.files and policies.existingConfigMap");
    check("minimal", &["tls.existingSecret="], "tls: set exactly one of");
    check("minimal", &["tls.insecurePlaintext=true"], "not tls.existingSecret and tls.insecurePlaintext");
    check("minimal", &["access.existingSecret="], "access: set exactly one of");
    check("minimal", &["access.unrestricted=true"], "not access.existingSecret and access.unrestricted");
    // What does not go together.
    check("mtls", &["tls.certManager.issuerRef.name="], "tls.certManager.issuerRef.name: name the Issuer");
    check("mtls", &["tls.clientCa.inServerVolume=true"], "tls.clientCa: set only one of");
    check("ha", &["tls.clientCa.existingSecret=a"], "client certificates need TLS");
    check("ha", &["persistence.existingClaim=a"], "one claim is for one replica");
    check("monitoring", &["networkPolicy.adminFrom=null"], "nobody may reach the admin port");
    check("minimal", &["auditForward.url=mysql://db.example.com/audit"], "auditForward");
    check(
        "minimal",
        &["auditForward.url=postgres://w@db.example.com/audit"],
        "name the store, and DNS, in networkPolicy.egress",
    );
    check("minimal", &["auditForward.url=nats://w:secret@nats.example.com/AUDIT"], "it has a password");
}

/// The schemas of Kubernetes come with `kubernetes-validate` of PyPI, so nothing is fetched. Every version from the least one of
/// Chart.yaml on, and no field that a version does not know.
#[test]
fn every_version_of_kubernetes_takes_the_renders() {
    if !tools::wanted("kubernetes-validate") {
        return;
    }
    let script = r#"
import os, sys, yaml, kubernetes_validate as kv
folder = os.path.join(os.path.dirname(kv.__file__), "kubernetes-json-schema")
versions = sorted(int(name.split(".")[1]) for name in os.listdir(folder) if name.endswith("-strict"))
versions = [v for v in versions if v >= int(sys.argv[1])]
assert len(versions) >= 5, versions
for path in sys.argv[2:]:
    for resource in filter(None, yaml.safe_load_all(open(path))):
        for version in versions:
            name = f"{path} {resource['kind']} 1.{version}"
            try:
                kv.validate(resource, f"1.{version}", strict=True)
            except kv.SchemaNotFoundError:
                print(resource["kind"])
            except kv.ValidationError as error:
                sys.exit(f"{name}: {error.message} at {list(error.path)}")
"#;
    let chart = document(&read("deploy/chart/Chart.yaml"));
    let least = text(&chart["kubeVersion"]).split('.').nth(1).unwrap().to_owned();
    let output = Command::new(root().join("target/python-tools/bin/python"))
        .args(["-c", script, &least])
        .args(SETS.map(|set| root().join(format!("tests/chart/{set}.yaml"))))
        .output()
        .expect(".ci/install makes target/python-tools");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    let unknown = String::from_utf8(output.stdout).unwrap();
    let unknown: BTreeSet<&str> = unknown.lines().collect();
    // Kinds of others, which `kinds_of_others_have_only_fields_that_these_know` looks at.
    assert_eq!(unknown, BTreeSet::from(["Certificate", "PrometheusRule", "ServiceMonitor"]));
}
