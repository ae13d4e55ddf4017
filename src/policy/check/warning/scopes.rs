//! Warnings about lists of scopes: protections that protect nothing, stars that are plain text, privileges that many get.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use super::WarningCheck;
use crate::escape::shown;
use crate::policy::check::CheckedDocument;
use crate::policy::check::audience::{MAX_GUESSES, guess};
use crate::policy::finding::{Code, Finding, nearest};
use crate::policy::format::read::{List, LocatedText, Spanned};
use crate::policy::{AudiencePolicy, UnknownRegistration};
use crate::scope::ScopeList;
use crate::scope::matching::{ScopeMatching, has_empty_segment, prefixes};

impl WarningCheck<'_> {
    pub(super) fn scope_lists(&mut self) {
        if self.policy.scope_matching == ScopeMatching::Wildcard {
            self.stars();
        }
        for key in ["privilegedScopes", "forbiddenScopes"] {
            self.protections(key);
        }
        self.looks_privileged();
        self.unknown_registration();
    }

    /// Under `wildcard`, what looks like a pattern and is none, and the pattern that leaves no ceiling.
    fn stars(&mut self) {
        let audience = shown(&self.policy.audience);
        for key in ["scopesSupported", "privilegedScopes", "forbiddenScopes"] {
            for LocatedText { value, position } in self.written.entries(key) {
                if is_literal_star(value) {
                    let message = format_args!(
                        "`{value}` in `{key}` of `{audience}` is no pattern: `*` stands for a whole segment, and segments are separated by `.` alone"
                    );
                    self.report(
                        Code::LiteralWildcard,
                        *position,
                        value,
                        message,
                        "list the scopes that are meant",
                    );
                } else if key == "scopesSupported" && value.split('.').all(|segment| segment == "*") {
                    let message = format_args!(
                        "`{audience}` supports every scope that matches `{value}`, whatever it is"
                    );
                    let suggestion =
                        "list the scopes that the audience knows, or patterns that start with a name";
                    self.report(Code::SupportsEveryScope, *position, value, message, suggestion);
                }
            }
        }
    }

    /// An entry that stops no supported scope.
    fn protections(&mut self, key: &'static str) {
        let policy = self.policy;
        let Some(list) = self.written.list(key) else { return };
        let supported = SupportedScopes::new(policy);
        let audience = shown(&policy.audience);
        for LocatedText { value, position } in &list.entries {
            // What looks like a pattern and is none has a warning of its own.
            let is_said = policy.scope_matching == ScopeMatching::Wildcard && is_literal_star(value);
            if is_said || supported.has_any_for(value, self.work) {
                continue;
            }
            let message = format_args!(
                "`{value}` in `{key}` of `{audience}` protects nothing: it matches no supported scope"
            );
            let suggestion = self.protection_advice(value, list);
            self.report(Code::UnusedProtection, *position, value, message, suggestion);
        }
    }

    fn protection_advice(&mut self, scope: &str, list: &List) -> String {
        let (matching, supported) = (self.policy.scope_matching, &self.policy.scopes_supported);
        if let Some(other) = other_matching(matching, supported, scope, self.work) {
            return would_match(matching, other);
        }
        // One that is in the list already was not meant by this one.
        let near = guess(self.work, scope, supported);
        match near.filter(|near| list.entries.iter().all(|entry| *entry.value != **near)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if scope.contains('*') => PLAIN_STAR.to_owned(),
            None => "remove it, or add it to `scopesSupported`".to_owned(),
        }
    }

    /// A scope that reads like a privilege, in a list that any client may get.
    fn looks_privileged(&mut self) {
        let written = self.written;
        for LocatedText { value, position } in written.entries("baselineClientScopes") {
            let Some(word) = privileged_word(value) else { continue };
            let message =
                format_args!("every client is given `{value}`, and `{word}` sounds like a privilege");
            let suggestion = "remove it; clients may still ask for it, or get it by a rule on `clientIdHost`";
            self.report(Code::BaselineScopeLooksPrivileged, *position, value, message, suggestion);
        }
        for LocatedText { value, position } in written.entries("defaultClientScopes") {
            let Some(word) = privileged_word(value) else { continue };
            let message = format_args!(
                "every client that registers without a scope is given `{value}`, and `{word}` sounds like a privilege"
            );
            let suggestion = "remove it; clients may still ask for it";
            self.report(Code::DefaultScopeLooksPrivileged, *position, value, message, suggestion);
        }
        // To write or to delete is what a step-up is for; to be an administrator is not.
        for LocatedText { value, position } in written.entries("authorization.stepUpScopes") {
            let Some(word) = privileged_word(value).filter(|word| !STEP_UP_WORDS.contains(word)) else {
                continue;
            };
            if self.is_privileged(value) {
                continue;
            }
            let message = format_args!(
                "every client may get `{value}` although it never registered it, and `{word}` sounds like a privilege"
            );
            let suggestion = "remove it, or list it in `privilegedScopes` as well if it is meant";
            self.report(Code::StepUpScopeLooksPrivileged, *position, value, message, suggestion);
        }
    }

    fn is_privileged(&self, scope: &str) -> bool {
        self.policy.scope_matching.find_stop(&self.policy.privileged_scopes, scope).is_some()
    }

    /// Who is not known to have registered anything may get what no client is given unasked.
    fn unknown_registration(&mut self) {
        const PATH: &str = "authorization.unknownRegistration";
        let policy = self.policy;
        if policy.privileged_scopes.is_empty() {
            return;
        }
        let sources = self.written.record(PATH);
        let of_sources = sources.into_iter().flat_map(|sources| {
            sources.members.iter().filter_map(|member| sources.word::<UnknownRegistration>(member.key))
        });
        let one = self.written.word::<UnknownRegistration>(PATH);
        let supported =
            one.into_iter().chain(of_sources).find(|word| word.value == UnknownRegistration::Supported);
        let Some(Spanned { position, .. }) = supported else { return };
        let cost = policy.privileged_scopes.len();
        let privileged = policy.scopes_supported.iter().find(|scope| {
            (policy.scope_matching == ScopeMatching::Exact || spend(self.work, cost))
                && self.is_privileged(scope)
                && policy.scope_matching.find_stop(&policy.forbidden_scopes, scope).is_none()
        });
        let Some(scope) = privileged else { return };
        let message = format_args!(
            "a client whose registration is unknown may get every scope that it asks for, the privileged `{scope}` among them"
        );
        let suggestion = "write `omitted`, with the scopes that such clients need in `stepUpScopes`";
        let value = UnknownRegistration::Supported.as_str();
        self.report(Code::UnknownRegistrationPrivileged, position, value, message, suggestion);
    }
}

/// The entries of the guardrails that stop no supported scope of any audience; `documents` are all of the set, and what
/// is in the files `outside` is not quoted.
pub(in crate::policy::check) fn of_guardrails(
    documents: &[&CheckedDocument],
    outside: &HashSet<&str>,
) -> Vec<Finding> {
    let Some((document, guardrails)) =
        documents.iter().find_map(|document| Some((document, document.guardrails.as_ref()?.record()?)))
    else {
        return Vec::new();
    };
    if document.accepted.contains(Code::UnusedProtection) {
        return Vec::new();
    }
    let lists = ["forbiddenScopes", "privilegedScopes"];
    let mut unused: BTreeMap<&str, Vec<(&str, &LocatedText)>> = BTreeMap::new();
    for key in lists {
        for entry in guardrails.entries(key) {
            unused.entry(&*entry.value).or_default().push((key, entry));
        }
    }
    let mut work = 0;
    let all = || {
        documents.iter().flat_map(|document| {
            let policies = document.declared.iter().filter_map(|declared| declared.policy.as_ref().ok());
            policies.map(|policy| (*document, &**policy))
        })
    };
    for (_, policy) in all() {
        if unused.is_empty() {
            return Vec::new();
        }
        remove_used(&mut unused, policy, &mut work);
    }
    let mut found = Vec::with_capacity(unused.len());
    for (key, LocatedText { value, position }) in unused.into_values().flatten() {
        let mut near = None;
        let mut other = None;
        for (document, policy) in all() {
            if work > MAX_GUESSES {
                break;
            }
            let (matching, supported) = (policy.scope_matching, &policy.scopes_supported);
            if other.is_none() {
                other = other_matching(matching, supported, value, &mut work).map(|other| (matching, other));
            }
            if near.is_none() && !outside.contains(&*document.file) && spend(&mut work, supported.len()) {
                near = nearest(value, supported.iter());
            }
        }
        let suggestion = match (other, near) {
            (Some((own, other)), _) => would_match(own, other),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if value.contains('*') => PLAIN_STAR.to_owned(),
            (None, None) => "remove it, or add it to the `scopesSupported` of an audience".to_owned(),
        };
        found.push(super::super::in_file(
            Code::UnusedProtection,
            document,
            *position,
            value,
            format!("`{value}` in `guardrails.{key}` protects nothing: it matches no supported scope of any audience"),
            suggestion,
        ));
    }
    found
}

/// Removes the entries that stop a supported scope. There may be many of them and many audiences, so the entries are looked
/// up by the scopes where that is possible.
fn remove_used<T>(entries: &mut BTreeMap<&str, T>, policy: &AudiencePolicy, work: &mut usize) {
    match policy.scope_matching {
        ScopeMatching::Exact => policy.scopes_supported.iter().for_each(|scope| _ = entries.remove(scope)),
        ScopeMatching::Hierarchic => {
            for scope in policy.scopes_supported.iter() {
                entries.remove(scope);
                if !has_empty_segment(scope) {
                    prefixes(scope, scope.len()).for_each(|prefix| _ = entries.remove(prefix));
                }
                let below = format!("{scope}.");
                let longer = entries
                    .range::<str, _>((Bound::Included(&*below), Bound::Unbounded))
                    .map(|(entry, _)| *entry);
                let longer = longer.take_while(|entry| entry.starts_with(&below));
                let longer: Vec<&str> = longer.filter(|entry| !has_empty_segment(entry)).collect();
                longer.into_iter().for_each(|entry| _ = entries.remove(entry));
            }
        }
        ScopeMatching::Wildcard => {
            let supported = SupportedScopes::new(policy);
            entries.retain(|entry, _| !supported.has_any_for(entry, work));
        }
    }
}

/// What an audience supports, to be asked for what an entry of a protection stops.
struct SupportedScopes<'p> {
    list: &'p ScopeList,
    matching: ScopeMatching,
    /// Under `hierarchic`, what an entry may be a prefix of; sorted.
    sorted: Vec<&'p str>,
}

impl<'p> SupportedScopes<'p> {
    fn new(policy: &'p AudiencePolicy) -> Self {
        let (list, matching) = (&policy.scopes_supported, policy.scope_matching);
        let mut sorted = Vec::new();
        if matching == ScopeMatching::Hierarchic {
            sorted.extend(list.iter().filter(|scope| !has_empty_segment(scope)));
            sorted.sort_unstable();
        }
        Self { list, matching, sorted }
    }

    /// Returns `true` if an entry stops at least one supported scope, or if to know it is too much work.
    fn has_any_for(&self, entry: &str, work: &mut usize) -> bool {
        match self.matching {
            ScopeMatching::Exact => self.list.contains(entry),
            ScopeMatching::Hierarchic => {
                // A list is long, and so is one of entries: both ways are looked up, not compared one by one.
                let below = format!("{entry}.");
                let first = self.sorted.partition_point(|scope| **scope < *below);
                self.matching.find(self.list, entry).is_some()
                    || self.sorted.get(first).is_some_and(|scope| scope.starts_with(&below))
            }
            ScopeMatching::Wildcard => {
                !spend(work, self.list.len() / 16 + 1) || self.matching.find_stop(self.list, entry).is_some()
            }
        }
    }
}

/// The other way to match under which an entry would stop a supported scope.
fn other_matching(
    own: ScopeMatching,
    supported: &ScopeList,
    entry: &str,
    work: &mut usize,
) -> Option<ScopeMatching> {
    let others =
        [ScopeMatching::Hierarchic, ScopeMatching::Wildcard].into_iter().filter(|other| *other != own);
    others
        .into_iter()
        .find(|other| spend(work, supported.len() / 4 + 1) && other.find_stop(supported, entry).is_some())
}

fn would_match(own: ScopeMatching, other: ScopeMatching) -> String {
    let (own, other) = (own.as_str(), other.as_str());
    format!("it would under `scopeMatching: {other}`; under `{own}`, list the scopes that are meant")
}

const PLAIN_STAR: &str = "`*` is plain text here; list the scopes that are meant";

/// Counts work; returns `false` when there has been too much of it in one file.
fn spend(work: &mut usize, more: usize) -> bool {
    *work = work.saturating_add(more);
    *work <= MAX_GUESSES
}

/// Returns `true` for a scope with a `*` that is not a whole segment, as in `mcp:*`.
fn is_literal_star(scope: &str) -> bool {
    scope.contains('*') && scope.split('.').any(|segment| segment.contains('*') && segment != "*")
}

/// What is ordinary to step up to.
const STEP_UP_WORDS: [&str; 3] = ["delete", "manage", "write"];

/// The part of a scope that sounds like more than reading, as in `mcp:write` or `admin`.
pub(super) fn privileged_word(scope: &str) -> Option<&'static str> {
    const WORDS: [&str; 13] = [
        "admin",
        "administrator",
        "delete",
        "impersonate",
        "manage",
        "owner",
        "root",
        "su",
        "sudo",
        "superuser",
        "write",
        "full_access",
        "*",
    ];
    scope
        .split([':', '.', '/', '-'])
        .flat_map(|part| std::iter::once(part).chain(part.split('_')))
        .find_map(|part| WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(part)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::judged;
    use crate::policy::sample;

    #[test]
    fn protections_that_protect_nothing_are_doubtful() {
        #[track_caller]
        fn check(matching: &str, supported: &str, entry: &str, suggestion: Option<&str>) {
            for key in ["forbiddenScopes", "privilegedScopes"] {
                let text = format!(
                    "audiences: {{api: {{scopeMatching: {matching}, scopesSupported: [openid, {supported}], {key}: ['{entry}']}}}}"
                );
                let accepted = sample::read(&[("a.yaml", &text)]).unwrap();
                let found: Vec<_> =
                    accepted.warnings.iter().map(|one| (one.code.as_str(), &*one.suggestion)).collect();
                let expected: Vec<_> =
                    suggestion.into_iter().map(|text| ("UnusedProtection", text)).collect();
                assert_eq!(found, expected, "{text}");
            }
        }
        check("exact", "admin", "admin", None);
        check("exact", "admin", "admn", Some("did you mean `admin`?"));
        check("exact", "admin", "sudo", Some("remove it, or add it to `scopesSupported`"));
        let other = |other: &str, own: &str| {
            format!("it would under `scopeMatching: {other}`; under `{own}`, list the scopes that are meant")
        };
        check("exact", "mcp.admin", "mcp.*", Some(&other("wildcard", "exact")));
        check("exact", "mcp.admin", "mcp", Some(&other("hierarchic", "exact")));
        check(
            "exact",
            "'mcp:admin'",
            "mcp:*",
            Some("`*` is plain text here; list the scopes that are meant"),
        );
        check("hierarchic", "mcp.admin", "mcp", None);
        check("hierarchic", "mcp", "mcp.admin", None);
        check("hierarchic", "mcp.admin.all, mcpx, mcp.a", "mcp.admin", None);
        check("hierarchic", "mcp.adminx, mcp-admin", "mcp.admin", Some("did you mean `mcp.adminx`?"));
        check("hierarchic", "mcp.admin", "mcp.*", Some(&other("wildcard", "hierarchic")));
        check("hierarchic", "'mcp..x'", "mcp", Some("remove it, or add it to `scopesSupported`"));
        check("wildcard", "mcp.admin", "mcp.*", None);
        check("wildcard", "'mcp.*'", "mcp.admin", None);
        check("wildcard", "'*.admin'", "mcp.*", None);
        check("wildcard", "mcp.admin", "mcp", Some(&other("hierarchic", "wildcard")));
    }

    #[test]
    fn guardrails_that_match_nowhere_are_doubtful() {
        #[track_caller]
        fn check(entry: &str, expected: &[&str]) {
            let guardrails = format!("guardrails: {{forbiddenScopes: ['{entry}']}}");
            let files = [
                ("a.yaml", "defaultAudience: a\naudiences: {a: {scopesSupported: [openid, admin]}}"),
                (
                    "b.yaml",
                    "audiences: {b: {scopesSupported: [openid, mcp.read], scopeMatching: hierarchic}}",
                ),
                ("g.yaml", &guardrails),
            ];
            let accepted = sample::read(&files).unwrap();
            let found = accepted.warnings.iter();
            let found: Vec<_> = found
                .map(|one| {
                    assert_eq!((&*one.file, &*one.value, one.position.column), ("g.yaml", entry, 32));
                    format!("{} {}", one.code.as_str(), one.suggestion)
                })
                .collect();
            assert_eq!(found, expected);
        }
        check("admin", &[]);
        check("mcp", &[]);
        check("mcp.read.all", &[]);
        check("admn", &["UnusedProtection did you mean `admin`?"]);
        check(
            "mcp.*",
            &[
                "UnusedProtection it would under `scopeMatching: wildcard`; under `hierarchic`, list the scopes that are meant",
            ],
        );
        check("sudo", &["UnusedProtection remove it, or add it to the `scopesSupported` of an audience"]);
        check("mcp:*", &["UnusedProtection `*` is plain text here; list the scopes that are meant"]);
    }

    #[test]
    fn a_star_that_is_no_segment_is_doubtful_under_wildcard() {
        let why = "is no pattern: `*` stands for a whole segment, and segments are separated by `.` alone";
        judged(
            &[
                "scopesSupported: [openid, 'mcp:*', 'mcp.re*', 'mcp.*']",
                "scopeMatching: wildcard",
                "forbiddenScopes: ['mcp:a*']",
            ],
            &[
                &format!("3:31 LiteralWildcard mcp:*: `mcp:*` in `scopesSupported` of `api` {why}"),
                &format!("3:40 LiteralWildcard mcp.re*: `mcp.re*` in `scopesSupported` of `api` {why}"),
                &format!("5:23 LiteralWildcard mcp:a*: `mcp:a*` in `forbiddenScopes` of `api` {why}"),
            ],
        );
        judged(&["scopesSupported: [openid, 'mcp:*']"], &[]);
        judged(
            &["scopesSupported: [openid, '*', '*.*']", "scopeMatching: wildcard"],
            &[
                "3:31 SupportsEveryScope *: `api` supports every scope that matches `*`, whatever it is",
                "3:36 SupportsEveryScope *.*: `api` supports every scope that matches `*.*`, whatever it is",
            ],
        );
        judged(&["scopesSupported: [openid, '*']"], &[]);
    }

    #[test]
    fn privileges_in_defaults_and_step_up_are_doubtful() {
        judged(
            &[
                "scopesSupported: [openid, admin, 'mcp:write', root, owner]",
                "defaultClientScopes: [openid, 'mcp:write']",
                "privilegedScopes: [root]",
                "authorization: {stepUpScopes: ['mcp:write', admin, root], alwaysGrantScopes: [owner]}",
            ],
            &[
                "4:35 DefaultScopeLooksPrivileged mcp:write: every client that registers without a scope is given `mcp:write`, and `write` sounds like a privilege",
                "6:49 StepUpScopeLooksPrivileged admin: every client may get `admin` although it never registered it, and `admin` sounds like a privilege",
            ],
        );
    }

    #[test]
    fn unknown_registrations_with_privileges_are_doubtful() {
        let message = "UnknownRegistrationPrivileged supported: a client whose registration is unknown may get every scope that it asks for, the privileged `mcp:x` among them";
        let check = |unknown: &str, more: &str, expected: &[&str]| {
            judged(
                &[
                    "scopesSupported: [openid, 'mcp:x']",
                    "privilegedScopes: ['mcp:x']",
                    &format!("authorization: {{unknownRegistration: {unknown}}}"),
                    more,
                ],
                expected,
            );
        };
        check("supported", "", &[&format!("5:42 {message}")]);
        check("{dcr: none, static: supported}", "", &[&format!("5:62 {message}")]);
        check("omitted", "", &[]);
        check("{dcr: omitted}", "", &[]);
        check("supported", "forbiddenScopes: ['mcp:x']", &[]);
    }
}
