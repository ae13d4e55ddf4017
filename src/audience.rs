//! Audiences: the resources that a token is for (RFC 8707 section 2), parsed, normalised, comparable.
//!
//! `scheme://host` forms compare by scheme and host without case, with the default port removed and
//! the path `/` like no path; any other path and the query compare exactly, dot segments and
//! percent-encoding are not resolved. Everything else compares byte for byte.

use std::borrow::Cow;

use crate::uri::{default_port, is_scheme, split_port};

/// Longest audience in bytes that a request may name.
pub const MAX_AUDIENCE_BYTES: usize = 2048;

/// Says why a text cannot name an audience.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AudienceError {
    /// Nothing there.
    #[error("an audience is not empty")]
    Empty,
    /// RFC 8707 section 2: a resource has no fragment.
    #[error("an audience has no fragment (RFC 8707 section 2)")]
    Fragment,
    /// The port is not a number from 0 to 65535.
    #[error("the port of an audience is a number up to 65535")]
    Port,
    /// A control character.
    #[error("an audience has no control characters")]
    Control,
}

/// Normalises an audience for comparison; borrows when the text is normal already.
///
/// # Errors
/// [`AudienceError`] if the text is empty, has a control character, or is a `scheme://host` form with
/// a fragment or a port that is not one.
pub fn normalise(audience: &str) -> Result<Cow<'_, str>, AudienceError> {
    if audience.is_empty() {
        return Err(AudienceError::Empty);
    }
    let has_control = if audience.is_ascii() {
        audience.bytes().any(|byte| byte.is_ascii_control())
    } else {
        audience.chars().any(char::is_control)
    };
    if has_control {
        return Err(AudienceError::Control);
    }
    let Some((scheme, rest)) = audience.split_once("://") else {
        return Ok(Cow::Borrowed(audience));
    };
    if !is_scheme(scheme) {
        return Ok(Cow::Borrowed(audience));
    }
    if rest.contains('#') {
        return Err(AudienceError::Fragment);
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let (userinfo, host_port) = match authority.rsplit_once('@') {
        Some((userinfo, host_port)) => (Some(userinfo), host_port),
        None => (None, authority),
    };
    let (host, port) = split_port(host_port);
    if host.is_empty() {
        return Ok(Cow::Borrowed(audience));
    }
    // A colon in a host outside `[::1]` belongs to a second port or a bare IPv6 address.
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(AudienceError::Port);
    }
    let port_text = port;
    let port = match port_text {
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let number: u16 = digits.parse().map_err(|_| AudienceError::Port)?;
            (Some(number) != default_port(scheme)).then_some(number)
        }
        Some(_) => return Err(AudienceError::Port),
    };
    let normal_tail = match tail.strip_prefix('/') {
        Some(query) if query.is_empty() || query.starts_with('?') => query,
        _ => tail,
    };
    // Nearly every audience comes in normal form; no copy is made of that.
    let is_lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let port_is_normal = match port_text {
        None => true,
        Some(digits) => port.is_some() && (digits == "0" || !digits.starts_with('0')),
    };
    if is_lower(scheme) && is_lower(host) && port_is_normal && normal_tail.len() == tail.len() {
        return Ok(Cow::Borrowed(audience));
    }
    let mut normal = String::with_capacity(audience.len());
    normal.push_str(&scheme.to_ascii_lowercase());
    normal.push_str("://");
    if let Some(userinfo) = userinfo {
        normal.push_str(userinfo);
        normal.push('@');
    }
    normal.push_str(&host.to_ascii_lowercase());
    if let Some(number) = port {
        normal.push(':');
        normal.push_str(&number.to_string());
    }
    normal.push_str(normal_tail);
    Ok(Cow::Owned(normal))
}

/// Returns `true` if an audience that [`normalise`] takes has the form `scheme://host`.
#[must_use]
pub fn is_url(audience: &str) -> bool {
    audience.split_once("://").is_some_and(|(scheme, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
        is_scheme(scheme) && !split_port(host_port).0.is_empty()
    })
}

/// A normal audience up to its query; one that is not a `scheme://host` form has none.
#[must_use]
pub fn without_query(normal: &str) -> &str {
    match normal.split_once('?') {
        Some((bare, _)) if is_url(normal) => bare,
        _ => normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_compare_as_rfc_8707_resources() {
        #[track_caller]
        fn check(audience: &str, expected: &str) {
            let normal = normalise(audience).unwrap();
            assert_eq!(normal, expected);
            assert_eq!(normalise(&normal).unwrap(), expected, "normalising twice changes nothing");
        }
        check("https://mcp.example.com", "https://mcp.example.com");
        check("HTTPS://MCP.Example.COM", "https://mcp.example.com");
        check("https://mcp.example.com/", "https://mcp.example.com");
        check("https://mcp.example.com:443", "https://mcp.example.com");
        check("https://mcp.example.com:443/", "https://mcp.example.com");
        check("https://mcp.example.com:", "https://mcp.example.com");
        check("https://mcp.example.com:0443", "https://mcp.example.com");
        check("https://mcp.example.com:08443", "https://mcp.example.com:8443");
        check("https://mcp.example.com:00", "https://mcp.example.com:0");
        check("https://mcp.example.com:0", "https://mcp.example.com:0");
        check("HTTPS://mcp.example.com/mcp", "https://mcp.example.com/mcp");
        check("https://MCP.example.com/mcp", "https://mcp.example.com/mcp");
        check("https://mcp.example.com:8443/", "https://mcp.example.com:8443");
        check("http://mcp.example.com:80/x", "http://mcp.example.com/x");
        check("http://mcp.example.com:443", "http://mcp.example.com:443");
        check("https://mcp.example.com/mcp", "https://mcp.example.com/mcp");
        check("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp/");
        check("https://mcp.example.com//", "https://mcp.example.com//");
        check("https://mcp.example.com/MCP", "https://mcp.example.com/MCP");
        check("https://mcp.example.com/a/../b", "https://mcp.example.com/a/../b");
        check("https://mcp.example.com/%7Euser", "https://mcp.example.com/%7Euser");
        check("https://mcp.example.com/?q=A", "https://mcp.example.com?q=A");
        check("https://mcp.example.com?q=A", "https://mcp.example.com?q=A");
        check("https://mcp.example.com/x?q=/", "https://mcp.example.com/x?q=/");
        check("https://[::1]:443/", "https://[::1]");
        check("https://[2001:DB8::1]", "https://[2001:db8::1]");
        check("https://User@Host/", "https://User@host");
        check("custom+1://Host:443/", "custom+1://host:443");
        check("api", "api");
        check("API", "API");
        check("urn:example:API", "urn:example:API");
        check("urn:example:api#part", "urn:example:api#part");
        check("file:///etc/", "file:///etc/");
        check("1http://Host", "1http://Host");
    }

    proptest::proptest! {
        /// So a name that is found by its very bytes, which are those of a normal form, need not be normalised.
        #[test]
        fn normalising_a_normal_form_changes_nothing(
            text in "([hH]ttps?|HTTP|x\\+1|1x|)(://|:/|:|)(u@|U:p@|@|)([aA]\\.b|\\[::A\\]|::1|é|)(:|:0?443|:80|:00|:65536|:x|)(/|//|/%7E|/A/\\.\\./|)(\\?|\\?Q=/|\\?\\?|)(#|)"
        ) {
            if let Ok(normal) = normalise(&text) {
                proptest::prop_assert!(matches!(normalise(&normal), Ok(Cow::Borrowed(again)) if again == normal));
                let bare = without_query(&normal);
                proptest::prop_assert_eq!(normalise(bare), Ok(Cow::Borrowed(bare)));
            }
        }
    }

    #[test]
    fn malformed_audiences_are_refused() {
        #[track_caller]
        fn check(audience: &str, expected: AudienceError) {
            assert_eq!(normalise(audience), Err(expected), "{audience:?}");
        }
        check("", AudienceError::Empty);
        check("https://mcp.example.com#", AudienceError::Fragment);
        check("https://mcp.example.com/x#y", AudienceError::Fragment);
        check("https://mcp.example.com:port", AudienceError::Port);
        check("https://mcp.example.com:65536", AudienceError::Port);
        check("https://mcp.example.com:+443", AudienceError::Port);
        check("https://mcp.example.com:80:443", AudienceError::Port);
        check("https://::1", AudienceError::Port);
        check("http://[::80", AudienceError::Port);
        check("https://mcp.example.com/\0", AudienceError::Control);
        check("api\n", AudienceError::Control);
    }

    #[test]
    fn only_a_url_has_a_query() {
        #[track_caller]
        fn check(audience: &str, expected: &str) {
            assert_eq!(without_query(&normalise(audience).unwrap()), expected);
        }
        check("https://mcp.example.com/mcp?kb=a", "https://mcp.example.com/mcp");
        check("https://mcp.example.com/?kb=a?b", "https://mcp.example.com");
        check("https://mcp.example.com?", "https://mcp.example.com");
        check("https://mcp.example.com/mcp", "https://mcp.example.com/mcp");
        check("urn:x?y", "urn:x?y");
        check("api?y", "api?y");
        check("file:///x?y", "file:///x?y");
        check("1http://host?y", "1http://host?y");
        assert!(is_url("https://mcp.example.com") && is_url("x://user@[::1]:80/"));
        assert!(!is_url("https://") && !is_url("https://:80") && !is_url("urn:x") && !is_url("x y://h"));
    }

    #[test]
    fn a_normal_audience_is_not_copied() {
        assert!(matches!(normalise("https://mcp.example.com/mcp"), Ok(Cow::Borrowed(_))));
        assert!(matches!(normalise("https://MCP.example.com/mcp"), Ok(Cow::Owned(_))));
    }
}
