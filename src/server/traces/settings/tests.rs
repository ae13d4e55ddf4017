use std::cell::RefCell;
use std::collections::BTreeSet;

use super::*;

type Read = Result<(Option<TraceSettings>, Vec<String>), TraceSettingsError>;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

fn read(variables: &[(&str, &str)]) -> Read {
    TraceSettings::from_variables(|name| {
        variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    })
}

/// With a collector, and without a warning.
#[track_caller]
fn settings(variables: &[(&str, &str)]) -> TraceSettings {
    let (settings, ignored) = read(&[&[ENDPOINT], variables].concat()).unwrap();
    assert_eq!(ignored, Vec::<String>::new());
    settings.unwrap()
}

/// With a collector and one warning.
#[track_caller]
fn ignored(name: &str, value: &str, why: &str) -> TraceSettings {
    let (settings, ignored) = read(&[ENDPOINT, (name, value)]).unwrap();
    let [warning] = &*ignored else { panic!("{ignored:?}") };
    assert!(warning.contains(name) && warning.contains(why), "{warning}");
    settings.unwrap()
}

#[track_caller]
fn refused(variables: &[(&str, &str)], why: &str) -> String {
    let error = read(&[&[ENDPOINT], variables].concat()).unwrap_err().to_string();
    let (name, _) = variables.last().unwrap();
    assert!(error.contains(why) && error.starts_with(name), "{error}");
    error
}

fn said(resource: &[KeyValue], key: &str) -> String {
    let found: Vec<_> = resource.iter().filter(|known| known.key.as_str() == key).collect();
    assert_eq!(found.len(), 1, "{key} in {resource:?}");
    found[0].value.to_string()
}

#[test]
fn without_a_collector_there_are_no_spans() {
    for variables in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        // Off goes before everything that is wrong.
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
    ] {
        let (settings, ignored) = read(variables).unwrap();
        assert!(settings.is_none() && ignored.is_empty(), "{variables:?}");
    }
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = settings(&[]);
    assert_eq!(settings.endpoint, "http://collector:4317");
    assert_eq!((settings.queue, settings.batch), (2048, 512));
    assert_eq!((settings.delay, settings.timeout), (Duration::from_secs(5), Duration::from_secs(10)));
    assert_eq!(format!("{:?}", settings.sampler), "ParentBased(AlwaysOn)");
    assert!(settings.tls.is_none() && settings.headers.is_empty() && settings.reads_parents);
    assert_eq!(said(&settings.resource, "service.name"), "scopeward");
    assert_eq!(said(&settings.resource, "service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&settings.resource, "service.instance.id").len(), 36);
}

#[test]
fn a_variable_for_traces_goes_before_the_one_for_all() {
    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:1/"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ]);
    assert_eq!((settings.endpoint.host(), settings.endpoint.port_u16()), (Some("[::1]"), Some(1)));
    assert_eq!(settings.timeout, Duration::from_millis(2));
    let (alone, _) = read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1")]).unwrap();
    assert!(alone.is_some());
}

#[test]
fn where_spans_go_is_an_error_if_it_cannot_be_used() {
    let at = |value| [("OTEL_EXPORTER_OTLP_ENDPOINT", value)];
    refused(&at("http://"), "it is not an address");
    refused(&at("http://:4317"), "names no host");
    refused(&at("http://collector:4318/v1/traces"), "OTLP over HTTP");
    refused(&at("ftp://collector:4317"), "neither http nor https");
    refused(&at("http://a b"), "not an address");
    let secret = refused(&at("http://user:hunter2@collector:4317"), "has a user in it");
    assert!(!secret.contains("hunter2"));
    refused(
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
        "`http/protobuf`: spans are sent as OTLP over gRPC only",
    );
    refused(&[("OTEL_TRACES_EXPORTER", "console")], "one of: otlp, none");
}

#[test]
fn an_endpoint_without_a_scheme_is_https_unless_it_says_otherwise() {
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    let insecure = settings(&[bare, ("OTEL_EXPORTER_OTLP_INSECURE", "true")]);
    assert_eq!(insecure.endpoint, "http://collector:4317");
    let error = read(&[bare]).unwrap_err().to_string();
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE in the environment is not set"), "{error}");
    let secure = settings(&[bare, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem")]);
    assert_eq!(secure.endpoint, "https://collector:4317");
    assert_eq!(secure.tls.unwrap().trust, ServerTrust::IssuedBy("ca.pem".into()));
}

#[test]
fn a_client_certificate_and_its_key_go_together() {
    let secure = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca")];
    let (certificate, key) =
        (("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "c"), ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "k"));
    let both = settings(&[&secure[..], &[certificate, key]].concat());
    assert_eq!(both.tls.unwrap().own, Some((PathBuf::from("c"), PathBuf::from("k"))));
    for one in [certificate, key] {
        refused(&[&secure[..], &[one]].concat(), "go together");
    }
}

#[test]
fn headers_are_decoded_sensitive_and_never_shown() {
    let name = "OTEL_EXPORTER_OTLP_HEADERS";
    let headers = settings(&[(name, "Authorization=Bearer%20hunter2, x-a = b ,,x-a=c=d")]).headers;
    assert_eq!(headers["authorization"].as_bytes(), b"Bearer hunter2");
    assert!(headers["authorization"].is_sensitive());
    let all: Vec<_> = headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(all, [b"b".as_slice(), b"c=d"]);
    assert!(!format!("{headers:?}").contains("hunter2"));
    for list in ["hunter2", "a=b,hunter 2=x", "a=hunter2%0A"] {
        let error = refused(&[(name, list)], "cannot be sent");
        assert!(!error.contains("hunter"), "{error}");
    }
}

#[test]
fn numbers_are_used_or_ignored_with_a_warning() {
    let settings = settings(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "3"),
    ]);
    assert_eq!((settings.queue, settings.batch), (100, 100), "a batch fits the queue");
    assert_eq!((settings.delay, settings.timeout), (Duration::from_millis(20), Duration::from_millis(3)));
    for (name, value) in [
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1000001"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "18446744073709551616"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5"),
    ] {
        let settings = ignored(name, value, "whole number");
        assert_eq!((settings.queue, settings.batch, settings.delay), (2048, 512, Duration::from_secs(5)));
        assert_eq!(settings.timeout, Duration::from_secs(10));
    }
    ignored("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "not compressed");
    ignored("OTEL_SDK_DISABLED", "yes", "true or false");
}

#[test]
fn samplers_are_those_of_the_specification() {
    let sampler = |variables: &[(&str, &str)]| format!("{:?}", settings(variables).sampler);
    let name = "OTEL_TRACES_SAMPLER";
    let ratio = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
    for (word, expected) in [
        ("always_on", "AlwaysOn"),
        ("always_off", "AlwaysOff"),
        ("traceidratio", "TraceIdRatioBased(0.25)"),
        ("parentbased_always_on", "ParentBased(AlwaysOn)"),
        ("parentbased_always_off", "ParentBased(AlwaysOff)"),
        ("parentbased_traceidratio", "ParentBased(TraceIdRatioBased(0.25))"),
    ] {
        assert_eq!(sampler(&[(name, word), ratio]), expected);
    }
    assert_eq!(sampler(&[(name, "traceidratio")]), "TraceIdRatioBased(1.0)");
    let unknown = ignored(name, "jaeger_remote", "parentbased_always_on counts");
    assert_eq!(format!("{:?}", unknown.sampler), "ParentBased(AlwaysOn)");
    for value in ["1.1", "-0.1", "NaN", "half"] {
        let (settings, ignored) =
            read(&[ENDPOINT, (name, "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", value)]).unwrap();
        assert_eq!(format!("{:?}", settings.unwrap().sampler), "TraceIdRatioBased(1.0)");
        assert!(ignored[0].contains("0 to 1"), "{ignored:?}");
    }
}

#[test]
fn parents_are_read_if_the_propagator_is_among_those_named() {
    let name = "OTEL_PROPAGATORS";
    for (list, expected) in
        [("tracecontext", true), ("baggage, tracecontext", true), ("baggage", false), ("none", false)]
    {
        assert_eq!(settings(&[(name, list)]).reads_parents, expected, "{list}");
    }
    assert!(!ignored(name, "b3", "only tracecontext").reads_parents);
    assert!(ignored(name, "tracecontext,b3", "only tracecontext").reads_parents);
}

#[test]
fn the_resource_is_what_the_variables_say() {
    let name = "OTEL_RESOURCE_ATTRIBUTES";
    let resource =
        settings(&[(name, "service.name=a, deployment.environment.name=p%2Cq%3D1 ,service.instance.id=7")])
            .resource;
    assert_eq!(said(&resource, "service.name"), "a");
    assert_eq!(said(&resource, "deployment.environment.name"), "p,q=1");
    assert_eq!(said(&resource, "service.instance.id"), "7");
    let named = settings(&[(name, "service.name=a"), ("OTEL_SERVICE_NAME", "b")]).resource;
    assert_eq!(said(&named, "service.name"), "b");
    for list in ["a=1,b", "=1", "a=%ff"] {
        let resource = ignored(name, list, "percent-encoded").resource;
        assert_eq!(said(&resource, "service.name"), "scopeward");
        assert_eq!(resource.len(), 3);
    }
}

#[test]
fn every_variable_that_is_read_is_documented() {
    let read = RefCell::new(BTreeSet::new());
    for (scheme, sampler) in [("https://a", "traceidratio"), ("a", "always_on")] {
        _ = TraceSettings::from_variables(|name| {
            read.borrow_mut().insert(name.replace("_OTLP_TRACES_", "_OTLP_"));
            match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(scheme.into()),
                "OTEL_EXPORTER_OTLP_CERTIFICATE" => Some("ca".into()),
                "OTEL_TRACES_SAMPLER" => Some(sampler.into()),
                _ => None,
            }
        });
    }
    let documented: BTreeSet<_> = TRACE_VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
    assert_eq!(read.into_inner(), documented);
}
