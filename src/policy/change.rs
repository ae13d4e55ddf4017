//! What changed between two policy sets, in words that an operator cares about.
//!
//! A change is marked *widening* if some client may get something that it could not get before. The
//! mark errs on the side of caution: what may widen is marked. Knows nothing about how it is printed.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::{
    Alias, AudiencePolicy, ClientSource, NothingLeft, OmittedScope, PolicySet, Treatment, UnknownRegistration,
};
use crate::scope::ScopeList;

/// One change of one audience, or of the set if `audience` is empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The audience as spelled in the newer set that has it; empty for the set as a whole.
    pub audience: String,
    /// What happened.
    pub kind: ChangeKind,
    /// Whether some client may get more than before.
    pub widening: bool,
    /// Whether it takes away an audience or a protection (a forbidden or privileged scope): what a
    /// half-written file would do, too.
    pub removal: bool,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// The audience is new.
    AudienceAdded,
    /// The audience is gone.
    AudienceRemoved,
    /// A list got scopes.
    ScopesAdded {
        /// The key of the list; for a client rule `clientRules.NAME`.
        list: String,
        /// The scopes in policy order; not empty.
        scopes: Vec<String>,
    },
    /// A list lost scopes.
    ScopesRemoved {
        /// The key of the list; for a client rule `clientRules.NAME`.
        list: String,
        /// The scopes in the order of the older policy; not empty.
        scopes: Vec<String>,
    },
    /// A list got names of audiences.
    NamesAdded {
        /// The key of the list.
        list: String,
        /// The names in policy order; not empty.
        names: Vec<String>,
    },
    /// A list lost names of audiences.
    NamesRemoved {
        /// The key of the list.
        list: String,
        /// The names in the order of the older policy; not empty.
        names: Vec<String>,
    },
    /// The same entries in another order.
    Reordered {
        /// The key of the list.
        list: String,
    },
    /// A setting has another value.
    Setting {
        /// The key, with dots.
        key: &'static str,
        /// The value before, as spelled in policy files; `(none)` if unset.
        before: String,
        /// The value now.
        after: String,
    },
    /// A client rule is new.
    RuleAdded {
        /// Its name.
        name: String,
    },
    /// A client rule is gone.
    RuleRemoved {
        /// Its name.
        name: String,
    },
    /// The `when` of a client rule is another one.
    RuleCondition {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Change {
    /// One line, as in `https://mcp.example.com: baselineClientScopes +offline_access (widening)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::finding::shown;
        if !self.audience.is_empty() {
            write!(formatter, "{}: ", shown(&self.audience))?;
        }
        match &self.kind {
            ChangeKind::AudienceAdded => formatter.write_str("audience added")?,
            ChangeKind::AudienceRemoved => formatter.write_str("audience removed")?,
            ChangeKind::ScopesAdded { list, scopes } => {
                write!(formatter, "{} +{}", shown(list), scopes.join(" +"))?;
            }
            ChangeKind::ScopesRemoved { list, scopes } => {
                write!(formatter, "{} -{}", shown(list), scopes.join(" -"))?;
            }
            ChangeKind::NamesAdded { list, names } => write_names(formatter, list, " +", names)?,
            ChangeKind::NamesRemoved { list, names } => write_names(formatter, list, " -", names)?,
            ChangeKind::Reordered { list } => write!(formatter, "{} reordered", shown(list))?,
            ChangeKind::Setting { key, before, after } => {
                write!(formatter, "{key} {} -> {}", shown(before), shown(after))?;
            }
            ChangeKind::RuleAdded { name } => write!(formatter, "clientRules.{} added", shown(name))?,
            ChangeKind::RuleRemoved { name } => write!(formatter, "clientRules.{} removed", shown(name))?,
            ChangeKind::RuleCondition { name } => {
                write!(formatter, "clientRules.{} when changed", shown(name))?
            }
        }
        if self.widening {
            formatter.write_str(" (widening)")?;
        }
        Ok(())
    }
}

/// Audiences may hold any printable text, also spaces.
fn write_names(formatter: &mut fmt::Formatter<'_>, list: &str, sign: &str, names: &[String]) -> fmt::Result {
    formatter.write_str(list)?;
    names.iter().try_for_each(|name| write!(formatter, "{sign}{}", super::finding::shown(name)))
}

/// Every change from one set to another: the set first, then audiences sorted, then in the order of
/// the format. Empty exactly if both sets mean the same.
#[must_use]
pub fn changes(before: &PolicySet, after: &PolicySet) -> Vec<Change> {
    let mut found = Vec::new();
    let default = |set: &PolicySet| set.default_audience().map(|audience| audience.normal().to_owned());
    let (old_default, new_default) = (default(before), default(after));
    if old_default != new_default {
        let named = |audience: Option<String>| audience.unwrap_or_else(|| "(none)".to_owned());
        let widening = new_default.is_some();
        let kind = ChangeKind::Setting {
            key: "defaultAudience",
            before: named(old_default),
            after: named(new_default),
        };
        found.push(Change { audience: String::new(), kind, widening, removal: false });
    }
    registrations(before, after, &mut found);
    // Both are sorted by normal audience: one walk finds what is new, gone and common.
    let mut old = before.audiences().iter().peekable();
    let mut new = after.audiences().iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.normal().cmp(other.normal()),
        };
        match order {
            std::cmp::Ordering::Less => {
                if let Some(gone) = old.next() {
                    found.push(whole(gone, ChangeKind::AudienceRemoved));
                }
            }
            std::cmp::Ordering::Greater => {
                if let Some(added) = new.next() {
                    found.push(whole(added, ChangeKind::AudienceAdded));
                }
            }
            std::cmp::Ordering::Equal => {
                if let (Some(one), Some(other)) = (old.next(), new.next())
                    && !Arc::ptr_eq(one, other)
                    && one.digest != other.digest
                {
                    Walk { audience: &other.audience, found: &mut found }.audience(one, other);
                }
            }
        }
    }
    found
}

/// Which audiences a registration is for that names none. Those that are new or gone altogether, or
/// were meant because all are, are not said twice.
fn registrations(before: &PolicySet, after: &PolicySet, found: &mut Vec<Change>) {
    const LIST: &str = "registrationAudiences";
    let missing = |from: &PolicySet, other: &PolicySet| -> Vec<String> {
        let others: HashSet<&str> =
            other.registration_audiences().iter().map(|audience| audience.normal()).collect();
        let gone = |audience: &&Arc<AudiencePolicy>| !others.contains(audience.normal());
        from.registration_audiences().iter().filter(gone).map(|gone| gone.audience.to_string()).collect()
    };
    let is_default = |set: &PolicySet| {
        let (all, own) = (set.audiences(), set.registration_audiences());
        all.len() == own.len() && all.iter().zip(own).all(|(one, other)| Arc::ptr_eq(one, other))
    };
    if is_default(before) && is_default(after) {
        return;
    }
    let (added, removed) = (missing(after, before), missing(before, after));
    // Fewer audiences may give more: of several, the one that rejects wins.
    let widening = !after.registration_audiences().is_empty();
    let mut push = |kind, widening| {
        found.push(Change { audience: String::new(), kind, widening, removal: false });
    };
    let list = || LIST.to_owned();
    if added.is_empty() && removed.is_empty() {
        let order = |set: &PolicySet| -> Vec<String> {
            set.registration_audiences().iter().map(|audience| audience.normal().to_owned()).collect()
        };
        if order(before) != order(after) {
            push(ChangeKind::Reordered { list: list() }, false);
        }
    }
    if !added.is_empty() {
        push(ChangeKind::NamesAdded { list: list(), names: added }, widening);
    }
    if !removed.is_empty() {
        push(ChangeKind::NamesRemoved { list: list(), names: removed }, widening);
    }
}

fn whole(policy: &AudiencePolicy, kind: ChangeKind) -> Change {
    let added = kind == ChangeKind::AudienceAdded;
    Change { audience: policy.audience.to_string(), kind, widening: added, removal: !added }
}

/// Reads one setting of an audience.
type Read<T> = fn(&AudiencePolicy) -> T;

/// What a longer list means.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    Gives,
    Protects,
}

struct Walk<'w> {
    audience: &'w str,
    found: &'w mut Vec<Change>,
}

impl Walk<'_> {
    fn push(&mut self, kind: ChangeKind, widening: bool, removal: bool) {
        self.found.push(Change { audience: self.audience.to_owned(), kind, widening, removal });
    }

    fn audience(&mut self, before: &AudiencePolicy, after: &AudiencePolicy) {
        use Effect::{Gives, Protects};
        self.list("scopesSupported", &before.scopes_supported, &after.scopes_supported, Gives);
        self.list(
            "baselineClientScopes",
            &before.baseline_client_scopes,
            &after.baseline_client_scopes,
            Gives,
        );
        self.list("defaultClientScopes", &before.default_client_scopes, &after.default_client_scopes, Gives);
        self.list("privilegedScopes", &before.privileged_scopes, &after.privileged_scopes, Protects);
        self.list("forbiddenScopes", &before.forbidden_scopes, &after.forbidden_scopes, Protects);
        let matching = |policy: &AudiencePolicy| policy.scope_matching.as_str();
        self.setting("scopeMatching", matching(before), matching(after), true);
        let (old, new) = (before.registration_nothing_left, after.registration_nothing_left);
        let widening = new == NothingLeft::Default;
        self.setting("registration.nothingLeft", old.as_str(), new.as_str(), widening);
        let treatments: [(&str, Read<Treatment>); 3] = [
            ("registration.unsupportedScopes", |policy| policy.registration_unsupported_scopes),
            ("authorization.unsupportedScopes", |policy| policy.unsupported_scopes),
            ("authorization.unregisteredScopes", |policy| policy.unregistered_scopes),
        ];
        for (key, treatment) in treatments {
            let (old, new) = (treatment(before), treatment(after));
            self.setting(key, old.as_str(), new.as_str(), new == Treatment::Drop);
        }
        let (old, new) = (before.omitted_scope, after.omitted_scope);
        let rank = |omitted| match omitted {
            OmittedScope::Reject => 0,
            OmittedScope::Default => 1,
            OmittedScope::Registered => 2,
        };
        self.setting("authorization.omittedScope", old.as_str(), new.as_str(), rank(new) > rank(old));
        let flag =
            |policy: &AudiencePolicy| if policy.baseline_for_existing_clients { "true" } else { "false" };
        let widening = after.baseline_for_existing_clients;
        self.setting("authorization.baselineForExistingClients", flag(before), flag(after), widening);
        self.list("authorization.stepUpScopes", &before.step_up_scopes, &after.step_up_scopes, Gives);
        let (old, new) = (before.unknown_registration, after.unknown_registration);
        let rank = |unknown| match unknown {
            UnknownRegistration::None => 0,
            UnknownRegistration::Omitted => 1,
            UnknownRegistration::Supported => 2,
        };
        let sources = [Some(ClientSource::Cimd), Some(ClientSource::Dcr), Some(ClientSource::Static), None];
        let widening = sources.iter().any(|source| rank(new.of(*source)) > rank(old.of(*source)));
        self.setting("authorization.unknownRegistration", &old.to_string(), &new.to_string(), widening);
        let (old, new) = (before.nothing_left, after.nothing_left);
        let widening = new == NothingLeft::Default;
        self.setting("authorization.nothingLeft", old.as_str(), new.as_str(), widening);
        let (old, new) = (&before.always_grant_scopes, &after.always_grant_scopes);
        self.list("authorization.alwaysGrantScopes", old, new, Gives);
        self.rules(before, after);
        self.aliases(before, after);
        let flag = |policy: &AudiencePolicy| if policy.ignore_query { "true" } else { "false" };
        self.setting("ignoreQuery", flag(before), flag(after), after.ignore_query);
    }

    /// A new name of an audience answers requests that were denied before.
    fn aliases(&mut self, before: &AudiencePolicy, after: &AudiencePolicy) {
        let missing = |from: &AudiencePolicy, other: &AudiencePolicy| -> Vec<String> {
            let known = |alias: &&Alias| other.aliases.iter().any(|own| own.normal == alias.normal);
            from.aliases.iter().filter(|alias| !known(alias)).map(|alias| alias.spelled.to_string()).collect()
        };
        let (added, removed) = (missing(after, before), missing(before, after));
        let list = || "aliases".to_owned();
        let normals = |policy: &AudiencePolicy| -> Vec<Box<str>> {
            policy.aliases.iter().map(|alias| alias.normal.clone()).collect()
        };
        if added.is_empty() && removed.is_empty() && normals(before) != normals(after) {
            self.push(ChangeKind::Reordered { list: list() }, false, false);
        }
        if !added.is_empty() {
            self.push(ChangeKind::NamesAdded { list: list(), names: added }, true, false);
        }
        if !removed.is_empty() {
            self.push(ChangeKind::NamesRemoved { list: list(), names: removed }, false, true);
        }
    }

    fn setting(&mut self, key: &'static str, before: &str, after: &str, widening: bool) {
        if before != after {
            let kind = ChangeKind::Setting { key, before: before.to_owned(), after: after.to_owned() };
            self.push(kind, widening, false);
        }
    }

    fn list(&mut self, key: &str, before: &ScopeList, after: &ScopeList, effect: Effect) {
        if before == after {
            return;
        }
        let missing = |from: &ScopeList, other: &ScopeList| -> Vec<String> {
            from.iter().filter(|scope| !other.contains(scope)).map(str::to_owned).collect()
        };
        let (added, removed) = (missing(after, before), missing(before, after));
        if added.is_empty() && removed.is_empty() {
            self.push(ChangeKind::Reordered { list: key.to_owned() }, false, false);
            return;
        }
        if !added.is_empty() {
            let kind = ChangeKind::ScopesAdded { list: key.to_owned(), scopes: added };
            self.push(kind, effect == Effect::Gives, false);
        }
        if !removed.is_empty() {
            let kind = ChangeKind::ScopesRemoved { list: key.to_owned(), scopes: removed };
            self.push(kind, effect == Effect::Protects, effect == Effect::Protects);
        }
    }

    fn rules(&mut self, before: &AudiencePolicy, after: &AudiencePolicy) {
        let find = |policy: &'_ AudiencePolicy, name: &str| {
            policy.client_rules.iter().position(|rule| *rule.name == *name)
        };
        for rule in &before.client_rules {
            if find(after, &rule.name).is_none() {
                self.push(ChangeKind::RuleRemoved { name: rule.name.to_string() }, false, false);
            }
        }
        let count = self.found.len();
        for rule in &after.client_rules {
            let old = find(before, &rule.name).and_then(|at| before.client_rules.get(at));
            let Some(old) = old else {
                self.push(ChangeKind::RuleAdded { name: rule.name.to_string() }, true, false);
                continue;
            };
            if old.when != rule.when {
                self.push(ChangeKind::RuleCondition { name: rule.name.to_string() }, true, false);
            }
            let key = format!("clientRules.{}", rule.name);
            self.list(&key, &old.baseline_client_scopes, &rule.baseline_client_scopes, Effect::Gives);
        }
        let order = |policy: &AudiencePolicy| -> Vec<String> {
            policy.client_rules.iter().map(|rule| rule.name.to_string()).collect()
        };
        let (old, new) = (order(before), order(after));
        if count == self.found.len() && old.len() == new.len() && old != new {
            self.push(ChangeKind::Reordered { list: "clientRules".to_owned() }, false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check, document::Document};
    use super::*;

    fn set(text: &str) -> PolicySet {
        let file: Arc<str> = "policy.yaml".into();
        check::check(&file, &[Document::read(&file, text)]).unwrap().set
    }

    #[track_caller]
    fn check(before: &str, after: &str, expected: &[&str]) {
        let lines: Vec<String> = changes(&set(before), &set(after)).iter().map(Change::to_string).collect();
        assert_eq!(lines, expected);
    }

    fn audience(rest: &str) -> String {
        format!("audiences: {{api: {{scopesSupported: [a, b, c], {rest}}}}}")
    }

    #[test]
    fn equal_meaning_has_no_changes() {
        check(&audience(""), &audience("scopeMatching: exact"), &[]);
    }

    #[test]
    fn audiences_come_and_go() {
        check(
            "audiences: {a: {scopesSupported: [x]}, b: {scopesSupported: [x]}}",
            "audiences: {b: {scopesSupported: [x]}, c: {scopesSupported: [x]}}",
            &["a: audience removed", "c: audience added (widening)"],
        );
    }

    #[test]
    fn lists_widen_by_what_they_give_and_by_what_they_stop_to_protect() {
        check(
            &audience("baselineClientScopes: [a], forbiddenScopes: [c], privilegedScopes: [d]"),
            &audience("baselineClientScopes: [b], forbiddenScopes: [e], privilegedScopes: [d]"),
            &[
                "api: baselineClientScopes +b (widening)",
                "api: baselineClientScopes -a",
                "api: forbiddenScopes +e",
                "api: forbiddenScopes -c (widening)",
            ],
        );
        check(
            &audience("baselineClientScopes: [a, b]"),
            &audience("baselineClientScopes: [b, a]"),
            &["api: baselineClientScopes reordered"],
        );
        let removal = |before: &str, after: &str| {
            changes(&set(&audience(before)), &set(&audience(after))).iter().any(|change| change.removal)
        };
        assert!(removal("forbiddenScopes: [c]", ""));
        assert!(removal("privilegedScopes: [c]", ""));
        assert!(!removal("baselineClientScopes: [c]", ""));
        assert!(!removal("", "forbiddenScopes: [c]"));
    }

    #[test]
    fn settings_widen_in_one_direction() {
        let key = |value: &str| audience(&format!("authorization: {{unregisteredScopes: {value}}}"));
        check(
            &key("reject"),
            &key("drop"),
            &["api: authorization.unregisteredScopes reject -> drop (widening)"],
        );
        check(&key("drop"), &key("reject"), &["api: authorization.unregisteredScopes drop -> reject"]);
        let key = |value: &str| audience(&format!("authorization: {{unknownRegistration: {value}}}"));
        check(
            &key("none"),
            &key("omitted"),
            &["api: authorization.unknownRegistration none -> omitted (widening)"],
        );
        check(
            &key("supported"),
            &key("omitted"),
            &["api: authorization.unknownRegistration supported -> omitted"],
        );
        let key = |value: &str| audience(&format!("authorization: {{omittedScope: {value}}}"));
        check(
            &key("registered"),
            &key("default"),
            &["api: authorization.omittedScope registered -> default"],
        );
        check(
            &key("reject"),
            &key("default"),
            &["api: authorization.omittedScope reject -> default (widening)"],
        );
        check(
            "{defaultAudience: api, audiences: {api: {scopesSupported: [a]}}}",
            "audiences: {api: {scopesSupported: [a]}}",
            &["defaultAudience api -> (none)"],
        );
    }

    #[test]
    fn what_may_give_more_at_some_source_widens() {
        let key = |value: &str| audience(&format!("authorization: {{unknownRegistration: {value}}}"));
        check(
            &key("{dcr: none, cimd: supported}"),
            &key("{dcr: omitted}"),
            &[
                "api: authorization.unknownRegistration {cimd: supported, dcr: none, static: omitted} -> omitted (widening)",
            ],
        );
        check(
            &key("supported"),
            &key("{}"),
            &["api: authorization.unknownRegistration supported -> omitted"],
        );
        for moment in ["registration", "authorization"] {
            let key = |value: &str| audience(&format!("{moment}: {{nothingLeft: {value}}}"));
            let setting = format!("api: {moment}.nothingLeft");
            check(&key("reject"), &key("default"), &[&format!("{setting} reject -> default (widening)")]);
            check(&key("default"), &key("reject"), &[&format!("{setting} default -> reject")]);
        }
        check(
            &audience("authorization: {alwaysGrantScopes: [a, b]}"),
            &audience("authorization: {alwaysGrantScopes: [b, c]}"),
            &[
                "api: authorization.alwaysGrantScopes +c (widening)",
                "api: authorization.alwaysGrantScopes -a",
            ],
        );
    }

    #[test]
    fn names_come_and_go() {
        check(
            &audience("aliases: [x, 'https://y.example/']"),
            &audience("aliases: ['https://Y.example', 'z z']"),
            &["api: aliases +z z (widening)", "api: aliases -x"],
        );
        check(&audience("aliases: [x, y]"), &audience("aliases: [y, x]"), &["api: aliases reordered"]);
        let url = |ignore: bool| {
            format!("audiences: {{'https://a.example': {{scopesSupported: [a], ignoreQuery: {ignore}}}}}")
        };
        check(&url(false), &url(true), &["https://a.example: ignoreQuery false -> true (widening)"]);
        check(&url(true), &url(false), &["https://a.example: ignoreQuery true -> false"]);
        // Texts for people are no change of meaning.
        check(&audience("description: x, scopeDescriptions: {a: y}"), &audience(""), &[]);
    }

    #[test]
    fn the_audiences_of_registrations_come_and_go() {
        let set = |names: &str, list: &str| {
            let audiences: Vec<_> =
                names.split(' ').map(|name| format!("{name}: {{scopesSupported: [a]}}")).collect();
            format!("audiences: {{{}}}\n{list}", audiences.join(", "))
        };
        check(&set("a b", ""), &set("a b", "registrationAudiences: [a, b]"), &[]);
        check(&set("a b", ""), &set("a b c", ""), &["c: audience added (widening)"]);
        check(
            &set("a b", ""),
            &set("a b", "registrationAudiences: [b]"),
            &["registrationAudiences -a (widening)"],
        );
        check(
            &set("a b", "registrationAudiences: [b]"),
            &set("a b", "registrationAudiences: [a]"),
            &["registrationAudiences +a (widening)", "registrationAudiences -b (widening)"],
        );
        check(
            &set("a b", ""),
            &set("a b", "registrationAudiences: [b, a]"),
            &["registrationAudiences reordered"],
        );
    }

    #[test]
    fn client_rules_are_told_apart_by_name() {
        let rule = |name: &str, source: &str, scope: &str| {
            format!("{{name: {name}, when: {{source: {source}}}, baselineClientScopes: [{scope}]}}")
        };
        let rules = |rules: &[String]| audience(&format!("clientRules: [{}]", rules.join(", ")));
        check(
            &rules(&[rule("one", "dcr", "a"), rule("two", "dcr", "a")]),
            &rules(&[rule("two", "cimd", "b"), rule("three", "dcr", "a")]),
            &[
                "api: clientRules.one removed",
                "api: clientRules.two when changed (widening)",
                "api: clientRules.two +b (widening)",
                "api: clientRules.two -a",
                "api: clientRules.three added (widening)",
            ],
        );
        check(
            &rules(&[rule("one", "dcr", "a"), rule("two", "dcr", "a")]),
            &rules(&[rule("two", "dcr", "a"), rule("one", "dcr", "a")]),
            &["api: clientRules reordered"],
        );
    }
}
