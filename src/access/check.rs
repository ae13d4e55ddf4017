//! From the text of an access file to a compiled list, or to everything that is wrong with it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::keys::{ACCESS, FORMAT, MAX_CALLERS};
use super::{AccessList, CallerRules, Right};
use crate::audience::normalise;
use crate::escape::shown;
use crate::hex;
use crate::policy::PolicySet;
use crate::policy::finding::{Code, Findings, Position, nearest};
use crate::policy::format::read::{DocumentReader, LocatedText, Mapping};
use crate::policy::outline::{Outline, Outlines};
use crate::policy::yaml::{self, Node, NodeKind, Tree};

/// An access file that was read, valid or not.
#[derive(Debug)]
pub struct AccessDocument {
    /// What came of it.
    pub outcome: Result<CheckedAccess, Findings>,
    /// Everything that is written in it.
    pub outline: Outlines,
}

/// A valid access file.
#[derive(Debug)]
pub struct CheckedAccess {
    /// The callers.
    pub list: AccessList,
    /// What is odd about it and valid all the same.
    pub warnings: Findings,
    /// `sha256:` over the bytes.
    pub digest: String,
    file: Arc<str>,
    audiences: Vec<LocatedText>,
}

impl CheckedAccess {
    /// Warnings about audiences that a policy does not declare.
    #[must_use]
    pub fn undeclared(&self, policy: &PolicySet) -> Findings {
        let mut reader = DocumentReader::new(&self.file, Some(&FORMAT));
        for audience in &self.audiences {
            if !matches!(policy.audience(&audience.value), Ok(Some(_))) {
                let message = format!("no policy file declares the audience `{}`", shown(&audience.value));
                let suggestion = "declare it, or take it out: to the caller it is unknown";
                reader.report(
                    Code::AccessAudienceNotDeclared,
                    audience.position,
                    &audience.value,
                    message,
                    suggestion,
                );
            }
        }
        reader.findings
    }
}

impl AccessDocument {
    /// Reads and checks the text of a file. Does not stop at the first mistake.
    #[must_use]
    pub fn read(file: &Arc<str>, text: &str) -> Self {
        let mut reader = DocumentReader::new(file, Some(&FORMAT));
        let root = match yaml::parse(text) {
            Err(problem) => {
                reader.report(problem.code, problem.position, "", problem.message, problem.suggestion);
                return Self { outcome: Err(reader.findings), outline: Outlines::default() };
            }
            Ok(tree) => tree,
        };
        let Tree { root, aliases } = root;
        let root =
            root.unwrap_or(Node { kind: NodeKind::Mapping(Vec::new()), position: Position::default() });
        let outline = std::iter::once(Outline::of(&root)).collect();
        let mapping = reader.record(&root, &ACCESS);
        let mut checker = AccessChecker {
            reader,
            matches: HashMap::new(),
            list: AccessList::default(),
            audiences: Vec::new(),
        };
        checker.callers(mapping.records("callers"));
        let AccessChecker { reader, list, audiences, .. } = checker;
        let mut findings = reader.findings;
        findings.update(|finding| aliases.explain(finding));
        findings.sort();
        if findings.error_count() > 0 {
            return Self { outcome: Err(findings), outline };
        }
        let digest = format!("sha256:{}", hex::encode(&Sha256::digest(text.as_bytes())));
        let file = Arc::clone(file);
        Self { outcome: Ok(CheckedAccess { list, warnings: findings, digest, file, audiences }), outline }
    }
}

struct AccessChecker<'f> {
    reader: DocumentReader<'f>,
    /// What identifies somebody, with the line where it is written first.
    matches: HashMap<String, u32>,
    list: AccessList,
    audiences: Vec<LocatedText>,
}

impl AccessChecker<'_> {
    fn callers(&mut self, written: &[Mapping]) {
        if let Some(first) = written.get(MAX_CALLERS) {
            let message = format!("`callers` has {} entries, the most is {MAX_CALLERS}", written.len());
            self.reader.report(
                Code::ValueTooLarge,
                first.position,
                "",
                message,
                "let callers share an entry",
            );
        }
        let mut names: HashMap<String, u32> = HashMap::new();
        for caller in written.iter().take(MAX_CALLERS) {
            self.caller(caller, &mut names);
        }
        let complaint = |list: &AccessList| {
            let somebody = list.callers.iter().filter(|caller| !caller.matches.is_empty());
            let (mut is_locked, mut nobody_decides) = (true, true);
            for caller in somebody.filter(|caller| !caller.rights.is_empty()) {
                is_locked = false;
                nobody_decides &= !caller.may(Right::Decide);
            }
            (is_locked, nobody_decides)
        };
        let position = written.first().map(|caller| caller.position).unwrap_or_default();
        match complaint(&self.list) {
            // Callers that are broken may be meant to be somebody.
            _ if self.reader.findings.error_count() > 0 => {}
            (true, _) => {
                let message = "nobody may call anything: no caller has both a `match` and something in `may`";
                let suggestion = "add `match` and `may`, or serve without an access file";
                self.reader.report(Code::NobodyMayCall, position, "", message, suggestion);
            }
            (false, true) => {
                let message = "no caller may ask for decisions";
                let suggestion = "add `decide` to `may` of the authorization server";
                self.reader.report(Code::NobodyMayDecide, position, "", message, suggestion);
            }
            (false, false) => {}
        }
    }

    fn caller(&mut self, written: &Mapping, names: &mut HashMap<String, u32>) {
        let at = self.list.callers.len();
        let name = written.text("name");
        let (name, position) = name.map_or(("", written.position), |name| (name.value, name.position));
        if let Some(offset) = name.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
            let message =
                format!("caller name `{}`: byte at offset {offset} is not printable ASCII", shown(name));
            self.reader.report(Code::CallerNameMalformed, position, name, message, "use printable ASCII");
        }
        match names.entry(name.to_owned()) {
            Entry::Occupied(first) if !name.is_empty() => {
                let message =
                    format!("duplicate caller name `{}`, first on line {}", shown(name), first.get());
                self.reader.report(
                    Code::DuplicateCallerName,
                    position,
                    name,
                    message,
                    "give each caller its own name",
                );
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => _ = free.insert(position.line),
        }
        let mut matches = Vec::new();
        for one in written.records("match") {
            matches.extend(self.one_match(one, at));
        }
        matches.sort();
        let rights = self.rights(written);
        // What was refused above was meant to be something.
        let (no_match, no_right) =
            (written.records("match").is_empty(), written.entries("may").next().is_none());
        if !written.is_misshapen && (no_match || no_right) {
            let what = match no_match {
                true => "`match` is empty: nobody is this caller",
                false => "`may` is empty: this caller may do nothing",
            };
            let message = format!("caller `{}`: {what}", shown(name));
            self.reader.report(Code::UselessCaller, position, name, message, "fill it, or remove the caller");
        }
        let audiences = written.get("audiences").map(|_| self.audiences(written));
        let max_calls = written.number("maxCalls").and_then(|number| match number.value {
            0 => {
                let message = format!("caller `{}`: `maxCalls` is 0", shown(name));
                let suggestion = "write at least 1, or leave `may` empty";
                self.reader.report(Code::UnknownValue, number.position, "0", message, suggestion);
                None
            }
            number => usize::try_from(number).ok(),
        });
        self.list.callers.push(CallerRules { name: name.into(), rights, audiences, max_calls, matches });
    }

    /// Takes one entry of `match` into the list; returns it as it is compared.
    fn one_match(&mut self, written: &Mapping, at: usize) -> Option<String> {
        let member = written.members.first()?;
        let position = member.position;
        let (text, problem) = match member.key {
            "unixUid" => (written.number("unixUid")?.value.to_string(), None),
            key => {
                let text = written.text(key)?.value.to_owned();
                let problem = match key {
                    "spiffeId" => spiffe_problem(&text),
                    "dnsName" => dns_problem(&text),
                    _ => hash_problem(&text),
                };
                (text, problem)
            }
        };
        if let Some((message, suggestion)) = problem {
            // A token that is written in the place of its hash must not be shown.
            let value = if member.key == "tokenSha256" { "" } else { &*text };
            self.reader.report(Code::CallerMatchMalformed, position, value, message, suggestion);
            return None;
        }
        let identity = format!("{} {text}", member.key);
        if let Some(first) = self.matches.get(&identity) {
            let message = format!("`{}` is in a `match` already, on line {first}", member.key);
            let suggestion = "let each thing identify one caller";
            self.reader.report(Code::DuplicateCallerMatch, position, "", message, suggestion);
            return None;
        }
        self.matches.insert(identity.clone(), position.line);
        match member.key {
            "spiffeId" => _ = self.list.by_spiffe_id.insert(text.into(), at),
            "dnsName" => _ = self.list.by_dns_name.insert(text.into(), at),
            "unixUid" => _ = self.list.by_uid.insert(text.parse().ok()?, at),
            _ => self.list.by_token.push((hex::decode(&text)?.try_into().ok()?, at)),
        }
        Some(identity)
    }

    fn rights(&mut self, written: &Mapping) -> Vec<Right> {
        let mut rights = Vec::new();
        for word in written.entries("may") {
            match Right::ALL.into_iter().find(|right| right.as_str() == &*word.value) {
                Some(right) if rights.contains(&right) => {
                    let message = format!("duplicate entry `{}` in `may`", shown(&word.value));
                    self.reader.report(
                        Code::DuplicateEntry,
                        word.position,
                        &word.value,
                        message,
                        "remove one of them",
                    );
                }
                Some(right) => rights.push(right),
                None => {
                    let words = Right::ALL.map(Right::as_str);
                    let suggestion = match nearest(&word.value, words) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("one of: {}", words.join(", ")),
                    };
                    let message = format!("`{}` is no right in `may`", shown(&word.value));
                    self.reader.report(Code::UnknownValue, word.position, &word.value, message, suggestion);
                }
            }
        }
        rights
    }

    fn audiences(&mut self, written: &Mapping) -> Arc<[Box<str>]> {
        let mut found: Vec<Box<str>> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for audience in written.entries("audiences") {
            let normal = match normalise(&audience.value) {
                Ok(normal) if !audience.value.is_empty() => normal.into_owned(),
                Ok(_) => {
                    let message = "an entry of `audiences` is empty";
                    self.reader.report(Code::EmptyValue, audience.position, "", message, "remove it");
                    continue;
                }
                Err(error) => {
                    let message = format!("audience `{}`: {error}", shown(&audience.value));
                    let suggestion = "write the audience as the policy does";
                    self.reader.report(
                        Code::AudienceMalformed,
                        audience.position,
                        &audience.value,
                        message,
                        suggestion,
                    );
                    continue;
                }
            };
            if seen.contains(&normal) {
                let message = format!("duplicate entry `{}` in `audiences`", shown(&audience.value));
                self.reader.report(
                    Code::DuplicateEntry,
                    audience.position,
                    &audience.value,
                    message,
                    "remove one of them",
                );
                continue;
            }
            seen.push(normal);
            found.push(audience.value.clone());
            self.audiences.push(audience.clone());
        }
        found.into()
    }
}

type Problem = Option<(String, &'static str)>;

/// SPIFFE-ID section 2: a trust domain in lower case and a path without empty or dot segments; no query, fragment, port or user.
fn spiffe_problem(id: &str) -> Problem {
    let is_right = id.strip_prefix("spiffe://").is_some_and(|rest| {
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let of_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        let of_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path);
        !domain.is_empty()
            && domain.bytes().all(of_domain)
            && path.is_none_or(|path| path.split('/').all(is_segment))
    });
    let message = || format!("`{}` is not a SPIFFE ID", shown(id));
    (!is_right).then(|| (message(), "write it as spiffe://trust-domain/path"))
}

fn dns_problem(name: &str) -> Problem {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let is_right = name.split('.').all(is_label);
    let message = || format!("`{}` is not a DNS name in lower case", shown(name));
    (!is_right).then(|| (message(), "write the name as it is in the certificate, without a wildcard"))
}

fn hash_problem(hash: &str) -> Problem {
    let is_right = hash.len() == 64 && hex::decode(hash).is_some();
    let message =
        || format!("a SHA-256 has 64 hexadecimal digits in lower case, this text has {} bytes", hash.len());
    (!is_right)
        .then(|| (message(), "write the hash that `scopeward access new-token` prints, never the token"))
}
