//! The rules within one file: guardrails, and each audience under them.
//!
//! Checks each audience alone; whether two files agree is the business of the module
//! above. Every problem becomes a finding and the rest is judged all the same.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::shared_parts::SharedParts;
use super::{Guardrails, Invalid, warning};
use crate::audience::{MAX_AUDIENCE_BYTES, is_url, normalise, without_query};
use crate::escape::shown;
use crate::policy::finding::{
    self, AcceptedWarnings, Code, Finding, Findings, Position, nearest, typographic,
};
use crate::policy::format::read::{List, LocatedText, Mapping, Spanned};
use crate::policy::{
    Alias, AudiencePolicy, AudienceSettings, ClientCondition, ClientRule, ClientSource,
    IMPLIED_DEFAULT_SCOPES, MAX_ALIASES, NothingLeft, OmittedScope, RedirectCondition, Treatment,
    UnknownRegistration, UnknownRegistrations, digest,
};
use crate::scope::matching::{ScopeMatching, has_star_segment};
use crate::scope::{ScopeList, check_token};
use crate::uri::PlainUri;

/// The lists that may be given to a client, as findings name them.
struct GrantListRules {
    key: &'static str,
    not_supported: Code,
    privileged: Option<Code>,
    forbidden: Code,
    wildcard: Option<Code>,
}

const BASELINE: GrantListRules = GrantListRules {
    key: "baselineClientScopes",
    not_supported: Code::BaselineScopeNotSupported,
    privileged: Some(Code::BaselineScopePrivileged),
    forbidden: Code::BaselineScopeForbidden,
    wildcard: Some(Code::BaselineScopeWildcard),
};
const DEFAULT: GrantListRules = GrantListRules {
    key: "defaultClientScopes",
    not_supported: Code::DefaultScopeNotSupported,
    privileged: Some(Code::DefaultScopePrivileged),
    forbidden: Code::DefaultScopeForbidden,
    wildcard: Some(Code::DefaultScopeWildcard),
};
const ALWAYS_GRANT: GrantListRules = GrantListRules {
    key: "alwaysGrantScopes",
    not_supported: Code::AlwaysGrantScopeNotSupported,
    privileged: Some(Code::AlwaysGrantScopePrivileged),
    forbidden: Code::AlwaysGrantScopeForbidden,
    wildcard: Some(Code::AlwaysGrantScopeWildcard),
};
const STEP_UP: GrantListRules = GrantListRules {
    key: "stepUpScopes",
    not_supported: Code::StepUpScopeNotSupported,
    privileged: None,
    forbidden: Code::StepUpScopeForbidden,
    wildcard: None,
};

/// What the lists of one audience are compared with.
struct AudienceLimits<'a> {
    /// `None` if the list was not written or is of the wrong type: nothing can be said then.
    supported: Option<&'a ScopeList>,
    privileged: &'a ScopeList,
    forbidden: &'a ScopeList,
    matching: ScopeMatching,
}

/// Judges one document; collects its findings.
pub(super) struct Checker<'d> {
    pub(super) file: &'d Arc<str>,
    pub(super) audience: &'d str,
    /// The client rule that findings are about, for the start of their messages; empty if none.
    pub(super) rule: String,
    pub(super) guardrails: &'d Guardrails,
    pub(super) findings: &'d mut Findings,
    /// About the audiences that are valid.
    pub(super) warnings: &'d mut Findings,
    /// Of those, the ones that are neither kept nor counted.
    pub(super) left_out: AcceptedWarnings,
    /// How many scopes of the file have been compared for a "did you mean".
    pub(super) guesses: &'d mut usize,
    pub(super) shared: &'d mut SharedParts,
}

/// Most comparisons for a "did you mean" in one file: each is slow, and a long list may be all wrong.
pub(super) const MAX_GUESSES: usize = 100_000;

impl<'d> Checker<'d> {
    fn report(
        &mut self,
        code: Code,
        position: Position,
        value: &str,
        message: String,
        suggestion: impl Into<String>,
    ) {
        self.findings.push_with(code, || Finding {
            code,
            file: Arc::clone(self.file),
            position,
            audience: finding::audience(self.audience),
            value: finding::value(value),
            message: format!("{}{message}", self.rule),
            suggestion: suggestion.into(),
        });
    }

    pub(super) fn guardrails(&mut self, guardrails: &'d Mapping) {
        self.list("guardrails.forbiddenScopes", guardrails.list("forbiddenScopes"));
        self.list("guardrails.privilegedScopes", guardrails.list("privilegedScopes"));
    }

    pub(super) fn audience(
        &mut self,
        spelled: &'d LocatedText,
        written: &'d Mapping,
    ) -> Result<Arc<AudiencePolicy>, Box<Invalid>> {
        let normal = self.audience_text("audience", spelled);
        let scope_matching = written.word("scopeMatching").map_or(ScopeMatching::Exact, |word| word.value);
        let supported = self.list("scopesSupported", written.list("scopesSupported"));
        let privileged = self.list("privilegedScopes", written.list("privilegedScopes"));
        let forbidden = self.list("forbiddenScopes", written.list("forbiddenScopes"));
        let scopes_supported = self.shared.list(&supported);
        let privileged_scopes = folded(&self.guardrails.privileged_scopes, &privileged);
        let forbidden_scopes = folded(&self.guardrails.forbidden_scopes, &forbidden);
        let limits = AudienceLimits {
            supported: written.list("scopesSupported").map(|_| &scopes_supported),
            privileged: &privileged_scopes,
            forbidden: &forbidden_scopes,
            matching: scope_matching,
        };

        let baseline_client_scopes = self.given(&BASELINE, written.list("baselineClientScopes"), &limits);
        let declared_default =
            written.list("defaultClientScopes").map(|list| self.given(&DEFAULT, Some(list), &limits));
        let step_up_scopes = self.given(&STEP_UP, written.list("authorization.stepUpScopes"), &limits);
        let always_grant = written.list("authorization.alwaysGrantScopes");
        let always_grant_scopes = self.given(&ALWAYS_GRANT, always_grant, &limits);
        self.no_step_up(always_grant, &step_up_scopes, scope_matching);
        let client_rules = self.rules(written.records("clientRules"), &limits);
        let scope_descriptions = self.scope_descriptions(written.texts("scopeDescriptions"), &limits);
        let description = written.text("description").map_or("", |text| text.value).into();
        let ignore_query = self.ignore_query(written.flag("ignoreQuery"), normal.as_deref());
        let aliases = self.aliases(written.list("aliases"), normal.as_deref(), ignore_query);

        // With one error in the file there will be no set: what is compiled would be thrown away.
        let is_valid = self.findings.error_count() == 0;
        let Some(normal) = normal.as_deref().filter(|_| is_valid) else {
            return Err(Box::new(Invalid {
                audience: spelled.value.clone(),
                normal: normal.map(|normal| normal.as_ref().into()),
                aliases,
                ignore_query,
            }));
        };
        let default_is_declared = declared_default.is_some();
        let default_client_scopes = declared_default.unwrap_or_else(|| {
            let implied = IMPLIED_DEFAULT_SCOPES.into_iter().filter(|scope| {
                scope_matching.find(&scopes_supported, scope).is_some()
                    && scope_matching.find_stop(&privileged_scopes, scope).is_none()
                    && scope_matching.find_stop(&forbidden_scopes, scope).is_none()
            });
            ScopeList::new(implied)
        });
        let treatment_or = |default, path| written.word(path).map_or(default, |word| word.value);
        let treatment = |path| treatment_or(Treatment::Reject, path);
        let nothing_left = |path| written.word(path).map_or(NothingLeft::Reject, |word| word.value);
        let settings = AudienceSettings {
            aliases,
            ignore_query,
            description,
            scope_descriptions,
            baseline_client_scopes,
            default_client_scopes,
            default_is_declared,
            privileged_scopes,
            forbidden_scopes,
            step_up_scopes,
            scope_matching,
            registration_unsupported_scopes: treatment("registration.unsupportedScopes"),
            registration_nothing_left: nothing_left("registration.nothingLeft"),
            unsupported_scopes: treatment("authorization.unsupportedScopes"),
            unregistered_scopes: treatment("authorization.unregisteredScopes"),
            omitted_scope: written
                .word("authorization.omittedScope")
                .map_or(OmittedScope::Registered, |word| word.value),
            baseline_for_existing_clients: written
                .flag("authorization.baselineForExistingClients")
                .is_none_or(|flag| flag.value),
            unknown_registration: unknown_registration(written),
            nothing_left: nothing_left("authorization.nothingLeft"),
            always_grant_scopes,
            token_unsupported_scopes: treatment_or(Treatment::Drop, "token.unsupportedScopes"),
            token_exceeding_scopes: treatment("token.exceedingScopes"),
            client_rules,
        };
        let mut policy = AudiencePolicy {
            audience: spelled.value.clone(),
            normal: (*normal != *spelled.value).then(|| normal.into()),
            scopes_supported,
            digest: [0; 32],
            settings: self.shared.settings(settings),
        };
        policy.digest = digest::of_audience(&policy, &mut self.shared.digested);
        warning::of_audience(
            self.file,
            &policy,
            spelled,
            written,
            self.left_out,
            self.guesses,
            self.warnings,
        );
        Ok(Arc::new(policy))
    }

    /// Checks the entries of a scope list by themselves; returns those that are tokens, each once.
    fn list(&mut self, key: &str, list: Option<&'d List>) -> Vec<&'d LocatedText> {
        let mut valid: Vec<&LocatedText> = Vec::new();
        let mut seen: HashMap<&str, Position> = HashMap::new();
        let entries = list.map_or(&[][..], |list| &list.entries);
        // A map for two entries would cost more than the rest of the file.
        let many = entries.len() > 32;
        for entry in entries {
            if let Err(error) = check_token(&entry.value) {
                let suggestion = if let Some((plain, odd)) = typographic(&entry.value)
                    && check_token(&plain).is_ok()
                {
                    format!("write `{plain}`: `{}` is not a plain character", shown(&odd.to_string()))
                } else if entry.value.trim().contains([' ', '\n']) {
                    let words: Vec<_> =
                        entry.value.split([' ', ',', '\n']).filter(|word| !word.is_empty()).collect();
                    format!("one list entry is one scope; split it: [{}]", shown(&words.join(", ")))
                } else if entry.value.trim() != &*entry.value {
                    format!("remove the white space: `{}`", shown(entry.value.trim()))
                } else {
                    "printable ASCII without space, `\"` and `\\` (RFC 6749 section 3.3)".to_owned()
                };
                let message = format!("`{key}`: scope `{}`: {error}", shown(&entry.value));
                self.report(Code::ScopeMalformed, entry.position, &entry.value, message, suggestion);
                continue;
            }
            let first = if many {
                seen.get(&*entry.value).copied()
            } else {
                valid.iter().find(|known| known.value == entry.value).map(|known| known.position)
            };
            if let Some(first) = first {
                let message =
                    format!("duplicate entry `{}` in `{key}`, first on line {}", entry.value, first.line);
                self.report(Code::DuplicateEntry, entry.position, &entry.value, message, "remove it");
                continue;
            }
            if many {
                seen.insert(&entry.value, entry.position);
            }
            valid.push(entry);
        }
        valid
    }

    /// Checks a list of scopes that clients are given against the limits of the audience.
    fn given(
        &mut self,
        rule: &GrantListRules,
        list: Option<&'d List>,
        limits: &AudienceLimits<'_>,
    ) -> ScopeList {
        let entries = self.list(rule.key, list);
        let (audience, key) = (self.audience, rule.key);
        let max = self.guardrails.max_baseline_client_scopes;
        if rule.key == BASELINE.key
            && let Some(first_over) = list.and_then(|list| list.entries.get(max))
        {
            let count = list.map_or(0, |list| list.entries.len());
            let audience = shown(audience);
            let message = format!("`{key}` of `{audience}` has {count} scopes, at most {max} are allowed");
            let suggestion = "keep what nearly every client needs; more can come from `clientRules`";
            self.report(
                Code::TooManyBaselineScopes,
                first_over.position,
                &first_over.value,
                message,
                suggestion,
            );
        }
        for entry in &entries {
            let scope = &*entry.value;
            let audience = || shown(audience);
            if let Some(supported) = limits.supported
                && limits.matching.find(supported, scope).is_none()
            {
                let message = format!("`{key}` of `{}`: `{scope}` is not in `scopesSupported`", audience());
                let suggestion = match self.guess(scope, supported) {
                    Some(near) => {
                        format!("did you mean `{near}`? otherwise add `{scope}` to `scopesSupported`")
                    }
                    None => format!("add `{scope}` to `scopesSupported` or remove it here"),
                };
                self.report(rule.not_supported, entry.position, scope, message, suggestion);
            }
            if let Some(code) = rule.privileged
                && let Some(stop) = stop(limits.matching, limits.privileged, scope)
            {
                let by = self.entry(&self.guardrails.privileged_scopes, stop, "privilegedScopes");
                let message = format!("`{key}` of `{}`: `{scope}` is privileged ({by})", audience());
                let suggestion = "a privileged scope is never given unasked; remove it here";
                self.report(code, entry.position, scope, message, suggestion);
            }
            if let Some(stop) = stop(limits.matching, limits.forbidden, scope) {
                let by = self.entry(&self.guardrails.forbidden_scopes, stop, "forbiddenScopes");
                let message = format!("`{key}` of `{}`: `{scope}` is forbidden ({by})", audience());
                self.report(rule.forbidden, entry.position, scope, message, "remove it here");
            }
            if let Some(code) = rule.wildcard
                && limits.matching == ScopeMatching::Wildcard
                && has_star_segment(scope)
            {
                let message = format!(
                    "`{key}` of `{}`: `{scope}` is a pattern, clients are given plain scopes",
                    audience()
                );
                self.report(code, entry.position, scope, message, "list the scopes that it stands for");
            }
        }
        self.shared.list(&entries)
    }

    /// A step-up scope is for requests that name it: it is never granted unasked.
    fn no_step_up(&mut self, list: Option<&'d List>, step_up: &ScopeList, matching: ScopeMatching) {
        for entry in list.iter().flat_map(|list| &list.entries) {
            let Some(stop) = matching.find(step_up, &entry.value).and_then(|at| step_up.get(at)) else {
                continue;
            };
            let message = format!(
                "`alwaysGrantScopes` of `{}`: `{}` is a step-up scope (`{stop}` in `stepUpScopes`)",
                shown(self.audience),
                shown(&entry.value)
            );
            let suggestion = "a step-up scope is granted only where it is asked for; remove it here";
            self.report(Code::AlwaysGrantScopeStepUp, entry.position, &entry.value, message, suggestion);
        }
    }

    fn scope_descriptions(
        &mut self,
        described: &'d [(LocatedText, LocatedText)],
        limits: &AudienceLimits<'_>,
    ) -> Box<[(Box<str>, Box<str>)]> {
        for (scope, _) in described {
            if let Err(error) = check_token(&scope.value) {
                let message = format!("`scopeDescriptions`: scope `{}`: {error}", shown(&scope.value));
                let suggestion = "a scope of `scopesSupported`";
                self.report(Code::ScopeMalformed, scope.position, &scope.value, message, suggestion);
            } else if let Some(supported) = limits.supported
                && limits.matching.find(supported, &scope.value).is_none()
            {
                let scope_text = &*scope.value;
                let message = format!(
                    "`scopeDescriptions` of `{}`: `{scope_text}` is not in `scopesSupported`",
                    shown(self.audience)
                );
                let suggestion = match self.guess(scope_text, supported) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "describe supported scopes only; remove it here".to_owned(),
                };
                self.report(
                    Code::DescribedScopeNotSupported,
                    scope.position,
                    scope_text,
                    message,
                    suggestion,
                );
            }
        }
        described.iter().map(|(scope, text)| (scope.value.clone(), text.value.clone())).collect()
    }

    fn ignore_query(&mut self, written: Option<Spanned<bool>>, normal: Option<&str>) -> bool {
        let Some(Spanned { value: true, position }) = written else { return false };
        if normal.is_some_and(|normal| !is_url(normal)) {
            let message = format!(
                "`ignoreQuery` of `{}`: only an audience of the form `scheme://host` has a query",
                shown(self.audience)
            );
            let suggestion = "remove it here; list other spellings under `aliases`";
            self.report(Code::IgnoreQueryWithoutUrl, position, "true", message, suggestion);
        }
        true
    }

    /// The aliases that can name an audience, each once; `normal` is that of the audience itself.
    fn aliases(&mut self, list: Option<&'d List>, normal: Option<&str>, ignore_query: bool) -> Box<[Alias]> {
        let Some(list) = list else { return Box::default() };
        let compared =
            |normal: &str| -> Box<str> { if ignore_query { without_query(normal) } else { normal }.into() };
        let own = normal.map(compared);
        let mut aliases: Vec<Alias> = Vec::with_capacity(list.entries.len().min(MAX_ALIASES));
        for (at, entry) in list.entries.iter().enumerate().take(MAX_ALIASES) {
            let spelled = &*entry.value;
            let Some(normal) = self.audience_text("alias", entry) else { continue };
            if let Some(first) = list.entries.iter().take(at).find(|other| other.value == entry.value) {
                let message = format!(
                    "duplicate entry `{}` in `aliases`, first on line {}",
                    shown(spelled),
                    first.position.line
                );
                self.report(Code::DuplicateEntry, entry.position, spelled, message, "remove it");
                continue;
            }
            let known = aliases.iter().find(|known| compared(&known.normal) == compared(&normal));
            let message = if own.as_deref() == Some(&*compared(&normal)) {
                format!("alias `{}` is the audience `{}` itself", shown(spelled), shown(self.audience))
            } else if let Some(known) = known {
                format!("alias `{}` means the same as alias `{}`", shown(spelled), shown(&known.spelled))
            } else {
                aliases.push(Alias { spelled: spelled.into(), normal: normal.into() });
                continue;
            };
            self.report(Code::RedundantAlias, entry.position, spelled, message, "remove it");
        }
        aliases.into_boxed_slice()
    }

    /// Checks a text that names an audience; returns its normal form.
    fn audience_text(&mut self, what: &str, text: &'d LocatedText) -> Option<Cow<'d, str>> {
        if text.value.len() > MAX_AUDIENCE_BYTES {
            let message =
                format!("{what} has {} bytes, at most {MAX_AUDIENCE_BYTES} are allowed", text.value.len());
            self.report(Code::ValueTooLarge, text.position, &text.value, message, "use a shorter one");
        }
        match normalise(&text.value) {
            Ok(normal) => Some(normal),
            Err(error) => {
                let message = format!("{what} `{}`: {error}", shown(&text.value));
                let trimmed = text.value.trim();
                let suggestion = if trimmed != &*text.value && normalise(trimmed).is_ok() {
                    format!("write `{}` behind its key, without white space around it", shown(trimmed))
                } else {
                    "an https URL without fragment, or a plain name".to_owned()
                };
                self.report(Code::AudienceMalformed, text.position, &text.value, message, suggestion);
                None
            }
        }
    }

    /// The entry that stops a scope, and its list; one of the guardrails may stand in another file, and is not
    /// quoted where that file is outside of the policy directory.
    fn entry(&self, guardrails: &ScopeList, entry: &str, key: &'static str) -> String {
        match (guardrails.contains(entry), self.guardrails.is_outside) {
            (false, _) => format!("`{entry}` in `{key}`"),
            (true, false) => format!("`{entry}` in `guardrails.{key}`"),
            (true, true) => format!("by an entry of `guardrails.{key}`"),
        }
    }

    /// The supported scope that was probably meant.
    fn guess<'l>(&mut self, scope: &str, supported: &'l ScopeList) -> Option<&'l str> {
        guess(self.guesses, scope, supported)
    }

    fn rules(&mut self, written: &'d [Mapping], limits: &AudienceLimits<'_>) -> Box<[ClientRule]> {
        let mut rules = Vec::with_capacity(written.len());
        let mut names: HashMap<&str, Position> = HashMap::new();
        for written in written {
            let name = written.text("name");
            self.rule = name.map(|name| format!("client rule `{}`: ", shown(name.value))).unwrap_or_default();
            if let Some(Spanned { value: name, position }) = name.filter(|name| !name.value.is_empty()) {
                if let Some(first) = names.get(name) {
                    let message = format!("duplicate name, first on line {}", first.line);
                    let suggestion = "give each rule its own name";
                    self.report(Code::DuplicateRuleName, position, name, message, suggestion);
                } else {
                    names.insert(name, position);
                }
            }
            let when = written.record("when").map(|when| self.when(when)).unwrap_or_default();
            let baseline_client_scopes = self.given(&BASELINE, written.list("baselineClientScopes"), limits);
            let name = name.map_or("", |name| name.value).into();
            rules.push(ClientRule { name, when, baseline_client_scopes });
        }
        self.rule.clear();
        rules.into_boxed_slice()
    }

    fn when(&mut self, written: &'d Mapping) -> ClientCondition {
        let text = |key| written.text(key).map(|text| Box::from(text.value));
        ClientCondition {
            source: written.word("source").map(|source| source.value),
            client_id_host: written.text("clientIdHost").map(|host| self.host(host)),
            software_id: text("softwareId"),
            client_name: text("clientName"),
            redirect_uri: text("redirectUri").map(|uri| match &*uri {
                "loopback" => RedirectCondition::Loopback,
                // What parsers read differently never holds, which is a warning.
                _ => RedirectCondition::Exact(
                    PlainUri::parse(&uri).map_or(uri.clone(), |uri| uri.normal().into()),
                ),
            }),
            grant_types: written.list("grantTypes").map(|list| self.grant_types(list)),
            application_type: text("applicationType"),
        }
    }

    fn host(&mut self, host: Spanned<&str>) -> Box<str> {
        let lower = host.value.to_ascii_lowercase();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let well_formed = match lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => !address.is_empty() && address.bytes().all(is_address),
            None => !lower.is_empty() && lower.bytes().all(is_name),
        };
        if !well_formed {
            let bare = lower.split_once("://").map_or(&*lower, |(_, rest)| rest);
            let bare = bare.split(['/', '?', '#', ':']).next().unwrap_or_default();
            let suggestion = if !bare.is_empty() && bare.bytes().all(is_name) && bare != lower {
                format!("did you mean `{bare}`?")
            } else {
                "a host alone, without scheme, port and path; international names in their xn-- form"
                    .to_owned()
            };
            let message = format!("`clientIdHost` `{}` is not a host name", shown(host.value));
            self.report(Code::HostMalformed, host.position, host.value, message, suggestion);
        }
        lower.into()
    }

    fn grant_types(&mut self, list: &List) -> Box<[Box<str>]> {
        let mut seen = HashSet::with_capacity(list.entries.len());
        let mut grant_types: Vec<Box<str>> = Vec::with_capacity(list.entries.len());
        for entry in &list.entries {
            if entry.value.is_empty() {
                let message = "empty entry in `grantTypes`".to_owned();
                self.report(Code::EmptyValue, entry.position, "", message, "remove it");
            } else if !seen.insert(&*entry.value) {
                let message = format!("duplicate entry `{}` in `grantTypes`", shown(&entry.value));
                self.report(Code::DuplicateEntry, entry.position, &entry.value, message, "remove it");
            } else {
                grant_types.push(entry.value.clone());
            }
        }
        grant_types.into_boxed_slice()
    }
}

/// The supported scope that was probably meant, unless there were too many guesses already.
pub(super) fn guess<'l>(guesses: &mut usize, scope: &str, supported: &'l ScopeList) -> Option<&'l str> {
    *guesses = guesses.saturating_add(supported.len());
    if *guesses > MAX_GUESSES { None } else { nearest(scope, supported.iter()) }
}

/// One word for every client, or one for each source.
fn unknown_registration(written: &Mapping) -> UnknownRegistrations {
    const PATH: &str = "authorization.unknownRegistration";
    if let Some(word) = written.word(PATH) {
        return UnknownRegistrations::all(word.value);
    }
    let sources = written.record(PATH);
    let word = |source: ClientSource| {
        let word = sources.and_then(|sources| sources.word(source.as_str()));
        word.map_or(UnknownRegistration::Omitted, |word| word.value)
    };
    UnknownRegistrations {
        cimd: word(ClientSource::Cimd),
        dcr: word(ClientSource::Dcr),
        static_: word(ClientSource::Static),
        untold: UnknownRegistration::Omitted,
    }
}

fn stop<'l>(matching: ScopeMatching, list: &'l ScopeList, scope: &str) -> Option<&'l str> {
    matching.find_stop(list, scope).and_then(|at| list.get(at))
}

/// The audience's own entries behind those of the guardrails; shared where it has none of its own.
fn folded(guardrails: &ScopeList, own: &[&LocatedText]) -> ScopeList {
    if own.is_empty() {
        return guardrails.clone();
    }
    ScopeList::new(guardrails.iter().chain(own.iter().map(|entry| &*entry.value)))
}
