//! The digest of a policy set: SHA-256 over what it means, not over how it is written.
//!
//! Covers each audience in normal form with defaults filled in and guardrails folded in, sorted, and
//! the default audience. Comments, file names, the spelling of an audience and limits that only decide
//! validity are not covered; the order inside a list is. Each audience is hashed separately, so that a
//! reload hashes only what changed.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::format::Compiled;
use super::keys::{AudienceKey, meanings};
use super::{
    AudiencePolicy, ClientCondition, ClientRule, ClientSource, RedirectCondition, UnknownRegistrations,
};
use crate::hex;
use crate::scope::ScopeList;

/// `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Digest(Arc<str>);

impl Digest {
    fn new(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(bytes)).into())
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The digest of a whole set; `audiences` are sorted, `registration_audiences` are those of a
/// registration that names none.
pub(super) fn of_set(
    audiences: &[Arc<AudiencePolicy>],
    default_audience: Option<&AudiencePolicy>,
    registration_audiences: &[Arc<AudiencePolicy>],
) -> Digest {
    let mut buffer = Vec::new();
    let mut encoder = Encoder(&mut buffer);
    encoder.text("scopeward-policy-set-2");
    encoder.optional(default_audience.map(AudiencePolicy::normal));
    encoder.count(registration_audiences.len());
    for audience in registration_audiences {
        encoder.text(audience.normal());
    }
    encoder.count(audiences.len());
    let mut hasher = Sha256::new_with_prefix(&buffer);
    for audience in audiences {
        hasher.update(audience.digest);
    }
    Digest::new(&hasher.finalize())
}

/// The digest of one audience: every key that has a meaning, by its path. What is hashed is in `buffer` afterwards, whatever
/// was there, so that a million audiences need one.
pub(super) fn of_audience(policy: &AudiencePolicy, buffer: &mut Vec<u8>) -> [u8; 32] {
    buffer.clear();
    let mut encoder = Encoder(buffer);
    encoder.text("scopeward-audience-2");
    encoder.text(policy.normal());
    for AudienceKey { path, read, effect: _ } in meanings() {
        encoder.text(path);
        match read {
            Compiled::Scopes(read) => encoder.list(read(policy)),
            Compiled::Word(read) => encoder.text(read(policy)),
            Compiled::BySource(read) => {
                let UnknownRegistrations { cimd, dcr, static_, untold } = read(policy);
                for unknown in [cimd, dcr, static_, untold] {
                    encoder.text(unknown.as_str());
                }
            }
            Compiled::Aliases(read) => {
                encoder.count(read(policy).len());
                for alias in read(policy) {
                    encoder.text(&alias.normal);
                }
            }
            Compiled::Rules(read) => {
                encoder.count(read(policy).len());
                for rule in read(policy) {
                    encoder.rule(rule);
                }
            }
        }
    }
    Sha256::digest(&*encoder.0).into()
}

/// Writes values so that no two different ones look alike: each text after its length. What is hashed is put together first,
/// since a hash of many small parts costs several times that of one.
struct Encoder<'b>(&'b mut Vec<u8>);

impl Encoder<'_> {
    fn count(&mut self, count: usize) {
        self.0.extend((count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            None => self.0.push(0),
            Some(text) => {
                self.0.push(1);
                self.text(text);
            }
        }
    }

    fn rule(&mut self, rule: &ClientRule) {
        // Taken apart in full, so that a new member cannot be forgotten.
        let ClientRule { name, when, baseline_client_scopes } = rule;
        let ClientCondition {
            source,
            client_id_host,
            software_id,
            client_name,
            redirect_uri,
            grant_types,
            application_type,
        } = when;
        self.text(name);
        self.optional(source.map(ClientSource::as_str));
        self.optional(client_id_host.as_deref());
        self.optional(software_id.as_deref());
        self.optional(client_name.as_deref());
        match redirect_uri {
            None => self.count(0),
            Some(RedirectCondition::Loopback) => self.count(1),
            Some(RedirectCondition::Exact(uri)) => {
                self.count(2);
                self.text(uri);
            }
        }
        match grant_types {
            None => self.count(0),
            Some(grant_types) => {
                self.count(1 + grant_types.len());
                for grant_type in grant_types {
                    self.text(grant_type);
                }
            }
        }
        self.optional(application_type.as_deref());
        self.list(baseline_client_scopes);
    }

    /// Tokens hold no space, so the joined text says where each ends.
    fn list(&mut self, list: &ScopeList) {
        self.text(list.as_str());
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::format::ValueKind;
    use crate::policy::keys::{AUDIENCE, meanings};
    use crate::policy::sample::{FULL as BASE, read, set};

    fn digest(text: &str) -> String {
        set(text).digest().as_str().to_owned()
    }

    /// The base with one text replaced, which must be there once.
    #[track_caller]
    fn edited(from: &str, to: &str) -> String {
        assert_eq!(BASE.matches(from).count(), 1, "{from}");
        BASE.replace(from, to)
    }

    #[track_caller]
    fn differs(from: &str, to: &str) {
        assert_ne!(digest(&edited(from, to)), digest(BASE), "{from} -> {to}");
    }

    #[track_caller]
    fn stays(from: &str, to: &str) {
        assert_eq!(digest(&edited(from, to)), digest(BASE), "{from} -> {to}");
    }

    #[test]
    fn a_digest_is_a_name_and_64_hexadecimal_digits() {
        let digest = digest(BASE);
        let digits = digest.strip_prefix("sha256:").unwrap();
        assert_eq!(digits.len(), 64);
        assert!(digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }

    // Audit records keep digests: one that changes under an unchanged policy must be meant.
    #[test]
    fn the_digest_of_a_small_policy_is_known() {
        assert_eq!(
            digest("audiences: {api: {scopesSupported: [openid]}}"),
            "sha256:09bc6d389ff2a3c5d7a126dfd0018e4b29f5721c8b1603845536be26ce548a96"
        );
    }

    macro_rules! each_key {
        ($($name:ident: $from:literal -> $to:literal,)+) => {$(
            #[test]
            fn $name() {
                differs($from, $to);
            }
        )+};
    }

    each_key! {
        guardrails_forbidden_scopes_count: "[root]" -> "[root, admin]",
        guardrails_privileged_scopes_count: "[sudo]" -> "[sudo, admin]",
        another_audience_counts: "  api: {scopesSupported: [x]}" -> "  api: {scopesSupported: [x]}\n  api2: {scopesSupported: [x]}",
        scopes_supported_count: "profile, a, b, c]" -> "profile, a, b, c, d]",
        baseline_client_scopes_count: "[a, b]" -> "[a]",
        default_client_scopes_count: "[openid, profile]" -> "[openid]",
        no_default_client_scopes_is_something_else: "[openid, profile]" -> "[]",
        privileged_scopes_count: "[p, q]" -> "[p]",
        forbidden_scopes_count: "[f, g]" -> "[f]",
        scope_matching_counts: "scopeMatching: exact" -> "scopeMatching: hierarchic",
        scope_matching_counts_again: "scopeMatching: exact" -> "scopeMatching: wildcard",
        registration_unsupported_scopes_counts: "registration:\n      unsupportedScopes: reject" -> "registration:\n      unsupportedScopes: drop",
        authorization_unsupported_scopes_counts: "authorization:\n      unsupportedScopes: reject" -> "authorization:\n      unsupportedScopes: drop",
        unregistered_scopes_counts: "unregisteredScopes: reject" -> "unregisteredScopes: drop",
        omitted_scope_counts: "omittedScope: registered" -> "omittedScope: default",
        omitted_scope_counts_again: "omittedScope: registered" -> "omittedScope: reject",
        baseline_for_existing_clients_counts: "ExistingClients: true" -> "ExistingClients: false",
        step_up_scopes_count: "stepUpScopes: [b, c]" -> "stepUpScopes: [c]",
        unknown_registration_counts_for_cimd: "cimd: omitted" -> "cimd: none",
        unknown_registration_counts_for_dcr: "dcr: none" -> "dcr: supported",
        unknown_registration_counts_for_static: "static: supported" -> "static: omitted",
        unknown_registration_counts_as_a_word: "{cimd: omitted, dcr: none, static: supported}" -> "none",
        registration_nothing_left_counts: "nothingLeft: reject" -> "nothingLeft: default",
        authorization_nothing_left_counts: "nothingLeft: default" -> "nothingLeft: reject",
        token_unsupported_scopes_counts: "token: {unsupportedScopes: drop" -> "token: {unsupportedScopes: reject",
        exceeding_scopes_count: "exceedingScopes: reject" -> "exceedingScopes: drop",
        always_grant_scopes_count: "alwaysGrantScopes: [openid, a]" -> "alwaysGrantScopes: [openid]",
        aliases_count: "aliases: [urn:mcp, " -> "aliases: [",
        ignore_query_counts: "ignoreQuery: true" -> "ignoreQuery: false",
        registration_audiences_count: "[https://mcp.example.com, api]" -> "[api]",
        no_registration_audiences_count: "registrationAudiences: [https://mcp.example.com, api]\n" -> "",
        the_order_of_registration_audiences_counts: "[https://mcp.example.com, api]" -> "[api, https://mcp.example.com]",
        the_order_of_aliases_counts: "[urn:mcp, https://mcp.example.com/mcp]" -> "[https://mcp.example.com/mcp, urn:mcp]",
        the_order_of_always_granted_scopes_counts: "alwaysGrantScopes: [openid, a]" -> "alwaysGrantScopes: [a, openid]",
        the_name_of_a_rule_counts: "name: first" -> "name: primary",
        source_counts: "source: dcr" -> "source: static",
        no_source_counts: "          source: dcr\n" -> "",
        client_id_host_counts: "app.example.com" -> "app2.example.com",
        software_id_counts: "abc" -> "abd",
        no_software_id_counts: "          softwareId: abc\n" -> "",
        client_name_counts: "Claude*" -> "Claude",
        redirect_uri_counts: "redirectUri: loopback" -> "redirectUri: \"http://localhost/\"",
        no_redirect_uri_counts: "          redirectUri: loopback\n" -> "",
        grant_types_count: "[authorization_code, refresh_token]" -> "[refresh_token]",
        no_grant_types_count: "          grantTypes: [authorization_code, refresh_token]\n" -> "",
        application_type_counts: "native" -> "web",
        a_value_under_another_member_counts: "softwareId: abc\n          clientName: Claude*" -> "softwareId: Claude*\n          clientName: abc",
        the_baseline_of_a_rule_counts: "        baselineClientScopes: [b, c]" -> "        baselineClientScopes: [c]",
        a_rule_less_counts: "      - name: second\n        when: {source: cimd}\n        baselineClientScopes: [c]\n" -> "",
        the_default_audience_counts: "defaultAudience: api" -> "defaultAudience: https://mcp.example.com",
        no_default_audience_counts: "defaultAudience: api\n" -> "",
        the_order_of_supported_scopes_counts: "profile, a, b, c]" -> "profile, a, c, b]",
        the_order_of_the_baseline_counts: "[a, b]" -> "[b, a]",
        the_order_of_the_defaults_counts: "[openid, profile]" -> "[profile, openid]",
        the_order_of_privileged_scopes_counts: "[p, q]" -> "[q, p]",
        the_order_of_forbidden_scopes_counts: "[f, g]" -> "[g, f]",
        the_order_of_step_up_scopes_counts: "stepUpScopes: [b, c]" -> "stepUpScopes: [c, b]",
        the_order_of_grant_types_counts: "[authorization_code, refresh_token]" -> "[refresh_token, authorization_code]",
    }

    /// What the compiler does not read, or reads under another name, would change nothing.
    #[test]
    fn every_key_with_a_meaning_counts() {
        fn written(path: &str, value: &str) -> String {
            match path.split_once('.') {
                Some((outer, inner)) => format!("{outer}: {{{inner}: {value}}}"),
                None => format!("{path}: {value}"),
            }
        }
        let audience = |members: &str| digest(&format!("audiences: {{'https://a.example': {{{members}}}}}"));
        let plain = "scopesSupported: [a, b, z]";
        for key in meanings() {
            let names = key.path.split('.');
            let found = names.fold((&AUDIENCE, None), |(section, _), name| {
                let key = section.key(name).unwrap();
                (key.kind.section().unwrap_or(section), Some(key))
            });
            let key = (key, found.1.unwrap());
            let value = match key.1.kind {
                ValueKind::Scopes(..) | ValueKind::Audiences(..) => "[z]".to_owned(),
                ValueKind::Choice(words) | ValueKind::ChoiceOrOne(words, _) => {
                    let default = key.1.default.trim_matches('"');
                    words.iter().find(|word| **word != default).unwrap().to_string()
                }
                ValueKind::Flag => (key.1.default == "false").to_string(),
                ValueKind::List(..) => {
                    "[{name: r, when: {source: dcr}, baselineClientScopes: [z]}]".to_owned()
                }
                kind => panic!("no other value of {kind:?}"),
            };
            let member = written(&key.0.path, &value);
            let other = match &*key.0.path {
                "scopesSupported" => member.clone(),
                // What is privileged or forbidden is no default, which counts already.
                _ => format!("{plain}, {member}"),
            };
            assert_ne!(audience(&other), audience(plain), "{member}");
        }
    }

    #[test]
    fn the_audience_counts() {
        let other = BASE.replace("https://mcp.example.com", "https://tools.example.com");
        assert_ne!(digest(&other), digest(BASE));
    }

    #[test]
    fn the_order_of_rules_counts() {
        let first = BASE.find("      - name: first").unwrap();
        let second = BASE.find("      - name: second").unwrap();
        let end = BASE.find("    scopeDescriptions:").unwrap();
        let turned = [&BASE[..first], &BASE[second..end], &BASE[first..second], &BASE[end..]].concat();
        assert_ne!(digest(&turned), digest(BASE));
    }

    #[test]
    fn two_lists_do_not_run_into_one_another() {
        let one =
            "audiences: {api: {scopesSupported: [a, b], baselineClientScopes: [], defaultClientScopes: [a]}}";
        let other =
            "audiences: {api: {scopesSupported: [a, b], baselineClientScopes: [a], defaultClientScopes: []}}";
        assert_ne!(digest(one), digest(other));
    }

    #[test]
    fn comments_and_spelling_do_not_count() {
        stays("guardrails:", "# what nobody gets\nguardrails:");
        stays("  https://mcp.example.com:", "  HTTPS://MCP.Example.com:443/:");
        stays("clientIdHost: app.example.com", "clientIdHost: App.Example.COM");
        stays("[a, b]", "\n    - 'a'\n    - \"b\"\n");
        stays("defaultAudience: api", "\"defaultAudience\": !!str api");
        stays("[https://mcp.example.com, api]", "[urn:mcp, api]");
        stays("https://mcp.example.com/mcp]", "https://MCP.example.com:443/mcp]");
        stays("cimd: omitted, ", "");
    }

    #[test]
    fn the_spelling_of_a_redirect_uri_does_not_count() {
        let with = |uri: &str| digest(&edited("redirectUri: loopback", &format!("redirectUri: '{uri}'")));
        assert_eq!(with("HTTPS://App.example:443/cb"), with("https://app.example/cb"));
        assert_ne!(with("https://app.example/cb/"), with("https://app.example/cb"));
        assert_ne!(with("https://app.example/CB"), with("https://app.example/cb"));
        assert_ne!(with("https://app.example:80/cb"), with("https://app.example/cb"));
    }

    #[test]
    fn texts_for_people_do_not_count() {
        stays("    description: The tools\n", "");
        stays("{openid: Who you are, a: The first}", "{a: The second}");
    }

    #[test]
    fn the_order_of_keys_and_of_audiences_does_not_count() {
        let audiences = BASE.find("audiences:").unwrap();
        let default = BASE.find("defaultAudience").unwrap();
        let turned = [&BASE[default..], &BASE[audiences..default], &BASE[..audiences]].concat();
        assert_eq!(digest(&turned), digest(BASE));
        assert_eq!(
            digest("audiences: {one: {scopesSupported: [a]}, two: {scopesSupported: [b]}}"),
            digest("audiences: {two: {scopesSupported: [b]}, one: {scopesSupported: [a]}}"),
        );
    }

    #[test]
    fn what_is_written_as_the_default_does_not_count() {
        let short = "audiences: {api: {scopesSupported: [openid, x, email], privilegedScopes: [email]}}";
        let long = "audiences: {api: {scopesSupported: [openid, x, email], baselineClientScopes: [], \
            defaultClientScopes: [openid], privilegedScopes: [email], forbiddenScopes: [], scopeMatching: exact, \
            registration: {unsupportedScopes: reject, nothingLeft: reject}, authorization: {unsupportedScopes: \
            reject, unregisteredScopes: reject, omittedScope: registered, baselineForExistingClients: true, \
            stepUpScopes: [], unknownRegistration: {}, nothingLeft: reject, alwaysGrantScopes: []}, \
            clientRules: [], scopeDescriptions: {}, aliases: [], ignoreQuery: false}}\n\
            registrationAudiences: [api]\n\
            guardrails: {forbiddenScopes: [], privilegedScopes: [], maxBaselineClientScopes: 10}\n";
        assert_eq!(digest(short), digest(long));
    }

    #[test]
    fn guardrails_are_folded_in() {
        let apart = "audiences: {api: {scopesSupported: [a], forbiddenScopes: [x]}}\nguardrails: {forbiddenScopes: [root]}";
        let own = "audiences: {api: {scopesSupported: [a], forbiddenScopes: [root, x]}}";
        assert_eq!(digest(apart), digest(own));
        // What only decides validity has no part in the answers.
        stays("  forbiddenScopes: [root]", "  maxBaselineClientScopes: 3\n  forbiddenScopes: [root]");
    }

    #[test]
    fn files_do_not_count() {
        let one = "audiences: {one: {scopesSupported: [a]}}\n";
        let two = "audiences: {two: {scopesSupported: [b]}}\ndefaultAudience: one\n";
        let digests: Vec<String> = [
            vec![("a.yaml", one), ("b.yaml", two)],
            vec![("b.yaml", two), ("a.yaml", one)],
            vec![("z.yml", one), ("b/c.yaml", two)],
            vec![("a.yaml", "audiences: {two: {scopesSupported: [b]}, one: {scopesSupported: [a]}}\ndefaultAudience: one\n")],
        ]
        .iter()
        .map(|files| read(files).unwrap().set.digest().as_str().to_owned())
        .collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }
}
