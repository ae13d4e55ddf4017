//! The server, started with what the chart renders.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{kept, read};
use crate::certs::{Authority, Issued, Name};
use crate::deploy::manifest::{documents, entries, named, only, text};
use crate::deploy::pod::{Cluster, Files, Pod};

/// How long something that is sure to happen may take.
const DEADLINE: Duration = Duration::from_secs(30);
const MCP: &str = "https://mcp.example.com";
const POLICY: &str =
    "audiences:\n  https://mcp.example.com:\n    scopesSupported: [openid, offline_access]\n";
const LATER_POLICY: &str = "audiences:\n  https://late.example.com:\n    scopesSupported: [openid]\n";

/// Somebody who calls: with a token, or with a certificate.
struct Caller {
    name: &'static str,
    token: Option<(String, String)>,
    certificate: Option<Issued>,
}

impl Caller {
    fn with_token(name: &'static str) -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_scopeward"))
            .args(["access", "new-token", "--output", "json"])
            .output();
        let made: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let part = |name: &str| text(&made[name]).to_owned();
        Self { name, token: Some((part("token"), part("tokenSha256"))), certificate: None }
    }

    fn with_certificate(name: &'static str, clients: &Authority) -> Self {
        let uri = format!("spiffe://example.org/ns/auth/sa/{name}");
        Self { name, token: None, certificate: Some(clients.issue(&[Name::Uri(&uri)])) }
    }

    /// The entry of an access file.
    fn entry(&self) -> String {
        let Self { name, token, .. } = self;
        let known_by = match token {
            Some((_, hash)) => format!("tokenSha256: {hash}"),
            None => format!("spiffeId: \"spiffe://example.org/ns/auth/sa/{name}\""),
        };
        format!("  - name: {name}\n    match: [{{{known_by}}}]\n    may: [decide, describe]\n")
    }

    /// Asks for an audience, and whether there was an answer.
    fn describes(&self, audience: &str, pod: &Pod, ca: Option<&Authority>) -> (bool, String) {
        let mut args = vec!["describe", "--audience", audience];
        if let Some(ca) = ca {
            pod.write("ca.pem", &ca.pem());
            args.extend(["--tls-ca-file", "ca.pem"]);
        }
        if let Some((token, _)) = &self.token {
            pod.write("token", token);
            args.extend(["--token-file", "token"]);
        }
        if let Some(certificate) = &self.certificate {
            pod.write("own.pem", &certificate.chain);
            pod.write("own.key", &certificate.key);
            args.extend(["--tls-cert-file", "own.pem", "--tls-private-key-file", "own.key"]);
        }
        pod.ask(&args, if ca.is_some() { "https" } else { "http" })
    }

    #[track_caller]
    fn waits_for(&self, audience: &str, pod: &Pod, ca: Option<&Authority>) {
        let end = Instant::now() + DEADLINE;
        loop {
            let (is_answered, printed) = self.describes(audience, pod, ca);
            if is_answered {
                return;
            }
            assert!(Instant::now() < end, "{} waited in vain for {audience}: {printed}", self.name);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn files(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// A cluster around the chart: what it takes from Secrets and ConfigMaps that it does not make, and who calls.
struct World {
    cluster: Cluster,
    ca: Authority,
    next_ca: Authority,
    /// Who may call from the start on.
    known: Caller,
    /// Who is entered into the access file later.
    late: Caller,
}

impl World {
    fn new(has_client_certificates: bool) -> Self {
        let [ca, next_ca, clients] = ["CA", "next CA", "clients"].map(Authority::new);
        let [known, late] = ["auth-server", "late"].map(|name| {
            if has_client_certificates {
                Caller::with_certificate(name, &clients)
            } else {
                Caller::with_token(name)
            }
        });
        let access = format!("callers:\n{}", known.entry());
        let pair = ca.issue(&[]);
        let cluster = [
            ("ConfigMap/team-policies", files(&[("mcp.yaml", POLICY)])),
            ("ConfigMap/next-policies", files(&[("mcp.yaml", POLICY)])),
            ("ConfigMap/clients-ca", files(&[("ca.crt", &clients.pem())])),
            ("ConfigMap/databases", files(&[("db-ca.pem", &ca.pem())])),
            ("Secret/audit-store", files(&[("scopeward", "writing")])),
            ("Secret/scopeward-tls", files(&[("tls.crt", &pair.chain), ("tls.key", &pair.key)])),
            ("Secret/scopeward-access", files(&[("access.yaml", &access)])),
            ("Secret/callers", files(&[("callers.yaml", &access)])),
            ("volume/policies", files(&[("policies/mcp.yaml", POLICY)])),
            (
                "volume/tls",
                files(&[
                    ("svid.pem", &pair.chain),
                    ("svid_key.pem", &pair.key),
                    ("bundle.pem", &clients.pem()),
                ]),
            ),
        ];
        let cluster = cluster.into_iter().map(|(name, files)| (name.to_owned(), files)).collect();
        Self { cluster, ca, next_ca, known, late }
    }
}

/// The server starts with the arguments, variables, mounts and probes of a render, answers callers, and follows its policies,
/// its certificate and its access file through the swaps that the kubelet does.
#[track_caller]
fn check(set: &str) {
    let manifests = kept(set);
    let spec = &only(&manifests, "StatefulSet")["spec"]["template"]["spec"];
    let container = named(&spec["containers"], "scopeward").unwrap();
    let has =
        |flag: &str| entries(&container["args"]).iter().any(|argument| text(argument).starts_with(flag));
    let (has_tls, has_access) = (has("--tls-cert-file="), has("--access-file="));
    assert!(has_tls != has("--insecure-allow-remote-plaintext"));
    let World { cluster, ca, next_ca, known, late } = World::new(has("--tls-client-ca-file="));
    let pod = Pod::start(&manifests, &cluster).unwrap_or_else(|error| panic!("{set}: {error}"));

    let ca = has_tls.then_some(&ca);
    let (is_answered, printed) = known.describes(MCP, &pod, ca);
    assert!(is_answered, "{set}: {printed}");
    let (is_answered, printed) = late.describes(MCP, &pod, ca);
    assert_eq!(is_answered, !has_access, "{set}: {printed}");

    let mut current = ca;
    if has_tls {
        let pair = next_ca.issue(&[]);
        let mut material = pod.files("tls");
        for (name, content) in &mut material {
            if content.contains("PRIVATE KEY") {
                *content = pair.key.clone();
            } else if !name.contains("bundle") {
                *content = pair.chain.clone();
            }
        }
        pod.swap("tls", &material);
        current = Some(&next_ca);
        known.waits_for(MCP, &pod, current);
    }
    if has_access {
        let mut access = pod.files("access");
        access.values_mut().for_each(|text| text.push_str(&late.entry()));
        pod.swap("access", &access);
        late.waits_for(MCP, &pod, current);
    }
    let mut policies = pod.files("policies");
    let first = policies.keys().next().unwrap().clone();
    let folder = first.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    policies.insert(format!("{folder}late.yaml"), LATER_POLICY.to_owned());
    pod.swap("policies", &policies);
    late.waits_for("https://late.example.com", &pod, current);
}

#[test]
fn minimal_values_start_a_server_that_follows_its_files() {
    check("minimal");
}

#[test]
fn mtls_values_start_a_server_that_follows_its_files() {
    check("mtls");
}

#[test]
fn ha_values_start_a_server_that_follows_its_files() {
    check("ha");
}

#[test]
fn monitoring_values_start_a_server_that_follows_its_files() {
    check("monitoring");
}

#[test]
fn every_value_at_once_starts_a_server_that_follows_its_files() {
    check("everything");
}

/// What the tests above are worth: a render that is wrong in one place does not start.
#[test]
fn a_render_with_a_wrong_argument_does_not_start() {
    let rendered = read("tests/chart/minimal.yaml");
    for (right, wrong, expected) in [
        ("--access-file=", "--acces-file=", "unexpected argument"),
        (
            "--access-file=/etc/scopeward/access/access.yaml",
            "--access-file=/etc/scopeward/access/x.yaml",
            "x.yaml",
        ),
        (
            "--policies=/etc/scopeward/policies",
            "--policies=/etc/scopeward/policy",
            "nothing is mounted there",
        ),
        (
            "--tls-cert-file=/etc/scopeward/tls/tls.crt",
            "--insecure-allow-remote-plaintext",
            "--tls-cert-file",
        ),
        ("--listen=0.0.0.0:50551", "--listen=0.0.0.0:50550", "the port `grpc`"),
        ("--listen=0.0.0.0:50551", "--listen=scopeward:50551", "host names are not resolved"),
        ("--shutdown-timeout=20s", "--shutdown-timeout=20", "--shutdown-timeout"),
        ("path: /livez", "path: /alive", "404"),
        ("secretName: scopeward-tls", "secretName: other", "Secret `other` not found"),
    ] {
        assert!(rendered.contains(right), "{right}");
        let manifests = documents(&rendered.replace(right, wrong));
        let error = Pod::start(&manifests, &World::new(false).cluster).map(drop).expect_err(wrong);
        assert!(error.contains(expected), "{wrong}: {error}");
    }
    let plaintext =
        read("tests/chart/ha.yaml").replace("            - --insecure-allow-remote-plaintext\n", "");
    let error =
        Pod::start(&documents(&plaintext), &World::new(false).cluster).map(drop).expect_err("plaintext");
    assert!(error.contains("--insecure-allow-remote-plaintext"), "{error}");
}
