//! Certificates that tests make, use and throw away: no key is ever checked in.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};

/// Somebody who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its chain, and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A name in a certificate.
#[derive(Clone, Copy)]
pub(crate) enum Name<'n> {
    Uri(&'n str),
    Dns(&'n str),
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn leaf_params(names: &[Name<'_>]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a test");
    params.subject_alt_names = names
        .iter()
        .map(|name| match name {
            Name::Uri(uri) => SanType::URI((*uri).try_into().unwrap()),
            Name::Dns(name) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(authority_params(name), key).unwrap())
    }

    /// Another one, whose certificate this one issues.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority_params(name), key, &self.0).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, names: &[Name<'_>]) -> Issued {
        self.issue_with(leaf_params(names))
    }

    /// A certificate that was valid until the end of the year 2020.
    pub(crate) fn issue_expired(&self, names: &[Name<'_>]) -> Issued {
        self.issue_until(names, 2020)
    }

    /// A certificate that is valid until the end of a year.
    pub(crate) fn issue_until(&self, names: &[Name<'_>], year: i32) -> Issued {
        let mut params = leaf_params(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        self.issue_with(params)
    }

    fn issue_with(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A certificate that nobody but itself vouches for.
pub(crate) fn self_signed(names: &[Name<'_>]) -> Issued {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(names).self_signed(&key).unwrap();
    Issued { chain: certificate.pem(), key: key.serialize_pem() }
}

/// The files of a certificate in a folder.
pub(crate) struct Files {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`, which nobody else may read.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Files {
        use std::os::unix::fs::PermissionsExt;
        let files =
            Files { chain: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        fs::write(&files.chain, &self.chain).unwrap();
        fs::write(&files.key, &self.key).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}
