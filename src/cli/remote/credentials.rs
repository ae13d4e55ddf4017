//! How a client verb knows its server, and how it shows who it is: certificates and a token, all from files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderValue, Uri};
use tokio_rustls::TlsConnector;

use super::address::ServerAddress;
use crate::escape::shown;
use crate::server::dial::host;
use crate::server::tls::{ClientTlsFiles, ServerTrust, client_config};

/// A certificate with its chain, and its key.
type CertificateFiles = (PathBuf, PathBuf);

/// What a verb shows and asks for.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct CredentialArgs {
    #[command(flatten)]
    tls: TlsArgs,
    /// File with the token to show
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What a verb shows and asks for in the handshake.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct TlsArgs {
    /// Who issues the certificate of an https server (PEM); required there
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
    /// Certificate to show to an https server, with its chain (PEM)
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<PathBuf>,
}

impl TlsArgs {
    /// What TLS with a server needs.
    pub(in crate::cli) fn connector(&self) -> anyhow::Result<TlsConnector> {
        let Some(ca) = &self.tls_ca_file else {
            bail!(
                "an https server needs --tls-ca-file with who issues its certificate, such as \
                 /etc/ssl/certs/ca-certificates.crt"
            );
        };
        connector(ServerTrust::IssuedBy(ca.clone()), self.own()?)
    }

    /// What TLS with a server on this machine needs that is asked nothing but its health: whoever answers, unless --tls-ca-file
    /// says who issues its certificate.
    pub(in crate::cli) fn local_connector(
        &self,
        own: Option<CertificateFiles>,
    ) -> anyhow::Result<TlsConnector> {
        let trust = self.tls_ca_file.clone().map_or(ServerTrust::Unverified, ServerTrust::IssuedBy);
        connector(trust, own)
    }

    /// The certificate to show, and its key.
    pub(in crate::cli) fn own(&self) -> anyhow::Result<Option<CertificateFiles>> {
        match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(private_key)) => Ok(Some((certificate.clone(), private_key.clone()))),
            (None, None) => Ok(None),
            _ => bail!("a certificate needs both --tls-cert-file and --tls-private-key-file"),
        }
    }
}

impl CredentialArgs {
    /// What TLS with a server needs.
    pub(super) fn tls(&self) -> anyhow::Result<TlsConnector> {
        self.tls.connector()
    }

    /// Whether a CA is named, by which an https server can be verified.
    pub(in crate::cli) const fn has_ca(&self) -> bool {
        self.tls.tls_ca_file.is_some()
    }

    /// The token to show to a server. None travels in plaintext to another machine.
    pub(super) fn token(&self, server: &ServerAddress) -> anyhow::Result<Option<HeaderValue>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        if let ServerAddress::Http(uri) = server
            && !is_loopback(uri)
        {
            bail!("a token is not sent in plaintext to another machine; use https:// with --tls-ca-file");
        }
        read_token(path).map(Some)
    }
}

fn connector(trust: ServerTrust, own: Option<CertificateFiles>) -> anyhow::Result<TlsConnector> {
    let config = client_config(&ClientTlsFiles { trust, own })?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn is_loopback(uri: &Uri) -> bool {
    let host = host(uri);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Reads a token as the value of `authorization` (RFC 6750 section 2.1): the whole file but for one line break at its end. It is never shown.
fn read_token(path: &Path) -> anyhow::Result<HeaderValue> {
    let shown_path = shown(&path.to_string_lossy());
    let text = fs::read(path).with_context(|| format!("could not read the token file `{shown_path}`"))?;
    let token = text.strip_suffix(b"\n").unwrap_or(&text);
    let token = token.strip_suffix(b"\r").unwrap_or(token);
    if token.is_empty() {
        bail!("the token file `{shown_path}` is empty");
    }
    if let Some(at) = token.iter().position(|byte| !(b'!'..=b'~').contains(byte)) {
        bail!(
            "the token file `{shown_path}` has more than one token of printable ASCII: byte at offset {at}; write the \
             token alone on one line"
        );
    }
    let header = [b"Bearer ", token].concat();
    let mut value = HeaderValue::from_bytes(&header).context("the token cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_one_token_on_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_token(&path).map_err(|error| error.to_string())
        };
        for text in ["t0ken~", "t0ken~\n", "t0ken~\r\n"] {
            assert_eq!(read(text).unwrap().to_str().unwrap(), "Bearer t0ken~", "{text:?}");
        }
        for (text, expected) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("a\nb", "offset 1"),
            ("a\n\n", "offset 1"),
            ("a b", "offset 1"),
            ("\u{e9}", "offset 0"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("a\n"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_token_stays_on_this_machine_or_in_tls() {
        let tls = TlsArgs { tls_ca_file: None, tls_cert_file: None, tls_private_key_file: None };
        let args = CredentialArgs { tls, token_file: Some("nowhere".into()) };
        for (server, is_refused) in [
            ("http://127.0.0.1:1", false),
            ("localhost:1", false),
            ("[::1]:1", false),
            ("unix:/s", false),
            ("https://a.example", false),
            ("a.example:1", true),
            ("http://192.0.2.1:1", true),
        ] {
            let error = args.token(&server.parse().unwrap()).unwrap_err().to_string();
            assert_eq!(error.contains("plaintext"), is_refused, "{server}: {error}");
        }
    }
}
