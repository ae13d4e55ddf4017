//! A test file as data: every key of the format, with positions; one mistake never hides another.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::{self, Row};
use super::{
    Case, Decision, Expectation, ExpectedAdded, ExpectedGrant, ExpectedRefused, Suite, impossible, sort,
};
use crate::call::{self, Call};
use crate::decision::{Origin, Reason, RequestKind};
use crate::policy::ClientSource;
use crate::policy::document::{Fields, List, Reader, SOURCES, Text};
use crate::policy::finding::{Code, Findings, Position, shown};
use crate::policy::yaml::{self, Kind, Node};
use crate::proto::v1;

/// The keys at the top of a test file.
pub const TOP_KEYS: &[&str] = &["tests"];
/// The keys of a case.
pub const CASE_KEYS: &[&str] = &["name", "register", "authorize", "expect", "table"];
/// The keys of `table`.
pub const TABLE_KEYS: &[&str] = &["columns", "rows"];
/// The keys of `register`.
pub const REGISTER_KEYS: &[&str] = &["audiences", "scope", "previousScope", "client"];
/// The keys of `authorize`.
pub const CALL_KEYS: &[&str] = &["audiences", "scope", "registeredScope", "client"];
/// The keys of `client`.
pub const CLIENT_KEYS: &[&str] = &[
    "clientId",
    "source",
    "clientName",
    "softwareId",
    "softwareVersion",
    "redirectUris",
    "grantTypes",
    "applicationType",
];
/// The keys of `expect`.
pub const EXPECT_KEYS: &[&str] =
    &["decision", "scope", "added", "refused", "error", "reason", "registeredScope", "audienceGrants"];
/// The keys of an entry of `added`.
pub const ADDED_KEYS: &[&str] = &["scope", "origin", "rule"];
/// The keys of an entry of `refused`.
pub const REFUSED_KEYS: &[&str] = &["scope", "reason"];
/// The keys of an entry of `audienceGrants`.
pub const GRANT_KEYS: &[&str] = &["audience", "scope"];

/// Spellings of `decision`.
pub(crate) const DECISIONS: &[(&str, Decision)] =
    &[(Decision::Allow.as_str(), Decision::Allow), (Decision::Deny.as_str(), Decision::Deny)];
/// Spellings of `error`.
pub(crate) const ERRORS: &[(&str, &str)] = &[
    ("invalid_scope", "invalid_scope"),
    ("invalid_client_metadata", "invalid_client_metadata"),
    ("invalid_target", "invalid_target"),
];
/// Spellings of `origin`.
pub(crate) const ORIGINS: &[(&str, Origin)] = &[
    (Origin::Baseline.as_str(), Origin::Baseline),
    (Origin::Default.as_str(), Origin::Default),
    (Origin::Registered.as_str(), Origin::Registered),
    (Origin::StepUp.as_str(), Origin::StepUp),
    (Origin::Always.as_str(), Origin::Always),
];
/// Spellings of `reason`.
pub(crate) const REASONS: &[(&str, Reason)] = &[
    (Reason::Malformed.as_str(), Reason::Malformed),
    (Reason::Forbidden.as_str(), Reason::Forbidden),
    (Reason::Unsupported.as_str(), Reason::Unsupported),
    (Reason::Unregistered.as_str(), Reason::Unregistered),
    (Reason::ScopeRequired.as_str(), Reason::ScopeRequired),
    (Reason::NothingGranted.as_str(), Reason::NothingGranted),
    (Reason::AudienceUnknown.as_str(), Reason::AudienceUnknown),
    (Reason::AudienceMalformed.as_str(), Reason::AudienceMalformed),
    (Reason::AudienceRequired.as_str(), Reason::AudienceRequired),
    (Reason::TooManyScopes.as_str(), Reason::TooManyScopes),
    (Reason::ClientTooLarge.as_str(), Reason::ClientTooLarge),
];

/// Reads one test file.
pub(super) fn suite(file: &Arc<str>, text: &str) -> Suite {
    let mut reader = CaseReader {
        reader: Reader { file, audience: "", findings: Findings::new() },
        cases: Vec::new(),
        names: HashMap::new(),
    };
    match yaml::parse(text) {
        Err(problem) => {
            reader.reader.report(problem.code, problem.position, "", problem.message, problem.suggestion);
        }
        Ok(None) => reader.missing_tests(Position::default()),
        Ok(Some(root)) => reader.file(&root),
    }
    let mut findings = reader.reader.findings.into_vec();
    sort(&mut findings);
    Suite { file: Arc::clone(file), cases: reader.cases, findings }
}

struct CaseReader<'f> {
    reader: Reader<'f>,
    cases: Vec<Case>,
    names: HashMap<String, Position>,
}

impl CaseReader<'_> {
    fn missing_tests(&mut self, position: Position) {
        let message = "a test file has no `tests`";
        self.reader.report(Code::MissingKey, position, "", message, "list the cases under `tests`");
    }

    fn file(&mut self, root: &Node<'_>) {
        let fields = self.reader.fields(root, "test file", TOP_KEYS);
        let Some(tests) = fields.get("tests") else {
            if matches!(root.kind, Kind::Mapping(_)) {
                self.missing_tests(point(root));
            }
            return;
        };
        let Kind::Sequence(entries) = &tests.kind else {
            self.reader.wrong_type(tests, "tests", "a list of test cases");
            return;
        };
        if entries.is_empty() {
            let message = "`tests` holds no case";
            let suggestion = "add a case or delete the file";
            self.reader.report(Code::EmptyValue, tests.position, "", message, suggestion);
        }
        for entry in entries {
            self.case(entry);
        }
    }

    fn case(&mut self, node: &Node<'_>) {
        let fields = self.reader.fields(node, "test case", CASE_KEYS);
        if !matches!(node.kind, Kind::Mapping(_)) {
            return;
        }
        let name = self.name(&fields, node);
        let mut calls: Vec<(RequestKind, &Node<'_>)> = Vec::new();
        for kind in [RequestKind::Registration, RequestKind::Authorize] {
            if let Some((key, call)) = fields.entry(kind.as_str()) {
                if !calls.is_empty() {
                    let message = "a test case asks one question, here stand `register` and `authorize`";
                    let suggestion = "make two cases of it";
                    self.reader.report(Code::DuplicateKey, key.position, key.text(), message, suggestion);
                }
                calls.push((kind, call));
            }
        }
        if calls.is_empty() {
            let message = "a test case has no `register` and no `authorize`";
            let suggestion = "say what is asked, for example `register: {scope: openid}`";
            self.reader.report(Code::MissingKey, point(node), "", message, suggestion);
        }
        let expect = fields.get("expect");
        let table = fields.get("table");
        if expect.is_none() && table.is_none() {
            let message = "a test case has no `expect`";
            let suggestion = "say what the answer must be, for example `expect: {decision: ALLOW}`";
            self.reader.report(Code::MissingKey, point(node), "", message, suggestion);
        }
        let name_position = name.as_ref().map_or_else(|| point(node), |name| name.position);
        let name = name.map(|name| name.value.into_string()).unwrap_or_default();
        match (&calls[..], table, expect) {
            ([(kind, call)], None, Some(expect)) => self.one(name, name_position, *kind, call, expect),
            ([(kind, call)], Some(table), expect) => {
                let rows = table::rows(&mut self.reader, table, *kind, call, expect);
                for (at, row) in rows.iter().enumerate() {
                    let Row { name: own, position, call, expect } = row;
                    let name = match own.as_ref().and_then(|own| self.reader.text(own, "name")) {
                        Some(own) => format!("{name}: {}", own.value),
                        None => format!("{name}, row {}", at + 1),
                    };
                    self.one(name, *position, *kind, call, expect);
                }
            }
            // The case is broken; what there is of it is read for its mistakes.
            (calls, _, expect) => {
                for (kind, call) in calls {
                    self.call(*kind, call);
                }
                if let Some(expect) = expect {
                    self.expectation(expect);
                }
            }
        }
    }

    fn name(&mut self, fields: &Fields<'_, '_>, node: &Node<'_>) -> Option<Text> {
        let Some(name) = fields.get("name") else {
            let message = "a test case has no `name`";
            let suggestion = "name it: say in a few words what it shows";
            self.reader.report(Code::MissingKey, point(node), "", message, suggestion);
            return None;
        };
        let name = self.reader.text(name, "name")?;
        if name.value.trim().is_empty() {
            let message = "the `name` of a test case is empty";
            let suggestion = "say in a few words what the case shows";
            self.reader.report(Code::EmptyValue, name.position, "", message, suggestion);
            return None;
        }
        Some(name)
    }

    fn one(
        &mut self,
        name: String,
        position: Position,
        kind: RequestKind,
        call: &Node<'_>,
        expect: &Node<'_>,
    ) {
        // A case without a name has its finding already.
        if !name.is_empty() {
            if let Some(first) = self.names.get(&name) {
                let message =
                    format!("a test case is named `{}` already, on line {}", shown(&name), first.line);
                self.reader.report(
                    Code::DuplicateTestName,
                    position,
                    &name,
                    message,
                    "give each case its own name",
                );
            } else {
                self.names.insert(name.clone(), position);
            }
        }
        let before = self.reader.findings.count();
        let (call, audience_positions) = self.call(kind, call);
        let expect = self.expectation(expect);
        let case = Case { name, position, call, audience_positions, expect };
        // What was not read is not compared: a wrong type would look like a missing value.
        if self.reader.findings.count() == before {
            if let Err(error) = case.call.check_limits() {
                let suggestion = "ask less: a server refuses such a request before it is decided";
                self.reader.report(Code::ValueTooLarge, case.position, "", error.to_string(), suggestion);
            }
            for problem in impossible::problems(&case) {
                let impossible::Problem { position, value, message, suggestion } = problem;
                self.reader.report(Code::ImpossibleExpectation, position, &value, message, suggestion);
            }
        }
        self.cases.push(case);
    }

    fn call(&mut self, kind: RequestKind, node: &Node<'_>) -> (Call, Vec<Position>) {
        let (known, held_key) = match kind {
            RequestKind::Registration => (REGISTER_KEYS, "previousScope"),
            RequestKind::Authorize => (CALL_KEYS, "registeredScope"),
        };
        let fields = self.reader.fields(node, kind.as_str(), known);
        let audiences = self.reader.list(&fields, "audiences").unwrap_or_default();
        let positions = audiences.entries.iter().map(|entry| entry.position).collect();
        let call = Call {
            kind,
            audiences: strings(audiences),
            scope: self.text(&fields, "scope").map(String::from),
            registered_scope: self.text(&fields, held_key).map(String::from),
            client: fields.get("client").map(|node| self.client(node)).unwrap_or_default(),
        };
        (call, positions)
    }

    fn client(&mut self, node: &Node<'_>) -> v1::Client {
        let fields = self.reader.fields(node, "client", CLIENT_KEYS);
        let mut text = |key: &str| self.text(&fields, key).map(String::from).unwrap_or_default();
        v1::Client {
            client_id: text("clientId"),
            client_name: text("clientName"),
            software_id: text("softwareId"),
            software_version: text("softwareVersion"),
            application_type: text("applicationType"),
            source: self.source(&fields).map_or(0, |source| call::wire_source(source).into()),
            redirect_uris: strings(self.reader.list(&fields, "redirectUris").unwrap_or_default()),
            grant_types: strings(self.reader.list(&fields, "grantTypes").unwrap_or_default()),
        }
    }

    /// As policy files spell it, or as the API does.
    fn source(&mut self, fields: &Fields<'_, '_>) -> Option<ClientSource> {
        let node = fields.get("source")?;
        let upper = SOURCES.iter().find(|(name, _)| name.to_ascii_uppercase() == node.text());
        if let Some((_, source)) = upper {
            return Some(*source);
        }
        self.reader.choice(fields, "source", SOURCES).map(|source| source.value)
    }

    fn expectation(&mut self, node: &Node<'_>) -> Expectation {
        let fields = self.reader.fields(node, "expect", EXPECT_KEYS);
        if matches!(&node.kind, Kind::Mapping(entries) if entries.is_empty()) {
            let message = "the case expects nothing";
            let suggestion = "say what the answer must be, for example `decision: ALLOW`";
            self.reader.report(Code::EmptyValue, node.position, "", message, suggestion);
        }
        Expectation {
            position: node.position,
            decision: self.reader.choice(&fields, "decision", DECISIONS),
            scope: self.spanned(&fields, "scope"),
            added: self.entries(&fields, "added", Self::added),
            refused: self.entries(&fields, "refused", Self::refused),
            error: self.reader.choice(&fields, "error", ERRORS),
            reason: self.reader.choice(&fields, "reason", REASONS),
            registered_scope: self.spanned(&fields, "registeredScope"),
            audience_grants: self.entries(&fields, "audienceGrants", Self::grant),
        }
    }

    fn entries<T>(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        read: impl Fn(&mut Self, &Node<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let node = fields.get(key)?;
        let Kind::Sequence(entries) = &node.kind else {
            self.reader.wrong_type(node, key, "a list");
            return None;
        };
        Some(entries.iter().filter_map(|entry| read(self, entry)).collect())
    }

    fn added(&mut self, node: &Node<'_>) -> Option<ExpectedAdded> {
        if let Some(scope) = self.bare(node, "added") {
            return Some(ExpectedAdded { scope, origin: None, rule: None });
        }
        let fields = self.reader.fields(node, "added", ADDED_KEYS);
        Some(ExpectedAdded {
            scope: self.required(&fields, "scope", node, "added")?,
            origin: self.reader.choice(&fields, "origin", ORIGINS),
            rule: self.spanned(&fields, "rule"),
        })
    }

    fn refused(&mut self, node: &Node<'_>) -> Option<ExpectedRefused> {
        if let Some(scope) = self.bare(node, "refused") {
            return Some(ExpectedRefused { scope, reason: None });
        }
        let fields = self.reader.fields(node, "refused", REFUSED_KEYS);
        let scope = self.required(&fields, "scope", node, "refused")?;
        Some(ExpectedRefused { scope, reason: self.reader.choice(&fields, "reason", REASONS) })
    }

    fn grant(&mut self, node: &Node<'_>) -> Option<ExpectedGrant> {
        let fields = self.reader.fields(node, "audienceGrants", GRANT_KEYS);
        let audience = self.required(&fields, "audience", node, "audienceGrants")?;
        Some(ExpectedGrant { audience, scope: self.spanned(&fields, "scope") })
    }

    /// A scope alone, in place of an entry.
    fn bare(&mut self, node: &Node<'_>, key: &str) -> Option<Text> {
        if matches!(node.kind, Kind::Scalar { .. }) { self.reader.text(node, key) } else { None }
    }

    fn required(&mut self, fields: &Fields<'_, '_>, key: &str, node: &Node<'_>, what: &str) -> Option<Text> {
        if fields.get(key).is_none() && matches!(node.kind, Kind::Mapping(_)) {
            let message = format!("an entry of `{what}` has no `{key}`");
            self.reader.report(Code::MissingKey, point(node), "", message, format!("add `{key}`"));
        }
        self.spanned(fields, key)
    }

    fn spanned(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<Text> {
        self.reader.text(fields.get(key)?, key)
    }

    fn text(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<Box<str>> {
        self.spanned(fields, key).map(|text| text.value)
    }
}

/// Where a node starts: to underline all of a case would underline nothing.
pub(super) fn point(node: &Node<'_>) -> Position {
    Position { end: node.position.start, ..node.position }
}

fn strings(list: List) -> Vec<String> {
    list.entries.into_iter().map(|entry| entry.value.into_string()).collect()
}
