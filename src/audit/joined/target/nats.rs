//! The place of a joined store in NATS: `nats://USER@HOST:PORT,HOST:PORT/STREAM?subject=PREFIX`.

use percent_encoding::percent_decode_str;

use super::{JoinedTarget, Parameters, TargetContext, TargetError, TargetPlace, is_remote};

/// The subject that the id of a log is appended to, unless the URL names another.
const SUBJECT: &str = "scopeward.audit";
const PORT: u16 = 4222;

/// A stream of a NATS server or cluster.
#[derive(Clone)]
pub(in crate::audit::joined) struct NatsPlace {
    /// `host:port` of each server, in the order in which they are tried.
    pub(in crate::audit::joined) servers: Vec<String>,
    pub(in crate::audit::joined) user: Option<String>,
    /// The password of the user; a token, a seed or credentials if there is none. A file goes before it.
    pub(in crate::audit::joined) password: Option<String>,
    pub(in crate::audit::joined) stream: String,
    /// What the subject of each log begins with, without the dot.
    pub(in crate::audit::joined) subject: String,
    /// The JetStream domain, if the stream is not in that of the server.
    pub(in crate::audit::joined) domain: Option<String>,
}

impl JoinedTarget {
    /// Reads a place in NATS.
    pub(super) fn parse_nats(text: &str, context: &TargetContext) -> Result<Self, TargetError> {
        let rest = text.strip_prefix("nats://").ok_or(TargetError::Unknown)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, stream) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => (said(user), said(password)),
            None => (None, None),
        };
        if password.is_some() && !context.may_have_password {
            return Err(TargetError::Password);
        }
        let mut parameters = Parameters::default();
        let (mut subject, mut domain) = (SUBJECT.to_owned(), None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "subject" => subject = value,
                "domain" => domain = Some(value),
                "password" | "token" => return Err(TargetError::Password),
                name => {
                    if !parameters.take(name, &value)? {
                        return Err(wrong(name, "scopeward does not know this parameter of a NATS URL"));
                    }
                }
            }
        }
        if !is_name(stream) {
            return Err(wrong(
                "stream",
                "name the stream after the host, as in nats://HOST/STREAM, with letters, digits, `-` and `_`",
            ));
        }
        if !subject.split('.').all(is_name) {
            return Err(wrong("subject", "write names separated by dots, as in scopeward.audit"));
        }
        if domain.as_deref().is_some_and(|domain| !is_name(domain)) {
            return Err(wrong("domain", "it must have letters, digits, `-` and `_` alone"));
        }
        let hosts: Vec<(String, u16)> = hosts.split(',').map(host_and_port).collect::<Result<_, _>>()?;
        let password = password.or_else(|| context.password.clone());
        if user.is_some() && password.is_none() && context.password_file.is_none() {
            let problem = "has no password: put it into NATS_PASSWORD, or into a file for --audit-forward-password-file; a token, the \
                           seed of an nkey or the text of a credentials file goes there too, without a user";
            return Err(wrong("user", problem));
        }
        let is_encrypted =
            parameters.is_encrypted.unwrap_or_else(|| hosts.iter().any(|(host, _)| is_remote(host)));
        let servers: Vec<String> = hosts
            .iter()
            .map(
                |(host, port)| {
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
                },
            )
            .collect();
        let shown = format!("{}/{stream}", servers.join(","));
        let place = NatsPlace { servers, user, password, stream: stream.to_owned(), subject, domain };
        Ok(Self {
            place: TargetPlace::Nats(place),
            shown,
            is_encrypted,
            files: parameters.files,
            password_file: context.password_file.clone(),
            tls: None,
        })
    }
}

fn wrong(name: &str, problem: &str) -> TargetError {
    TargetError::Parameter { name: name.to_owned(), problem: problem.to_owned() }
}

/// `None` for an empty text.
fn said(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

/// Whether a text is one token of a subject that no pattern is in.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Reads `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn host_and_port(text: &str) -> Result<(String, u16), TargetError> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(wrong("host", "is missing"));
    }
    let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong("port", "it is not a port"))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, context: &TargetContext) -> Result<JoinedTarget, String> {
        JoinedTarget::parse(text, context).map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_in_nats_names_servers_stream_and_subject() {
        let context = TargetContext { password: Some("secret".to_owned()), ..TargetContext::default() };
        for (text, is_encrypted, shown, subject) in [
            ("nats://127.0.0.1/AUDIT", false, "127.0.0.1:4222/AUDIT", "scopeward.audit"),
            ("nats://w@[::1]:1/A_b-2?subject=eu.audit", false, "[::1]:1/A_b-2", "eu.audit"),
            ("nats://w@a,b:2/AUDIT", true, "a:4222,b:2/AUDIT", "scopeward.audit"),
            ("nats://w@a/AUDIT?sslmode=disable", false, "a:4222/AUDIT", "scopeward.audit"),
            (
                "nats://localhost/AUDIT?sslmode=verify-full&domain=hub",
                true,
                "localhost:4222/AUDIT",
                "scopeward.audit",
            ),
        ] {
            let target = parse(text, &context).unwrap();
            assert_eq!((target.tls_files().is_some(), target.shown()), (is_encrypted, shown), "{text}");
            let TargetPlace::Nats(place) = target.place() else { panic!("{text}") };
            assert_eq!((&*place.subject, place.password.as_deref()), (subject, Some("secret")), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_in_nats_is_named_and_never_shows_a_password() {
        for (text, words) in [
            ("nats://db.example", "`stream`"),
            ("nats://db.example/a.b", "`stream`"),
            ("nats:///AUDIT", "`host`"),
            ("nats://db.example:x/AUDIT", "`port`"),
            ("nats://db.example/AUDIT?subject=a.*", "`subject`"),
            ("nats://db.example/AUDIT?subject=", "`subject`"),
            ("nats://db.example/AUDIT?domain=a.b", "`domain`"),
            ("nats://db.example/AUDIT?colour=red", "`colour`"),
            ("nats://db.example/AUDIT?sslmode=prefer", "`sslmode`"),
            ("nats://w:hunter2@db.example/AUDIT", "password"),
            ("nats://db.example/AUDIT?token=hunter2", "password"),
            ("nats://w@db.example/AUDIT", "NATS_PASSWORD"),
        ] {
            let error = parse(text, &TargetContext::default()).map(|_| ()).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
        let context = TargetContext { may_have_password: true, ..TargetContext::default() };
        let target = parse("nats://w:hunter2@db.example/AUDIT", &context).unwrap();
        assert!(!format!("{target:?} {target}").contains("hunter2"));
    }
}
