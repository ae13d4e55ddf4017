//! What becomes of the headers of a request and of a response on their way: what is between two hops stays there, and what says
//! where a request comes from is said by the gateway.

use std::net::IpAddr;

use http::Version;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use ipnet::IpNet;

use crate::rpc::caller::PeerAddress;

/// The protocol that a request asks to change to, if it is one that is copied: not another HTTP, in which requests could hide.
pub(super) fn upgrade_of(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    if version != Version::HTTP_11 || !names(headers).any(|name| name == UPGRADE) {
        return None;
    }
    let mut asked = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (asked.next(), asked.next()) else { return None };
    let name = protocol.to_str().ok()?.split('/').next()?.trim().to_ascii_lowercase();
    let is_token =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    let is_http =
        name.starts_with("h2") || name.starts_with("h3") || name.starts_with("http") || name == "tls";
    (is_token && !is_http).then(|| protocol.clone())
}

/// Removes what concerns one hop alone (RFC 9110 section 7.6.1).
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = names(headers).collect();
        named.iter().for_each(|name| _ = headers.remove(name));
    }
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        HOP_BY_HOP.iter().for_each(|name| _ = headers.remove(name));
    }
}

/// The headers that `Connection` names.
fn names(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lists = headers.get_all(CONNECTION).iter();
    lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Where a connection comes from, with its text for a header.
#[derive(Clone, Debug)]
pub(super) struct ClientAddress {
    /// Not there for a Unix socket.
    ip: Option<(IpAddr, HeaderValue)>,
}

impl ClientAddress {
    pub(super) fn new(peer: &PeerAddress) -> Self {
        let PeerAddress::Tcp(address) = peer else { return Self { ip: None } };
        let ip = address.ip().to_canonical();
        Self { ip: HeaderValue::try_from(ip.to_string()).ok().map(|text| (ip, text)) }
    }
}

/// Where a request came from and what it was for, as the upstream is told.
#[derive(Clone, Debug)]
pub(super) struct ForwardedAs {
    /// The authority of the upstream, which is its `Host`.
    pub(super) host: HeaderValue,
    /// The authority of the public URL.
    pub(super) public_host: HeaderValue,
    /// `http` or `https`, of the public URL.
    pub(super) public_scheme: HeaderValue,
    /// The port of the public URL.
    pub(super) public_port: HeaderValue,
    /// Who may say where a request comes from.
    pub(super) trusted: Vec<IpNet>,
}

impl ForwardedAs {
    /// Makes the headers of a request those of the request to the upstream.
    pub(super) fn apply(&self, version: Version, headers: &mut HeaderMap, client: &ClientAddress) {
        let takes_trailers = takes_trailers(headers);
        strip_hop(headers);
        if takes_trailers {
            // It is passed on by the gateway, so it is asked for by the gateway (RFC 9110 section 10.1.4).
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        headers.remove(EXPECT);
        if version == Version::HTTP_2 {
            join_cookies(headers);
        }
        let is_trusted =
            client.ip.as_ref().is_some_and(|(ip, _)| self.trusted.iter().any(|range| range.contains(ip)));
        let before = is_trusted.then(|| headers.get_all(FORWARDED_FOR).iter().cloned().collect::<Vec<_>>());
        if headers.keys().any(|name| is_claim(name.as_str(), is_trusted)) {
            let claims: Vec<HeaderName> =
                headers.keys().filter(|name| is_claim(name.as_str(), is_trusted)).cloned().collect();
            for name in claims {
                headers.remove(name);
            }
        }
        headers.insert(HOST, self.host.clone());
        if let Some((_, text)) = &client.ip {
            let before = before.unwrap_or_default();
            let mut chain: Vec<&str> = before.iter().filter_map(|value| value.to_str().ok()).collect();
            if chain.is_empty() {
                headers.insert(FORWARDED_FOR, text.clone());
            } else {
                chain.extend(text.to_str());
                if let Ok(chain) = HeaderValue::try_from(chain.join(", ")) {
                    headers.insert(FORWARDED_FOR, chain);
                }
            }
        }
        if !is_trusted {
            headers.insert(FORWARDED_HOST, self.public_host.clone());
            headers.insert(FORWARDED_PROTO, self.public_scheme.clone());
            headers.insert(FORWARDED_PORT, self.public_port.clone());
        }
    }
}

/// Whether the sender of a request takes trailers of its answer.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TE).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a header says where a request came from, or that it is another request than it seems. Some servers read `_` as `-`.
fn is_claim(name: &str, is_trusted: bool) -> bool {
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    let begins = |prefix: &str| {
        let mut bytes = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        prefix.bytes().all(|byte| bytes.next() == Some(byte))
    };
    let is = |whole: &str| name.len() == whole.len() && begins(whole);
    let is_origin = is(FORWARDED.as_str()) || is("x-real-ip") || begins("x-forwarded-");
    OTHER_REQUEST.into_iter().any(is) || (is_origin && !is_trusted)
}

/// HTTP/2 lets a client send its cookies in several fields (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether a request says how long its body is.
pub(super) fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH)
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// Headers by which frameworks take a request for one of another method or path.
const OTHER_REQUEST: [&str; 6] = [
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
];
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    fn forwarded(trusted: &[&str], peer: &str, mut headers: HeaderMap) -> HeaderMap {
        let forwarded = ForwardedAs {
            host: HeaderValue::from_static("up:4444"),
            public_host: HeaderValue::from_static("auth.example.com"),
            public_scheme: HeaderValue::from_static("https"),
            public_port: HeaderValue::from_static("443"),
            trusted: trusted.iter().map(|range| range.parse().expect("a range")).collect(),
        };
        let peer: SocketAddr = peer.parse().expect("an address");
        forwarded.apply(Version::HTTP_2, &mut headers, &ClientAddress::new(&PeerAddress::Tcp(peer)));
        headers
    }

    fn texts(headers: &HeaderMap) -> Vec<String> {
        let mut texts: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        texts.sort();
        texts
    }

    #[test]
    fn what_a_client_says_of_its_origin_is_replaced() {
        let sent = headers(&[
            ("host", "evil.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.example"),
            ("x_forwarded_proto", "gopher"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-original-url", "/oauth2/register"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("connection", "x-secret, close"),
            ("x-secret", "1"),
            ("te", "gzip, Trailers"),
            ("accept", "*/*"),
        ]);
        // That trailers are taken is asked for by the gateway itself.
        let expected = [
            "accept: */*",
            "connection: te",
            "cookie: a=1; b=2",
            "host: up:4444",
            "te: trailers",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: auth.example.com",
            "x-forwarded-port: 443",
            "x-forwarded-proto: https",
        ];
        assert_eq!(texts(&forwarded(&["198.51.100.0/24"], "192.0.2.7:1", sent)), expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let sent = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "auth.example.com"),
            ("forwarded", "for=10.0.0.1"),
            ("x-rewrite-url", "/oauth2/register"),
        ]);
        let expected = [
            "forwarded: for=10.0.0.1",
            "host: up:4444",
            "x-forwarded-for: 10.0.0.1, 192.0.2.7",
            "x-forwarded-host: auth.example.com",
        ];
        assert_eq!(texts(&forwarded(&["192.0.2.0/24"], "[::ffff:192.0.2.7]:1", sent)), expected);
    }

    #[test]
    fn only_protocols_that_cannot_hide_a_request_are_changed_to() {
        #[track_caller]
        fn check(pairs: &[(&'static str, &'static str)], expected: Option<&str>) {
            let upgrade = upgrade_of(Version::HTTP_11, &headers(pairs));
            assert_eq!(upgrade.as_ref().map(|value| value.to_str().expect("text")), expected, "{pairs:?}");
        }
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], Some("websocket"));
        check(&[("connection", "upgrade"), ("upgrade", "foo/2")], Some("foo/2"));
        check(&[("upgrade", "websocket")], None);
        for protocol in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "h3", ""] {
            check(&[("connection", "upgrade"), ("upgrade", protocol)], None);
        }
        check(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], None);
        assert_eq!(
            upgrade_of(Version::HTTP_10, &headers(&[("connection", "upgrade"), ("upgrade", "websocket")])),
            None
        );
    }
}
