//! Where the joined store is, as it is written: a `postgres://` or `nats://` URL, with what a service file and the environment add.
//!
//! What the environment and the service file say is given; only the password is read from its file, for each connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::escape::shown;

#[cfg(feature = "nats")]
mod nats;

#[cfg(feature = "nats")]
pub(super) use nats::NatsPlace;

/// How long one address may take to connect to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// What is not in the URL.
#[derive(Clone, Default)]
pub struct TargetContext {
    /// `PGPASSWORD`, or `NATS_PASSWORD`.
    pub password: Option<String>,
    /// The file with the password, read again for each connection; goes before the other. For NATS it may have a token, a seed or credentials.
    pub password_file: Option<PathBuf>,
    /// The text of the service file, if there is one.
    pub services: Option<String>,
    /// Whether the URL came from the environment, where it may have a password.
    pub may_have_password: bool,
}

/// Where the joined store is. Shows no credentials.
#[derive(Clone)]
pub struct JoinedTarget {
    place: TargetPlace,
    shown: String,
    is_encrypted: bool,
    files: TargetFiles,
    password_file: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
}

/// What kind of store it is, and where.
#[derive(Clone)]
pub(super) enum TargetPlace {
    Postgres(Box<Config>),
    #[cfg(feature = "nats")]
    Nats(NatsPlace),
}

/// The files that TLS with the store needs, as the URL names them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TargetFiles {
    /// `sslrootcert`: who issues its certificate.
    pub ca: Option<PathBuf>,
    /// `sslcert`: the certificate to show.
    pub certificate: Option<PathBuf>,
    /// `sslkey`: its key.
    pub private_key: Option<PathBuf>,
}

/// Why a text is no place of a joined store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// It is something else.
    #[error(
        "write it as postgres://USER@HOST:PORT/DATABASE, with ?sslrootcert=FILE for TLS, as postgres:///?service=NAME, or as \
         nats://USER@HOST:PORT/STREAM"
    )]
    Unknown,
    /// It is in NATS, for which this program was built without the feature.
    #[error(
        "this build of scopeward does not know NATS; build it with the feature: cargo build --release --features nats"
    )]
    NoNats,
    /// The URL has a password where others can see it.
    #[error(
        "it has a password, which everybody on the machine can see there: put it into PGPASSWORD (NATS_PASSWORD for NATS), or into a file \
         for --audit-forward-password-file"
    )]
    Password,
    /// A service is named that no file has.
    #[error("the service `{0}` is not in the service file; name that file in PGSERVICEFILE")]
    NoService(String),
    /// A parameter of the URL or of the service cannot be used.
    #[error("`{name}`: {problem}")]
    Parameter {
        /// Which one.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl JoinedTarget {
    /// Returns `true` if the text is meant as the place of a store.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        is_postgres(text) || Self::is_nats(text)
    }

    /// Returns `true` if it is meant as a place in NATS.
    #[must_use]
    pub fn is_nats(text: &str) -> bool {
        text.starts_with("nats://")
    }

    /// Reads the place.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub fn parse(text: &str, context: &TargetContext) -> Result<Self, TargetError> {
        if Self::is_nats(text) {
            #[cfg(feature = "nats")]
            return Self::parse_nats(text, context);
            #[cfg(not(feature = "nats"))]
            return Err(TargetError::NoNats);
        }
        if !is_postgres(text) {
            return Err(TargetError::Unknown);
        }
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut parameters = Parameters::default();
        let mut rest = Vec::new();
        let mut service = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "service" => service = Some(value),
                "password" if !context.may_have_password => return Err(TargetError::Password),
                name => {
                    if !parameters.take(name, &value)? {
                        rest.push(pair);
                    }
                }
            }
        }
        let url = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let problem = error.to_string();
            let cause = std::error::Error::source(&error).map_or(problem, ToString::to_string);
            TargetError::Parameter { name: "URL".to_owned(), problem: cause }
        })?;
        if config.get_password().is_some() && !context.may_have_password {
            return Err(TargetError::Password);
        }
        if let Some(service) = service {
            let services = context.services.as_deref().unwrap_or_default();
            let lines = service_lines(services, &service).ok_or(TargetError::NoService(service))?;
            for (name, value) in lines {
                set(&mut config, &mut parameters, &name, &value)?;
            }
        }
        if let (None, Some(password)) = (config.get_password(), &context.password) {
            config.password(password);
        }
        if config.get_hosts().is_empty() {
            return Err(TargetError::Parameter {
                name: "host".to_owned(),
                problem: "is missing; name a host, or the folder of a Unix socket with ?host=/run/postgresql"
                    .to_owned(),
            });
        }
        if config.get_user().is_none() {
            return Err(TargetError::Parameter { name: "user".to_owned(), problem: "is missing".to_owned() });
        }
        let is_encrypted =
            parameters.is_encrypted.unwrap_or_else(|| config.get_hosts().iter().any(is_remote_host));
        config
            .ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable })
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .application_name("scopeward");
        let shown = place_of(&config);
        let password_file = context.password_file.clone();
        let place = TargetPlace::Postgres(Box::new(config));
        Ok(Self { place, shown, is_encrypted, files: parameters.files, password_file, tls: None })
    }

    /// A URL without the password that it may have, to be shown.
    #[must_use]
    pub fn without_password(url: &str) -> String {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
        let user = user.split(':').next().unwrap_or_default();
        let mut shown = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        // What is before the @ of a NATS URL can be a token.
        if !user.is_empty() && !Self::is_nats(url) {
            shown.push_str(&format!("{user}@"));
        }
        shown.push_str(host);
        let kept: Vec<&str> =
            query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("password")).collect();
        if !kept.is_empty() {
            shown.push_str(&format!("?{}", kept.join("&")));
        }
        shown
    }

    /// The files of TLS; `None` if the connection is not encrypted.
    #[must_use]
    pub fn tls_files(&self) -> Option<&TargetFiles> {
        self.is_encrypted.then_some(&self.files)
    }

    /// The same place, with what TLS needs. The protocol that is negotiated is that of the store: PostgreSQL from version 17 on refuses others.
    #[must_use]
    pub fn with_tls(self, mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = match self.place {
            TargetPlace::Postgres(_) => vec![b"postgresql".to_vec()],
            #[cfg(feature = "nats")]
            TargetPlace::Nats(_) => Vec::new(),
        };
        Self { tls: Some(Arc::new(tls)), ..self }
    }

    /// What kind of store it is, and where.
    pub(super) const fn place(&self) -> &TargetPlace {
        &self.place
    }

    /// The password that its file has now; `None` without a file.
    pub(super) async fn file_password(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let shown = shown(&path.to_string_lossy());
        let text = tokio::fs::read(path)
            .await
            .map_err(|error| format!("could not read the password file `{shown}`: {error}"))?;
        let password = text.strip_suffix(b"\n").unwrap_or(&text);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        if password.is_empty() {
            return Err(format!("the password file `{shown}` is empty"));
        }
        Ok(Some(password.to_vec()))
    }

    pub(super) fn tls(&self) -> Option<&ClientConfig> {
        self.tls.as_deref().filter(|_| self.is_encrypted)
    }

    /// Host, port, and database or stream.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl std::fmt::Debug for JoinedTarget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("JoinedTarget").field(&self.shown).finish()
    }
}

/// What is read here, and not by the library.
#[derive(Default)]
struct Parameters {
    is_encrypted: Option<bool>,
    files: TargetFiles,
}

impl Parameters {
    /// Takes a parameter; `false` if it is not one of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, TargetError> {
        match name {
            "sslmode" => {
                self.is_encrypted = Some(match value {
                    "disable" => false,
                    "require" | "verify-ca" | "verify-full" => true,
                    _ => {
                        return Err(TargetError::Parameter {
                            name: name.to_owned(),
                            problem: "it must be `disable` or `verify-full`; a certificate is always verified in full".to_owned(),
                        });
                    }
                });
            }
            "sslrootcert" => self.files.ca = Some(value.into()),
            "sslcert" => self.files.certificate = Some(value.into()),
            "sslkey" => self.files.private_key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The lines of a service in a service file of libpq: `[NAME]`, then `key=value`.
fn service_lines(text: &str, service: &str) -> Option<Vec<(String, String)>> {
    let mut lines = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if lines.is_some() {
                break;
            }
            lines = (name == service).then(Vec::new);
        } else if let (Some(lines), Some((name, value))) = (&mut lines, line.split_once('=')) {
            lines.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    lines
}

/// Sets what a service says, where the URL says nothing.
fn set(config: &mut Config, parameters: &mut Parameters, name: &str, value: &str) -> Result<(), TargetError> {
    let wrong = |problem: &str| TargetError::Parameter { name: name.to_owned(), problem: problem.to_owned() };
    match name {
        "host" | "hostaddr" if config.get_hosts().is_empty() => {
            for host in value.split(',') {
                config.host(host);
            }
        }
        "port" if config.get_ports().is_empty() => {
            for port in value.split(',') {
                config.port(port.parse().map_err(|_| wrong("it is no port"))?);
            }
        }
        "user" if config.get_user().is_none() => {
            config.user(value);
        }
        "dbname" if config.get_dbname().is_none() => {
            config.dbname(value);
        }
        "password" if config.get_password().is_none() => {
            config.password(value);
        }
        // What the URL says goes before it, which is not to be told from the default.
        "target_session_attrs" if config.get_target_session_attrs() == TargetSessionAttrs::Any => {
            config.target_session_attrs(match value {
                "any" => TargetSessionAttrs::Any,
                "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                _ => return Err(wrong("it must be `read-write`, `read-only` or `any`")),
            });
        }
        "host" | "hostaddr" | "port" | "user" | "dbname" | "password" | "target_session_attrs" => {}
        "connect_timeout" | "application_name" | "keepalives" => {}
        name => {
            if !parameters.take(name, value)? {
                return Err(wrong("scopeward does not know this setting of a service"));
            }
        }
    }
    Ok(())
}

fn is_postgres(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

fn is_remote_host(host: &Host) -> bool {
    match host {
        Host::Unix(_) => false,
        Host::Tcp(name) => is_remote(name),
    }
}

fn is_remote(name: &str) -> bool {
    name != "localhost"
        && name.parse::<std::net::IpAddr>().map_or(true, |address| !address.to_canonical().is_loopback())
}

fn place_of(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JoinedTarget, String> {
        let context = TargetContext {
            password: Some("secret".to_owned()),
            password_file: None,
            services: Some(
                "# shared\n[other]\nhost=other\n\n[audit]\nhost = db.example\nport=5433\nuser=writer\ndbname=joined\nsslrootcert=/ca.pem\ntarget_session_attrs=read-write\n[x]\nhost=x"
                    .to_owned(),
            ),
            may_have_password: false,
        };
        JoinedTarget::parse(text, &context).map_err(|error| error.to_string())
    }

    fn config(target: &JoinedTarget) -> &Config {
        match target.place() {
            TargetPlace::Postgres(config) => config,
            #[cfg(feature = "nats")]
            TargetPlace::Nats(_) => panic!("it is in NATS"),
        }
    }

    #[cfg(not(feature = "nats"))]
    #[test]
    fn nats_is_refused_by_name_where_it_is_not_built_in() {
        let error = parse("nats://db.example/AUDIT").unwrap_err();
        assert!(error.contains("--features nats"), "{error}");
    }

    #[test]
    fn another_machine_is_spoken_to_in_tls_unless_the_url_says_otherwise() {
        for (text, is_encrypted, shown) in [
            ("postgres://w@127.0.0.1/audit", false, "127.0.0.1:5432/audit"),
            ("postgresql://w@localhost:1/audit", false, "localhost:1/audit"),
            ("postgres://w@db.example/audit", true, "db.example:5432/audit"),
            ("postgres://w@a,b:2/audit?target_session_attrs=read-write", true, "a:5432,b:2/audit"),
            ("postgres://w@db.example/audit?sslmode=disable", false, "db.example:5432/audit"),
            ("postgres://w@127.0.0.1/audit?sslmode=verify-full", true, "127.0.0.1:5432/audit"),
            ("postgres://w@/audit?host=/run/postgresql", false, "/run/postgresql:5432/audit"),
        ] {
            let target = parse(text).unwrap();
            assert_eq!((target.tls_files().is_some(), target.shown()), (is_encrypted, shown), "{text}");
            assert_eq!(config(&target).get_password(), Some(&b"secret"[..]), "{text}");
        }
    }

    #[test]
    fn a_service_says_what_the_url_does_not() {
        let target = parse("postgres:///?service=audit").unwrap();
        assert_eq!(target.shown(), "db.example:5433/joined");
        assert_eq!(config(&target).get_user(), Some("writer"));
        assert_eq!(target.tls_files().unwrap().ca, Some("/ca.pem".into()));
        assert_eq!(config(&target).get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let target = parse("postgres://reader@/?service=audit").unwrap();
        assert_eq!(config(&target).get_user(), Some("reader"));
    }

    #[test]
    fn what_cannot_be_used_is_named_and_never_shows_a_password() {
        for (text, words) in [
            ("mysql://x", "postgres://USER"),
            ("postgres://w:hunter2@db.example/audit", "password"),
            ("postgres://w@db.example/audit?password=hunter2", "password"),
            ("postgres://w@db.example/audit?sslmode=prefer", "`sslmode`"),
            ("postgres://w@db.example/audit?colour=red", "colour"),
            ("postgres:///?service=nowhere", "`nowhere`"),
            ("postgres://w@", "`host`"),
            ("postgres://db.example/audit", "`user`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
        let context = TargetContext { may_have_password: true, ..TargetContext::default() };
        let target = JoinedTarget::parse("postgres://w:hunter2@db.example/audit", &context).unwrap();
        assert!(!format!("{target:?} {target}").contains("hunter2"));
        for (url, shown) in [
            ("postgres://w:hunter2@db.example/audit", "postgres://w@db.example/audit"),
            (
                "postgres://w:hun@ter2@db/a?sslmode=disable&password=hunter2",
                "postgres://w@db/a?sslmode=disable",
            ),
            ("postgres://db/a", "postgres://db/a"),
            ("nats://hunter2@a,b/AUDIT?subject=x", "nats://a,b/AUDIT?subject=x"),
            ("w:hunter2@db", "w@db"),
        ] {
            assert_eq!(JoinedTarget::without_password(url), shown);
        }
    }
}
