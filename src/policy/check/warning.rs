//! What is allowed and probably not meant: warnings about a valid policy set.
//!
//! They change nothing that is decided. Each has a way to say "this is meant", named in its suggestion or its page.

use std::fmt;
use std::sync::Arc;

use crate::escape::shown;
use crate::policy::finding::{self, AcceptedWarnings, Code, Finding, Findings, Position};
use crate::policy::format::read::{List, LocatedText, Mapping, Spanned};
use crate::policy::{
    AudiencePolicy, ClientCondition, ClientSource, MAX_REGISTRATION_AUDIENCES, NothingLeft, OmittedScope,
    PolicySet, RedirectCondition, Treatment,
};
use crate::scope::matching::ScopeMatching;
use crate::uri::is_host;

pub(super) use self::names::{is_plain, near_twins, plainer};
pub(super) use self::scopes::of_guardrails;
use self::scopes::privileged_word;

mod names;
mod scopes;

/// The warnings about one valid audience, in no order; those `left_out` are neither kept nor counted.
pub(super) fn of_audience(
    file: &Arc<str>,
    policy: &AudiencePolicy,
    spelled: &LocatedText,
    written: &Mapping,
    left_out: AcceptedWarnings,
    work: &mut usize,
    found: &mut Findings,
) {
    WarningCheck { file, policy, spelled, written, left_out, work, found }.audience();
}

/// The warnings about what a valid set does with requests that name no audience; `source` names the set.
pub(super) fn of_set(source: &Arc<str>, set: &PolicySet) -> Vec<Finding> {
    let warning = |code, message, suggestion: &str| Finding {
        code,
        file: Arc::clone(source),
        position: Position::default(),
        audience: String::new(),
        value: String::new(),
        message,
        suggestion: suggestion.to_owned(),
    };
    let count = set.audiences().len();
    let mut found = Vec::new();
    let (authorize, register) =
        (set.default_audience().is_none() && count > 1, set.registration_audiences().is_empty());
    // RFC 8707 section 2: `resource` is optional, and many clients send none.
    if authorize {
        let what = if register { "authorize requests and registrations" } else { "authorize requests" };
        let message = format!(
            "{what} that name no audience are denied: there are {count} audiences and no `defaultAudience`"
        );
        let suggestion = "set `defaultAudience` in one file";
        found.push(warning(Code::NoDefaultAudience, message, suggestion));
    }
    if register {
        let message = format!(
            "registrations that name no audience are denied: of {count} audiences, only up to \
             {MAX_REGISTRATION_AUDIENCES} are taken together"
        );
        let suggestion = "set `registrationAudiences` or `defaultAudience` in one file";
        found.push(warning(Code::RegistrationNeedsAudience, message, suggestion));
    }
    found
}

struct WarningCheck<'j> {
    file: &'j Arc<str>,
    policy: &'j AudiencePolicy,
    spelled: &'j LocatedText,
    written: &'j Mapping,
    left_out: AcceptedWarnings,
    /// How much was compared in this file for what is slow.
    work: &'j mut usize,
    found: &'j mut Findings,
}

impl WarningCheck<'_> {
    fn report(
        &mut self,
        code: Code,
        position: Position,
        value: &str,
        message: impl fmt::Display,
        suggestion: impl Into<String>,
    ) {
        if self.left_out.contains(code) {
            return;
        }
        self.found.push_with(code, || Finding {
            code,
            file: Arc::clone(self.file),
            position,
            audience: self.policy.audience.to_string(),
            value: finding::value(value),
            message: message.to_string(),
            suggestion: suggestion.into(),
        });
    }

    fn audience(&mut self) {
        self.omitted_scope();
        self.nothing_left();
        let baseline = self.written.list("baselineClientScopes");
        self.offline_access(baseline);
        self.redundant_baseline(baseline);
        self.scope_lists();
        self.names();
        for (at, written) in self.written.records("clientRules").iter().enumerate() {
            self.rule(at, written);
        }
    }

    /// A request without scope that nothing stands in for is denied (RFC 6749 section 3.3).
    fn omitted_scope(&mut self) {
        let (policy, spelled) = (self.policy, self.spelled);
        if !policy.default_client_scopes.is_empty() {
            return;
        }
        let audience = shown(&policy.audience);
        if policy.baseline_client_scopes.is_empty() && !policy.default_is_declared {
            let message = format_args!("a client that registers at `{audience}` without a scope is denied");
            let suggestion = "set `defaultClientScopes`; an empty list says that the denial is meant";
            self.report(Code::OmittedScopeDenied, spelled.position, &spelled.value, message, suggestion);
        }
        if policy.omitted_scope == OmittedScope::Default
            && let Some(omitted) = self.written.word::<OmittedScope>("authorization.omittedScope")
        {
            let message = format_args!(
                "an authorize request at `{audience}` without a scope is denied: there is no default scope"
            );
            let suggestion =
                "set `defaultClientScopes`; `omittedScope: reject` says that the denial is meant";
            self.report(
                Code::OmittedScopeDenied,
                omitted.position,
                omitted.value.as_str(),
                message,
                suggestion,
            );
        }
    }

    /// Nothing can be left only where scopes are dropped, and what stands in for an omitted scope must be something.
    fn nothing_left(&mut self) {
        let policy = self.policy;
        if [policy.registration_nothing_left, policy.nothing_left] == [NothingLeft::Reject; 2] {
            return;
        }
        let drops = |treatments: &[Treatment]| treatments.contains(&Treatment::Drop);
        let unsupported = "`unsupportedScopes: drop`";
        let registration = (!drops(&[policy.registration_unsupported_scopes]))
            .then(|| ("a registration drops no scope", unsupported.to_owned()));
        let authorization = if !drops(&[policy.unsupported_scopes, policy.unregistered_scopes]) {
            let or = format!("{unsupported} or `unregisteredScopes: drop`");
            Some(("an authorize request drops no scope", or))
        } else if policy.omitted_scope == OmittedScope::Reject {
            let other = "another `omittedScope`".to_owned();
            Some(("an authorize request without scope is denied by `omittedScope: reject`", other))
        } else {
            None
        };
        let audience = shown(&policy.audience);
        for (moment, unused) in [("registration", registration), ("authorization", authorization)] {
            let written = self.written.word::<NothingLeft>(&format!("{moment}.nothingLeft"));
            if let (Some(Spanned { value: NothingLeft::Default, position }), Some((why, needed))) =
                (written, unused)
            {
                let message =
                    format_args!("`{moment}.nothingLeft: default` has no effect at `{audience}`: {why}");
                let suggestion = format!("remove it, or set {needed} in `{moment}`");
                self.report(Code::UnusedNothingLeft, position, "default", message, suggestion);
            }
        }
    }

    /// Not every client has use for a refresh token.
    fn offline_access(&mut self, list: Option<&List>) {
        const OFFLINE_ACCESS: &str = "offline_access";
        let has_rule = self.policy.client_rules.iter().any(|rule| {
            let grant_types = rule.when.grant_types.iter().flatten();
            grant_types.into_iter().any(|grant_type| &**grant_type == "refresh_token")
        });
        let entry = list.and_then(|list| list.entries.iter().find(|entry| &*entry.value == OFFLINE_ACCESS));
        if let Some(LocatedText { position, .. }) = entry
            && !has_rule
        {
            let message = "every client is given `offline_access`, also those without the refresh grant";
            let suggestion = "give it by a client rule with `when: {grantTypes: [refresh_token]}`";
            self.report(Code::OfflineAccessForEveryClient, *position, OFFLINE_ACCESS, message, suggestion);
        }
    }

    /// A baseline scope that every client has without it.
    fn redundant_baseline(&mut self, list: Option<&List>) {
        let policy = self.policy;
        for (at, LocatedText { value, position }) in list.iter().flat_map(|list| &list.entries).enumerate() {
            let covering = policy
                .baseline_client_scopes
                .iter()
                .enumerate()
                .find(|(other, entry)| *other != at && policy.scope_matching.matches(entry, value));
            let mut report = |why: fmt::Arguments<'_>| {
                let message = format_args!("`{value}` in the baseline has no effect: {why}");
                self.report(Code::RedundantBaselineScope, *position, value, message, "remove it");
            };
            match covering {
                Some((_, entry)) => report(format_args!("`{entry}` of the same baseline covers it")),
                None if is_only_scope(policy, value) => {
                    report(format_args!("it is the only scope, and the default one"));
                }
                None => {}
            }
        }
    }

    fn rule(&mut self, at: usize, written: &Mapping) {
        let policy = self.policy;
        let Some(rule) = policy.client_rules.get(at) else { return };
        let position = written.text("name").map_or(written.position, |name| name.position);
        let name = shown(&rule.name);
        // The host of a CIMD client is proven and a static client is known; the rest is hearsay.
        if rule.when.client_id_host.is_none() && rule.when.source != Some(ClientSource::Static) {
            for LocatedText { value, position } in written.entries("baselineClientScopes") {
                let Some(word) = privileged_word(value) else { continue };
                let message = format_args!(
                    "rule `{name}` gives `{value}` on self-asserted metadata, and `{word}` sounds like a privilege"
                );
                let suggestion = "remove it, or add `clientIdHost`, which a client cannot choose";
                self.report(Code::BaselineScopeLooksPrivileged, *position, value, message, suggestion);
            }
        }
        if let Some(source) = rule.when.source
            && source != ClientSource::Cimd
            && rule.when.client_id_host.is_some()
        {
            let source = source.as_str();
            let message = format_args!(
                "rule `{name}` never holds: `clientIdHost` needs the source `cimd`, not `{source}`"
            );
            self.report(Code::UnusedClientRule, position, &rule.name, message, "write `source: cimd`");
            return;
        }
        if let Some(RedirectCondition::Exact(uri)) = &rule.when.redirect_uri
            && let Some((message, suggestion)) = self.redirect_uri(&name, uri)
        {
            let written = written.text("when.redirectUri");
            let position = written.map_or(position, |uri| uri.position);
            self.report(Code::UnusedClientRule, position, uri, message, suggestion);
            return;
        }
        if let Some(host) = &rule.when.client_id_host
            && !is_host(host)
        {
            let written = written.text("when.clientIdHost");
            let position = written.map_or(position, |host| host.position);
            let message = format_args!(
                "rule `{name}` never holds: parsers read the `clientIdHost` `{}` differently",
                shown(host)
            );
            let suggestion = "write a host name of letters, digits and hyphens, or an address in full";
            self.report(Code::UnusedClientRule, position, host, message, suggestion);
            return;
        }
        self.condition(&name, written);
        let gives = &rule.baseline_client_scopes;
        let covered =
            |scope: &str| policy.scope_matching.find(&policy.baseline_client_scopes, scope).is_some();
        if gives.iter().all(covered) {
            let message = format_args!(
                "rule `{name}` never adds a scope: the baseline of the audience has all of them"
            );
            self.report(Code::UnusedClientRule, position, &rule.name, message, "remove the rule");
            return;
        }
        let wider = policy.client_rules.iter().enumerate().find(|(other, wider)| {
            let adds_all = gives.iter().all(|scope| {
                covered(scope) || policy.scope_matching.find(&wider.baseline_client_scopes, scope).is_some()
            });
            // Of two rules that give the same to the same clients, the second one is idle.
            *other != at
                && adds_all
                && implies(&rule.when, &wider.when)
                && (*other < at
                    || !implies(&wider.when, &rule.when)
                    || wider.baseline_client_scopes.len() > gives.len())
        });
        if let Some((_, wider)) = wider {
            let wider = shown(&wider.name);
            let message = format_args!(
                "rule `{name}` never adds a scope: rule `{wider}` gives the same to all of its clients"
            );
            self.report(Code::UnusedClientRule, position, &rule.name, message, "remove the rule");
            return;
        }
        for LocatedText { value, position } in written.entries("baselineClientScopes") {
            if covered(value) {
                let message = format_args!(
                    "`{value}` in rule `{name}` has no effect: the baseline of the audience has it"
                );
                self.report(Code::RedundantBaselineScope, *position, value, message, "remove it");
            }
        }
    }
}

/// Whether each registration that is allowed has this scope: there is nothing else to ask for,
/// and it stands in for an omitted scope.
fn is_only_scope(policy: &AudiencePolicy, scope: &str) -> bool {
    let mut published = policy.published_scopes();
    policy.scope_matching == ScopeMatching::Exact
        && policy.registration_unsupported_scopes == Treatment::Reject
        && published.next() == Some(scope)
        && published.next().is_none()
        && policy.default_client_scopes.contains(scope)
}

/// Whether each client for which the first holds is one for which the second does.
fn implies(narrow: &ClientCondition, wide: &ClientCondition) -> bool {
    let ClientCondition {
        source,
        client_id_host,
        software_id,
        client_name,
        redirect_uri,
        grant_types,
        application_type,
    } = wide;
    // A condition on the host is one on the source, too.
    let narrow_source =
        narrow.source.or_else(|| narrow.client_id_host.is_some().then_some(ClientSource::Cimd));
    let any_name = |pattern: &str| !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*');
    (source.is_none() || *source == narrow_source)
        && (client_id_host.is_none() || *client_id_host == narrow.client_id_host)
        && (software_id.is_none() || *software_id == narrow.software_id)
        && client_name.as_ref().is_none_or(|pattern| {
            narrow.client_name.as_ref().is_some_and(|own| own == pattern || any_name(pattern))
        })
        && redirect_uri.as_ref().is_none_or(|wanted| match (wanted, &narrow.redirect_uri) {
            (RedirectCondition::Loopback, Some(RedirectCondition::Loopback)) => true,
            (RedirectCondition::Exact(one), Some(RedirectCondition::Exact(other))) => one == other,
            _ => false,
        })
        && grant_types.as_ref().is_none_or(|wanted| {
            narrow.grant_types.as_ref().is_some_and(|own| wanted.iter().all(|grant| own.contains(grant)))
        })
        && (application_type.is_none() || *application_type == narrow.application_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::check::check;
    use crate::policy::document::Document;

    /// The warnings about one audience `api` at line 2, as `line:column Code value: message`.
    #[track_caller]
    pub(super) fn judged(lines: &[&str], expected: &[&str]) {
        let text = format!("audiences:\n  api:\n    {}\n", lines.join("\n    "));
        let documents = [Document::read(&"policy.yaml".into(), &text)];
        let accepted = check(&"policy.yaml".into(), &documents).unwrap();
        let found = accepted.warnings;
        let brief = |finding: &Finding| {
            let Finding { code, position, value, message, suggestion, .. } = finding;
            assert!(!finding.is_error() && !suggestion.is_empty());
            let underlined = &text[position.start as usize..position.end as usize];
            assert!(underlined.contains(value.as_str()), "{underlined} has no {value}");
            format!("{}:{} {} {value}: {message}", position.line, position.column, code.as_str())
        };
        assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn requests_that_name_no_audience_need_one_that_is_meant() {
        #[track_caller]
        fn check(audiences: usize, more: &str, expected: &[&str]) {
            let audiences: String =
                (0..audiences).map(|at| format!("  a{at}: {{scopesSupported: [openid]}}\n")).collect();
            let accepted =
                crate::policy::sample::read(&[("a.yaml", &format!("audiences:\n{audiences}{more}"))]);
            let found = accepted.unwrap().warnings;
            let brief = |finding: &Finding| {
                let words: Vec<&str> = finding.message.split(" that name").collect();
                format!("{} {}", finding.code.as_str(), words[0])
            };
            assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), expected);
        }
        check(1, "", &[]);
        check(2, "", &["NoDefaultAudience authorize requests"]);
        check(2, "defaultAudience: a1\n", &[]);
        check(256, "", &["NoDefaultAudience authorize requests"]);
        check(
            257,
            "",
            &[
                "NoDefaultAudience authorize requests and registrations",
                "RegistrationNeedsAudience registrations",
            ],
        );
        check(257, "registrationAudiences: [a1]\n", &["NoDefaultAudience authorize requests"]);
        check(257, "defaultAudience: a1\n", &[]);
    }

    #[test]
    fn an_omitted_scope_that_would_be_denied_is_doubtful() {
        judged(
            &["scopesSupported: [mcp:read]"],
            &["2:3 OmittedScopeDenied api: a client that registers at `api` without a scope is denied"],
        );
        judged(&["scopesSupported: [mcp:read]", "defaultClientScopes: []"], &[]);
        judged(&["scopesSupported: [mcp:read]", "defaultClientScopes: [mcp:read]"], &[]);
        judged(&["scopesSupported: [mcp:read, mcp:list]", "baselineClientScopes: [mcp:read]"], &[]);
        judged(&["scopesSupported: [mcp:read, openid]"], &[]);
        judged(
            &[
                "scopesSupported: [a, b]",
                "baselineClientScopes: [a]",
                "authorization: {omittedScope: default}",
            ],
            &[
                "5:35 OmittedScopeDenied default: an authorize request at `api` without a scope is denied: there is no default scope",
            ],
        );
        judged(&["scopesSupported: [a, openid]", "authorization: {omittedScope: default}"], &[]);
        judged(
            &["scopesSupported: [a, b]", "defaultClientScopes: []", "authorization: {omittedScope: reject}"],
            &[],
        );
    }

    #[test]
    fn nothing_left_where_nothing_is_dropped_is_doubtful() {
        let lists = "scopesSupported: [a, openid]";
        let registration = |rest: &str| format!("registration: {{nothingLeft: default{rest}}}");
        let authorization = |rest: &str| format!("authorization: {{nothingLeft: default{rest}}}");
        let expected = |place: &str, moment: &str, why: &str| {
            format!(
                "{place} UnusedNothingLeft default: `{moment}.nothingLeft: default` has no effect at `api`: {why}"
            )
        };
        let no_drop = expected("4:33", "registration", "a registration drops no scope");
        judged(&[lists, &registration("")], &[&no_drop]);
        judged(&[lists, &registration(", unsupportedScopes: drop")], &[]);
        let no_drop = expected("4:34", "authorization", "an authorize request drops no scope");
        judged(&[lists, &authorization("")], &[&no_drop]);
        judged(&[lists, &authorization(", unsupportedScopes: drop")], &[]);
        judged(&[lists, &authorization(", unregisteredScopes: drop")], &[]);
        let why = "an authorize request without scope is denied by `omittedScope: reject`";
        let denied = expected("4:34", "authorization", why);
        judged(&[lists, &authorization(", unregisteredScopes: drop, omittedScope: reject")], &[&denied]);
        judged(&[lists, "registration: {nothingLeft: reject}"], &[]);
    }

    #[test]
    fn privileges_in_a_baseline_are_doubtful() {
        judged(
            &[
                "scopesSupported: [openid, admin, 'mcp:write', 'repo.delete_all', 'keys/*', sudo, rewrite, sum, Root]",
                "baselineClientScopes: [admin, 'mcp:write', repo.delete_all, 'keys/*', sudo, rewrite, sum, Root]",
            ],
            &[
                "4:28 BaselineScopeLooksPrivileged admin: every client is given `admin`, and `admin` sounds like a privilege",
                "4:35 BaselineScopeLooksPrivileged mcp:write: every client is given `mcp:write`, and `write` sounds like a privilege",
                "4:48 BaselineScopeLooksPrivileged repo.delete_all: every client is given `repo.delete_all`, and `delete` sounds like a privilege",
                "4:65 BaselineScopeLooksPrivileged keys/*: every client is given `keys/*`, and `*` sounds like a privilege",
                "4:75 BaselineScopeLooksPrivileged sudo: every client is given `sudo`, and `sudo` sounds like a privilege",
                "4:95 BaselineScopeLooksPrivileged Root: every client is given `Root`, and `root` sounds like a privilege",
            ],
        );
    }

    #[test]
    fn a_rule_may_give_privileges_to_clients_that_are_known() {
        let rule = |when: &str| {
            format!("clientRules: [{{name: r, when: {{{when}}}, baselineClientScopes: ['a:write']}}]")
        };
        let supported = "scopesSupported: [openid, 'a:write']";
        judged(
            &[supported, &rule("clientName: x")],
            &[
                "4:75 BaselineScopeLooksPrivileged a:write: rule `r` gives `a:write` on self-asserted metadata, and `write` sounds like a privilege",
            ],
        );
        judged(&[supported, &rule("clientIdHost: app.example.com")], &[]);
        judged(&[supported, &rule("source: static")], &[]);
    }

    #[test]
    fn offline_access_wants_the_refresh_grant() {
        let supported = "scopesSupported: [openid, profile, offline_access]";
        let baseline = "baselineClientScopes: [offline_access]";
        judged(
            &[supported, baseline],
            &[
                "4:28 OfflineAccessForEveryClient offline_access: every client is given `offline_access`, also those without the refresh grant",
            ],
        );
        judged(
            &[
                supported,
                baseline,
                "clientRules: [{name: r, when: {grantTypes: [refresh_token]}, baselineClientScopes: [profile]}]",
            ],
            &[],
        );
        judged(
            &[
                supported,
                "clientRules: [{name: r, when: {grantTypes: [refresh_token]}, baselineClientScopes: [offline_access]}]",
            ],
            &[],
        );
    }

    #[test]
    fn a_baseline_scope_that_no_client_could_lack_is_doubtful() {
        judged(
            &["scopesSupported: [openid]", "baselineClientScopes: [openid]"],
            &[
                "4:28 RedundantBaselineScope openid: `openid` in the baseline has no effect: it is the only scope, and the default one",
            ],
        );
        judged(&["scopesSupported: [a]", "baselineClientScopes: [a]"], &[]);
        judged(
            &[
                "scopesSupported: [openid]",
                "baselineClientScopes: [openid]",
                "registration: {unsupportedScopes: drop}",
            ],
            &[],
        );
        judged(
            &["scopesSupported: [mcp]", "scopeMatching: hierarchic", "baselineClientScopes: [mcp.read, mcp]"],
            &[
                "5:28 RedundantBaselineScope mcp.read: `mcp.read` in the baseline has no effect: `mcp` of the same baseline covers it",
            ],
        );
        judged(
            &[
                "scopesSupported: [openid, a, b]",
                "baselineClientScopes: [a]",
                "clientRules: [{name: r, when: {source: dcr}, baselineClientScopes: [a, b]}]",
            ],
            &[
                "5:73 RedundantBaselineScope a: `a` in rule `r` has no effect: the baseline of the audience has it",
            ],
        );
    }

    #[test]
    fn a_redirect_uri_that_parsers_read_differently_is_doubtful() {
        let rule = |uri: &str| {
            format!("clientRules: [{{name: r, when: {{redirectUri: '{uri}'}}, baselineClientScopes: [b]}}]")
        };
        let lines = |rule: &str| judged_rule(rule);
        fn judged_rule(rule: &str) -> Vec<String> {
            let text = format!("audiences:\n  api:\n    scopesSupported: [a, b, openid]\n    {rule}\n");
            let documents = [Document::read(&"policy.yaml".into(), &text)];
            let accepted = check(&"policy.yaml".into(), &documents).unwrap();
            accepted.warnings.iter().map(|finding| finding.message.clone()).collect()
        }
        for uri in
            ["loopback", "https://app.example.com/cb", "com.example.app:/cb", "HTTP://Localhost:80/x?y"]
        {
            assert_eq!(lines(&rule(uri)), [""; 0], "{uri}");
        }
        for uri in ["https://app.example.com/cb#x", "https://a@app.example.com/", "https://a\\b/", "https:/a"]
        {
            assert_eq!(
                lines(&rule(uri)),
                [format!("rule `r` never holds: parsers read the `redirectUri` `{uri}` differently")]
            );
        }
    }

    #[test]
    fn rules_that_never_add_a_scope_are_doubtful() {
        let rules = |rules: &[&str]| format!("clientRules: [{}]", rules.join(", "));
        let check = |list: &[&str], expected: &[&str]| {
            judged(&["scopesSupported: [openid, a, b]", "baselineClientScopes: [a]", &rules(list)], expected);
        };
        check(
            &["{name: r, when: {source: dcr}, baselineClientScopes: [a]}"],
            &[
                "5:26 UnusedClientRule r: rule `r` never adds a scope: the baseline of the audience has all of them",
            ],
        );
        check(
            &["{name: r, when: {source: dcr, clientIdHost: h}, baselineClientScopes: [b]}"],
            &[
                "5:26 UnusedClientRule r: rule `r` never holds: `clientIdHost` needs the source `cimd`, not `dcr`",
            ],
        );
        let twice = "{name: r, when: {source: dcr}, baselineClientScopes: [b]}";
        check(
            &[twice, "{name: s, when: {source: dcr}, baselineClientScopes: [b]}"],
            &[
                "5:85 UnusedClientRule s: rule `s` never adds a scope: rule `r` gives the same to all of its clients",
            ],
        );
        check(
            &[
                "{name: s, when: {source: dcr, clientName: x, grantTypes: [implicit, password]}, baselineClientScopes: [b]}",
                twice,
            ],
            &[
                "5:26 UnusedClientRule s: rule `s` never adds a scope: rule `r` gives the same to all of its clients",
            ],
        );
        check(
            &[
                "{name: s, when: {clientIdHost: h}, baselineClientScopes: [b]}",
                "{name: t, when: {source: cimd}, baselineClientScopes: [b, openid]}",
            ],
            &[
                "5:26 UnusedClientRule s: rule `s` never adds a scope: rule `t` gives the same to all of its clients",
            ],
        );
        check(
            &[
                "{name: s, when: {clientName: 'x*'}, baselineClientScopes: [b]}",
                "{name: t, when: {clientName: 'x'}, baselineClientScopes: [b]}",
                "{name: u, when: {redirectUri: loopback}, baselineClientScopes: [b]}",
                "{name: v, when: {redirectUri: 'https://a'}, baselineClientScopes: [b]}",
                "{name: w, when: {grantTypes: [implicit]}, baselineClientScopes: [b]}",
                "{name: y, when: {softwareId: x}, baselineClientScopes: [b]}",
                "{name: z, when: {applicationType: web}, baselineClientScopes: [b]}",
            ],
            &[],
        );
    }
}
