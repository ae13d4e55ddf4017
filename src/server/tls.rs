//! TLS: certificate, key and client CA from files, checked before they are used.
//!
//! A server configuration is made of all three at once and swapped as a whole, so that a handshake never mixes two generations of
//! them. With a client CA a client certificate is required. Sessions are not resumed: a certificate that is no longer trusted must
//! not get in by one that was.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::listen::ListenerProtocol;
use crate::escape::shown;

pub(super) mod follow;

/// The files that TLS is made of, each PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The certificate of the server, then those that issued it, without the root.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub private_key: PathBuf,
    /// Who issues certificates of clients. Clients need one if it is there.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn paths(&self) -> Vec<PathBuf> {
        let Self { certificate, private_key, client_ca } = self;
        [certificate, private_key].into_iter().chain(client_ca).cloned().collect()
    }
}

/// The configuration that new handshakes use. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct CurrentTls {
    pub(super) files: TlsFiles,
    config: Arc<ArcSwap<TlsMaterial>>,
}

impl CurrentTls {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// If one of them cannot be used.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let material = TlsMaterial::load(files)?;
        Ok(Self { files: files.clone(), config: Arc::new(ArcSwap::from_pointee(material)) })
    }

    /// For one handshake, at a listener of this protocol.
    pub(super) fn config(&self, protocol: ListenerProtocol) -> Arc<ServerConfig> {
        let material = self.config.load();
        Arc::clone(match protocol {
            ListenerProtocol::Grpc => &material.config,
            ListenerProtocol::Http => &material.http_config,
        })
    }
}

/// What the files held at one moment.
#[derive(Debug)]
pub(super) struct TlsMaterial {
    config: Arc<ServerConfig>,
    /// The same, offering HTTP/1.1 too.
    http_config: Arc<ServerConfig>,
    /// Of the bytes of all files.
    digest: [u8; 32],
    /// When what was read first ceases to be valid.
    expiries: Vec<(TlsRole, SystemTime)>,
    /// Other users of the machine may read the key.
    is_key_exposed: bool,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsRole {
    /// The certificates that the server shows.
    Server,
    /// Those that issue certificates of clients.
    ClientCa,
}

impl TlsRole {
    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ClientCa => "client_ca",
        }
    }
}

/// Why the files cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
#[error("{} `{}`: {cause}", what.words(), shown(&path.to_string_lossy()))]
pub struct TlsError {
    what: TlsFile,
    path: PathBuf,
    cause: TlsFault,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TlsFile {
    Certificate,
    PrivateKey,
    Ca,
}

impl TlsFile {
    const fn words(self) -> &'static str {
        match self {
            Self::Certificate => "certificate file",
            Self::PrivateKey => "private key file",
            Self::Ca => "CA file",
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum TlsFault {
    #[error("{0}")]
    Unreadable(io::Error),
    #[error("it has more than {MAX_PEM_BYTES} bytes")]
    TooLarge,
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it has no {0}")]
    Empty(&'static str),
    #[error("it is not valid PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    #[error("{0} {1} cannot be used: {2}")]
    Unusable(&'static str, usize, String),
    #[error("it belongs to another certificate than the first one of the certificate file")]
    KeyMismatch,
    #[error(
        "the chain is in the wrong order: the certificate of the private key is number {0} and must be the first"
    )]
    LeafNotFirst(usize),
    #[error("the chain is in the wrong order: certificate {0} is not issued by certificate {1}")]
    WrongOrder(usize, usize),
    #[error("its certificate is no longer valid, and the one in use is")]
    Expired,
}

impl TlsError {
    fn new(what: TlsFile, path: &Path, cause: TlsFault) -> Self {
        Self { what, path: path.to_owned(), cause }
    }

    /// The reason of the condition `TlsMaterialValid`.
    fn reason(&self) -> &'static str {
        match (&self.cause, self.what) {
            (TlsFault::Unreadable(_) | TlsFault::TooLarge | TlsFault::NotRegular, _) => "TlsFileUnreadable",
            (TlsFault::KeyMismatch, _) => "TlsKeyMismatch",
            (TlsFault::LeafNotFirst(_) | TlsFault::WrongOrder(..), _) => "TlsChainOutOfOrder",
            (TlsFault::Expired, _) => "TlsCertificateExpired",
            (_, TlsFile::Certificate) => "TlsCertificateInvalid",
            (_, TlsFile::PrivateKey) => "TlsPrivateKeyInvalid",
            (_, TlsFile::Ca) => "TlsClientCaInvalid",
        }
    }
}

impl TlsMaterial {
    /// Reads and checks all files.
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles { certificate, private_key, client_ca } = files;
        let mut digest = Sha256::new();
        let chain_pem = read(TlsFile::Certificate, certificate)?;
        let key_pem = read(TlsFile::PrivateKey, private_key)?;
        let ca_pem = client_ca.as_deref().map(|path| read(TlsFile::Ca, path)).transpose()?;
        for file in [Some(&chain_pem), Some(&key_pem), ca_pem.as_ref()].into_iter().flatten() {
            digest.update(file.bytes.len().to_be_bytes());
            digest.update(&file.bytes);
        }

        let chain = certificates(TlsFile::Certificate, certificate, &chain_pem.bytes)?;
        let fault = |cause| TlsError::new(TlsFile::Certificate, certificate, cause);
        let key = private_key_of(private_key, &key_pem.bytes)?;
        let provider = Arc::new(ring::default_provider());
        let certified = certify(&chain, key, &provider, certificate, private_key)?;
        let expiry = check_chain(&chain).map_err(fault)?;
        let mut expiries = vec![(TlsRole::Server, expiry)];

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| fault(TlsFault::Unusable("certificate", 1, error.to_string())))?;
        let builder = match (client_ca, &ca_pem) {
            (Some(path), Some(pem)) => {
                let (roots, expiry) = roots(path, &pem.bytes)?;
                expiries.push((TlsRole::ClientCa, expiry));
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| {
                    TlsError::new(TlsFile::Ca, path, TlsFault::Unusable("certificate", 1, error.to_string()))
                })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let mut http_config = config.clone();
        http_config.alpn_protocols.push(ALPN_HTTP1.to_vec());
        Ok(Self {
            config: Arc::new(config),
            http_config: Arc::new(http_config),
            digest: digest.finalize().into(),
            expiries,
            is_key_exposed: key_pem.mode & OTHERS_READ != 0,
        })
    }

    fn expiry(&self, role: TlsRole) -> Option<SystemTime> {
        self.expiries.iter().find(|(known, _)| *known == role).map(|(_, expiry)| *expiry)
    }
}

/// The content of a PEM file.
struct PemFile {
    bytes: Vec<u8>,
    mode: u32,
}

/// Reads a file, of which no part is ever shown.
fn read(what: TlsFile, path: &Path) -> Result<PemFile, TlsError> {
    let fault = |cause| TlsError::new(what, path, cause);
    let unreadable = |error| fault(TlsFault::Unreadable(error));
    // A pipe would be waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(fault(TlsFault::NotRegular));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(fault(TlsFault::TooLarge));
    }
    Ok(PemFile { bytes, mode: found.mode() })
}

fn certificates(what: TlsFile, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| TlsError::new(what, path, TlsFault::Pem(error)))?;
    if found.is_empty() {
        return Err(TlsError::new(what, path, TlsFault::Empty("certificate")));
    }
    Ok(found)
}

fn private_key_of(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let cause = match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                TlsFault::Empty("private key that is not encrypted")
            }
            error => TlsFault::Pem(error),
        };
        TlsError::new(TlsFile::PrivateKey, path, cause)
    })
}

/// Joins the chain and its key, if they belong together.
fn certify(
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    certificate: &Path,
    private_key: &Path,
) -> Result<CertifiedKey, TlsError> {
    let fault = |cause| TlsError::new(TlsFile::PrivateKey, private_key, cause);
    let unusable = |error: rustls::Error| fault(TlsFault::Unusable("key", 1, error.to_string()));
    let key = provider.key_provider.load_private_key(key).map_err(unusable)?;
    let with = |chain: &[CertificateDer<'static>]| CertifiedKey::new(chain.to_vec(), Arc::clone(&key));
    let is_of = |chain: &[_]| {
        use rustls::{Error, InconsistentKeys};
        !matches!(with(chain).keys_match(), Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)))
    };
    if is_of(chain) {
        return Ok(with(chain));
    }
    let owner = (1..chain.len()).find(|at| chain.get(*at..).is_some_and(is_of));
    Err(match owner {
        Some(at) => TlsError::new(TlsFile::Certificate, certificate, TlsFault::LeafNotFirst(at + 1)),
        None => fault(TlsFault::KeyMismatch),
    })
}

/// Each certificate must be issued by the next one. Returns when the first of them ceases to be valid.
fn check_chain(chain: &[CertificateDer<'_>]) -> Result<SystemTime, TlsFault> {
    let parsed = parse(chain)?;
    for (at, pair) in parsed.windows(2).enumerate() {
        if let [issued, issuer] = pair
            && issued.issuer().as_raw() != issuer.subject().as_raw()
        {
            return Err(TlsFault::WrongOrder(at + 1, at + 2));
        }
    }
    Ok(first_expiry(&parsed))
}

fn parse<'c>(chain: &'c [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'c>>, TlsFault> {
    let each = chain.iter().enumerate().map(|(at, der)| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(TlsFault::Unusable("certificate", at + 1, error.to_string())),
    });
    each.collect()
}

fn first_expiry(certificates: &[X509Certificate<'_>]) -> SystemTime {
    let expiry = |certificate: &X509Certificate<'_>| certificate.validity().not_after.timestamp();
    let first = certificates.iter().map(expiry).min().unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(u64::try_from(first).unwrap_or_default())
}

/// The certificates of a CA file as roots of trust, and when the first of them ceases to be valid.
fn roots(path: &Path, pem: &[u8]) -> Result<(RootCertStore, SystemTime), TlsError> {
    let found = certificates(TlsFile::Ca, path, pem)?;
    let fault = |cause| TlsError::new(TlsFile::Ca, path, cause);
    let expiry = first_expiry(&parse(&found).map_err(fault)?);
    let mut roots = RootCertStore::empty();
    for (at, certificate) in found.into_iter().enumerate() {
        let added = roots.add(certificate);
        added.map_err(|error| fault(TlsFault::Unusable("certificate", at + 1, error.to_string())))?;
    }
    Ok((roots, expiry))
}

/// The names in the verified certificate of a client: its URI if it has exactly one, which a SPIFFE ID is (X.509-SVID section 2), and its DNS
/// names.
pub(super) fn client_names(chain: Option<&[CertificateDer<'_>]>) -> (Option<Box<str>>, Box<[Box<str>]>) {
    let Some(Ok((_, certificate))) = chain.and_then(<[_]>::first).map(|der| X509Certificate::from_der(der))
    else {
        return Default::default();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Default::default() };
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.push((*name).into()),
            _ => {}
        }
    }
    let uri = match &uris[..] {
        [one] => Some((*one).into()),
        _ => None,
    };
    (uri, dns_names.into())
}

/// By what a client knows its server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerTrust {
    /// One of the CAs in this file issued its certificate, for the name that was called.
    IssuedBy(PathBuf),
    /// Nothing: whoever answers is asked. Only for questions that show nothing, at an address of this machine.
    Unverified,
}

/// The files that a client uses.
#[derive(Clone, Debug)]
pub struct ClientTlsFiles {
    /// By what it knows its server.
    pub trust: ServerTrust,
    /// The certificate of the client with its chain, and its key; both or none.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What a client needs to speak TLS with a server.
///
/// # Errors
/// If one of the files cannot be used.
pub fn client_config(files: &ClientTlsFiles) -> Result<rustls::ClientConfig, TlsError> {
    let ClientTlsFiles { trust, own } = files;
    let provider = Arc::new(ring::default_provider());
    let ca = if let ServerTrust::IssuedBy(ca) = trust { &**ca } else { Path::new("") };
    let unusable = |error: rustls::Error| {
        TlsError::new(TlsFile::Ca, ca, TlsFault::Unusable("certificate", 1, error.to_string()))
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?;
    let builder = match trust {
        ServerTrust::IssuedBy(ca) => {
            let (roots, _) = roots(ca, &read(TlsFile::Ca, ca)?.bytes)?;
            builder.with_root_certificates(roots)
        }
        ServerTrust::Unverified => {
            let verifier = AnyCertificate(provider.signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, private_key)) => {
            let chain = read(TlsFile::Certificate, certificate)?;
            let chain = certificates(TlsFile::Certificate, certificate, &chain.bytes)?;
            let key = private_key_of(private_key, &read(TlsFile::PrivateKey, private_key)?.bytes)?;
            let certified = certify(&chain, key, &provider, certificate, private_key)?;
            check_chain(&chain).map_err(|cause| TlsError::new(TlsFile::Certificate, certificate, cause))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// Takes every certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl fmt::Display for TlsRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server => "the certificate of the server",
            Self::ClientCa => "the client CA",
        })
    }
}

/// HTTP/2 over TLS (RFC 9113 section 3.2).
pub const ALPN_H2: &[u8] = b"h2";
/// RFC 7301 section 6.
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// The largest file that is read.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// The permission of all others to read.
const OTHERS_READ: u32 = 0o004;
