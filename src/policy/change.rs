//! What changed between two policy sets, in words that an operator cares about.
//!
//! Here a change is marked *widening* by the kind of its key, if it may give some client more. Whether it does is
//! found out by the layer above, which asks both sets. Knows nothing about how it is printed.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::format::{Compiled, Effect};
use super::keys::{AudienceKey, meanings};
use super::{Alias, AudiencePolicy, ClientSource, PolicySet, UnknownRegistrations};
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
        key: String,
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
    /// Requests that name no audience are denied where they were answered, or answered where they were denied.
    AudienceRequired {
        /// Which requests, as in `register`.
        requests: &'static str,
        /// Whether they are denied now.
        required: bool,
    },
    /// A question that gets more than before, though no single change of the audience is known to give more.
    Example {
        /// The question and both answers, in words.
        question: String,
    },
}

impl Change {
    /// Requests that name no audience are denied from now on, or answered.
    #[must_use]
    pub const fn audience_required(requests: &'static str, required: bool) -> Self {
        let kind = ChangeKind::AudienceRequired { requests, required };
        Self { audience: String::new(), kind, widening: !required, removal: false }
    }

    /// An audience, or the set if it is empty, answers a question with more than before.
    #[must_use]
    pub fn example(audience: &str, question: String) -> Self {
        let kind = ChangeKind::Example { question };
        Self { audience: audience.to_owned(), kind, widening: true, removal: false }
    }

    /// Returns `true` if names mean an audience that meant none: whatever it grants was not granted under those.
    #[must_use]
    pub fn adds_names(&self) -> bool {
        match &self.kind {
            ChangeKind::AudienceAdded => true,
            ChangeKind::NamesAdded { list, .. } => list == "aliases",
            ChangeKind::Setting { key, .. } => key == "ignoreQuery",
            _ => false,
        }
    }

    /// The key that has another value, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match &self.kind {
            ChangeKind::ScopesAdded { list, .. }
            | ChangeKind::ScopesRemoved { list, .. }
            | ChangeKind::NamesAdded { list, .. }
            | ChangeKind::NamesRemoved { list, .. }
            | ChangeKind::Reordered { list } => Some(list),
            ChangeKind::Setting { key, .. } => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    /// One line, as in `https://mcp.example.com: baselineClientScopes +offline_access (widening)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::escape::shown;
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
            ChangeKind::AudienceRequired { requests, required } => {
                let (before, after) = if *required { ("answered", "denied") } else { ("denied", "answered") };
                write!(formatter, "{requests} requests that name no audience: {before} -> {after}")?;
                if *required {
                    formatter.write_str(" (narrowing)")?;
                }
            }
            ChangeKind::Example { question } => formatter.write_str(&shown(question))?,
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
    names.iter().try_for_each(|name| write!(formatter, "{sign}{}", crate::escape::shown(name)))
}

/// Every change from one set to another: the set first, then audiences sorted, then in the order of
/// the format. Empty exactly if both sets mean the same. Marked as widening is what may widen.
#[must_use]
pub fn candidates(before: &PolicySet, after: &PolicySet) -> Vec<Change> {
    let mut found = Vec::new();
    let default = |set: &PolicySet| set.default_audience().map(|audience| audience.normal().to_owned());
    let (old_default, new_default) = (default(before), default(after));
    if old_default != new_default {
        let named = |audience: Option<String>| audience.unwrap_or_else(|| "(none)".to_owned());
        let widening = new_default.is_some();
        let kind = ChangeKind::Setting {
            key: "defaultAudience".to_owned(),
            before: named(old_default),
            after: named(new_default),
        };
        found.push(Change { audience: String::new(), kind, widening, removal: false });
    }
    registrations(before, after, &mut found);
    for pair in differing(before.audiences(), after.audiences()) {
        match pair {
            Differing::Removed(gone) => found.push(whole(gone, ChangeKind::AudienceRemoved)),
            Differing::Added(added) => found.push(whole(added, ChangeKind::AudienceAdded)),
            Differing::Changed(one, other) if one.digest != other.digest => {
                ChangeWalk { audience: &other.audience, found: &mut found }.audience(one, other);
            }
            Differing::Changed(..) => {}
        }
    }
    found
}

/// What is different between the audiences of two sets.
#[derive(Clone, Copy, Debug)]
pub enum Differing<'s> {
    /// An audience of the set before alone.
    Removed(&'s Arc<AudiencePolicy>),
    /// An audience of the set after alone.
    Added(&'s Arc<AudiencePolicy>),
    /// An audience of both that was read again; it may mean the same.
    Changed(&'s Arc<AudiencePolicy>, &'s Arc<AudiencePolicy>),
}

/// The audiences in which two sets differ, in their order. Those that both have as they are, which is nearly all of a large set
/// after an edit, are passed over without being looked at.
pub fn differing<'s>(
    before: &'s [Arc<AudiencePolicy>],
    after: &'s [Arc<AudiencePolicy>],
) -> impl Iterator<Item = Differing<'s>> {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            // Both are sorted by normal audience.
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(one), Some(other)) if Arc::ptr_eq(one, other) => {
                    old.next();
                    new.next();
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.normal().cmp(other.normal()),
            };
            return match order {
                Ordering::Less => old.next().map(Differing::Removed),
                Ordering::Greater => new.next().map(Differing::Added),
                Ordering::Equal => {
                    old.next().zip(new.next()).map(|(one, other)| Differing::Changed(one, other))
                }
            };
        }
    })
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

/// Returns `true` if a word may let clients have more than the one before.
fn widens(effect: Effect, before: &str, after: &str) -> bool {
    match effect {
        Effect::Rises(words) => {
            let rank = |word: &str| words.iter().position(|known| *known == word);
            rank(after) > rank(before)
        }
        Effect::Any | Effect::Gives | Effect::Protects => before != after,
    }
}

struct ChangeWalk<'w> {
    audience: &'w str,
    found: &'w mut Vec<Change>,
}

impl ChangeWalk<'_> {
    fn push(&mut self, kind: ChangeKind, widening: bool, removal: bool) {
        self.found.push(Change { audience: self.audience.to_owned(), kind, widening, removal });
    }

    fn audience(&mut self, before: &AudiencePolicy, after: &AudiencePolicy) {
        for AudienceKey { path, effect, read } in meanings() {
            match read {
                Compiled::Scopes(read) => self.list(path, read(before), read(after), *effect),
                Compiled::Word(read) => {
                    let (old, new) = (read(before), read(after));
                    self.setting(path, old, new, widens(*effect, old, new));
                }
                Compiled::BySource(read) => {
                    let (old, new) = (read(before), read(after));
                    let word = |unknown: UnknownRegistrations, source| unknown.of(source).as_str();
                    let sources =
                        [Some(ClientSource::Cimd), Some(ClientSource::Dcr), Some(ClientSource::Static), None];
                    let widening = sources
                        .into_iter()
                        .any(|source| widens(*effect, word(old, source), word(new, source)));
                    self.setting(path, &old.to_string(), &new.to_string(), widening);
                }
                Compiled::Aliases(read) => self.aliases(path, read(before), read(after)),
                Compiled::Rules(_) => self.rules(before, after),
            }
        }
    }

    /// A new name of an audience answers requests that were denied before.
    fn aliases(&mut self, path: &str, before: &[Alias], after: &[Alias]) {
        let missing = |from: &[Alias], other: &[Alias]| -> Vec<String> {
            let known = |alias: &&Alias| other.iter().any(|own| own.normal == alias.normal);
            from.iter().filter(|alias| !known(alias)).map(|alias| alias.spelled.to_string()).collect()
        };
        let (added, removed) = (missing(after, before), missing(before, after));
        let list = || path.to_owned();
        let is_reordered = || before.iter().zip(after).any(|(one, other)| one.normal != other.normal);
        if added.is_empty() && removed.is_empty() && is_reordered() {
            self.push(ChangeKind::Reordered { list: list() }, false, false);
        }
        if !added.is_empty() {
            self.push(ChangeKind::NamesAdded { list: list(), names: added }, true, false);
        }
        if !removed.is_empty() {
            self.push(ChangeKind::NamesRemoved { list: list(), names: removed }, false, true);
        }
    }

    fn setting(&mut self, key: &str, before: &str, after: &str, widening: bool) {
        if before != after {
            let kind = ChangeKind::Setting {
                key: key.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
            };
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
        let lines: Vec<String> =
            candidates(&set(before), &set(after)).iter().map(Change::to_string).collect();
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
            candidates(&set(&audience(before)), &set(&audience(after))).iter().any(|change| change.removal)
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
