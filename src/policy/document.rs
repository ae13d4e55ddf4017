//! One policy file as data: every key of the format, with positions, nothing judged but its shape.
//!
//! Reads the tree of [`super::yaml`] leniently: an unknown key or a wrong type becomes a finding and
//! the rest of the file is read all the same, so that one mistake never hides another. Knows the
//! shape of the format, not its rules: those are in [`super::check`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::finding::{self, Code, Finding, Findings, MAX_FINDINGS, Position, nearest, shown};
use super::outline::Outline;
use super::yaml::{self, Kind, Node, Schema};
use super::{ClientSource, NothingLeft, OmittedScope, Treatment, UnknownRegistration, UnknownRegistrations};
use crate::scope::matching::ScopeMatching;

/// A value and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub position: Position,
}

/// A text from the file and where it stands.
pub type Text = Spanned<Box<str>>;

/// A list of texts and where it stands; entries as written, duplicates kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct List {
    /// Where the list stands.
    pub position: Position,
    /// How many entries were written, wrong ones counted.
    pub written: usize,
    /// Its entries that are strings.
    pub entries: Vec<Text>,
}

/// One policy file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Path of the file as found.
    pub file: Arc<str>,
    /// `audiences`, in file order, duplicates kept.
    pub audiences: Vec<AudienceDocument>,
    /// `defaultAudience`.
    pub default_audience: Option<Text>,
    /// `registrationAudiences`.
    pub registration_audiences: Option<List>,
    /// `guardrails`.
    pub guardrails: Option<GuardrailsDocument>,
    /// What is wrong with the shape of the file.
    pub findings: Findings,
    /// Everything that is written in it.
    pub outline: Outline,
    /// The file is so broken that what it would declare is unknown.
    pub unreadable: bool,
}

/// One entry of `audiences`. What is `None` was not written, or was written wrongly and is a finding.
#[derive(Clone, Debug)]
pub struct AudienceDocument {
    /// The key: the audience as spelled.
    pub audience: Text,
    /// `aliases`.
    pub aliases: Option<List>,
    /// `ignoreQuery`.
    pub ignore_query: Option<Spanned<bool>>,
    /// `description`.
    pub description: Option<Text>,
    /// `scopeDescriptions`: scopes and their texts, in file order.
    pub scope_descriptions: Vec<(Text, Text)>,
    /// `scopesSupported`.
    pub scopes_supported: Option<List>,
    /// `baselineClientScopes`.
    pub baseline_client_scopes: Option<List>,
    /// `defaultClientScopes`.
    pub default_client_scopes: Option<List>,
    /// `privilegedScopes`.
    pub privileged_scopes: Option<List>,
    /// `forbiddenScopes`.
    pub forbidden_scopes: Option<List>,
    /// `scopeMatching`.
    pub scope_matching: Option<Spanned<ScopeMatching>>,
    /// `registration.unsupportedScopes`.
    pub registration_unsupported_scopes: Option<Spanned<Treatment>>,
    /// `registration.nothingLeft`.
    pub registration_nothing_left: Option<Spanned<NothingLeft>>,
    /// `authorization.unsupportedScopes`.
    pub unsupported_scopes: Option<Spanned<Treatment>>,
    /// `authorization.unregisteredScopes`.
    pub unregistered_scopes: Option<Spanned<Treatment>>,
    /// `authorization.omittedScope`.
    pub omitted_scope: Option<Spanned<OmittedScope>>,
    /// `authorization.baselineForExistingClients`.
    pub baseline_for_existing_clients: Option<Spanned<bool>>,
    /// `authorization.stepUpScopes`.
    pub step_up_scopes: Option<List>,
    /// `authorization.unknownRegistration`.
    pub unknown_registration: Option<Spanned<UnknownRegistrations>>,
    /// `authorization.nothingLeft`.
    pub nothing_left: Option<Spanned<NothingLeft>>,
    /// `authorization.alwaysGrantScopes`.
    pub always_grant_scopes: Option<List>,
    /// `clientRules`.
    pub client_rules: Vec<RuleDocument>,
    /// Its shape is wrong, and a finding says so.
    pub is_misshapen: bool,
}

/// One entry of `clientRules`.
#[derive(Clone, Debug)]
pub struct RuleDocument {
    /// Where the rule starts.
    pub position: Position,
    /// `name`.
    pub name: Option<Text>,
    /// `when`.
    pub when: Option<WhenDocument>,
    /// `baselineClientScopes`.
    pub baseline_client_scopes: Option<List>,
}

/// The `when` of a client rule.
#[derive(Clone, Debug)]
pub struct WhenDocument {
    /// Where it stands.
    pub position: Position,
    /// How many members were written, wrong ones counted.
    pub written: usize,
    /// `source`.
    pub source: Option<Spanned<ClientSource>>,
    /// `clientIdHost`.
    pub client_id_host: Option<Text>,
    /// `softwareId`.
    pub software_id: Option<Text>,
    /// `clientName`.
    pub client_name: Option<Text>,
    /// `redirectUri`.
    pub redirect_uri: Option<Text>,
    /// `grantTypes`.
    pub grant_types: Option<List>,
    /// `applicationType`.
    pub application_type: Option<Text>,
}

/// The `guardrails` of a policy set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GuardrailsDocument {
    /// Where the key stands.
    pub position: Position,
    /// `forbiddenScopes`.
    pub forbidden_scopes: Option<List>,
    /// `privilegedScopes`.
    pub privileged_scopes: Option<List>,
    /// `maxBaselineClientScopes`.
    pub max_baseline_client_scopes: Option<Spanned<u32>>,
}

/// The keys at the top of a file.
pub const TOP_KEYS: &[&str] = &["audiences", "defaultAudience", "registrationAudiences", "guardrails"];
/// The keys of an audience.
pub const AUDIENCE_KEYS: &[&str] = &[
    "scopesSupported",
    "baselineClientScopes",
    "defaultClientScopes",
    "privilegedScopes",
    "forbiddenScopes",
    "scopeMatching",
    "registration",
    "authorization",
    "clientRules",
    "scopeDescriptions",
    "aliases",
    "ignoreQuery",
    "description",
];
/// The keys of `registration`.
pub const REGISTRATION_KEYS: &[&str] = &["unsupportedScopes", "nothingLeft"];
/// The keys of `authorization`.
pub const AUTHORIZATION_KEYS: &[&str] = &[
    "unsupportedScopes",
    "unregisteredScopes",
    "omittedScope",
    "baselineForExistingClients",
    "stepUpScopes",
    "unknownRegistration",
    "nothingLeft",
    "alwaysGrantScopes",
];
/// The keys of `unknownRegistration` as a map.
pub const UNKNOWN_REGISTRATION_KEYS: &[&str] = &["cimd", "dcr", "static"];
/// The keys of a client rule.
pub const RULE_KEYS: &[&str] = &["name", "when", "baselineClientScopes"];
/// The keys of `when`.
pub const WHEN_KEYS: &[&str] =
    &["source", "clientIdHost", "softwareId", "clientName", "redirectUri", "grantTypes", "applicationType"];
/// The keys of `guardrails`.
pub const GUARDRAILS_KEYS: &[&str] = &["forbiddenScopes", "privilegedScopes", "maxBaselineClientScopes"];

impl Document {
    /// Reads one file. Never fails: what is wrong is in `findings`, in file order.
    #[must_use]
    pub fn read(file: &Arc<str>, text: &str) -> Self {
        Self::from_tree(file, yaml::parse(text))
    }

    /// Reads the tree of a file, or reports why there is none.
    pub(super) fn from_tree(file: &Arc<str>, tree: Result<Option<Node<'_>>, yaml::Problem>) -> Self {
        let mut reader = Reader { file, audience: "", findings: Findings::new() };
        let mut document = Self {
            file: Arc::clone(file),
            audiences: Vec::new(),
            default_audience: None,
            registration_audiences: None,
            guardrails: None,
            findings: Findings::new(),
            outline: Outline::default(),
            unreadable: false,
        };
        match tree {
            Err(problem) => {
                reader.report(problem.code, problem.position, "", problem.message, problem.suggestion);
                document.unreadable = true;
            }
            Ok(None) => reader.report(
                Code::EmptyFile,
                Position::default(),
                "",
                "the file has no content",
                "declare `audiences` or delete the file",
            ),
            Ok(Some(root)) => {
                document.outline = Outline::of(&root);
                document.unreadable = !matches!(root.kind, Kind::Mapping(_));
                reader.document(&root, &mut document);
            }
        }
        document.findings = reader.findings;
        document
    }
}

/// Collects findings while a file is read; test suites are read through it too.
pub(crate) struct Reader<'f> {
    pub(crate) file: &'f Arc<str>,
    pub(crate) audience: &'f str,
    pub(crate) findings: Findings,
}

impl<'f> Reader<'f> {
    pub(crate) fn report(
        &mut self,
        code: Code,
        position: Position,
        value: &str,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.findings.push_with(code, || Finding {
            code,
            file: Arc::clone(self.file),
            position,
            audience: finding::audience(self.audience),
            value: finding::value(value),
            message: message.into(),
            suggestion: suggestion.into(),
        });
    }

    pub(crate) fn wrong_type(&mut self, node: &Node<'_>, key: &str, expected: &str) {
        let found = match &node.kind {
            Kind::Scalar { text, schema: Schema::Number } if expected == WHOLE_NUMBER => {
                format!("`{}`", shown(text))
            }
            _ => node.describe().to_owned(),
        };
        let suggestion = match (&node.kind, expected) {
            (Kind::Scalar { text, schema: Schema::Boolean | Schema::Number | Schema::Null }, "a string") => {
                if text.is_empty() {
                    "write a string, or leave the entry out".to_owned()
                } else {
                    format!("quote it: \"{}\"", shown(text))
                }
            }
            (Kind::Scalar { text, schema }, "a list of strings")
                if *schema != Schema::Null && !text.contains([' ', '[', '"']) =>
            {
                format!("write a list: [{}]", shown(text))
            }
            (Kind::Scalar { schema: Schema::Null, .. }, _) => {
                format!("write {expected}, or leave the key out")
            }
            _ => format!("write {expected}"),
        };
        let message = format!("`{}` needs {expected}, not {found}", shown(key));
        self.report(Code::WrongType, node.position, node.text(), message, suggestion);
    }

    /// The entries of a mapping, each known key once; reports every other one.
    pub(crate) fn fields<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        what: &str,
        known: &[&'static str],
    ) -> Fields<'n, 't> {
        let mut fields = Fields { entries: Vec::new() };
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong_type(node, what, "a mapping");
            return fields;
        };
        for (key, value) in entries {
            let Kind::Scalar { text, .. } = &key.kind else {
                let message = format!("a key of `{what}` is {}, not a string", key.describe());
                self.report(
                    Code::WrongType,
                    key.position,
                    "",
                    message,
                    format!("one of: {}", known.join(", ")),
                );
                continue;
            };
            if !known.contains(&text.as_ref()) {
                if self.findings.error_count() >= MAX_FINDINGS {
                    // Only counted: to guess what was meant is slow, and there may be a million of them.
                    self.report(Code::UnknownKey, key.position, text, "", "");
                    continue;
                }
                let message = if text == "<<" {
                    format!("merge keys (`<<`) are not part of the format of `{what}`")
                } else {
                    format!("`{}` is not a key of `{what}`", shown(text))
                };
                let suggestion = match nearest(text, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of: {}", known.join(", ")),
                };
                self.report(Code::UnknownKey, key.position, text, message, suggestion);
            } else if let Some((_, first, _)) = fields.entries.iter().find(|(name, ..)| name == text) {
                let message =
                    format!("`{text}` stands twice in `{what}`, first on line {}", first.position.line);
                self.report(Code::DuplicateKey, key.position, text, message, "keep one of them");
            } else {
                fields.entries.push((text, key, value));
            }
        }
        fields
    }

    fn document(&mut self, root: &Node<'_>, document: &mut Document) {
        let fields = self.fields(root, "policy file", TOP_KEYS);
        document.default_audience =
            fields.get("defaultAudience").and_then(|node| self.text(node, "defaultAudience"));
        document.registration_audiences = self.list(&fields, "registrationAudiences");
        document.guardrails = fields.entry("guardrails").map(|(key, node)| self.guardrails(key, node));
        // A second `audiences` is a finding already; what stands in it is judged all the same.
        let Kind::Mapping(root) = &root.kind else { return };
        for (_, node) in root.iter().filter(|(key, _)| key.text() == "audiences") {
            self.audiences(node, document);
        }
    }

    fn audiences(&mut self, node: &Node<'_>, document: &mut Document) {
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong_type(node, "audiences", "a mapping");
            document.unreadable = true;
            return;
        };
        for (key, value) in entries {
            let Some(audience) = self.text(key, "audience") else {
                document.unreadable = true;
                continue;
            };
            let mut reader = Reader {
                file: self.file,
                audience: &audience.value,
                findings: std::mem::take(&mut self.findings),
            };
            let before = reader.findings.error_count();
            let mut read = reader.audience(audience.clone(), value);
            self.findings = reader.findings;
            read.is_misshapen = self.findings.error_count() > before;
            if read.is_misshapen && self.findings.error_count() > MAX_FINDINGS {
                // Nobody will read what is wrong with it, and there may be a million of them.
                document.unreadable = true;
                continue;
            }
            document.audiences.push(read);
        }
    }

    fn audience(&mut self, audience: Text, node: &Node<'_>) -> AudienceDocument {
        let fields = self.fields(node, "audience", AUDIENCE_KEYS);
        let is_mapping = matches!(node.kind, Kind::Mapping(_));
        if is_mapping && fields.get("scopesSupported").is_none() {
            self.report(
                Code::MissingKey,
                audience.position,
                &audience.value,
                format!("audience `{}` has no `scopesSupported`", shown(&audience.value)),
                "list every scope that the audience knows",
            );
        }
        let registration =
            fields.get("registration").map(|node| self.fields(node, "registration", REGISTRATION_KEYS));
        let authorization =
            fields.get("authorization").map(|node| self.fields(node, "authorization", AUTHORIZATION_KEYS));
        let registration = registration.unwrap_or_default();
        let authorization = authorization.unwrap_or_default();
        AudienceDocument {
            audience,
            aliases: self.list(&fields, "aliases"),
            ignore_query: self.boolean(&fields, "ignoreQuery"),
            description: fields.get("description").and_then(|node| self.text(node, "description")),
            scope_descriptions: self.scope_descriptions(&fields),
            scopes_supported: self.list(&fields, "scopesSupported"),
            baseline_client_scopes: self.list(&fields, "baselineClientScopes"),
            default_client_scopes: self.list(&fields, "defaultClientScopes"),
            privileged_scopes: self.list(&fields, "privilegedScopes"),
            forbidden_scopes: self.list(&fields, "forbiddenScopes"),
            scope_matching: self.choice(&fields, "scopeMatching", MATCHINGS),
            registration_unsupported_scopes: self.choice(&registration, "unsupportedScopes", TREATMENTS),
            registration_nothing_left: self.choice(&registration, "nothingLeft", NOTHING_LEFT),
            unsupported_scopes: self.choice(&authorization, "unsupportedScopes", TREATMENTS),
            unregistered_scopes: self.choice(&authorization, "unregisteredScopes", TREATMENTS),
            omitted_scope: self.choice(&authorization, "omittedScope", OMITTED_SCOPES),
            baseline_for_existing_clients: self.boolean(&authorization, "baselineForExistingClients"),
            step_up_scopes: self.list(&authorization, "stepUpScopes"),
            unknown_registration: self.unknown_registration(&authorization),
            nothing_left: self.choice(&authorization, "nothingLeft", NOTHING_LEFT),
            always_grant_scopes: self.list(&authorization, "alwaysGrantScopes"),
            client_rules: self.rules(&fields),
            is_misshapen: false,
        }
    }

    /// One word for every client, or a map from sources to words.
    fn unknown_registration(&mut self, fields: &Fields<'_, '_>) -> Option<Spanned<UnknownRegistrations>> {
        const KEY: &str = "unknownRegistration";
        let node = fields.get(KEY)?;
        if !matches!(node.kind, Kind::Mapping(_)) {
            let word = self.choice(fields, KEY, UNKNOWN_REGISTRATIONS)?;
            return Some(Spanned { value: UnknownRegistrations::all(word.value), position: word.position });
        }
        let sources = self.fields(node, KEY, UNKNOWN_REGISTRATION_KEYS);
        let mut word = |source| {
            let word = self.choice(&sources, source, UNKNOWN_REGISTRATIONS);
            word.map_or(UnknownRegistration::Omitted, |word| word.value)
        };
        let value = UnknownRegistrations {
            cimd: word(ClientSource::Cimd.as_str()),
            dcr: word(ClientSource::Dcr.as_str()),
            static_: word(ClientSource::Static.as_str()),
            untold: UnknownRegistration::Omitted,
        };
        Some(Spanned { value, position: node.position })
    }

    fn scope_descriptions(&mut self, fields: &Fields<'_, '_>) -> Vec<(Text, Text)> {
        const KEY: &str = "scopeDescriptions";
        let Some(node) = fields.get(KEY) else { return Vec::new() };
        let Kind::Mapping(entries) = &node.kind else {
            self.wrong_type(node, KEY, "a mapping");
            return Vec::new();
        };
        let mut first: HashMap<&str, Position> = HashMap::with_capacity(entries.len());
        let mut described = Vec::with_capacity(entries.len());
        for (scope, text) in entries {
            let (Some(scope), Some(text)) = (self.text(scope, KEY), self.text(text, KEY)) else { continue };
            described.push((scope, text));
        }
        for (scope, _) in entries {
            if !matches!(scope.kind, Kind::Scalar { .. }) {
                continue;
            }
            match first.entry(scope.text()) {
                Entry::Vacant(vacant) => _ = vacant.insert(scope.position),
                Entry::Occupied(known) => {
                    let message = format!(
                        "duplicate key `{}` in `{KEY}`, first on line {}",
                        shown(scope.text()),
                        known.get().line
                    );
                    self.report(
                        Code::DuplicateKey,
                        scope.position,
                        scope.text(),
                        message,
                        "keep one of them",
                    );
                }
            }
        }
        described
    }

    fn rules(&mut self, fields: &Fields<'_, '_>) -> Vec<RuleDocument> {
        let Some(node) = fields.get("clientRules") else { return Vec::new() };
        let Kind::Sequence(entries) = &node.kind else {
            self.wrong_type(node, "clientRules", "a list of rules");
            return Vec::new();
        };
        entries.iter().map(|entry| self.rule(entry)).collect()
    }

    fn rule(&mut self, node: &Node<'_>) -> RuleDocument {
        let fields = self.fields(node, "client rule", RULE_KEYS);
        if matches!(node.kind, Kind::Mapping(_)) {
            for (key, suggestion) in [
                ("name", "name the rule: the audit record says which rule gave a scope"),
                ("when", "say for which clients, for example `when: {source: cimd}`"),
                ("baselineClientScopes", "list the scopes that the rule gives"),
            ] {
                if fields.get(key).is_none() {
                    let message = format!("a client rule has no `{key}`");
                    let position = Position { end: node.position.start, ..node.position };
                    self.report(Code::MissingKey, position, "", message, suggestion);
                }
            }
        }
        RuleDocument {
            position: node.position,
            name: fields.get("name").and_then(|node| self.text(node, "name")),
            when: fields.get("when").map(|node| self.when(node)),
            baseline_client_scopes: self.list(&fields, "baselineClientScopes"),
        }
    }

    fn when(&mut self, node: &Node<'_>) -> WhenDocument {
        let fields = self.fields(node, "when", WHEN_KEYS);
        let written = match &node.kind {
            Kind::Mapping(entries) => entries.len(),
            // The wrong type is a finding already; "no member" beside it would say the same twice.
            Kind::Scalar { .. } | Kind::Sequence(_) => 1,
        };
        let mut text = |key: &str| fields.get(key).and_then(|node| self.text(node, key));
        WhenDocument {
            position: node.position,
            written,
            client_id_host: text("clientIdHost"),
            software_id: text("softwareId"),
            client_name: text("clientName"),
            redirect_uri: text("redirectUri"),
            application_type: text("applicationType"),
            source: self.choice(&fields, "source", SOURCES),
            grant_types: self.list(&fields, "grantTypes"),
        }
    }

    fn guardrails(&mut self, key: &Node<'_>, node: &Node<'_>) -> GuardrailsDocument {
        let fields = self.fields(node, "guardrails", GUARDRAILS_KEYS);
        GuardrailsDocument {
            position: key.position,
            forbidden_scopes: self.list(&fields, "forbiddenScopes"),
            privileged_scopes: self.list(&fields, "privilegedScopes"),
            max_baseline_client_scopes: self.number(&fields, "maxBaselineClientScopes"),
        }
    }

    pub(crate) fn text(&mut self, node: &Node<'_>, key: &str) -> Option<Text> {
        match &node.kind {
            Kind::Scalar { text, schema: Schema::String } => {
                Some(Spanned { value: text.as_ref().into(), position: node.position })
            }
            _ => {
                self.wrong_type(node, key, "a string");
                None
            }
        }
    }

    pub(crate) fn list(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<List> {
        let node = fields.get(key)?;
        let Kind::Sequence(entries) = &node.kind else {
            self.wrong_type(node, key, "a list of strings");
            return None;
        };
        let written = entries.len();
        let entries = entries.iter().filter_map(|entry| self.text(entry, key)).collect();
        Some(List { position: node.position, written, entries })
    }

    pub(crate) fn choice<T: Copy>(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Option<Spanned<T>> {
        let text = self.text(fields.get(key)?, key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == &*text.value) {
            return Some(Spanned { value: *value, position: text.position });
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let suggestion = match nearest(&text.value, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        let message = format!("`{}` is not a value of `{key}`", shown(&text.value));
        self.report(Code::UnknownValue, text.position, &text.value, message, suggestion);
        None
    }

    fn boolean(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<Spanned<bool>> {
        let node = fields.get(key)?;
        if let Kind::Scalar { text, schema: Schema::Boolean } = &node.kind {
            return Some(Spanned { value: text.eq_ignore_ascii_case("true"), position: node.position });
        }
        self.wrong_type(node, key, "true or false");
        None
    }

    fn number(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<Spanned<u32>> {
        let node = fields.get(key)?;
        if let Kind::Scalar { text, schema: Schema::Number } = &node.kind
            && let Ok(value) = text.parse()
        {
            return Some(Spanned { value, position: node.position });
        }
        self.wrong_type(node, key, WHOLE_NUMBER);
        None
    }
}

const WHOLE_NUMBER: &str = "a whole number from 0 to 10";

/// The known entries of one mapping.
#[derive(Default)]
pub(crate) struct Fields<'n, 't> {
    entries: Vec<(&'n str, &'n Node<'t>, &'n Node<'t>)>,
}

impl<'n, 't> Fields<'n, 't> {
    pub(crate) fn entry(&self, key: &str) -> Option<(&'n Node<'t>, &'n Node<'t>)> {
        self.entries.iter().find(|(name, ..)| *name == key).map(|(_, key, value)| (*key, *value))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry(key).map(|(_, value)| value)
    }
}

/// Spellings of `scopeMatching`.
pub const MATCHINGS: &[(&str, ScopeMatching)] = &[
    (ScopeMatching::Exact.as_str(), ScopeMatching::Exact),
    (ScopeMatching::Hierarchic.as_str(), ScopeMatching::Hierarchic),
    (ScopeMatching::Wildcard.as_str(), ScopeMatching::Wildcard),
];
/// Spellings of `unsupportedScopes` and `unregisteredScopes`.
pub const TREATMENTS: &[(&str, Treatment)] =
    &[(Treatment::Reject.as_str(), Treatment::Reject), (Treatment::Drop.as_str(), Treatment::Drop)];
/// Spellings of `nothingLeft`.
pub const NOTHING_LEFT: &[(&str, NothingLeft)] = &[
    (NothingLeft::Reject.as_str(), NothingLeft::Reject),
    (NothingLeft::Default.as_str(), NothingLeft::Default),
];
/// Spellings of `omittedScope`.
pub const OMITTED_SCOPES: &[(&str, OmittedScope)] = &[
    (OmittedScope::Registered.as_str(), OmittedScope::Registered),
    (OmittedScope::Default.as_str(), OmittedScope::Default),
    (OmittedScope::Reject.as_str(), OmittedScope::Reject),
];
/// Spellings of `unknownRegistration`.
pub const UNKNOWN_REGISTRATIONS: &[(&str, UnknownRegistration)] = &[
    (UnknownRegistration::Omitted.as_str(), UnknownRegistration::Omitted),
    (UnknownRegistration::None.as_str(), UnknownRegistration::None),
    (UnknownRegistration::Supported.as_str(), UnknownRegistration::Supported),
];
/// Spellings of `source`.
pub const SOURCES: &[(&str, ClientSource)] = &[
    (ClientSource::Dcr.as_str(), ClientSource::Dcr),
    (ClientSource::Cimd.as_str(), ClientSource::Cimd),
    (ClientSource::Static.as_str(), ClientSource::Static),
];
