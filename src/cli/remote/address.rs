//! Where a server is: what `--server` takes.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

use crate::escape::shown;

/// Where a server listens. Printed as it can be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli) enum ServerAddress {
    /// An `http` address without a path.
    Http(Uri),
    /// An `https` address without a path.
    Https(Uri),
    /// One of the addresses that the name of an `https` address has.
    HttpsAt(Uri, SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// What the calls name as their target.
    pub(super) fn uri(&self) -> Uri {
        match self {
            Self::Http(uri) | Self::Https(uri) | Self::HttpsAt(uri, _) => uri.clone(),
            // As gRPC has it for a socket, which has no host.
            Self::Unix(_) => Uri::from_static("http://localhost"),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.strip_prefix("//").unwrap_or(path) {
                path if path.starts_with('/') => Ok(Self::Unix(path.into())),
                _ => Err(format!("the path of a socket begins with `/`; {hint}")),
            };
        }
        let bare = !text.contains("://");
        let whole = if bare { format!("http://{text}") } else { text.to_owned() };
        let uri: Uri = whole.parse().map_err(|error| format!("{error}; {hint}"))?;
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_none_or(str::is_empty) => {
                Err(format!("it names no host; {hint}"))
            }
            // Without a scheme a missing port is more likely a mistake than port 80.
            Some("http") if bare && uri.port().is_none() => Err(format!("it names no port; {hint}")),
            Some("http" | "https") if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
                Err(format!("a server has no path; {hint}"))
            }
            Some("http") => Ok(Self::Http(uri)),
            Some("https") => Ok(Self::Https(uri)),
            _ => Err(hint.to_owned()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(uri) | Self::Https(uri) => uri.fmt(formatter),
            Self::HttpsAt(_, address) => write!(formatter, "https://{address}/"),
            Self::Unix(path) => write!(formatter, "unix:{}", shown(&path.to_string_lossy())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_with_a_port_an_http_address_or_a_socket() {
        let same = ["http://127.0.0.1:50551/", "http://127.0.0.1:50551", "127.0.0.1:50551"];
        for text in same {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), same[0], "{text}");
        }
        for text in [
            "https://a:1",
            "https://a",
            "http://[::1]:50551/",
            "[::1]:50551",
            "localhost:1",
            "http://localhost",
            "a-b.example:80",
        ] {
            assert!(text.parse::<ServerAddress>().is_ok(), "{text}");
        }
        for text in ["unix:/run/s", "unix:///run/s"] {
            assert_eq!(text.parse(), Ok(ServerAddress::Unix("/run/s".into())), "{text}");
        }
        for text in [
            "https://a:1/x",
            "https://",
            "http://a:1/x",
            "http://a:1/?x",
            "",
            "http://",
            "a b",
            "localhost",
            "::1",
            "a:1/x",
            "a:",
            "a:b",
            "a:65536",
            ":1",
            "ftp://a:1",
            "unix:",
            "unix:s",
            "unix://s",
        ] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }
}
