//! A test file as data: every key of the format, with positions; one mistake never hides another.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::{AUTHORIZE, CASE, EXPECT, FORMAT, REGISTER, SUITE, TOKEN_REQUEST};
use super::table::{self, CaseRow};
use super::{Case, Expectation, ExpectedAdded, ExpectedGrant, ExpectedRefused, Suite, impossible, sort};
use crate::call::{self, Call};
use crate::decision::{QuestionError, RequestKind, TokenGrant};
use crate::escape::shown;
use crate::policy::finding::{Code, Position};
use crate::policy::format::Section;
use crate::policy::format::advice::Expected;
use crate::policy::format::read::{DocumentReader, LocatedText, Mapping, point};
use crate::policy::yaml::{self, Aliases, Node, NodeKind, Tree};
use crate::policy::{ClientSource, Word};
use crate::proto::v1;

/// Reads one test file.
pub(super) fn suite(file: &Arc<str>, text: &str) -> Suite {
    let mut reader = CaseReader {
        reader: DocumentReader::new(file, Some(&FORMAT)),
        cases: Vec::new(),
        names: HashMap::new(),
    };
    let mut aliases = Aliases::default();
    match yaml::parse(text) {
        Err(problem) => {
            reader.reader.report(problem.code, problem.position, "", problem.message, problem.suggestion);
        }
        Ok(Tree { root: None, .. }) => {
            let nothing = Node { kind: NodeKind::Mapping(Vec::new()), position: Position::default() };
            reader.file(&nothing);
        }
        Ok(Tree { root: Some(root), aliases: found }) => {
            reader.file(&root);
            aliases = found;
        }
    }
    let mut findings = reader.reader.findings.into_vec();
    findings.iter_mut().for_each(|finding| aliases.explain(finding));
    sort(&mut findings);
    Suite { file: Arc::clone(file), cases: reader.cases, findings }
}

struct CaseReader<'f> {
    reader: DocumentReader<'f>,
    cases: Vec<Case>,
    names: HashMap<String, Position>,
}

impl CaseReader<'_> {
    fn file(&mut self, root: &Node<'_>) {
        let fields = self.reader.fields(root, &SUITE);
        for entry in self.reader.entries(&fields, "tests") {
            self.case(entry);
        }
    }

    fn case(&mut self, node: &Node<'_>) {
        let outer = self.reader.enter(node, &CASE);
        self.read_case(node);
        self.reader.leave(outer);
    }

    fn read_case(&mut self, node: &Node<'_>) {
        let fields = self.reader.fields(node, &CASE);
        let name = fields.get("name").and_then(|node| self.name(node));
        let calls: Vec<(RequestKind, &Node<'_>)> = RequestKind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, fields.get(kind.as_str())?)))
            .collect();
        let (expect, table) = (fields.get("expect"), fields.get("table"));
        let name_position = name.as_ref().map_or_else(|| point(node), |name| name.position);
        let name = name.map(|name| name.value.into_string()).unwrap_or_default();
        match (&calls[..], table, expect) {
            ([(kind, call)], None, Some(expect)) => self.one(name, name_position, *kind, call, expect),
            ([(kind, call)], Some(table), expect) => {
                let rows = table::rows(&mut self.reader, table, *kind, call, expect);
                for (at, row) in rows.iter().enumerate() {
                    let CaseRow { name: own, position, call, expect } = row;
                    let name =
                        match own.as_ref().and_then(|own| self.reader.text(own, "name", Expected::Text)) {
                            Some(own) => format!("{name}: {}", own.value),
                            None => format!("{name}, row {}", at + 1),
                        };
                    self.one(name, *position, *kind, call, expect);
                }
            }
            // The case is broken; what there is of it is read for its mistakes.
            (calls, _, expect) => {
                for (kind, call) in calls {
                    self.reader.record(call, section(*kind));
                }
                if let Some(expect) = expect {
                    self.reader.record(expect, &EXPECT);
                }
            }
        }
    }

    fn name(&mut self, node: &Node<'_>) -> Option<LocatedText> {
        let name = self.reader.text(node, "name", Expected::Text)?;
        if name.value.trim().is_empty() {
            let suggestion = "say in a few words what the case shows";
            self.reader.report(Code::EmptyValue, name.position, "", "`name` is empty", suggestion);
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
                let message = format!("duplicate name `{}`, first on line {}", shown(&name), first.line);
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
        let call = self.reader.record(call, section(kind));
        let audience_positions = call.entries("audiences").map(|entry| entry.position).collect();
        let call = self::call(kind, &call);
        let expect = expectation(&self.reader.record(expect, &EXPECT));
        let case = Case { name, position, call, audience_positions, expect };
        // What was not read is not compared: a wrong type would look like a missing value.
        if self.reader.findings.count() == before {
            match case.call.check() {
                Ok(()) => {}
                Err(error @ (QuestionError::GrantMissing | QuestionError::GrantedScopeMissing { .. })) => {
                    let suggestion = "say it: a server refuses such a request before it is decided";
                    // The keys of a file, and not the fields of a message.
                    let message = match error {
                        QuestionError::GrantedScopeMissing { grant } => format!(
                            "`grantedScope` is required where `grant` is {}",
                            grant.as_str().to_lowercase()
                        ),
                        error => error.to_string(),
                    };
                    self.reader.report(Code::MissingKey, case.position, "", message, suggestion);
                }
                Err(error) => {
                    let suggestion = "ask less: a server refuses such a request before it is decided";
                    self.reader.report(Code::ValueTooLarge, case.position, "", error.to_string(), suggestion);
                }
            }
            for problem in impossible::problems(&case) {
                let impossible::ImpossibleExpectation { position, value, message, suggestion } = problem;
                self.reader.report(Code::ImpossibleExpectation, position, &value, message, suggestion);
            }
        }
        self.cases.push(case);
    }
}

/// The keys of a question of a kind.
pub(super) const fn section(kind: RequestKind) -> &'static Section {
    match kind {
        RequestKind::Registration => &REGISTER,
        RequestKind::Authorize => &AUTHORIZE,
        RequestKind::Token => &TOKEN_REQUEST,
    }
}

fn call(kind: RequestKind, read: &Mapping) -> Call {
    let registered = match kind {
        RequestKind::Registration => "previousScope",
        RequestKind::Authorize | RequestKind::Token => "registeredScope",
    };
    // As test files spell it, or as the API does.
    let grant = read.choice("grant").map(|grant| grant.value.to_ascii_uppercase());
    let grant = grant.and_then(|grant| TokenGrant::ALL.into_iter().find(|known| known.as_str() == grant));
    let text = |key| read.text(key).map(|text| text.value.to_owned());
    Call {
        kind,
        audiences: strings(read, "audiences"),
        scope: text("scope"),
        registered_scope: text(registered),
        grant,
        granted_scope: text("grantedScope"),
        client: read.record("client").map(client).unwrap_or_default(),
    }
}

fn client(read: &Mapping) -> v1::Client {
    let text = |key| read.text(key).map(|text| text.value.to_owned()).unwrap_or_default();
    // As policy files spell it, or as the API does.
    let source = read.choice("source").map(|source| source.value.to_ascii_lowercase());
    let source = source.and_then(|source| ClientSource::parse(&source));
    v1::Client {
        client_id: text("clientId"),
        client_name: text("clientName"),
        software_id: text("softwareId"),
        software_version: text("softwareVersion"),
        application_type: text("applicationType"),
        source: source.map_or(0, |source| call::wire_source(source).into()),
        redirect_uris: strings(read, "redirectUris"),
        grant_types: strings(read, "grantTypes"),
    }
}

fn expectation(read: &Mapping) -> Expectation {
    let text = |key| read.text(key).map(LocatedText::from);
    Expectation {
        position: read.position,
        decision: read.word("decision"),
        scope: text("scope"),
        added: entries(read, "added", |entry| {
            Some(ExpectedAdded {
                scope: entry.text("scope")?.into(),
                origin: entry.word("origin"),
                rule: entry.text("rule").map(LocatedText::from),
            })
        }),
        refused: entries(read, "refused", |entry| {
            Some(ExpectedRefused { scope: entry.text("scope")?.into(), reason: entry.word("reason") })
        }),
        error: read.choice("error"),
        reason: read.word("reason"),
        effective_registered_scope: text("effectiveRegisteredScope"),
        audience_grants: entries(read, "audienceGrants", |entry| {
            Some(ExpectedGrant {
                audience: entry.text("audience")?.into(),
                scope: entry.text("scope").map(LocatedText::from),
            })
        }),
    }
}

/// The entries of a list, if it was written.
fn entries<T>(read: &Mapping, key: &str, entry: impl Fn(&Mapping) -> Option<T>) -> Option<Vec<T>> {
    read.get(key)?;
    Some(read.records(key).iter().filter_map(entry).collect())
}

fn strings(read: &Mapping, key: &str) -> Vec<String> {
    read.entries(key).map(|entry| entry.value.to_string()).collect()
}
