//! `health`: the exec probe of containers and units. Asks the health service of a server once.
//!
//! Without `--server` it asks the server that the environment and the configuration file describe, which is the one next to it. It
//! shows no token, since health needs no identity; a server that requires client certificates requires one of it too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::{Args, Command};
use serde_json::json;
use tokio_rustls::TlsConnector;
use tonic::Response;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::output::{Format, bad, good, print};
use super::remote::address::ServerAddress;
use super::remote::{TimeoutArgs, TlsArgs, connect_with, said, wait};
use super::serve::ServeArgs;
use super::{Exit, serve_settings};
use crate::escape;
use crate::server::listen::ListenAddr;

/// Ask whether a server serves, as a probe of containers does
///
/// Asks the health service (grpc.health.v1). Exits with 0 if it says SERVING, 1 if it says anything else,
/// 2 if there is no answer. SERVING means ready, as /readyz of the admin address does: a policy serves, and
/// the server is not stopping. With --live any answer is 0, as for /livez.
///
/// Without --server it asks the server that `scopeward serve` is with the same environment and --config: the
/// first Unix socket in SCOPEWARD_LISTEN, else the first address, with TLS if SCOPEWARD_TLS_CERT_FILE is set.
#[derive(Args, Debug)]
pub(super) struct HealthVerb {
    /// Another server: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "SERVER")]
    server: Option<ServerAddress>,
    /// Without --server: the configuration file of the server to ask, as `serve` takes it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask for this service alone, such as scopeward.v1.ScopePolicyService
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Any answer will do, such as one of a server that is starting
    #[arg(long, conflicts_with = "service")]
    live: bool,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    timeout: TimeoutArgs,
    /// How to print the answer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the verb. `command` is the whole command line.
///
/// # Errors
/// If there is no answer.
pub(super) fn run(verb: HealthVerb, command: &Command) -> anyhow::Result<Exit> {
    let HealthVerb { server, config, service, live, tls, timeout, output } = verb;
    let (server, tls) = match server {
        Some(server @ ServerAddress::Https(_)) => (server, Some(tls.connector()?)),
        Some(server) => (server, None),
        None => local_server(&serve_settings(command, config.as_deref())?, &tls)?,
    };
    let status = wait(timeout, async {
        let mut client = HealthClient::new(connect_with(&server, tls, None, timeout).await?);
        let answer = client.check(HealthCheckRequest { service: service.clone() }).await;
        answer.map(Response::into_inner).map_err(|status| anyhow!("{}", said(&status)))
    })?;
    let is_serving = status.status() == ServingStatus::Serving;
    let name = match status.status() {
        ServingStatus::Unknown => "UNKNOWN".to_owned(),
        known => known.as_str_name().to_owned(),
    };
    print(&match output {
        Format::Json => {
            let answer = json!({"server": server.to_string(), "service": service, "status": name});
            escape::json_pretty(&answer)? + "\n"
        }
        Format::Text => {
            let shown = if is_serving { good(&name) } else { bad(&name) };
            let why = match (is_serving, live) {
                (true, _) => "",
                (false, false) => "; the server is starting or stopping",
                (false, true) => "; the server answers",
            };
            format!("{shown} at {server}{why}\n")
        }
    })?;
    Ok(if is_serving || live { Exit::Yes } else { Exit::No })
}

/// Where a server with these settings is asked on its own machine, and how TLS is spoken with it. Its certificate has the names
/// that others call it by, so it is not verified unless `tls` says by what.
fn local_server(
    settings: &ServeArgs,
    tls: &TlsArgs,
) -> anyhow::Result<(ServerAddress, Option<TlsConnector>)> {
    let ServeArgs { listen, tls_cert_file, tls_private_key_file, tls_client_ca_file, .. } = settings;
    let address = match &**listen {
        [] => bail!("the settings name no address to listen on; name one with --server"),
        [first, ..] => listen.iter().find(|one| one.tcp().is_none()).unwrap_or(first),
    };
    match (address, tls_cert_file) {
        (ListenAddr::Unix(path), _) => Ok((ServerAddress::Unix(path.clone()), None)),
        (ListenAddr::Tcp(address), _) if address.port() == 0 => {
            bail!("the settings have port 0, which is another port each time; name the server with --server")
        }
        (ListenAddr::Tcp(address), None) => Ok((parsed("http", *address)?, None)),
        (ListenAddr::Tcp(address), Some(certificate)) => {
            // Shown only where it has to be: not everybody who asks may read the key.
            let own = match (tls_client_ca_file, tls_private_key_file) {
                (Some(_), Some(key)) => tls.own()?.or_else(|| Some((certificate.clone(), key.clone()))),
                _ => None,
            };
            Ok((parsed("https", *address)?, Some(tls.local_connector(own)?)))
        }
    }
}

/// The address at which this machine reaches a listener.
fn parsed(scheme: &str, mut address: SocketAddr) -> anyhow::Result<ServerAddress> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{scheme}://{address}").parse().map_err(|error| anyhow!("{error}"))
}
