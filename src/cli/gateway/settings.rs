//! The settings that `gateway` alone has, a row for each; those that it shares with `serve` are in `cli/serve/settings`.

use std::str::FromStr;

use clap::builder::ValueParser;
use ipnet::IpNet;

use crate::cli::serve::settings::{CheckedText, SOME_TIME, ServeSetting, SettingKind};
use crate::escape::shown;
use crate::gateway::endpoint::{EndpointFlag, issuer_path};
use crate::server::gateway::settings::BaseUrl;
use crate::server::gateway::upstream_admin::AdminUrl;

/// In the order in which they are shown.
pub(in crate::cli) const GATEWAY_SETTINGS: &[ServeSetting] = &[
    ServeSetting {
        flag: "upstream",
        kind: SettingKind::Checked(&BASE_URL),
        default: None,
        text: "Where the authorization server is, which nothing else may reach",
    },
    ServeSetting {
        flag: "upstream-kind",
        kind: SettingKind::Choice(&[(GENERIC, "any"), (HYDRA, "Ory Hydra"), (KEYCLOAK, "Keycloak")]),
        default: Some(GENERIC),
        text: "What it is, which decides what the other settings have as default",
    },
    ServeSetting {
        flag: "upstream-ca-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "The CAs that issued its certificate (PEM), needed for an upstream over TLS",
    },
    ServeSetting {
        flag: "upstream-timeout",
        kind: SOME_TIME,
        default: Some("30s"),
        text: "How long it may take to begin an answer, and between two parts of it",
    },
    ServeSetting {
        flag: "listen",
        kind: SettingKind::Listeners,
        default: Some("127.0.0.1:50553"),
        text: "Where to serve HTTP/1.1 and HTTP/2, may be given several times; port 0 picks a free one, unix:/PATH is a Unix socket",
    },
    ServeSetting {
        flag: "public-url",
        kind: SettingKind::Checked(&BASE_URL),
        default: None,
        text: "What clients see; on one loopback address the default is http:// and that address",
    },
    ServeSetting {
        flag: "issuer-path",
        kind: SettingKind::Checked(&CheckedText {
            name: "PATH",
            range: "a path, such as /realms/NAME",
            parser: || ValueParser::from(|text: &str| issuer_path(text).map(str::to_owned)),
            is_list: true,
        }),
        default: None,
        text: "What follows the public URL in the name of an issuer, may be given several times; nothing if it is not set",
    },
    ServeSetting {
        flag: "endpoint",
        kind: SettingKind::Checked(&CheckedText {
            name: "NAME=PATH",
            range: "NAME=/PATH of registration, authorization, pushed_authorization_request, device_authorization or \
                    backchannel_authentication",
            parser: || ValueParser::from(EndpointFlag::from_str),
            is_list: true,
        }),
        default: None,
        text: "An endpoint that the discovery document does not name, may be given several times",
    },
    ServeSetting {
        flag: "on-deny",
        kind: SettingKind::Choice(&[
            (UPSTREAM, "the upstream refuses, since it gets a scope that it does not know"),
            (REDIRECT, "an error at a redirect URI that was registered here, and else a page"),
            (PAGE, "a page"),
        ]),
        default: None,
        text: "How a denied authorize request is answered; if it is not set, upstream for hydra and keycloak, page for generic",
    },
    ServeSetting {
        flag: "request-objects",
        kind: SettingKind::Choice(&[
            (REFUSE, "they are refused"),
            (MATCH, "one passes whose scope is exactly what is granted"),
        ]),
        default: Some(REFUSE),
        text: "What becomes of request objects",
    },
    ServeSetting {
        flag: "rewrite-discovery",
        kind: SettingKind::Switch,
        default: None,
        text: "Replace the URLs of the upstream in its discovery document: a stopgap, since ID tokens keep its issuer",
    },
    ServeSetting {
        flag: "trusted-proxy",
        kind: SettingKind::Checked(&CheckedText {
            name: "CIDR",
            range: "an address or a range, such as 10.0.0.0/8",
            parser: || ValueParser::from(range_of),
            is_list: true,
        }),
        default: None,
        text: "Whose X-Forwarded and Forwarded headers are believed, may be given several times",
    },
    ServeSetting {
        flag: "upstream-admin",
        kind: SettingKind::Checked(&CheckedText {
            name: "URL",
            range: "hydra+http://HOST:PORT, hydra+https://HOST:PORT, keycloak+http://HOST:PORT or keycloak+https://HOST:PORT",
            parser: || ValueParser::from(AdminUrl::from_str),
            is_list: false,
        }),
        default: None,
        text: "The admin API of the upstream: clients from before the gateway are looked up, and get there what is granted",
    },
    ServeSetting {
        flag: "upstream-admin-credentials-file",
        kind: SettingKind::Path("FILE"),
        default: None,
        text: "CLIENT_ID:SECRET of a service account of Keycloak, or a bearer token for Hydra, in its first line",
    },
    ServeSetting {
        flag: "max-clients",
        kind: SettingKind::Count(1, 10_000_000),
        default: Some("100000"),
        text: "How many registered clients are remembered",
    },
];

const BASE_URL: CheckedText = CheckedText {
    name: "URL",
    range: "http://HOST:PORT or https://HOST:PORT",
    parser: || ValueParser::from(BaseUrl::from_str),
    is_list: false,
};

fn range_of(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
    let wrong = || format!("`{}` is no address and no range of addresses", shown(text));
    text.parse().ok().or_else(address).ok_or_else(wrong)
}

/// A word of `--upstream-kind`.
pub(in crate::cli) const GENERIC: &str = "generic";
/// A word of `--upstream-kind`.
pub(in crate::cli) const HYDRA: &str = "hydra";
/// A word of `--upstream-kind`.
pub(in crate::cli) const KEYCLOAK: &str = "keycloak";
/// A word of `--on-deny`.
pub(in crate::cli) const UPSTREAM: &str = "upstream";
/// A word of `--on-deny`.
pub(in crate::cli) const REDIRECT: &str = "redirect";
/// A word of `--on-deny`.
pub(in crate::cli) const PAGE: &str = "page";
/// A word of `--request-objects`.
pub(in crate::cli) const REFUSE: &str = "refuse";
/// A word of `--request-objects`.
pub(in crate::cli) const MATCH: &str = "match";
