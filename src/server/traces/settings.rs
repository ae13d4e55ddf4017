//! How spans are made and where they go, by the standard variables of OpenTelemetry. Knows them by name, and reads no environment
//! itself.
//!
//! Sources: "Environment Variable Specification" and "OpenTelemetry Protocol Exporter" of the OpenTelemetry specification. A number,
//! a word or a list that cannot be used is ignored with a warning, as the first of them wants it. What decides where spans go, and
//! who can read them on the way, is an error instead: spans would be lost, or sent in another way than was meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry::KeyValue;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::escape::shown;
use crate::server::tls::{ClientTlsFiles, ServerTrust};

/// What there is to know for making spans and for sending them.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Where the collector is: scheme `http` or `https`, a host, perhaps a port, no path.
    pub endpoint: Uri,
    /// For an `https` collector, by whom it is known.
    pub tls: Option<ClientTlsFiles>,
    /// Sent with each export.
    pub headers: HeaderMap,
    /// How long an export may take, with all attempts. Default 10 s.
    pub timeout: Duration,
    /// Which spans are made. Default: those whose parent was, and all that have none.
    pub sampler: Sampler,
    /// Whether the parent of a span is that of the caller's `traceparent`. Default true.
    pub reads_parents: bool,
    /// What is said of this process with its spans.
    pub resource: Vec<KeyValue>,
    /// The most spans that wait. Default 2048.
    pub queue: usize,
    /// The most spans of one export, at most `queue`. Default 512.
    pub batch: usize,
    /// How long spans wait for others until they are sent. Default 5 s.
    pub delay: Duration,
}

/// A variable that says where spans go, or how, has a value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable} in the environment {problem}")]
pub struct TraceSettingsError {
    variable: String,
    problem: String,
}

/// A variable, for the reference.
#[derive(Clone, Copy, Debug)]
pub struct TraceVariable {
    /// Its name.
    pub name: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub text: &'static str,
}

impl TraceSettings {
    /// Settings for a collector at `endpoint`, and for the rest the defaults.
    #[must_use]
    pub fn new(endpoint: Uri) -> Self {
        Self {
            endpoint,
            tls: None,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(10),
            sampler: Sampler::ParentBased(Box::new(Sampler::AlwaysOn)),
            reads_parents: true,
            resource: resource_of_this_process(),
            queue: 2048,
            batch: 512,
            delay: Duration::from_secs(5),
        }
    }

    /// Reads the variables that `get` knows. `None` if there are to be no spans; what was ignored is returned in words.
    ///
    /// # Errors
    /// If a variable that says where spans go, or how, cannot be used.
    pub fn from_variables(
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Option<Self>, Vec<String>), TraceSettingsError> {
        let mut variables = Variables { get, ignored: Vec::new() };
        let settings = variables.settings()?;
        Ok((settings, variables.ignored))
    }
}

fn resource_of_this_process() -> Vec<KeyValue> {
    vec![
        KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
    ]
}

/// The variables as they are read.
struct Variables<G> {
    get: G,
    ignored: Vec<String>,
}

impl<G: Fn(&str) -> Option<OsString>> Variables<G> {
    fn settings(&mut self) -> Result<Option<TraceSettings>, TraceSettingsError> {
        if self.is_on("OTEL_SDK_DISABLED")? {
            return Ok(None);
        }
        let Some(given) = self.exporter("ENDPOINT")? else { return Ok(None) };
        match self.value("OTEL_TRACES_EXPORTER")?.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(invalid("OTEL_TRACES_EXPORTER", other, "one of: otlp, none")),
        }
        if let Some((name, protocol)) = self.exporter("PROTOCOL")?.filter(|(_, protocol)| protocol != "grpc")
        {
            return Err(invalid(
                &name,
                &protocol,
                "spans are sent as OTLP over gRPC only (port 4317 of most collectors); leave it out or set it to grpc, or set \
                 OTEL_TRACES_EXPORTER=none for no spans",
            ));
        }
        let mut settings = TraceSettings::new(self.endpoint(given)?);
        settings.tls = self.tls(&settings.endpoint)?;
        settings.headers = self.headers()?;
        if let Some((name, value)) = self.exporter("COMPRESSION")?.filter(|(_, value)| value != "none") {
            self.ignore(&name, &value, "spans are not compressed");
        }
        if let Some((name, value)) = self.exporter("TIMEOUT")? {
            settings.timeout = self.milliseconds(&name, &value).unwrap_or(settings.timeout);
        }
        if let Some(most) = self.time("OTEL_BSP_EXPORT_TIMEOUT")? {
            settings.timeout = settings.timeout.min(most);
        }
        settings.delay = self.time("OTEL_BSP_SCHEDULE_DELAY")?.unwrap_or(settings.delay);
        settings.queue = self.count("OTEL_BSP_MAX_QUEUE_SIZE")?.unwrap_or(settings.queue);
        settings.batch =
            self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")?.unwrap_or(settings.batch).min(settings.queue);
        settings.sampler = self.sampler()?;
        settings.reads_parents = self.reads_parents()?;
        self.resource(&mut settings.resource)?;
        Ok(Some(settings))
    }

    /// The value of a variable, without blanks around it; `None` if it is empty, which means the same as not set.
    fn value(&self, name: &str) -> Result<Option<String>, TraceSettingsError> {
        let Some(value) = (self.get)(name) else { return Ok(None) };
        let Ok(value) = value.into_string() else {
            return Err(error(name, "is not UTF-8"));
        };
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    /// A variable of the exporter with its name: that for traces goes before that for all signals.
    fn exporter(&self, setting: &str) -> Result<Option<(String, String)>, TraceSettingsError> {
        for name in [format!("OTEL_EXPORTER_OTLP_TRACES_{setting}"), format!("OTEL_EXPORTER_OTLP_{setting}")]
        {
            if let Some(value) = self.value(&name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    fn ignore(&mut self, name: &str, value: &str, why: &str) {
        self.ignored.push(format!("{name}=`{}` in the environment is ignored: {why}", shown(value)));
    }

    /// Only `true` is true ("Boolean value").
    fn is_on(&mut self, name: &str) -> Result<bool, TraceSettingsError> {
        let Some(value) = self.value(name)? else { return Ok(false) };
        let is_on = value.eq_ignore_ascii_case("true");
        if !is_on && !value.eq_ignore_ascii_case("false") {
            self.ignore(name, &value, "it must be true or false");
        }
        Ok(is_on)
    }

    fn endpoint(&mut self, (name, value): (String, String)) -> Result<Uri, TraceSettingsError> {
        let hint = "write it as http://HOST:PORT or https://HOST:PORT";
        let text = if value.contains("://") {
            value.clone()
        } else {
            let insecure = match self.exporter("INSECURE")? {
                Some((name, _)) => self.is_on(&name)?,
                None => false,
            };
            format!("{}://{value}", if insecure { "http" } else { "https" })
        };
        let wrong = |why: &str| Err(invalid(&name, &value, &format!("{why}; {hint}")));
        let uri: Uri = match text.parse() {
            Ok(uri) => uri,
            Err(_) => return wrong("it is not an address"),
        };
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_none_or(str::is_empty) => wrong("it names no host"),
            Some("http" | "https")
                if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) =>
            {
                Err(error(&name, &format!("has a user in it, which gRPC does not send; {hint}")))
            }
            Some("http" | "https") if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
                wrong("gRPC has no path, so this may be where a collector takes OTLP over HTTP")
            }
            Some("http" | "https") => Ok(uri),
            _ => wrong("it is neither http nor https"),
        }
    }

    fn tls(&self, endpoint: &Uri) -> Result<Option<ClientTlsFiles>, TraceSettingsError> {
        if endpoint.scheme_str() != Some("https") {
            return Ok(None);
        }
        let Some((_, ca)) = self.exporter("CERTIFICATE")? else {
            return Err(error(
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "is not set, and an https collector needs it: the file (PEM) with who issues its certificate, such as \
                 /etc/ssl/certs/ca-certificates.crt",
            ));
        };
        let own = match (self.exporter("CLIENT_CERTIFICATE")?, self.exporter("CLIENT_KEY")?) {
            (None, None) => None,
            (Some((_, certificate)), Some((_, key))) => {
                Some((PathBuf::from(certificate), PathBuf::from(key)))
            }
            (Some((name, _)), None) | (None, Some((name, _))) => {
                return Err(error(
                    &name,
                    "needs the other one: a client certificate and its key go together",
                ));
            }
        };
        Ok(Some(ClientTlsFiles { trust: ServerTrust::IssuedBy(PathBuf::from(ca)), own }))
    }

    /// Values are secrets: they are never shown.
    fn headers(&self) -> Result<HeaderMap, TraceSettingsError> {
        let mut headers = HeaderMap::new();
        let Some((name, list)) = self.exporter("HEADERS")? else { return Ok(headers) };
        let wrong = |at: usize| {
            error(
                &name,
                &format!("is not a list of headers as NAME=VALUE,NAME=VALUE: entry {at} cannot be sent"),
            )
        };
        for (at, entry) in (1..).zip(list.split(',').filter(|entry| !entry.trim().is_empty())) {
            let (header, value) = entry.split_once('=').ok_or_else(|| wrong(at))?;
            let header = HeaderName::from_bytes(header.trim().as_bytes()).map_err(|_| wrong(at))?;
            let value: Vec<u8> = percent_decode_str(value.trim()).collect();
            let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong(at))?;
            value.set_sensitive(true);
            headers.append(header, value);
        }
        Ok(headers)
    }

    fn time(&mut self, name: &str) -> Result<Option<Duration>, TraceSettingsError> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        Ok(self.milliseconds(name, &value))
    }

    fn milliseconds(&mut self, name: &str, value: &str) -> Option<Duration> {
        self.number(name, value, LONGEST_MILLISECONDS).map(Duration::from_millis)
    }

    fn count(&mut self, name: &str) -> Result<Option<usize>, TraceSettingsError> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        Ok(self.number(name, &value, MOST_SPANS).and_then(|count| usize::try_from(count).ok()))
    }

    fn number(&mut self, name: &str, value: &str, most: u64) -> Option<u64> {
        let number = value.parse().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            self.ignore(name, value, &format!("it must be a whole number, 1 to {most}"));
        }
        number
    }

    fn sampler(&mut self) -> Result<Sampler, TraceSettingsError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let by_parent = |root| Sampler::ParentBased(Box::new(root));
        let sampler = self.value(NAME)?;
        Ok(match sampler.as_deref() {
            Some("always_on") => Sampler::AlwaysOn,
            Some("always_off") => Sampler::AlwaysOff,
            Some("traceidratio") => Sampler::TraceIdRatioBased(self.ratio()?),
            None | Some("parentbased_always_on") => by_parent(Sampler::AlwaysOn),
            Some("parentbased_always_off") => by_parent(Sampler::AlwaysOff),
            Some("parentbased_traceidratio") => by_parent(Sampler::TraceIdRatioBased(self.ratio()?)),
            Some(other) => {
                self.ignore(
                    NAME,
                    other,
                    "it must be one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                     parentbased_traceidratio; parentbased_always_on counts",
                );
                by_parent(Sampler::AlwaysOn)
            }
        })
    }

    fn ratio(&mut self) -> Result<f64, TraceSettingsError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.value(NAME)? else { return Ok(1.0) };
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.ignore(NAME, &value, "it must be a number from 0 to 1; 1 counts");
        }
        Ok(ratio.unwrap_or(1.0))
    }

    /// Whether `tracecontext` is among the propagators. Baggage is not used, and needs nothing.
    fn reads_parents(&mut self) -> Result<bool, TraceSettingsError> {
        const NAME: &str = "OTEL_PROPAGATORS";
        let Some(list) = self.value(NAME)? else { return Ok(true) };
        let mut reads_parents = false;
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "tracecontext" => reads_parents = true,
                "baggage" | "none" => {}
                other => self.ignore(NAME, other, "only tracecontext is read (W3C Trace Context)"),
            }
        }
        Ok(reads_parents)
    }

    /// Adds what the variables say, which goes before what was there.
    fn resource(&mut self, resource: &mut Vec<KeyValue>) -> Result<(), TraceSettingsError> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let mut set = |key: String, value: String| {
            resource.retain(|known| known.key.as_str() != key);
            resource.push(KeyValue::new(key, value));
        };
        if let Some(list) = self.value(NAME)? {
            match attributes(&list) {
                Some(attributes) => attributes.into_iter().for_each(|(key, value)| set(key, value)),
                // All of it, as the specification of resources has it.
                None => self.ignored.push(format!(
                    "{NAME} in the environment is ignored: it must be KEY=VALUE,KEY=VALUE, percent-encoded"
                )),
            }
        }
        if let Some(name) = self.value("OTEL_SERVICE_NAME")? {
            set("service.name".to_owned(), name);
        }
        Ok(())
    }
}

/// The pairs of a list; `None` if something of it cannot be read.
fn attributes(list: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    let entries = list.split(',').filter(|entry| !entry.trim().is_empty());
    entries
        .map(|entry| {
            let (key, value) = entry.split_once('=')?;
            Some((decoded(key).filter(|key| !key.is_empty())?, decoded(value)?))
        })
        .collect()
}

fn error(variable: &str, problem: &str) -> TraceSettingsError {
    TraceSettingsError { variable: variable.to_owned(), problem: problem.to_owned() }
}

fn invalid(variable: &str, value: &str, hint: &str) -> TraceSettingsError {
    error(variable, &format!("has an invalid value `{}`: {hint}", shown(value)))
}

/// A year.
const LONGEST_MILLISECONDS: u64 = 365 * 24 * 60 * 60 * 1000;
const MOST_SPANS: u64 = 1_000_000;

/// Every variable that is read, in the order in which it is shown.
pub const TRACE_VARIABLES: &[TraceVariable] = &[
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        default: "no spans",
        text: "The collector that spans are sent to, `http://HOST:PORT` or `https://HOST:PORT`; without a scheme it is `https`",
    },
    TraceVariable { name: "OTEL_SDK_DISABLED", default: "`false`", text: "`true` switches spans off" },
    TraceVariable {
        name: "OTEL_TRACES_EXPORTER",
        default: "`otlp`",
        text: "`none` switches spans off; there is no other exporter, and another word stops the start",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_PROTOCOL",
        default: "`grpc`",
        text: "Only `grpc`; another word stops the start",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_INSECURE",
        default: "`false`",
        text: "`true` means `http` for an endpoint without a scheme",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_CERTIFICATE",
        default: "not set",
        text: "File with who issues the certificate of an `https` collector (PEM); required there",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        default: "not set",
        text: "File with the certificate to show to an `https` collector, with its chain (PEM)",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        default: "not set",
        text: "File with the private key of that certificate (PEM)",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_HEADERS",
        default: "none",
        text: "Headers to send, `NAME=VALUE,NAME=VALUE`, values percent-encoded; never shown",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_TIMEOUT",
        default: "`10000`",
        text: "How long an export may take, in milliseconds, with all attempts",
    },
    TraceVariable {
        name: "OTEL_EXPORTER_OTLP_COMPRESSION",
        default: "`none`",
        text: "Spans are not compressed; another word than `none` is ignored",
    },
    TraceVariable {
        name: "OTEL_SERVICE_NAME",
        default: "`scopeward`",
        text: "The attribute `service.name` of the resource",
    },
    TraceVariable {
        name: "OTEL_RESOURCE_ATTRIBUTES",
        default: "none",
        text: "More attributes of the resource, `KEY=VALUE,KEY=VALUE`, percent-encoded; `service.version` and `service.instance.id` \
               are there without it",
    },
    TraceVariable {
        name: "OTEL_TRACES_SAMPLER",
        default: "`parentbased_always_on`",
        text: "Which spans are made: `always_on`, `always_off`, `traceidratio`, `parentbased_always_on`, `parentbased_always_off` or \
               `parentbased_traceidratio`",
    },
    TraceVariable {
        name: "OTEL_TRACES_SAMPLER_ARG",
        default: "`1`",
        text: "The part of traces for `traceidratio` and `parentbased_traceidratio`, 0 to 1",
    },
    TraceVariable {
        name: "OTEL_PROPAGATORS",
        default: "`tracecontext,baggage`",
        text: "Without `tracecontext` in it, the `traceparent` of callers is not the parent of spans; others are ignored",
    },
    TraceVariable {
        name: "OTEL_BSP_SCHEDULE_DELAY",
        default: "`5000`",
        text: "How long spans wait for others until they are sent, in milliseconds",
    },
    TraceVariable {
        name: "OTEL_BSP_MAX_QUEUE_SIZE",
        default: "`2048`",
        text: "How many spans may wait (a span takes 1 to 2 KiB); more are dropped and counted",
    },
    TraceVariable {
        name: "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        default: "`512`",
        text: "How many spans are sent at once, at most as many as may wait",
    },
    TraceVariable {
        name: "OTEL_BSP_EXPORT_TIMEOUT",
        default: "`30000`",
        text: "The same as the timeout of the exporter; the lower one counts",
    },
];

#[cfg(test)]
mod tests;
