//! The objects that the chart renders: what no schema of Kubernetes sees.

use serde_json::Value;

use super::{SETS, helm, kept, values_file};
use crate::deploy::manifest::{documents, entries, find, named, only, text};
use crate::tools;

#[test]
fn kinds_of_others_have_only_fields_that_these_know() {
    for (kind, version) in [
        ("Certificate", "cert-manager.io/v1"),
        ("ServiceMonitor", "monitoring.coreos.com/v1"),
        ("PrometheusRule", "monitoring.coreos.com/v1"),
    ] {
        let objects: Vec<Value> =
            SETS.into_iter().flat_map(kept).filter(|object| object["kind"] == kind).collect();
        assert!(!objects.is_empty(), "{kind} is in no set");
        for object in objects {
            assert_eq!(object["apiVersion"], version);
            for (path, value) in leaves(&object["spec"], "") {
                let is_known = FIELDS_OF_OTHERS.iter().any(|(of, field, content)| {
                    let is_field = match field.strip_suffix('*') {
                        Some(prefix) => path.starts_with(prefix),
                        None => path == *field,
                    };
                    let fits = || match *content {
                        "string" => value.is_string(),
                        word => value.to_string().trim_matches('"') == word,
                    };
                    *of == kind && is_field && fits()
                });
                assert!(is_known, "{kind}: {path}: {value}");
            }
        }
    }
}

/// The scalars of a value, with the path to each.
fn leaves(value: &Value, path: &str) -> Vec<(String, Value)> {
    match value {
        Value::Object(entries) => {
            let name = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            entries.iter().flat_map(|(key, entry)| leaves(entry, &name(key))).collect()
        }
        Value::Array(entries) => {
            entries.iter().flat_map(|entry| leaves(entry, &format!("{path}[]"))).collect()
        }
        scalar => vec![(path.to_owned(), scalar.clone())],
    }
}

/// What of one object has to fit another, and no schema sees.
#[test]
fn objects_of_a_render_fit_together() {
    for set in SETS {
        let manifests = kept(set);
        let stateful = &only(&manifests, "StatefulSet")["spec"];
        let labels = &stateful["template"]["metadata"]["labels"];
        let spec = &stateful["template"]["spec"];
        let container = named(&spec["containers"], "scopeward").unwrap();
        let selects = |selector: &Value, labels: &Value| {
            let selector = selector.as_object().unwrap();
            !selector.is_empty() && selector.iter().all(|(label, value)| labels[label] == *value)
        };
        let is_port = |port: &Value| named(&container["ports"], text(port)).is_some();
        assert!(selects(&stateful["selector"]["matchLabels"], labels), "{set}");
        let headless =
            find(&manifests, "Service", text(&stateful["serviceName"])).expect("a headless service");
        assert_eq!(headless["spec"]["clusterIP"], "None", "{set}");
        for object in &manifests {
            let name = format!("{set}: {} {}", object["kind"], object["metadata"]["name"]);
            assert_eq!(object["metadata"]["namespace"], "auth", "{name}");
            match text(&object["kind"]) {
                "Service" => {
                    assert!(selects(&object["spec"]["selector"], labels), "{name}");
                    assert!(
                        entries(&object["spec"]["ports"]).iter().all(|port| is_port(&port["targetPort"])),
                        "{name}"
                    );
                    // The admin port shows audiences and findings: a balancer has no business with it.
                    let is_open = named(&object["spec"]["ports"], "admin").is_some();
                    assert_eq!(is_open, object == headless, "{name}");
                }
                "NetworkPolicy" => {
                    let spec = &object["spec"];
                    assert!(selects(&spec["podSelector"]["matchLabels"], labels), "{name}");
                    assert_eq!(spec["policyTypes"].to_string(), r#"["Ingress","Egress"]"#, "{name}");
                    for rule in entries(&spec["ingress"]) {
                        // A rule without `from` would let in everybody.
                        assert!(!entries(&rule["from"]).is_empty(), "{name}");
                        assert!(entries(&rule["ports"]).iter().all(|port| is_port(&port["port"])), "{name}");
                    }
                }
                "PodDisruptionBudget" => {
                    assert!(selects(&object["spec"]["selector"]["matchLabels"], labels), "{name}");
                }
                "ServiceMonitor" => {
                    assert!(
                        selects(&object["spec"]["selector"]["matchLabels"], &headless["metadata"]["labels"]),
                        "{name}"
                    );
                    let port = text(&object["spec"]["endpoints"][0]["port"]);
                    assert!(named(&headless["spec"]["ports"], port).is_some(), "{name}");
                }
                "Certificate" => {
                    let secret = &named(&spec["volumes"], "tls").unwrap()["secret"]["secretName"];
                    assert_eq!(object["spec"]["secretName"], *secret, "{name}");
                    for service in manifests.iter().filter(|object| object["kind"] == "Service") {
                        let host = format!("{}.auth.svc", text(&service["metadata"]["name"]));
                        assert!(
                            entries(&object["spec"]["dnsNames"]).iter().any(|name| *name == *host),
                            "{name}: {host}"
                        );
                    }
                }
                _ => {}
            }
        }
        // The grace period has room for what happens in it.
        let seconds = |argument: &str| {
            argument.strip_prefix("--shutdown-timeout=")?.strip_suffix('s')?.parse::<u64>().ok()
        };
        let shutdown =
            entries(&container["args"]).iter().find_map(|argument| seconds(text(argument))).unwrap();
        let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
        assert!(spec["terminationGracePeriodSeconds"].as_u64().unwrap() > shutdown + sleep, "{set}");
        // No token, no root, nothing to write but the state.
        assert_eq!(spec["automountServiceAccountToken"], false, "{set}");
        assert_eq!(only(&manifests, "ServiceAccount")["automountServiceAccountToken"], false, "{set}");
        assert_eq!(
            only(&manifests, "ServiceAccount")["metadata"]["name"],
            spec["serviceAccountName"],
            "{set}"
        );
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{set}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{set}");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{set}");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{set}");
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{set}");
        for mount in entries(&container["volumeMounts"]) {
            assert!(mount["subPath"].is_null(), "{set}: a subPath is never updated");
            assert!(mount["name"] == "state" || mount["readOnly"] == true, "{set}: {mount}");
        }
    }
}

#[test]
fn replicas_that_forward_have_a_log_each_and_the_password_in_a_file() {
    if !tools::wanted("helm") {
        return;
    }
    let values = values_file("ha");
    for (url, query) in [
        ("postgres://scopeward@db.example.com/audit", "?"),
        ("nats://a.example.com/AUDIT?subject=eu.audit", "&"),
    ] {
        let url_value = format!("auditForward.url={url}");
        let (is_rendered, manifests, error) = helm(
            &["template", "scopeward"],
            &[
                "--values",
                values.to_str().unwrap(),
                "--set",
                &url_value,
                "--set",
                "auditForward.passwordSecret=audit-store",
                "--set",
                "auditForward.caConfigMap=databases",
                "--set",
                "networkPolicy.egress[0].ports[0].port=5432",
            ],
        );
        assert!(is_rendered, "{url}: {error}");
        let manifests = documents(&manifests);
        let stateful = &only(&manifests, "StatefulSet")["spec"];
        let pod = &stateful["template"]["spec"];
        let container = named(&pod["containers"], "scopeward").unwrap();
        assert_eq!(stateful["replicas"], 3, "{url}");
        // A claim for each, and no volume that they share but to read.
        let claims = entries(&stateful["volumeClaimTemplates"]);
        assert!(claims.len() == 1 && claims[0]["metadata"]["name"] == "state", "{url}: {claims:?}");
        assert!(named(&pod["volumes"], "state").is_none(), "{url}");
        let is_argument =
            |argument: &str| entries(&container["args"]).iter().any(|one| text(one) == argument);
        let ca = "sslrootcert=/etc/scopeward/audit-forward-ca/ca.crt";
        assert!(is_argument(&format!("--audit-forward={url}{query}{ca}")), "{url}: {}", container["args"]);
        assert!(is_argument("--audit-forward-password-file=/etc/scopeward/audit-forward/password"), "{url}");
        for (name, path) in [
            ("audit-forward", "/etc/scopeward/audit-forward"),
            ("audit-forward-ca", "/etc/scopeward/audit-forward-ca"),
        ] {
            let mount = named(&container["volumeMounts"], name).unwrap();
            assert!(mount["mountPath"] == path && mount["readOnly"] == true, "{url}: {mount}");
        }
        let volume = |name: &str| named(&pod["volumes"], name).unwrap();
        assert_eq!(volume("audit-forward")["secret"]["secretName"], "audit-store", "{url}");
        assert_eq!(volume("audit-forward-ca")["configMap"]["name"], "databases", "{url}");
        // One at a time leaves, and each of them may reach the store.
        assert_eq!(only(&manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1, "{url}");
        assert_eq!(entries(&pod["topologySpreadConstraints"]).len(), 2, "{url}");
        let egress = &only(&manifests, "NetworkPolicy")["spec"]["egress"];
        assert_eq!(egress[0]["ports"][0]["port"], 5432, "{url}");
    }
}

/// The fields that the chart sets in kinds of cert-manager (v1) and of the Prometheus operator (v1), and what is in them: a string,
/// or one of the words of an enumeration.
const FIELDS_OF_OTHERS: &[(&str, &str, &str)] = &[
    ("Certificate", "secretName", "string"),
    ("Certificate", "issuerRef.name", "string"),
    ("Certificate", "issuerRef.kind", "string"),
    ("Certificate", "issuerRef.group", "string"),
    ("Certificate", "duration", "string"),
    ("Certificate", "renewBefore", "string"),
    ("Certificate", "privateKey.algorithm", "ECDSA"),
    ("Certificate", "privateKey.size", "256"),
    ("Certificate", "privateKey.rotationPolicy", "Always"),
    ("Certificate", "usages[]", "digital signature"),
    ("Certificate", "usages[]", "server auth"),
    ("Certificate", "dnsNames[]", "string"),
    ("ServiceMonitor", "selector.matchLabels.*", "string"),
    ("ServiceMonitor", "endpoints[].port", "string"),
    ("ServiceMonitor", "endpoints[].path", "string"),
    ("ServiceMonitor", "endpoints[].interval", "string"),
    ("ServiceMonitor", "endpoints[].scrapeTimeout", "string"),
    ("ServiceMonitor", "endpoints[].relabelings[].action", "replace"),
    ("ServiceMonitor", "endpoints[].relabelings[].targetLabel", "string"),
    ("ServiceMonitor", "endpoints[].relabelings[].replacement", "string"),
    ("ServiceMonitor", "endpoints[].metricRelabelings[].action", "drop"),
    ("ServiceMonitor", "endpoints[].metricRelabelings[].sourceLabels[]", "string"),
    ("ServiceMonitor", "endpoints[].metricRelabelings[].regex", "string"),
    ("PrometheusRule", "groups[].name", "string"),
    ("PrometheusRule", "groups[].rules[].record", "string"),
    ("PrometheusRule", "groups[].rules[].alert", "string"),
    ("PrometheusRule", "groups[].rules[].expr", "string"),
    ("PrometheusRule", "groups[].rules[].for", "string"),
    ("PrometheusRule", "groups[].rules[].labels.*", "string"),
    ("PrometheusRule", "groups[].rules[].annotations.*", "string"),
];
