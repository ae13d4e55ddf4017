//! Warnings about texts that clients would have to send and will not: audiences, and what client rules compare with.

use super::WarningCheck;
use crate::audience::{is_url, without_query};
use crate::escape::shown;
use crate::policy::check::{CheckedDocument, NameOwners};
use crate::policy::finding::{Code, Finding, Position, nearest};
use crate::policy::format::read::{LocatedText, Mapping};
use crate::uri::PlainUri;

impl WarningCheck<'_> {
    pub(super) fn names(&mut self) {
        let (written, spelled) = (self.written, self.spelled);
        for (what, text) in [("audience", spelled)]
            .into_iter()
            .chain(written.entries("aliases").map(|alias| ("alias", alias)))
        {
            let Some((why, suggestion)) = unlikely(&text.value) else { continue };
            let message =
                format_args!("no request is likely to name the {what} `{}`: {why}", shown(&text.value));
            self.report(Code::AudienceUnlikely, text.position, &text.value, message, suggestion);
        }
    }

    /// Values of conditions that look like other ones that clients do send.
    pub(super) fn condition(&mut self, rule: &str, written: &Mapping) {
        for LocatedText { value, position } in written.entries("when.grantTypes") {
            let value = &**value;
            // RFC 6749 section 4.5: an extension grant is named by an absolute URI.
            if GRANT_TYPES.contains(&value) || value.contains(':') {
                continue;
            }
            let near = nearest(&value.replace('-', "_"), GRANT_TYPES);
            self.unlikely_condition(rule, "grantTypes", value, *position, near, "a grant type of OAuth");
        }
        if let Some(text) = written.text("when.applicationType") {
            let near = nearest(text.value, APPLICATION_TYPES).filter(|near| *near != text.value);
            if near.is_some() {
                self.unlikely_condition(rule, "applicationType", text.value, text.position, near, "");
            }
        }
    }

    fn unlikely_condition(
        &mut self,
        rule: &str,
        key: &str,
        value: &str,
        position: Position,
        near: Option<&str>,
        otherwise: &str,
    ) {
        let message =
            format_args!("rule `{rule}` waits for the `{key}` `{}`, which clients do not send", shown(value));
        let suggestion = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {otherwise}, such as `{}`", GRANT_TYPES.join("` or `")),
        };
        self.report(Code::ConditionUnlikely, position, value, message, suggestion);
    }

    /// Why a redirect URI is never equal to one of a request, if it is not.
    pub(super) fn redirect_uri(&self, rule: &str, uri: &str) -> Option<(String, String)> {
        if PlainUri::parse(uri).is_some() {
            return None;
        }
        if uri.contains(':') {
            let message = format!(
                "rule `{rule}` never holds: parsers read the `redirectUri` `{}` differently",
                shown(uri)
            );
            let suggestion =
                "write an absolute URI without fragment, user information, blanks and backslashes";
            return Some((message, suggestion.to_owned()));
        }
        let message =
            format!("rule `{rule}` never holds: the `redirectUri` `{}` is no absolute URI", shown(uri));
        let suggestion = match nearest(uri, ["loopback"]) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write an absolute URI, or `loopback`".to_owned(),
        };
        Some((message, suggestion))
    }
}

/// The grant types of OAuth that have plain names (RFC 7591 section 2).
const GRANT_TYPES: [&str; 5] =
    ["authorization_code", "refresh_token", "client_credentials", "implicit", "password"];

/// OpenID Connect Dynamic Client Registration 1.0 section 2.
const APPLICATION_TYPES: [&str; 2] = ["native", "web"];

/// Why a text is hardly ever an audience that a request names, and what to do.
fn unlikely(audience: &str) -> Option<(&'static str, String)> {
    if is_ordinary(audience) {
        return None;
    }
    let trimmed = audience.trim();
    if trimmed != audience {
        return Some(("it has white space around it", format!("write `{}`", shown(trimmed))));
    }
    let has = |open: char, close: char| {
        audience.find(open).is_some_and(|at| audience.get(at..).is_some_and(|rest| rest.contains(close)))
    };
    if audience.starts_with('$') || audience.contains("$(") || has('{', '}') || has('<', '>') {
        let suggestion = "write what the placeholder stands for; nothing fills it in here";
        return Some(("it has a placeholder", suggestion.to_owned()));
    }
    if audience.contains('*') {
        let suggestion = "name each audience, with its other spellings under `aliases`";
        return Some(("`*` is plain text, and an audience is compared as a whole", suggestion.to_owned()));
    }
    if audience.contains(char::is_whitespace) && is_url(audience) {
        let suggestion = "write an absolute URI (RFC 8707 section 2)";
        return Some(("a URL has no white space", suggestion.to_owned()));
    }
    let lower = audience.to_ascii_lowercase();
    let web = ["https", "http"].into_iter().find_map(|scheme| {
        let rest = lower.strip_prefix(scheme)?;
        let rest = audience.get(audience.len() - rest.len()..)?;
        rest.starts_with([':', '/']).then(|| (scheme, rest.trim_start_matches([':', '/'])))
    });
    if let Some((scheme, rest)) = web {
        let is_meant = !is_url(audience);
        return is_meant.then(|| match rest {
            "" => ("a URL has a host", "write the host behind its scheme".to_owned()),
            rest => (
                "a URL has `://` and a host behind its scheme",
                format!("did you mean `{scheme}://{}`?", shown(rest)),
            ),
        });
    }
    let (scheme, rest) = lower.split_once("://")?;
    let near = nearest(scheme, ["https", "http"]).filter(|_| scheme.len() > 3)?;
    let rest = audience.get(audience.len() - rest.len()..)?;
    Some(("its scheme is not known", format!("did you mean `{near}://{}`?", shown(rest))))
}

/// Returns `true` for an `https` URL of ordinary characters: nearly every audience is one.
fn is_ordinary(audience: &str) -> bool {
    let is_ordinary =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/' | b':');
    audience.strip_prefix("https://").is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_alphanumeric()) && rest.bytes().all(is_ordinary)
    })
}

/// Audiences that differ from another one in what people do not see, and are another audience all the same.
pub(in crate::policy::check) fn near_twins(
    documents: &[&CheckedDocument],
    names: &NameOwners<'_>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for document in documents.iter().filter(|document| !document.accepted.contains(Code::NearTwinAudience)) {
        for declared in &document.declared {
            for (spelled, normal) in declared.names() {
                let twin = plainer(normal).into_iter().flatten().find_map(|(plain, how)| {
                    let owner = names.exact.get(&*plain)?;
                    (!std::ptr::eq(owner.declared, declared)).then_some((owner, how))
                });
                let Some((owner, how)) = twin else { continue };
                let position = declared.alias_position(spelled).unwrap_or(declared.position);
                let (name, other) = (shown(spelled), owner.declared.audience());
                let other = if owner.is_outside { "...".into() } else { shown(other) };
                let place = format!("`{}:{}`", shown(&owner.document.file), owner.declared.position.line);
                let mut finding = super::super::in_file(
                    Code::NearTwinAudience,
                    document,
                    position,
                    spelled,
                    format!(
                        "`{name}` differs from the audience `{other}` in {place} only by {how}, and is not the same"
                    ),
                    "list the one under `aliases` of the other if one audience is meant".to_owned(),
                );
                finding.audience = declared.audience().to_owned();
                found.push(finding);
            }
        }
    }
    found
}

/// Returns `true` if no other normal form is easily taken for this one.
pub(in crate::policy::check) fn is_plain(normal: &str) -> bool {
    !without_query(normal).ends_with('/')
        && !normal.starts_with("http://")
        && !normal.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Normal forms that are easily taken for this one, with what they differ by; none for one that [`is_plain`].
pub(in crate::policy::check) fn plainer(normal: &str) -> [Option<(String, &'static str)>; 3] {
    let bare = without_query(normal);
    let slash = bare.strip_suffix('/').filter(|_| is_url(normal));
    let slash = slash
        .map(|short| (format!("{short}{}", normal.get(bare.len()..).unwrap_or_default()), "its last `/`"));
    let case = normal.bytes().any(|byte| byte.is_ascii_uppercase());
    let case = case.then(|| (normal.to_ascii_lowercase(), "upper and lower case"));
    let scheme = normal.strip_prefix("http://").map(|rest| (format!("https://{rest}"), "its scheme"));
    [slash, case, scheme]
}

#[cfg(test)]
mod tests {
    use super::super::tests::judged;
    use super::*;
    use crate::policy::sample;

    #[test]
    fn audiences_that_cannot_be_meant_are_doubtful() {
        #[track_caller]
        fn check(audience: &str, expected: Option<&str>) {
            assert_eq!(
                unlikely(audience).map(|(_, suggestion)| suggestion).as_deref(),
                expected,
                "{audience}"
            );
        }
        for fine in [
            "https://mcp.example.com",
            "https://mcp.example.com:8443/mcp?x=1",
            "HTTP://localhost:8080/",
            "http://my_service/mcp",
            "api",
            "api://7f3c",
            "urn:example:mcp",
            "7F3C2B1A-0000-4000-8000-000000000001",
            "mcp.example.com",
            "httpbin",
            "ftp://x",
            "mcp://x",
            "my api",
        ] {
            check(fine, None);
        }
        check("https:/x", Some("did you mean `https://x`?"));
        check("https:x/y", Some("did you mean `https://x/y`?"));
        check("https//x", Some("did you mean `https://x`?"));
        check("http:///x", Some("did you mean `http://x`?"));
        check("https://", Some("write the host behind its scheme"));
        check("htps://X/y", Some("did you mean `https://X/y`?"));
        check("https://x ", Some("write `https://x`"));
        check("\u{a0}api", Some("write `api`"));
        check("https://x y/", Some("write an absolute URI (RFC 8707 section 2)"));
        check("https://*.x", Some("name each audience, with its other spellings under `aliases`"));
        let placeholder = Some("write what the placeholder stands for; nothing fills it in here");
        for audience in [
            "${AUD}",
            "$AUD",
            "https://{{ .Host }}/mcp",
            "https://<tenant>.x",
            "https://{tenant}.x",
            "$(AUD)",
        ] {
            check(audience, placeholder);
        }
    }

    #[test]
    fn aliases_that_cannot_be_meant_are_doubtful() {
        judged(
            &["scopesSupported: [openid]", "aliases: ['https:/api', 'api://x']"],
            &[
                "4:15 AudienceUnlikely https:/api: no request is likely to name the alias `https:/api`: a URL has `://` and a host behind its scheme",
            ],
        );
    }

    #[test]
    fn near_twins_are_doubtful() {
        #[track_caller]
        fn check(one: &str, other: &str, how: Option<&str>) {
            let text = |name: &str| format!("audiences: {{'{name}': {{scopesSupported: [openid]}}}}");
            let default = format!("defaultAudience: '{one}'\n{}", text(one));
            let accepted = sample::read(&[("a.yaml", &default), ("b.yaml", &text(other))]).unwrap();
            let found: Vec<_> = accepted.warnings.iter().map(|one| one.message.clone()).collect();
            let expected = |how| {
                format!(
                    "`{other}` differs from the audience `{one}` in `a.yaml:2` only by {how}, and is not the same"
                )
            };
            assert_eq!(found, how.map(expected).into_iter().collect::<Vec<_>>(), "{one} {other}");
        }
        check("https://x/mcp", "https://x/mcp/", Some("its last `/`"));
        check("https://x/mcp?a", "https://x/mcp/?a", Some("its last `/`"));
        check("https://x/mcp", "https://x/MCP", Some("upper and lower case"));
        check("api", "API", Some("upper and lower case"));
        check("https://x/mcp", "http://x/mcp", Some("its scheme"));
        check("https://x/mcp", "https://x/mcp2", None);
        check("https://x", "https://x/mcp", None);
    }

    #[test]
    fn what_is_plain_has_no_plainer_form() {
        for name in [
            "https://x/mcp/",
            "https://x/mcp/?a",
            "https://x/MCP",
            "API",
            "http://x",
            "api/",
            "https://x/",
            "",
            "urn:x",
            "https://x/mcp?A",
        ] {
            let has_plainer = plainer(name).into_iter().flatten().next().is_some();
            assert!(!has_plainer || !is_plain(name), "{name}");
        }
        assert!(is_plain("https://x/mcp") && is_plain("api") && is_plain("https://x/mcp?a=1"));
    }

    #[test]
    fn conditions_that_no_client_meets_are_doubtful() {
        let check = |when: &str, expected: &[&str]| {
            let rule = format!("clientRules: [{{name: r, when: {{{when}}}, baselineClientScopes: [b]}}]");
            let text = format!("audiences:\n  api:\n    scopesSupported: [a, b, openid]\n    {rule}\n");
            let accepted = sample::read(&[("a.yaml", &text)]).unwrap();
            let found: Vec<_> = accepted
                .warnings
                .iter()
                .map(|one| format!("{} {}", one.code.as_str(), one.suggestion))
                .collect();
            assert_eq!(found, expected, "{when}");
        };
        check("redirectUri: loopbak", &["UnusedClientRule did you mean `loopback`?"]);
        check("redirectUri: /callback", &["UnusedClientRule write an absolute URI, or `loopback`"]);
        check("grantTypes: [refresh-token]", &["ConditionUnlikely did you mean `refresh_token`?"]);
        check(
            "grantTypes: [refresh_token, authorisation_code]",
            &["ConditionUnlikely did you mean `authorization_code`?"],
        );
        check(
            "grantTypes: [x]",
            &[
                "ConditionUnlikely write a grant type of OAuth, such as `authorization_code` or `refresh_token` or `client_credentials` or `implicit` or `password`",
            ],
        );
        check("grantTypes: ['urn:ietf:params:oauth:grant-type:device_code', implicit]", &[]);
        check("applicationType: natve", &["ConditionUnlikely did you mean `native`?"]);
        check("applicationType: Web", &["ConditionUnlikely did you mean `web`?"]);
        check("applicationType: service", &[]);
        check("applicationType: native", &[]);
    }
}
