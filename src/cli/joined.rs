//! The joined audit store as the command line names it: a URL, and what files and the environment add.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use crate::audit::joined::{JoinedTarget, TargetContext, TargetFiles};
use crate::escape::shown;
use crate::server::tls::{ClientTlsFiles, ServerTrust, client_config};

/// How the joined store lets a verb in.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct JoinedCredentials {
    /// File with the password for the joined store; otherwise PGPASSWORD or NATS_PASSWORD
    #[arg(long, value_name = "FILE")]
    audit_forward_password_file: Option<PathBuf>,
}

impl JoinedCredentials {
    /// Reads the place of a store.
    ///
    /// # Errors
    /// If it is not one, or a file that it names cannot be used.
    pub(super) fn target(&self, url: &str) -> anyhow::Result<JoinedTarget> {
        target(url, self.audit_forward_password_file.clone())
    }
}

/// Reads the place of a store. A password may be in it if the environment says it, which others cannot see.
///
/// # Errors
/// If it is not one, or a file that it names cannot be used.
pub(super) fn target(url: &str, password_file: Option<PathBuf>) -> anyhow::Result<JoinedTarget> {
    let services = match env::var_os("PGSERVICEFILE") {
        Some(path) => {
            let text = fs::read_to_string(&path);
            Some(text.with_context(|| {
                format!(
                    "could not read the service file `{}` (PGSERVICEFILE)",
                    shown(&path.to_string_lossy())
                )
            })?)
        }
        None => env::home_dir().and_then(|home| fs::read_to_string(home.join(".pg_service.conf")).ok()),
    };
    let context = TargetContext {
        password: env::var(if JoinedTarget::is_nats(url) { "NATS_PASSWORD" } else { "PGPASSWORD" }).ok(),
        password_file,
        services,
        may_have_password: VARIABLES.iter().any(|name| env::var(name).is_ok_and(|value| value == url)),
    };
    let target =
        JoinedTarget::parse(url, &context).map_err(|error| anyhow!("the joined audit store: {error}"))?;
    let Some(TargetFiles { ca, certificate, private_key }) = target.tls_files() else { return Ok(target) };
    let Some(ca) = ca.clone() else {
        bail!(
            "the joined audit store {target} is on another machine: name who issues its certificate with ?sslrootcert=FILE, such as \
             /etc/ssl/certs/ca-certificates.crt, or say ?sslmode=disable"
        );
    };
    let own = match (certificate.clone(), private_key.clone()) {
        (Some(certificate), Some(private_key)) => Some((certificate, private_key)),
        (None, None) => None,
        _ => bail!("the joined audit store {target}: a certificate needs both `sslcert` and `sslkey`"),
    };
    Ok(target.with_tls(client_config(&ClientTlsFiles { trust: ServerTrust::IssuedBy(ca), own })?))
}

/// The variables that say where a joined store is.
const VARIABLES: [&str; 2] = ["SCOPEWARD_AUDIT_FORWARD", "SCOPEWARD_FROM"];
