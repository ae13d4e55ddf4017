//! `gateway`: a reverse proxy that decides, in front of an authorization server that does not ask.
//!
//! Takes its settings apart; what runs is the server of `serve` with another front.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use self::clients::ClientsVerb;
use self::settings::{MATCH, PAGE, REDIRECT};
use super::serve::settings::ServerVerb;
use super::serve::{GivenFlags, ServeArgs, with_settings};
use crate::gateway::kind::UpstreamKind;
use crate::server::gateway::settings::{GatewaySettings, OnDeny, RequestObjects};
use crate::server::gateway::upstream_admin::UpstreamAdminSettings;

pub(super) mod clients;
pub(super) mod settings;

/// What `gateway` is told, as far as it concerns where its settings come from; the flags are the rows of
/// [`settings::GATEWAY_SETTINGS`] and those that it shares with `serve`.
#[derive(Debug)]
pub(super) struct GatewayVerb {
    /// The configuration file.
    pub(super) config: Option<PathBuf>,
    /// Print the settings instead of serving.
    pub(super) print_config: bool,
    /// What is to be done with the record of clients, instead of serving.
    pub(super) clients: Option<ClientsVerb>,
}

impl Args for GatewayVerb {
    fn augment_args(command: Command) -> Command {
        let command =
            command.about("Stand in front of an authorization server that does not ask").long_about(ABOUT);
        with_settings(command, ServerVerb::Gateway)
            .args_conflicts_with_subcommands(true)
            .disable_help_subcommand(true)
            .subcommand(ClientsVerb::augment_args(Command::new(CLIENTS)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GatewayVerb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let ServeArgs { config, print_config, .. } =
            ServeArgs::take(&mut GivenFlags(matches.clone()), ServerVerb::Gateway)?;
        let clients = matches.subcommand_matches(CLIENTS).map(ClientsVerb::from_arg_matches).transpose()?;
        Ok(Self { config, print_config, clients })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

const CLIENTS: &str = "clients";

const ABOUT: &str = "Stand in front of an authorization server that does not ask: a reverse proxy that decides\n\n\
    Registrations, authorize, pushed, device and backchannel requests are decided by the policy and passed on with the scope \
    that is granted; everything else is passed on as it is. The upstream must not be reachable except through the gateway. \
    Exits as serve does, and with 2 if the upstream says that its issuer is not the public URL.";

/// Each setting, once: those of the server, and those of the gateway.
///
/// # Errors
/// If one that is needed is not there.
pub(super) fn take(matches: &ArgMatches) -> anyhow::Result<(ServeArgs, GatewaySettings)> {
    let given = &mut GivenFlags(matches.clone());
    let server = ServeArgs::take(given, ServerVerb::Gateway)?;
    let upstream =
        given.optional("upstream")?.context("say with `--upstream` where the authorization server is")?;
    let mut issuer_paths: Vec<String> = given.values("issuer-path")?;
    if issuer_paths.is_empty() {
        issuer_paths.push(String::new());
    }
    let gateway = GatewaySettings {
        upstream_ca_file: given.optional("upstream-ca-file")?,
        upstream_timeout: given.value("upstream-timeout")?,
        public_url: given.optional("public-url")?,
        kind: UpstreamKind::from_str(&given.value::<String>("upstream-kind")?)?,
        issuer_paths,
        endpoints: given.values("endpoint")?,
        on_deny: given.optional::<String>("on-deny")?.map(|word| match &*word {
            REDIRECT => OnDeny::Redirect,
            PAGE => OnDeny::Page,
            _ => OnDeny::Upstream,
        }),
        request_objects: match &*given.value::<String>("request-objects")? {
            MATCH => RequestObjects::Match,
            _ => RequestObjects::Refuse,
        },
        rewrite_discovery: given.value("rewrite-discovery")?,
        trusted_proxies: given.values("trusted-proxy")?,
        upstream_admin: upstream_admin(given)?,
        max_clients: given.count("max-clients")?,
        ..GatewaySettings::new(upstream)
    };
    Ok((server, gateway))
}

fn upstream_admin(given: &mut GivenFlags) -> anyhow::Result<Option<UpstreamAdminSettings>> {
    let credentials_file: Option<PathBuf> = given.optional("upstream-admin-credentials-file")?;
    match given.optional("upstream-admin")? {
        Some(url) => Ok(Some(UpstreamAdminSettings { url, credentials_file })),
        None if credentials_file.is_some() => {
            bail!("`--upstream-admin-credentials-file` needs `--upstream-admin`")
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(flags: &[&str]) -> ArgMatches {
        let command = GatewayVerb::augment_args(Command::new("gateway"));
        command.try_get_matches_from(["gateway"].iter().chain(flags)).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_server() {
        let (_, gateway) = take(&matches(&["--upstream=http://a:1"])).unwrap();
        let expected = GatewaySettings::new("http://a:1".parse().unwrap());
        assert_eq!(format!("{gateway:?}"), format!("{expected:?}"));
    }

    #[test]
    fn every_setting_is_taken() {
        let flags = [
            "--upstream=https://a",
            "--upstream-ca-file=ca.pem",
            "--upstream-timeout=1s",
            "--public-url=https://b",
            "--upstream-kind=keycloak",
            "--issuer-path=/realms/a,/realms/b",
            "--endpoint=registration=/r",
            "--on-deny=redirect",
            "--request-objects=match",
            "--rewrite-discovery",
            "--trusted-proxy=10.0.0.0/8,::1",
            "--upstream-admin=keycloak+https://kc/auth/realms/master",
            "--upstream-admin-credentials-file=secret",
            "--max-clients=7",
        ];
        let (_, gateway) = take(&matches(&flags)).unwrap();
        assert_eq!(gateway.kind, UpstreamKind::Keycloak);
        assert_eq!(gateway.issuer_paths, ["/realms/a", "/realms/b"]);
        assert_eq!(
            (gateway.on_deny, gateway.request_objects),
            (Some(OnDeny::Redirect), RequestObjects::Match)
        );
        assert_eq!((gateway.trusted_proxies.len(), gateway.max_clients), (2, 7));
        assert!(
            gateway.rewrite_discovery && gateway.public_url.is_some() && gateway.upstream_ca_file.is_some()
        );
        let UpstreamAdminSettings { url, credentials_file } = gateway.upstream_admin.unwrap();
        assert_eq!(url.to_string(), "keycloak+https://kc/auth/realms/master");
        assert_eq!(credentials_file, Some("secret".into()));
        let alone = ["--upstream=http://a:1", "--upstream-admin-credentials-file=secret"];
        assert!(take(&matches(&alone)).unwrap_err().to_string().contains("needs `--upstream-admin`"));
        assert!(take(&matches(&[])).unwrap_err().to_string().contains("--upstream"));
    }
}
