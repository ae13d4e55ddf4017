//! URIs that every parser in common use splits alike: what a rule may be decided on.
//!
//! A text that parsers split differently (RFC 3986, WHATWG URL, and what libraries make of them) has no [`PlainUri`]: a
//! rule that reads one host in it must not hold where a browser or the authorization server reads another.
//! `tests/uri/parsers.tsv` has the spellings that were compared, with what each parser reads.

/// An absolute URI, split; compared without normalising anything but what [`PlainUri::is_same`] says.
#[derive(Clone, Copy, Debug)]
pub struct PlainUri<'u> {
    scheme: &'u str,
    /// `None` where no `//` follows the scheme, as in `com.example.app:/callback`.
    authority: Option<Authority<'u>>,
    /// Path and query, byte for byte.
    rest: &'u str,
}

#[derive(Clone, Copy, Debug)]
struct Authority<'u> {
    /// See [`is_host`]; `""` where an application's own scheme has none.
    host: &'u str,
    /// `None` where there is none, or nothing after the colon.
    port: Option<u16>,
}

impl<'u> PlainUri<'u> {
    /// Splits a URI. `None` if it has no scheme, or if parsers differ about it: a blank, a control or non-ASCII byte or a
    /// backslash anywhere, a fragment, userinfo (`@` before the first `/`), a host that is not one for all (see `is_host`), a
    /// port that is not one, or a web scheme without `//` and a host.
    #[must_use]
    pub fn parse(text: &'u str) -> Option<Self> {
        if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7E) && !matches!(byte, b'\\' | b'#')) {
            return None;
        }
        let (scheme, after) = text.split_once(':')?;
        if !is_scheme(scheme) {
            return None;
        }
        let Some(after) = after.strip_prefix("//") else {
            // Browsers read `https:host` and `https:/host` as `https://host`.
            return (!is_web(scheme)).then_some(Self { scheme, authority: None, rest: after });
        };
        // RFC 3986 ends the authority at `?` too; older parsers only at `/`, and see userinfo in what is between.
        let widest = after.find('/').unwrap_or(after.len());
        if after.get(..widest)?.contains('@') {
            return None;
        }
        let (authority, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        let (host, port) = split_port(authority);
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(port_number(digits)?),
        };
        // An application's own scheme may have no host.
        if !is_host(host) && (!host.is_empty() || is_web(scheme)) {
            return None;
        }
        Some(Self { scheme, authority: Some(Authority { host, port }), rest })
    }

    /// Returns `true` if the scheme is this one, without case.
    #[must_use]
    pub const fn has_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The host as written, IPv6 in brackets; `""` where there is none.
    #[must_use]
    pub fn host(&self) -> &'u str {
        self.authority.map_or("", |authority| authority.host)
    }

    /// The port, the default one of the scheme where none is written; `None` where neither is.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.authority.and_then(|authority| authority.port).or(default_port(self.scheme))
    }

    /// Returns `true` if something follows the host that starts with `/`.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.rest.starts_with('/')
    }

    /// The URI with scheme and host in lower case and without the default port: equal texts are the same URI.
    #[must_use]
    pub fn normal(&self) -> String {
        let mut normal = self.scheme.to_ascii_lowercase();
        normal.push(':');
        if let Some(Authority { host, port }) = self.authority {
            normal.push_str("//");
            normal.push_str(&host.to_ascii_lowercase());
            if let Some(port) = port.filter(|port| Some(*port) != default_port(self.scheme)) {
                normal.push_str(&format!(":{port}"));
            }
        }
        normal.push_str(self.rest);
        normal
    }

    /// Returns `true` if two URIs are the same: scheme and host without case, the default port like none, the rest byte for
    /// byte.
    #[must_use]
    pub fn is_same(&self, other: &PlainUri<'_>) -> bool {
        self.has_scheme(other.scheme)
            && self.authority.is_some() == other.authority.is_some()
            && self.host().eq_ignore_ascii_case(other.host())
            && self.port() == other.port()
            && self.rest == other.rest
    }
}

/// Returns `true` for a host that is the same for all parsers: labels of letters, digits and inner `-` of which the last starts
/// with a letter, four decimal parts of an IPv4 address, or an IPv6 address in brackets.
///
/// Some read `127.1`, `0x7f.1` and `2130706433` as IPv4 addresses, some decode `%2e`, and some find no host in `a_b`.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    // The standard library refuses everything but four decimal parts without leading zeros.
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        !label.starts_with('-')
            && label.ends_with(|last: char| last.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.split('.').all(is_label) && last.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// RFC 3986 section 3.1: a letter, then letters, digits, `+`, `-`, `.`.
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Splits host and port; the colons inside `[::1]` belong to the host.
pub(crate) fn split_port(host_port: &str) -> (&str, Option<&str>) {
    match host_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_port, None),
    }
}

/// A port of one or more digits, leading zeros allowed; `None` for anything else.
pub(crate) fn port_number(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The port that is meant where none is written.
pub(crate) const fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("ftp") {
        Some(21)
    } else {
        None
    }
}

/// The schemes that the WHATWG URL standard treats in its own way.
const fn is_web(scheme: &str) -> bool {
    default_port(scheme).is_some() || scheme.eq_ignore_ascii_case("file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_compared_without_case_of_host_and_default_port() {
        #[track_caller]
        fn check(one: &str, other: &str, expected: bool) {
            let (one, other) = (PlainUri::parse(one).unwrap(), PlainUri::parse(other).unwrap());
            assert_eq!((one.is_same(&other), other.is_same(&one)), (expected, expected), "{one:?} {other:?}");
        }
        check("https://app.example.com/cb", "HTTPS://App.Example.Com:443/cb", true);
        check("http://localhost:80/cb", "http://localhost/cb", true);
        check("http://localhost:8080/cb", "http://localhost:08080/cb", true);
        check("https://app.example.com/cb", "https://app.example.com/CB", false);
        check("https://app.example.com/cb", "https://app.example.com/cb/", false);
        check("https://app.example.com", "https://app.example.com/", false);
        check("https://app.example.com/cb", "http://app.example.com:443/cb", false);
        check("https://app.example.com/%7Eu", "https://app.example.com/~u", false);
        check("com.example.app:/cb", "COM.example.app:/cb", true);
        check("com.example.app:/cb", "com.example.app:///cb", false);
        check("cursor://Deep.Link/cb", "cursor://deep.link/cb", true);
    }

    #[test]
    fn what_parsers_split_differently_has_no_parts() {
        for text in [
            "",
            "x",
            "/x",
            "https://",
            "https:///x",
            "https:x",
            "https:/x",
            "1http://x/",
            "https://a b/",
            "https://a/\u{e9}",
            "https://\u{ff41}/",
            "https://a\\b/",
            "https://a/\\b",
            "https://a/#",
            "https://a@b/",
            "https://a?@b/",
            "https://a/\u{7f}",
            "https://a/\t",
            "https://a%2eb/",
            "https://a;b/",
            "https://a:b/",
            "https://a:1:2/",
            "https://a:65536/",
            "https://a:+1/",
            "https://[::1/",
            "https://[x]/",
            "https://[::1%25e]/",
            "https://::1/",
            "https://127.1/",
            "https://0x7f.0.0.1/",
            "https://127.0.0.1./",
            "https://2130706433/",
            "https://a_b/",
            "https://-a/",
            "https://a..b/",
            "https://a.1b/",
        ] {
            assert!(PlainUri::parse(text).is_none(), "{text:?}");
        }
    }
}
