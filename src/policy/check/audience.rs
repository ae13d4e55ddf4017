//! The rules within one file: guardrails, and each audience under them.
//!
//! Judges what one audience says by itself; whether two files agree is the business of the module
//! above. Every problem becomes a finding and the rest is judged all the same.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Guardrails, Invalid, MAX_NAME_BYTES};
use crate::audience::{MAX_AUDIENCE_BYTES, is_url, normalise, without_query};
use crate::policy::document::{
    AudienceDocument, GuardrailsDocument, List, RuleDocument, Spanned, Text, WhenDocument,
};
use crate::policy::finding::{self, Code, Finding, Findings, Position, nearest, shown};
use crate::policy::{
    Alias, AudiencePolicy, ClientCondition, ClientRule, IMPLIED_DEFAULT_SCOPES, MAX_ALIASES,
    MAX_BASELINE_CLIENT_SCOPES, MAX_DESCRIPTION_CHARS, MAX_SCOPE_DESCRIPTION_CHARS, NothingLeft,
    OmittedScope, RedirectCondition, Treatment, UnknownRegistration, UnknownRegistrations, digest,
};
use crate::scope::matching::{ScopeMatching, has_star_segment};
use crate::scope::{ScopeList, check_token};

/// The lists that may be given to a client, as findings name them.
struct Given {
    key: &'static str,
    not_supported: Code,
    privileged: Option<Code>,
    forbidden: Code,
    wildcard: Option<Code>,
}

const BASELINE: Given = Given {
    key: "baselineClientScopes",
    not_supported: Code::BaselineScopeNotSupported,
    privileged: Some(Code::BaselineScopePrivileged),
    forbidden: Code::BaselineScopeForbidden,
    wildcard: Some(Code::BaselineScopeWildcard),
};
const DEFAULT: Given = Given {
    key: "defaultClientScopes",
    not_supported: Code::DefaultScopeNotSupported,
    privileged: Some(Code::DefaultScopePrivileged),
    forbidden: Code::DefaultScopeForbidden,
    wildcard: Some(Code::DefaultScopeWildcard),
};
const ALWAYS_GRANT: Given = Given {
    key: "alwaysGrantScopes",
    not_supported: Code::AlwaysGrantScopeNotSupported,
    privileged: Some(Code::AlwaysGrantScopePrivileged),
    forbidden: Code::AlwaysGrantScopeForbidden,
    wildcard: Some(Code::AlwaysGrantScopeWildcard),
};
const STEP_UP: Given = Given {
    key: "stepUpScopes",
    not_supported: Code::StepUpScopeNotSupported,
    privileged: None,
    forbidden: Code::StepUpScopeForbidden,
    wildcard: None,
};

/// What the lists of one audience are compared with.
struct Ceiling<'a> {
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
    pub(super) guardrails: &'d Guardrails,
    pub(super) findings: Findings,
    /// How many scopes have been compared for a "did you mean".
    pub(super) guesses: usize,
}

/// Most comparisons for a "did you mean" in one file: each is slow, and a long list may be all wrong.
const MAX_GUESSES: usize = 100_000;

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
            message,
            suggestion: suggestion.into(),
        });
    }

    pub(super) fn guardrails(&mut self, document: &'d GuardrailsDocument) {
        self.list("guardrails.forbiddenScopes", document.forbidden_scopes.as_ref());
        self.list("guardrails.privilegedScopes", document.privileged_scopes.as_ref());
        if let Some(Spanned { value, position }) = document.max_baseline_client_scopes
            && value as usize > MAX_BASELINE_CLIENT_SCOPES
        {
            self.report(
                Code::ValueTooLarge,
                position,
                &value.to_string(),
                format!("`maxBaselineClientScopes` is {value}, it may only lower the limit of {MAX_BASELINE_CLIENT_SCOPES}"),
                format!("a number from 0 to {MAX_BASELINE_CLIENT_SCOPES}"),
            );
        }
    }

    pub(super) fn audience(
        &mut self,
        document: &'d AudienceDocument,
    ) -> Result<Arc<AudiencePolicy>, Invalid> {
        let spelled = &document.audience;
        let normal = self.audience_text("audience", spelled);

        let scope_matching = document.scope_matching.map_or(ScopeMatching::Exact, |matching| matching.value);
        let supported = self.list("scopesSupported", document.scopes_supported.as_ref());
        if let Some(list) = &document.scopes_supported
            && list.written == 0
        {
            let message = format!("`scopesSupported` of `{}` is empty", shown(&spelled.value));
            self.report(
                Code::EmptyValue,
                list.position,
                "",
                message,
                "list every scope that the audience knows",
            );
        }
        let privileged = self.list("privilegedScopes", document.privileged_scopes.as_ref());
        let forbidden = self.list("forbiddenScopes", document.forbidden_scopes.as_ref());
        let scopes_supported = scopes(&supported);
        let privileged_scopes = folded(&self.guardrails.privileged_scopes, &privileged);
        let forbidden_scopes = folded(&self.guardrails.forbidden_scopes, &forbidden);
        let ceiling = Ceiling {
            supported: document.scopes_supported.as_ref().map(|_| &scopes_supported),
            privileged: &privileged_scopes,
            forbidden: &forbidden_scopes,
            matching: scope_matching,
        };

        let baseline_client_scopes =
            self.given(&BASELINE, document.baseline_client_scopes.as_ref(), &ceiling);
        let declared_default =
            document.default_client_scopes.as_ref().map(|list| self.given(&DEFAULT, Some(list), &ceiling));
        let step_up_scopes = self.given(&STEP_UP, document.step_up_scopes.as_ref(), &ceiling);
        let always_grant_scopes = self.given(&ALWAYS_GRANT, document.always_grant_scopes.as_ref(), &ceiling);
        self.no_step_up(document.always_grant_scopes.as_ref(), &step_up_scopes, scope_matching);
        let client_rules = self.rules(&document.client_rules, &ceiling);
        let scope_descriptions = self.scope_descriptions(&document.scope_descriptions, &ceiling);
        let description = self.description(document.description.as_ref());
        let ignore_query = self.ignore_query(document.ignore_query, normal.as_deref());
        let aliases = self.aliases(document.aliases.as_ref(), normal.as_deref(), ignore_query);

        // With one error in the file there will be no set: what is compiled would be thrown away.
        let is_valid = !document.is_misshapen && self.findings.error_count() == 0;
        let Some(normal) = normal.as_deref().filter(|_| is_valid) else {
            return Err(Invalid {
                audience: spelled.value.clone(),
                normal: normal.map(|normal| normal.as_ref().into()),
                aliases,
                ignore_query,
            });
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
        let treatment = |treatment: Option<Spanned<Treatment>>| {
            treatment.map_or(Treatment::Reject, |treatment| treatment.value)
        };
        let nothing_left =
            |nothing: Option<Spanned<NothingLeft>>| nothing.map_or(NothingLeft::Reject, |left| left.value);
        let mut policy = AudiencePolicy {
            audience: spelled.value.clone(),
            normal: (*normal != *spelled.value).then(|| normal.into()),
            aliases,
            ignore_query,
            description,
            scope_descriptions,
            scopes_supported,
            baseline_client_scopes,
            default_client_scopes,
            default_is_declared,
            privileged_scopes,
            forbidden_scopes,
            step_up_scopes,
            scope_matching,
            registration_unsupported_scopes: treatment(document.registration_unsupported_scopes),
            registration_nothing_left: nothing_left(document.registration_nothing_left),
            unsupported_scopes: treatment(document.unsupported_scopes),
            unregistered_scopes: treatment(document.unregistered_scopes),
            omitted_scope: document.omitted_scope.map_or(OmittedScope::Registered, |omitted| omitted.value),
            baseline_for_existing_clients: document
                .baseline_for_existing_clients
                .is_none_or(|flag| flag.value),
            unknown_registration: document
                .unknown_registration
                .map_or(UnknownRegistrations::all(UnknownRegistration::Omitted), |unknown| unknown.value),
            nothing_left: nothing_left(document.nothing_left),
            always_grant_scopes,
            client_rules,
            digest: [0; 32],
        };
        policy.digest = digest::of_audience(&policy);
        Ok(Arc::new(policy))
    }

    /// Checks the entries of a scope list by themselves; returns those that are tokens, each once.
    fn list(&mut self, key: &str, list: Option<&'d List>) -> Vec<&'d Text> {
        let mut valid: Vec<&Text> = Vec::new();
        let mut seen: HashMap<&str, Position> = HashMap::new();
        let entries = list.map_or(&[][..], |list| &list.entries);
        // A map for two entries would cost more than the rest of the file.
        let many = entries.len() > 32;
        for entry in entries {
            if let Err(error) = check_token(&entry.value) {
                let suggestion = if entry.value.trim().contains(' ') {
                    "one list entry is one scope; split it".to_owned()
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
                let message = format!("`{key}` holds `{}` twice, first on line {}", entry.value, first.line);
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

    /// Checks a list of scopes that clients are given against the ceiling of the audience.
    fn given(&mut self, rule: &Given, list: Option<&'d List>, ceiling: &Ceiling<'_>) -> ScopeList {
        let entries = self.list(rule.key, list);
        let audience = shown(self.audience);
        let key = rule.key;
        let max = self.guardrails.max_baseline_client_scopes;
        if rule.key == BASELINE.key
            && let Some(first_over) = list.and_then(|list| list.entries.get(max))
        {
            let count = list.map_or(0, |list| list.entries.len());
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
            if let Some(supported) = ceiling.supported
                && ceiling.matching.find(supported, scope).is_none()
            {
                let message = format!("`{key}` of `{audience}`: `{scope}` is not in `scopesSupported`");
                let suggestion = match self.guess(scope, supported) {
                    Some(near) => {
                        format!("did you mean `{near}`? otherwise add `{scope}` to `scopesSupported`")
                    }
                    None => format!("add `{scope}` to `scopesSupported` or remove it here"),
                };
                self.report(rule.not_supported, entry.position, scope, message, suggestion);
            }
            if let Some(code) = rule.privileged
                && let Some(stop) = stop(ceiling.matching, ceiling.privileged, scope)
            {
                let list = listed(&self.guardrails.privileged_scopes, stop, "privilegedScopes");
                let message =
                    format!("`{key}` of `{audience}`: `{scope}` is privileged (`{stop}` in `{list}`)");
                let suggestion = "a privileged scope is never given unasked; remove it here";
                self.report(code, entry.position, scope, message, suggestion);
            }
            if let Some(stop) = stop(ceiling.matching, ceiling.forbidden, scope) {
                let list = listed(&self.guardrails.forbidden_scopes, stop, "forbiddenScopes");
                let message =
                    format!("`{key}` of `{audience}`: `{scope}` is forbidden (`{stop}` in `{list}`)");
                self.report(rule.forbidden, entry.position, scope, message, "remove it here");
            }
            if let Some(code) = rule.wildcard
                && ceiling.matching == ScopeMatching::Wildcard
                && has_star_segment(scope)
            {
                let message = format!(
                    "`{key}` of `{audience}`: `{scope}` is a pattern, clients are given plain scopes"
                );
                self.report(code, entry.position, scope, message, "list the scopes that it stands for");
            }
        }
        scopes(&entries)
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
        described: &'d [(Text, Text)],
        ceiling: &Ceiling<'_>,
    ) -> Box<[(Box<str>, Box<str>)]> {
        let audience = shown(self.audience);
        for (scope, text) in described {
            if let Err(error) = check_token(&scope.value) {
                let message = format!("`scopeDescriptions`: scope `{}`: {error}", shown(&scope.value));
                let suggestion = "a scope of `scopesSupported`";
                self.report(Code::ScopeMalformed, scope.position, &scope.value, message, suggestion);
            } else if let Some(supported) = ceiling.supported
                && ceiling.matching.find(supported, &scope.value).is_none()
            {
                let scope_text = &*scope.value;
                let message = format!(
                    "`scopeDescriptions` of `{audience}`: `{scope_text}` is not in `scopesSupported`"
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
            let key = format!("scopeDescriptions` of `{}", shown(&scope.value));
            self.text_for_people(&key, text, MAX_SCOPE_DESCRIPTION_CHARS);
        }
        described.iter().map(|(scope, text)| (scope.value.clone(), text.value.clone())).collect()
    }

    fn description(&mut self, text: Option<&'d Text>) -> Box<str> {
        let Some(text) = text else { return Box::default() };
        self.text_for_people("description", text, MAX_DESCRIPTION_CHARS);
        text.value.clone()
    }

    fn text_for_people(&mut self, key: &str, text: &Text, most: usize) {
        let count = text.value.chars().count();
        if count == 0 {
            let message = format!("`{key}` is empty");
            self.report(Code::EmptyValue, text.position, "", message, "write a text or leave the key out");
        } else if count > most {
            let message = format!("`{key}` has {count} characters, at most {most} are allowed");
            self.report(Code::ValueTooLarge, text.position, &text.value, message, "use a shorter text");
        }
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
        if let Some(first_over) = list.entries.get(MAX_ALIASES) {
            let message = format!(
                "`aliases` of `{}` has {} entries, at most {MAX_ALIASES} are allowed",
                shown(self.audience),
                list.entries.len()
            );
            let suggestion = "`ignoreQuery` covers spellings that differ by their query only";
            self.report(Code::ValueTooLarge, first_over.position, &first_over.value, message, suggestion);
        }
        let compared =
            |normal: &str| -> Box<str> { if ignore_query { without_query(normal) } else { normal }.into() };
        let own = normal.map(compared);
        let mut aliases: Vec<Alias> = Vec::with_capacity(list.entries.len().min(MAX_ALIASES));
        for entry in list.entries.iter().take(MAX_ALIASES) {
            let spelled = &*entry.value;
            let Some(normal) = self.audience_text("alias", entry) else { continue };
            if let Some(first) = list.entries.iter().find(|other| other.value == entry.value)
                && first.position != entry.position
            {
                let message = format!(
                    "`aliases` holds `{}` twice, first on line {}",
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
    fn audience_text(&mut self, what: &str, text: &'d Text) -> Option<Cow<'d, str>> {
        if text.value.len() > MAX_AUDIENCE_BYTES {
            let message =
                format!("{what} has {} bytes, at most {MAX_AUDIENCE_BYTES} are allowed", text.value.len());
            self.report(Code::ValueTooLarge, text.position, &text.value, message, "use a shorter one");
        }
        match normalise(&text.value) {
            Ok(normal) => Some(normal),
            Err(error) => {
                let message = format!("{what} `{}`: {error}", shown(&text.value));
                let suggestion = "an https URL without fragment, or a plain name";
                self.report(Code::AudienceMalformed, text.position, &text.value, message, suggestion);
                None
            }
        }
    }

    /// The supported scope that was probably meant.
    fn guess<'l>(&mut self, scope: &str, supported: &'l ScopeList) -> Option<&'l str> {
        self.guesses = self.guesses.saturating_add(supported.len());
        if self.guesses > MAX_GUESSES { None } else { nearest(scope, supported.iter()) }
    }

    fn rules(&mut self, documents: &'d [RuleDocument], ceiling: &Ceiling<'_>) -> Box<[ClientRule]> {
        let mut rules = Vec::with_capacity(documents.len());
        let mut names: HashMap<&str, Position> = HashMap::new();
        for document in documents {
            if let Some(name) = &document.name {
                self.rule_name(name, &mut names);
            }
            let when = document.when.as_ref().map(|when| self.when(when)).unwrap_or_default();
            let list = document.baseline_client_scopes.as_ref();
            if let Some(list) = list
                && list.written == 0
            {
                let message = "a client rule that gives no scope has no effect".to_owned();
                let suggestion = "list the scopes that the rule gives";
                self.report(Code::EmptyValue, list.position, "", message, suggestion);
            }
            let baseline_client_scopes = self.given(&BASELINE, list, ceiling);
            let name = document.name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
            rules.push(ClientRule { name, when, baseline_client_scopes });
        }
        rules.into_boxed_slice()
    }

    fn rule_name(&mut self, name: &'d Text, names: &mut HashMap<&'d str, Position>) {
        if name.value.is_empty() {
            let message = "the `name` of a client rule is empty".to_owned();
            let suggestion = "name the rule: the audit record says which rule gave a scope";
            self.report(Code::EmptyValue, name.position, "", message, suggestion);
        } else if name.value.len() > MAX_NAME_BYTES {
            let message = format!("the `name` has {} bytes, at most {MAX_NAME_BYTES}", name.value.len());
            self.report(Code::ValueTooLarge, name.position, &name.value, message, "use a shorter name");
        } else if let Some(first) = names.get(&*name.value) {
            let message =
                format!("a client rule is named `{}` already, on line {}", shown(&name.value), first.line);
            self.report(
                Code::DuplicateRuleName,
                name.position,
                &name.value,
                message,
                "give each rule its own name",
            );
        } else {
            names.insert(&name.value, name.position);
        }
    }

    fn when(&mut self, document: &'d WhenDocument) -> ClientCondition {
        if document.written == 0 {
            let message = "`when` has no member, so the rule would never be looked at".to_owned();
            let suggestion = "add one, or move the scopes to the audience's own `baselineClientScopes`";
            self.report(Code::EmptyValue, document.position, "", message, suggestion);
        }
        let mut text = |key: &str, text: &Option<Text>| {
            let text = text.as_ref()?;
            if text.value.is_empty() {
                let message = format!("`{key}` is empty, and an empty value never holds");
                self.report(
                    Code::EmptyValue,
                    text.position,
                    "",
                    message,
                    "write a value or remove the member",
                );
            }
            Some(text.value.clone())
        };
        let software_id = text("softwareId", &document.software_id);
        let application_type = text("applicationType", &document.application_type);
        let client_name = text("clientName", &document.client_name);
        let redirect_uri = text("redirectUri", &document.redirect_uri).map(|uri| match &*uri {
            "loopback" => RedirectCondition::Loopback,
            _ => RedirectCondition::Exact(uri),
        });
        if let Some(name) = document.client_name.as_ref().filter(|name| name.value.len() > MAX_NAME_BYTES) {
            let message =
                format!("`clientName` has {} bytes, no name over {MAX_NAME_BYTES} matches", name.value.len());
            self.report(Code::ValueTooLarge, name.position, &name.value, message, "use a shorter pattern");
        }
        ClientCondition {
            source: document.source.map(|source| source.value),
            client_id_host: document.client_id_host.as_ref().map(|host| self.host(host)),
            software_id,
            client_name,
            redirect_uri,
            grant_types: document.grant_types.as_ref().map(|list| self.grant_types(list)),
            application_type,
        }
    }

    fn host(&mut self, host: &Text) -> Box<str> {
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
            let message = format!("`clientIdHost` `{}` is not a host name", shown(&host.value));
            self.report(Code::HostMalformed, host.position, &host.value, message, suggestion);
        }
        lower.into()
    }

    fn grant_types(&mut self, list: &List) -> Box<[Box<str>]> {
        if list.written == 0 {
            let message = "`grantTypes` is empty".to_owned();
            self.report(
                Code::EmptyValue,
                list.position,
                "",
                message,
                "list a grant type or remove the member",
            );
        }
        let mut seen = HashSet::with_capacity(list.entries.len());
        let mut grant_types: Vec<Box<str>> = Vec::with_capacity(list.entries.len());
        for entry in &list.entries {
            if entry.value.is_empty() {
                let message = "`grantTypes` holds an empty entry".to_owned();
                self.report(Code::EmptyValue, entry.position, "", message, "remove it");
            } else if !seen.insert(&*entry.value) {
                let message = format!("`grantTypes` holds `{}` twice", shown(&entry.value));
                self.report(Code::DuplicateEntry, entry.position, &entry.value, message, "remove it");
            } else {
                grant_types.push(entry.value.clone());
            }
        }
        grant_types.into_boxed_slice()
    }
}

fn stop<'l>(matching: ScopeMatching, list: &'l ScopeList, scope: &str) -> Option<&'l str> {
    matching.find_stop(list, scope).and_then(|at| list.get(at))
}

/// Which list holds an entry that stops a scope; those of the guardrails may stand in another file.
fn listed(guardrails: &ScopeList, entry: &str, key: &'static str) -> String {
    if guardrails.contains(entry) { format!("guardrails.{key}") } else { key.to_owned() }
}

fn scopes(entries: &[&Text]) -> ScopeList {
    ScopeList::new(entries.iter().map(|entry| &*entry.value))
}

/// The audience's own entries behind those of the guardrails; shared where it has none of its own.
fn folded(guardrails: &Arc<ScopeList>, own: &[&Text]) -> Arc<ScopeList> {
    if own.is_empty() {
        return Arc::clone(guardrails);
    }
    Arc::new(ScopeList::new(guardrails.iter().chain(own.iter().map(|entry| &*entry.value))))
}
