//! The settings of `serve` and of `gateway`, a row for each: what is not here, or in `cli/gateway/settings`, is no setting.
//!
//! The flags, their checks and help, the variables, the keys of the configuration file, `--print-config`
//! and `docs/reference/settings.md` come from these rows.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction};

use crate::audit::LEAST_STORE_BYTES;
use crate::cli::gateway::settings::GATEWAY_SETTINGS;
use crate::cli::value::{address, duration, listen_address, mode, size, size_text, switch, time_text};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct ServeSetting {
    /// The flag without its dashes; variable and key follow from it.
    pub(in crate::cli) flag: &'static str,
    /// What values it takes.
    pub(in crate::cli) kind: SettingKind,
    /// As it would be written; `None` if it is not set then. A switch is off.
    pub(in crate::cli) default: Option<&'static str>,
    /// What it does, for people: one line without a full stop. The range is not in it.
    pub(in crate::cli) text: &'static str,
}

/// A verb that runs a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cli) enum ServerVerb {
    /// Decisions over gRPC.
    Serve,
    /// A reverse proxy that decides.
    Gateway,
}

impl ServerVerb {
    /// Its settings, in the order in which they are shown.
    pub(in crate::cli) fn settings(self) -> Vec<&'static ServeSetting> {
        match self {
            Self::Serve => SETTINGS.iter().collect(),
            Self::Gateway => {
                let shared = SETTINGS.iter().filter(|setting| !SERVE_ALONE.contains(&setting.flag));
                GATEWAY_SETTINGS.iter().chain(shared).collect()
            }
        }
    }
}

/// What a gateway has no use for, or a row of its own.
pub(in crate::cli) const SERVE_ALONE: [&str; 3] = ["listen", "http-listen", "max-streams"];

/// The values that a setting takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum SettingKind {
    /// On or off; as a flag without a value.
    Switch,
    /// A file or directory, with its placeholder.
    Path(&'static str),
    /// An IP address and a port.
    Address,
    /// IP addresses with ports, and Unix sockets, at least one.
    Listeners,
    /// Permissions of a file, in octal digits.
    Mode,
    /// A time of at least so much.
    Time(Duration),
    /// At least so many bytes.
    Size(u64),
    /// A number, both ends included.
    Count(u64, u64),
    /// One of these words, each with its meaning.
    Choice(&'static [(&'static str, &'static str)]),
    /// Any text, with its placeholder.
    Text(&'static str),
    /// A text of a form of its own.
    Checked(&'static CheckedText),
}

/// A text of a form of its own.
#[derive(Debug)]
pub(in crate::cli) struct CheckedText {
    /// Its placeholder.
    pub(in crate::cli) name: &'static str,
    /// Which values there are, in words.
    pub(in crate::cli) range: &'static str,
    /// Reads one.
    pub(in crate::cli) parser: fn() -> ValueParser,
    /// Whether there may be several.
    pub(in crate::cli) is_list: bool,
}

impl ServeSetting {
    /// The key in the configuration file: `state-dir` as `stateDir`.
    pub(in crate::cli) fn key(&self) -> String {
        let mut key = String::new();
        for (at, word) in self.flag.split('-').enumerate() {
            let mut letters = word.chars();
            match letters.next() {
                Some(first) if at > 0 => key.push(first.to_ascii_uppercase()),
                Some(first) => key.push(first),
                None => {}
            }
            key.push_str(letters.as_str());
        }
        key
    }

    /// The flag with its checks; without its variable, which it gets like all flags.
    pub(in crate::cli) fn arg(&self) -> Arg {
        let Self { flag, kind, default, text } = *self;
        let help = match kind {
            SettingKind::Size(_) | SettingKind::Count(..) => format!("{text}, {}", kind.range()),
            _ => text.to_owned(),
        };
        let arg = Arg::new(flag).long(flag).help(help);
        let arg = match kind {
            SettingKind::Switch => arg.action(ArgAction::SetTrue),
            _ if self.takes_several() => {
                arg.action(ArgAction::Append).value_delimiter(',').value_name(kind.placeholder())
            }
            _ => arg.action(ArgAction::Set).value_name(kind.placeholder()),
        };
        arg.value_parser(kind.parser()).default_value(default)
    }

    /// Whether the key may have a list.
    pub(in crate::cli) const fn takes_several(&self) -> bool {
        matches!(self.kind, SettingKind::Listeners | SettingKind::Checked(CheckedText { is_list: true, .. }))
    }

    pub(in crate::cli) const fn is_switch(&self) -> bool {
        matches!(self.kind, SettingKind::Switch)
    }
}

impl SettingKind {
    fn placeholder(self) -> &'static str {
        match self {
            Self::Switch => "BOOLEAN",
            Self::Path(name) | Self::Text(name) => name,
            Self::Address | Self::Listeners => "ADDR",
            Self::Mode => "MODE",
            Self::Time(_) => "TIME",
            Self::Size(_) => "SIZE",
            Self::Count(..) => "COUNT",
            Self::Choice(_) => "WORD",
            Self::Checked(checked) => checked.name,
        }
    }

    /// Gives `bool`, [`std::path::PathBuf`], a socket address, [`ListenAddr`], [`Duration`], `u64` for sizes and counts, or `String`.
    fn parser(self) -> ValueParser {
        match self {
            Self::Switch => ValueParser::from(switch),
            Self::Path(_) => ValueParser::path_buf(),
            Self::Address => ValueParser::from(address),
            Self::Listeners => ValueParser::from(listen_address),
            Self::Mode => ValueParser::from(mode),
            Self::Time(least) => ValueParser::from(move |text: &str| match duration(text)? {
                time if time < least => Err(format!("it must be {}", self.range())),
                time => Ok(time),
            }),
            Self::Size(least) => ValueParser::from(move |text: &str| match size(text)? {
                size if size < least => Err(format!("it must be {}", self.range())),
                size => Ok(size),
            }),
            Self::Count(least, most) => ValueParser::from(move |text: &str| match text.parse() {
                Ok(count) if (least..=most).contains(&count) => Ok::<u64, String>(count),
                _ => Err(format!("it must be a number, {}", self.range())),
            }),
            Self::Choice(words) => {
                let words = words.iter().map(|(word, meaning)| PossibleValue::new(*word).help(*meaning));
                PossibleValuesParser::new(words).into()
            }
            Self::Text(_) => ValueParser::string(),
            Self::Checked(checked) => (checked.parser)(),
        }
    }

    /// Which values there are, in words.
    pub(in crate::cli) fn range(self) -> String {
        match self {
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Path(_) => "a path".to_owned(),
            Self::Address => "IP:PORT".to_owned(),
            Self::Listeners => "IP:PORT or unix:/PATH, several with commas".to_owned(),
            Self::Mode => "three octal digits".to_owned(),
            Self::Time(Duration::ZERO) => "any time".to_owned(),
            Self::Time(least) => format!("at least {}", time_text(least)),
            Self::Size(least) => format!("at least {}", size_text(least)),
            Self::Count(least, most) => format!("{least} to {most}"),
            Self::Choice(words) => {
                let words: Vec<_> =
                    words.iter().map(|(word, meaning)| format!("`{word}` ({meaning})")).collect();
                words.join(" or ")
            }
            Self::Text(_) => "text".to_owned(),
            Self::Checked(checked) if checked.is_list => format!("{}, several with commas", checked.range),
            Self::Checked(checked) => checked.range.to_owned(),
        }
    }
}

const ANY_TIME: SettingKind = SettingKind::Time(Duration::ZERO);
pub(in crate::cli) const SOME_TIME: SettingKind = SettingKind::Time(Duration::from_millis(1));
const MOST: u64 = 1_000_000;
/// The eighth of it that one connection may hold has room for the largest request and its answer.
const LEAST_BYTES_IN_FLIGHT: u64 = 64 << 20;

/// Where audit records are forwarded to.
pub(in crate::cli) const FORWARD: &str = "audit-forward";

/// The settings of `serve`, in the order in which they are shown.
pub(in crate::cli) const SETTINGS: &[ServeSetting] = &[
    ServeSetting {
        flag: "policies",
        kind: SettingKind::Path("DIR"),
        default: Some("policies"),
        text: "Policy folder",
    },
    ServeSetting {
        flag: "state-dir",
        kind: SettingKind::Path("DIR"),
        default: Some(".scopeward"),
        text: "Folder for what must survive a restart: the last good policy, the audit log, the clients of a gateway",
    },
    ServeSetting {
        flag: "listen",
        kind: SettingKind::Listeners,
        default: Some("127.0.0.1:50551"),
        text: "Where to serve gRPC, may be given several times; port 0 picks a free one, unix:/PATH is a Unix socket",
    },
    ServeSetting {
        flag: "http-listen",
        kind: SettingKind::Listeners,
        default: None,
        text: "Where to serve the same over HTTP/1.1 and HTTP/2 for callers without gRPC, by the Connect protocol; as --listen",
    },
    ServeSetting {
        flag: "listen-unix-mode",
        kind: SettingKind::Mode,
        default: Some("660"),
        text: "Who may connect to Unix sockets, as the permissions of a file",
    },
    ServeSetting {
        flag: "tls-cert-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "Serve TLS on TCP addresses with this certificate and its chain (PEM), followed while the server runs",
    },
    ServeSetting {
        flag: "tls-private-key-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "The private key of that certificate (PEM)",
    },
    ServeSetting {
        flag: "tls-client-ca-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "Require a certificate of each client that one of these CAs issued (PEM)",
    },
    ServeSetting {
        flag: "access-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "Who may call what, followed while the server runs; everybody everything if it is not set",
    },
    ServeSetting {
        flag: "admin-listen",
        kind: SettingKind::Address,
        default: Some("127.0.0.1:50552"),
        text: "Where to serve /livez, /readyz, /metrics and /status.json; port 0 picks a free one",
    },
    ServeSetting {
        flag: "console",
        kind: SettingKind::Switch,
        default: None,
        text: "Serve the console at /console of the admin address: it shows the whole policy to everybody who reaches that",
    },
    ServeSetting {
        flag: "debounce",
        kind: ANY_TIME,
        default: Some("150ms"),
        text: "How long files must be quiet before they are read",
    },
    ServeSetting {
        flag: "removal-quiet",
        kind: ANY_TIME,
        default: Some("2s"),
        text: "How long a policy that removes something must not be written before it serves",
    },
    ServeSetting {
        flag: "rescan-interval",
        kind: SOME_TIME,
        default: Some("30s"),
        text: "How often the files are looked at even if nothing says that they changed",
    },
    ServeSetting {
        flag: "shutdown-timeout",
        kind: SOME_TIME,
        default: Some("20s"),
        text: "How long a shutdown may take before what is left is abandoned",
    },
    ServeSetting {
        flag: "audit-mode",
        kind: SettingKind::Choice(&[(BLOCKING, "it waits"), ("batch", "nothing waits")]),
        default: Some(BLOCKING),
        text: "Whether an answer that adds scopes waits until its audit record is durable",
    },
    ServeSetting {
        flag: "audit-retention",
        kind: SOME_TIME,
        default: Some("30d"),
        text: "How long audit records are kept",
    },
    ServeSetting {
        flag: "audit-max-size",
        kind: SettingKind::Size(LEAST_STORE_BYTES),
        default: Some("1GiB"),
        text: "How large the audit log may get before its oldest records are deleted",
    },
    ServeSetting {
        flag: "audit-denials-per-second",
        kind: SettingKind::Count(1, MOST),
        default: Some("200"),
        text: "How many denials are recorded in a second (in a burst ten times that), while more are counted in gaps",
    },
    ServeSetting {
        flag: "set-aside-broken-audit",
        kind: SettingKind::Switch,
        default: None,
        text: "Read the whole audit store; if it is broken, move it to audit-broken-<time> and open a new log",
    },
    ServeSetting {
        flag: "audit-jsonl",
        kind: SettingKind::Path("PATH"),
        default: None,
        text: "Also write audit records as JSON lines to this file; - is standard output",
    },
    ServeSetting {
        flag: FORWARD,
        kind: SettingKind::Text("URL"),
        default: None,
        text: "Also copy audit records to a joined store: postgres://USER@HOST:PORT/DATABASE?sslrootcert=FILE, or nats://USER@HOST:PORT/STREAM",
    },
    ServeSetting {
        flag: "audit-forward-password-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "File with the password for that store, read again for each connection; otherwise PGPASSWORD or NATS_PASSWORD",
    },
    ServeSetting {
        flag: "allow-outside-links",
        kind: SettingKind::Switch,
        default: None,
        text: "Follow links out of the policy directory, and show no text of what they lead to",
    },
    ServeSetting {
        flag: "start-from-last-good",
        kind: SettingKind::Switch,
        default: None,
        text: "Start from the last good policy if the one in the folder is not valid",
    },
    ServeSetting {
        flag: "shadow",
        kind: SettingKind::Path("DIR"),
        default: None,
        text: "Decide each question by the policy in this folder too, and report how its answers would differ",
    },
    ServeSetting {
        flag: "max-calls",
        kind: SettingKind::Count(1, MOST),
        default: Some("4096"),
        text: "How many calls may be in flight (one connection has at most 128 of them)",
    },
    ServeSetting {
        flag: "max-streams",
        kind: SettingKind::Count(1, MOST),
        default: Some("1024"),
        text: "How many streams of the audit and the status may be open (one connection has at most 32 of them)",
    },
    ServeSetting {
        flag: "max-bytes-in-flight",
        kind: SettingKind::Size(LEAST_BYTES_IN_FLIGHT),
        default: Some("256MiB"),
        text: "How large requests being received and answers being sent may be together (one connection has an eighth of it)",
    },
    ServeSetting {
        flag: "max-connections",
        kind: SettingKind::Count(1, MOST),
        default: Some("1024"),
        text: "How many connections may be open (one address other than loopback has at most half of them)",
    },
    ServeSetting {
        flag: "request-timeout",
        kind: SOME_TIME,
        default: Some("30s"),
        text: "How long a call may take if its caller allows no less",
    },
    ServeSetting {
        flag: "max-connection-age",
        kind: SOME_TIME,
        default: Some("30m"),
        text: "How old a connection may get before its peer has to open a new one, a tenth more or less",
    },
    ServeSetting {
        flag: "insecure-allow-remote-plaintext",
        kind: SettingKind::Switch,
        default: None,
        text: "Allow addresses that other machines can reach although nothing is encrypted",
    },
    ServeSetting {
        flag: "metrics-per-audience",
        kind: SettingKind::Switch,
        default: None,
        text: "Count decisions by audience too, for the first 1000 audiences of the policy in the order of describe",
    },
    ServeSetting {
        flag: "log-decisions",
        kind: SettingKind::Choice(&[("none", "of none"), (DENIED, "of those that deny"), (ALL, "of each")]),
        default: Some("none"),
        text: "Of which decisions to write a line to the log",
    },
    ServeSetting {
        flag: "log-format",
        kind: SettingKind::Choice(&[("text", "a line for people"), (JSON, "an object on a line")]),
        default: Some("text"),
        text: "How to write the log, which goes to standard error",
    },
    ServeSetting {
        flag: "log",
        kind: SettingKind::Text("FILTER"),
        default: None,
        text: "What to log, such as info or scopeward=debug; if it is not given, RUST_LOG counts, then info",
    },
];

/// A word of `--audit-mode`.
pub(super) const BLOCKING: &str = "blocking";
/// A word of `--log-decisions`.
pub(super) const DENIED: &str = "denied";
/// A word of `--log-decisions`.
pub(super) const ALL: &str = "all";
/// A word of `--log-format`.
pub(super) const JSON: &str = "json";
