//! What a client says of itself, and whether a client rule holds for it.
//!
//! Everything but the host of a CIMD client id is the client's own word (RFC 7591 section 5): rules
//! on it are a convenience, not a proof.

use crate::policy::{AudiencePolicy, ClientCondition, ClientRule, ClientSource, RedirectCondition};
use crate::short_list::TextsRef;
use crate::uri::PlainUri;

/// The client of a question. Empty text and empty lists mean that nothing was said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// `client_id`; the metadata URL of a CIMD client.
    pub client_id: &'a str,
    /// Where the authorization server knows the client from.
    pub source: Option<ClientSource>,
    /// `client_name`.
    pub client_name: &'a str,
    /// `software_id`.
    pub software_id: &'a str,
    /// `software_version`; no rule looks at it.
    pub software_version: &'a str,
    /// `redirect_uris`.
    pub redirect_uris: TextsRef<'a>,
    /// `grant_types`; none means `authorization_code` (RFC 7591 section 2).
    pub grant_types: TextsRef<'a>,
    /// `application_type` (OpenID Connect Dynamic Client Registration 1.0, section 2).
    pub application_type: &'a str,
}

impl Client<'_> {
    /// How much the client says: the bytes of all texts, and two for each entry of a list, as on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self {
            client_id,
            source: _,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = self;
        let texts = [client_id, client_name, software_id, software_version, application_type];
        let list = |list: &TextsRef<'_>| list.iter().map(|entry| entry.len() + 2).sum::<usize>();
        texts.into_iter().map(|text| text.len()).sum::<usize>() + list(redirect_uris) + list(grant_types)
    }
}

/// Longest `client_name` in bytes that a pattern is compared with.
pub const MAX_CLIENT_NAME_BYTES: usize = 256;

/// The client rules of an audience that hold for a client, with their places, in policy order.
pub(super) fn rules<'a>(
    audience: &'a AudiencePolicy,
    client: &Client<'_>,
) -> impl Iterator<Item = (usize, &'a ClientRule)> {
    audience.client_rules.iter().enumerate().filter(|(_, rule)| holds(&rule.when, client))
}

/// Returns `true` if every member of a condition holds; one about which the request says nothing does not.
#[must_use]
pub fn holds(when: &ClientCondition, client: &Client<'_>) -> bool {
    let ClientCondition {
        source,
        client_id_host,
        software_id,
        client_name,
        redirect_uri,
        grant_types,
        application_type,
    } = when;
    let equal = |wanted: &Option<Box<str>>, said: &str| {
        wanted.as_deref().is_none_or(|wanted| !said.is_empty() && wanted == said)
    };
    source.is_none_or(|source| client.source == Some(source))
        && client_id_host.as_deref().is_none_or(|host| {
            client.source == Some(ClientSource::Cimd) && is_https_host(client.client_id, host)
        })
        && equal(software_id, client.software_id)
        && equal(application_type, client.application_type)
        && client_name.as_deref().is_none_or(|pattern| {
            !client.client_name.is_empty()
                && client.client_name.len() <= MAX_CLIENT_NAME_BYTES
                && glob(pattern.as_bytes(), client.client_name.as_bytes())
        })
        && redirect_uri.as_ref().is_none_or(|wanted| match wanted {
            RedirectCondition::Loopback => {
                !client.redirect_uris.is_empty() && client.redirect_uris.iter().all(is_loopback)
            }
            RedirectCondition::Exact(wanted) => PlainUri::parse(wanted).is_some_and(|wanted| {
                let is_wanted = |uri| PlainUri::parse(uri).is_some_and(|uri| uri.is_same(&wanted));
                client.redirect_uris.iter().any(is_wanted)
            }),
        })
        && grant_types.as_deref().is_none_or(|wanted| {
            wanted.iter().all(|wanted| {
                if client.grant_types.is_empty() {
                    &**wanted == "authorization_code"
                } else {
                    client.grant_types.iter().any(|has| *has == **wanted)
                }
            })
        })
}

/// An https URL with a path on exactly this host and the default port (client id metadata documents, section 3).
fn is_https_host(client_id: &str, host: &str) -> bool {
    PlainUri::parse(client_id).is_some_and(|uri| {
        uri.has_scheme("https")
            && uri.port() == Some(443)
            && uri.has_path()
            && uri.host().eq_ignore_ascii_case(host)
    })
}

/// A plain http URL on `localhost`, `[::1]` or 127.0.0.0/8 (RFC 8252 section 7.3), any port.
fn is_loopback(uri: &str) -> bool {
    PlainUri::parse(uri).is_some_and(|uri| {
        let host = uri.host();
        uri.has_scheme("http")
            && (host.eq_ignore_ascii_case("localhost") || host == "[::1]" || is_loopback_v4(host))
    })
}

/// 127.x.y.z in four decimal parts; short, octal and hexadecimal spellings do not count.
fn is_loopback_v4(host: &str) -> bool {
    // The standard library refuses everything but four plain decimal parts without leading zeros.
    host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Compares a name with a pattern in which only `*` is special and stands for any text, also none.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        if part.is_empty() {
            continue;
        }
        // The earliest place is the best one: it leaves the most for the parts behind.
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn every_member_must_hold_and_silence_does_not() {
        let when = ClientCondition {
            source: Some(ClientSource::Dcr),
            software_id: Some("abc".into()),
            ..ClientCondition::default()
        };
        let client = Client { source: Some(ClientSource::Dcr), software_id: "abc", ..Client::default() };
        assert!(holds(&when, &client));
        assert!(!holds(&when, &Client { software_id: "", ..client }));
        assert!(!holds(&when, &Client { software_id: "ABC", ..client }));
        assert!(!holds(&when, &Client { source: Some(ClientSource::Static), ..client }));
        assert!(!holds(&when, &Client { source: None, ..client }));
        let when = ClientCondition { application_type: Some("native".into()), ..ClientCondition::default() };
        assert!(!holds(&when, &Client::default()));
        assert!(holds(&when, &Client { application_type: "native", ..Client::default() }));
    }

    #[test]
    fn only_a_cimd_client_has_a_client_id_host() {
        #[track_caller]
        fn check(client_id: &str, expected: bool) {
            let when = ClientCondition {
                client_id_host: Some("app.example.com".into()),
                ..ClientCondition::default()
            };
            let client = Client { client_id, source: Some(ClientSource::Cimd), ..Client::default() };
            assert_eq!(holds(&when, &client), expected, "{client_id}");
            assert!(
                !holds(&when, &Client { source: Some(ClientSource::Dcr), ..client }),
                "{client_id} as DCR"
            );
        }
        check("https://app.example.com/client.json", true);
        check("https://APP.example.COM/client.json", true);
        check("https://app.example.com:443/client.json", true);
        check("https://app.example.com/", true);
        check("https://app.example.com", false);
        check("https://app.example.com?x=/", false);
        check("HTTPS://app.example.com/x", true);
        check("https://app.example.com:8443/client.json", false);
        check("http://app.example.com/client.json", false);
        check("https://user@app.example.com/client.json", false);
        check("https://app.example.com@evil.example/client.json", false);
        check("https://evil.example/https://app.example.com", false);
        check("https://app.example.com.evil.example/", false);
        check("https://evil.example\\@app.example.com/", false);
        check("https://app.example.com./x", false);
        check("app.example.com", false);
        check("", false);
    }

    #[test]
    fn loopback_means_all_redirect_uris() {
        #[track_caller]
        fn check(uris: &[&str], expected: bool) {
            let when = ClientCondition {
                redirect_uri: Some(RedirectCondition::Loopback),
                ..ClientCondition::default()
            };
            let redirect_uris = strings(uris);
            let client = Client { redirect_uris: (&redirect_uris).into(), ..Client::default() };
            assert_eq!(holds(&when, &client), expected, "{uris:?}");
        }
        check(&["http://localhost:33418/callback"], true);
        check(&["http://127.0.0.1/callback", "http://[::1]:80/x"], true);
        check(&["http://127.9.8.7:1"], true);
        check(&["http://LOCALHOST"], true);
        check(&[], false);
        check(&["http://localhost/", "https://app.example.com/"], false);
        check(&["https://localhost/"], false);
        check(&["http://user@localhost/"], false);
        check(&["http://localhost@evil.example/"], false);
        check(&["http://localhost.evil.example/"], false);
        check(&["http://127.1/"], false);
        check(&["http://0177.0.0.1/"], false);
        check(&["http://0x7f.0.0.1/"], false);
        check(&["http://127.0.0.01/"], false);
        check(&["http://2130706433/"], false);
        check(&["http://128.0.0.1/"], false);
        check(&["http://[::ffff:127.0.0.1]/"], false);
        check(&["http://evil.example\\@localhost/"], false);
        check(&["http://localhost:x/"], false);
        check(&["localhost"], false);
    }

    #[test]
    fn another_redirect_uri_is_compared_byte_for_byte() {
        let when = ClientCondition {
            redirect_uri: Some(RedirectCondition::Exact("https://app.example.com/cb".into())),
            ..ClientCondition::default()
        };
        let some = strings(&["https://x.example", "https://app.example.com/cb"]);
        let other = strings(&["https://app.example.com/cb/"]);
        assert!(holds(&when, &Client { redirect_uris: (&some).into(), ..Client::default() }));
        assert!(!holds(&when, &Client { redirect_uris: (&other).into(), ..Client::default() }));
    }

    #[test]
    fn grant_types_default_to_authorization_code() {
        let when = |types: &[&str]| ClientCondition {
            grant_types: Some(types.iter().map(|text| (*text).into()).collect()),
            ..ClientCondition::default()
        };
        let both = strings(&["authorization_code", "refresh_token"]);
        let client = Client { grant_types: (&both).into(), ..Client::default() };
        assert!(holds(&when(&["refresh_token"]), &client));
        assert!(holds(&when(&["refresh_token", "authorization_code"]), &client));
        assert!(!holds(&when(&["refresh_token", "client_credentials"]), &client));
        assert!(holds(&when(&["authorization_code"]), &Client::default()));
        assert!(!holds(&when(&["refresh_token"]), &Client::default()));
    }

    #[test]
    fn only_the_star_is_special_in_a_client_name() {
        #[track_caller]
        fn check(pattern: &str, name: &str, expected: bool) {
            let when = ClientCondition { client_name: Some(pattern.into()), ..ClientCondition::default() };
            let client = Client { client_name: name, ..Client::default() };
            assert_eq!(holds(&when, &client), expected, "{pattern} {name}");
        }
        check("Claude Code", "Claude Code", true);
        check("Claude Code", "claude code", false);
        check("Claude*", "Claude Code (mcp)", true);
        check("Claude*", "Claude", true);
        check("*Code", "Claude Code", true);
        check("C*d*e", "Claude Code", true);
        check("C*x*e", "Claude Code", false);
        check("*", "anything", true);
        check("*", "", false);
        check("**a**", "bab", true);
        check("a*a", "a", false);
        check("a*ab", "aab", true);
        check("[C]laude?", "[C]laude?", true);
        check("[C]laude?", "Claude1", false);
        check("*", &"x".repeat(256), true);
        check("*", &"x".repeat(257), false);
    }
}
