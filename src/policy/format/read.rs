//! Reads a mapping of a file by the section of its format: any tree becomes a [`Mapping`] and findings.
//!
//! Lenient: an unknown key or a wrong type becomes a finding and the rest is read all the same, so
//! that one mistake never hides another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::advice::{self, Expected};
pub use super::mapping::{List, LocatedText, Mapping, Member, Spanned, Value};
use super::{FileFormat, Key, MappingRule, Section, ValueKind as Is, either};
use crate::escape::shown;
use crate::policy::finding::{self, Code, Finding, Findings, MAX_FINDINGS, Position, nearest};
use crate::policy::yaml::{Node, NodeKind, Schema};

/// The members of a mapping as nodes, each known key once, not yet read.
pub(crate) struct Fields<'n, 't> {
    members: Vec<(&'static Key, &'n Node<'t>, &'n Node<'t>)>,
}

impl<'n, 't> Fields<'n, 't> {
    fn member(&self, name: &str) -> Option<(&'static Key, &'n Node<'t>, &'n Node<'t>)> {
        self.members.iter().find(|(key, ..)| key.name == name).copied()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'n Node<'t>> {
        self.member(name).map(|(_, _, value)| value)
    }
}

/// Collects findings while a file is read.
pub(crate) struct DocumentReader<'f> {
    pub(crate) file: &'f Arc<str>,
    /// Nothing for a file whose keys are known to the caller alone.
    format: Option<&'static FileFormat>,
    /// The audience that findings belong to; empty if none.
    audience: Box<str>,
    /// The named entry of a list that findings are about, for the start of their messages; empty if none.
    entry: String,
    pub(crate) findings: Findings,
    /// A mapping to audiences, or one of its keys, was written so wrongly that what it declares is unknown.
    pub(crate) is_incomplete: bool,
}

impl<'f> DocumentReader<'f> {
    pub(crate) fn new(file: &'f Arc<str>, format: Option<&'static FileFormat>) -> Self {
        Self {
            file,
            format,
            audience: Box::default(),
            entry: String::new(),
            findings: Findings::new(),
            is_incomplete: false,
        }
    }

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
            audience: finding::audience(&self.audience),
            value: finding::value(value),
            message: format!("{}{}", self.entry, message.into()),
            suggestion: suggestion.into(),
        });
    }

    /// Reads the mapping at the top of a file, and takes it apart: what was read is no longer in the tree, so
    /// that a large file is not in memory twice.
    pub(crate) fn root(&mut self, root: Node<'_>, section: &'static Section) -> Mapping {
        self.root_and(root, section, |reader, key, node, section| reader.each(key, node, section))
    }

    /// Like [`DocumentReader::root`], but a mapping from texts to mappings is left to `each`; nothing if there is to be no such
    /// member.
    pub(crate) fn root_and<'t>(
        &mut self,
        root: Node<'t>,
        section: &'static Section,
        mut each: impl FnMut(
            &mut Self,
            &'static Key,
            Node<'t>,
            &'static Section,
        ) -> Option<Vec<(LocatedText, Mapping)>>,
    ) -> Mapping {
        let before = self.findings.error_count();
        let position = root.position;
        let fields = self.named_fields(None, &root, section);
        let mut known = fields.members.iter().peekable();
        let keys: Vec<Option<&'static Key>> = match &root.kind {
            NodeKind::Mapping(entries) => entries
                .iter()
                .map(|(_, value)| {
                    known.next_if(|(.., known)| std::ptr::eq(*known, value)).map(|(key, ..)| *key)
                })
                .collect(),
            NodeKind::Scalar { .. } | NodeKind::Sequence(_) => Vec::new(),
        };
        let mut members = Vec::with_capacity(section.keys.len());
        if let NodeKind::Mapping(entries) = root.kind {
            for (key, (key_node, node)) in keys.into_iter().zip(entries) {
                let Some(key) = key else { continue };
                let position = node.position;
                let value = match key.kind {
                    Is::Each(section) => each(self, key, node, section).map(Value::Each),
                    _ => self.value(key, &node),
                };
                let Some(value) = value else { continue };
                add(&mut members, Member { key: key.name, key_position: key_node.position, value, position });
            }
        }
        Mapping { position, is_misshapen: self.findings.error_count() > before, members }
    }

    /// Reads a mapping and everything below it.
    pub(crate) fn record(&mut self, node: &Node<'_>, section: &'static Section) -> Mapping {
        self.named_record(None, node, section)
    }

    fn named_record(
        &mut self,
        name: Option<&LocatedText>,
        node: &Node<'_>,
        section: &'static Section,
    ) -> Mapping {
        let before = self.findings.error_count();
        let fields = self.named_fields(name, node, section);
        let mut members = Vec::with_capacity(fields.members.len());
        for (key, key_node, node) in fields.members {
            let Some(value) = self.value(key, node) else { continue };
            let (key_position, position) = (key_node.position, node.position);
            add(&mut members, Member { key: key.name, key_position, value, position });
        }
        Mapping { position: node.position, is_misshapen: self.findings.error_count() > before, members }
    }

    /// The members of a mapping, each known key once; reports every other one, and what is missing.
    pub(crate) fn fields<'n, 't>(&mut self, node: &'n Node<'t>, section: &'static Section) -> Fields<'n, 't> {
        self.named_fields(None, node, section)
    }

    fn named_fields<'n, 't>(
        &mut self,
        name: Option<&LocatedText>,
        node: &'n Node<'t>,
        section: &'static Section,
    ) -> Fields<'n, 't> {
        let mut fields = Fields { members: Vec::new() };
        let NodeKind::Mapping(entries) = &node.kind else {
            let what = match name {
                Some(name) => format!("{} `{}`", section.name, shown(&name.value)),
                None => format!("`{}`", section.name),
            };
            self.wrong_type(node, &what, section.name, Expected::Mapping(section));
            return fields;
        };
        // What is not reported as missing, since something was meant to be it.
        let (mut meant, mut is_misplaced) = (Vec::new(), false);
        for (at, value) in entries {
            let Some(text) = self.key_text(at, section.name, section.names()) else { continue };
            let Some(key) = section.key(text) else {
                if let Some(advice) = self.unknown_key(at, text, value, section) {
                    meant.extend(advice.meant);
                    is_misplaced |= advice.is_misplaced;
                }
                continue;
            };
            let first = fields.members.iter().find(|(known, ..)| std::ptr::eq(*known, key));
            if let Some((_, first, _)) = first {
                self.duplicate_key(at, section.name, first.position);
                // What a second mapping declares is judged all the same.
                if !matches!(key.kind, Is::Each(_)) {
                    continue;
                }
            }
            fields.members.push((key, at, value));
        }
        if let (MappingRule::NotEmpty(hint), []) = (section.rule, &**entries) {
            self.report(Code::EmptyValue, node.position, "", format!("`{}` is empty", section.name), hint);
        }
        if let MappingRule::OneOfAndAnyOf(one, any) = section.rule {
            self.alternatives(node, section, &fields, one, any);
        }
        let is_root = self.format.is_some_and(|format| std::ptr::eq(format.root, section));
        let is_excused = |key: &Key| meant.contains(&key.name) || (is_root && is_misplaced);
        self.is_incomplete |= is_root && (is_misplaced || !meant.is_empty());
        let missing = section.keys.iter().filter(|key| key.required && fields.get(key.name).is_none());
        for key in missing.filter(|key| !is_excused(key)) {
            let (position, value) = match name {
                Some(name) => (name.position, &*name.value),
                None => (point(node), ""),
            };
            let place = match name {
                Some(name) => format!("{} `{}`", section.name, shown(&name.value)),
                None => format!("`{}`", section.name),
            };
            let message = format!("missing key `{}` in {place}", key.name);
            self.report(Code::MissingKey, position, value, message, key.hint);
        }
        fields
    }

    /// Exactly one of the first keys is there, and at least one of the second.
    fn alternatives(
        &mut self,
        node: &Node<'_>,
        section: &'static Section,
        fields: &Fields<'_, '_>,
        one: &[&str],
        any: &[&str],
    ) {
        let mut written = one.iter().filter_map(|name| fields.member(name));
        let first = written.next();
        for (key, at, _) in written {
            let rest = if one.len() > 2 { "and only one of them" } else { "not both" };
            let message = format!("`{}` has either {}, {rest}", section.name, either(one));
            self.report(Code::DuplicateKey, at.position, key.name, message, "keep one of them");
        }
        for (names, is_missing) in
            [(one, first.is_none()), (any, any.iter().all(|name| fields.get(name).is_none()))]
        {
            if is_missing {
                let hint = names.first().and_then(|name| section.key(name)).map_or("", |key| key.hint);
                let message = format!("missing key {} in `{}`", either(names), section.name);
                self.report(Code::MissingKey, point(node), "", message, hint);
            }
        }
    }

    /// The key of a member if it is one of these names; reports it otherwise.
    pub(crate) fn known_key<'n, 'k>(
        &mut self,
        key: &'n Node<'_>,
        what: &str,
        names: impl Iterator<Item = &'k str> + Clone,
    ) -> Option<&'n str> {
        let text = self.key_text(key, what, names.clone())?;
        if names.clone().any(|name| name == text) {
            return Some(text);
        }
        let suggestion = match nearest(text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => one_of(names),
        };
        let message = format!("unknown key `{}` in `{what}`", shown(text));
        self.report(Code::UnknownKey, key.position, text, message, suggestion);
        None
    }

    fn key_text<'n, 'k>(
        &mut self,
        key: &'n Node<'_>,
        what: &str,
        names: impl Iterator<Item = &'k str>,
    ) -> Option<&'n str> {
        if let NodeKind::Scalar { text, .. } = &key.kind {
            return Some(text);
        }
        let message = format!("a key of `{what}` is {}, not a string", key.describe());
        self.report(Code::WrongType, key.position, "", message, one_of(names));
        None
    }

    /// Reports a key that a section does not know; nothing is guessed beyond the findings that are kept.
    fn unknown_key(
        &mut self,
        key: &Node<'_>,
        text: &str,
        value: &Node<'_>,
        section: &'static Section,
    ) -> Option<advice::KeyAdvice> {
        let Some(format) = self.format.filter(|_| self.findings.error_count() < MAX_FINDINGS) else {
            // Only counted: to guess what was meant is slow, and there may be a million of them.
            self.report(Code::UnknownKey, key.position, text, "", "");
            return None;
        };
        let advice = advice::unknown_key(format, section, text, value);
        let message = if text == advice::MERGE {
            MERGE_KEYS.to_owned()
        } else {
            format!("unknown key `{}` in `{}`", shown(text), section.name)
        };
        self.report(Code::UnknownKey, key.position, text, message, &*advice.suggestion);
        Some(advice)
    }

    /// Reports a name in a mapping from names that cannot be one; returns `true` if it did.
    fn is_no_name(&mut self, key: &Key, at: &Node<'_>, value: &Node<'_>) -> bool {
        let name = at.text();
        let suggestion = if name == advice::MERGE {
            Some(advice::MERGE_ADVICE.to_owned())
        } else {
            self.format.and_then(|format| advice::key_for_name(format, key, name, value))
        };
        let Some(suggestion) = suggestion else { return false };
        let message = if name == advice::MERGE {
            MERGE_KEYS.to_owned()
        } else {
            format!("`{name}` in `{}` is a key of the format", key.name)
        };
        self.report(Code::UnknownKey, at.position, name, message, suggestion);
        true
    }

    pub(crate) fn duplicate_key(&mut self, key: &Node<'_>, what: &str, first: Position) {
        let message =
            format!("duplicate key `{}` in `{what}`, first on line {}", shown(key.text()), first.line);
        self.report(Code::DuplicateKey, key.position, key.text(), message, "keep one of them");
    }

    /// Reads the value of a key.
    fn value(&mut self, key: &'static Key, node: &Node<'_>) -> Option<Value> {
        match key.kind {
            Is::Choice(names) => self.choice(node, key.name, names).map(Value::Word),
            Is::ChoiceOrOne(_, section) if matches!(node.kind, NodeKind::Mapping(_)) => {
                Some(Value::Record(self.record(node, section)))
            }
            Is::ChoiceOrOne(names, _) => self.choice(node, key.name, names).map(Value::Word),
            Is::Flag => self.flag(node, key.name).map(Value::Flag),
            Is::Number(most) => self.number(node, key.name, most).map(Value::Number),
            Is::Text(least, most) => {
                let text = self.text(node, key.name, Expected::Text)?;
                self.length(key, &text, least, most, "bytes", text.value.len());
                Some(Value::Text(text.value))
            }
            Is::Prose(most) => {
                let text = self.text(node, key.name, Expected::Text)?;
                let count = text.value.chars().count();
                self.length(key, &text, 1, Some(most), "characters", count);
                Some(Value::Text(text.value))
            }
            Is::ScopeString => {
                self.text(node, key.name, Expected::ScopeString).map(|text| Value::Text(text.value))
            }
            Is::Host | Is::Audience => {
                self.text(node, key.name, Expected::Text).map(|text| Value::Text(text.value))
            }
            Is::Scopes(least, _) | Is::Texts(least) => {
                self.texts_list(key, node, least, None).map(Value::List)
            }
            Is::Audiences(least, most) => self.texts_list(key, node, least, Some(most)).map(Value::List),
            Is::WarningCodes => self.warning_codes(key, node).map(Value::List),
            Is::ScopeTexts(most) => self.texts(key, node, most).map(Value::Texts),
            Is::One(section) => Some(Value::Record(self.record(node, section))),
            Is::List(section, least) => {
                let entries = self.sequence(key, node, least)?;
                Some(Value::Records(entries.iter().map(|entry| self.entry(entry, section)).collect()))
            }
            Is::Each(section) => self.each(key, node.clone(), section).map(Value::Each),
            // Rows are put to their places in other trees before they are read.
            Is::Rows(_) => None,
        }
    }

    /// Notes that what follows is about this entry of a list, if entries of its section have a name; returns what to
    /// note when it is over.
    pub(crate) fn enter(&mut self, node: &Node<'_>, section: &'static Section) -> String {
        let NodeKind::Mapping(entries) = &node.kind else { return self.entry.clone() };
        let is_named = section.keys.first().is_some_and(|key| key.name == "name");
        let name = entries.iter().find(|(key, _)| is_named && key.text() == "name");
        match name.map(|(_, name)| name.text()).filter(|name| !name.is_empty()) {
            Some(name) => std::mem::replace(&mut self.entry, format!("{} `{}`: ", section.name, shown(name))),
            None => self.entry.clone(),
        }
    }

    pub(crate) fn leave(&mut self, outer: String) {
        self.entry = outer;
    }

    /// Reads an entry of a list of mappings; a text may be there instead.
    fn entry(&mut self, node: &Node<'_>, section: &'static Section) -> Mapping {
        let outer = self.enter(node, section);
        let read = self.mapping_or_text(node, section);
        self.leave(outer);
        read
    }

    fn mapping_or_text(&mut self, node: &Node<'_>, section: &'static Section) -> Mapping {
        let (NodeKind::Scalar { .. }, MappingRule::OrText, Some(first)) =
            (&node.kind, section.rule, section.keys.first())
        else {
            return self.record(node, section);
        };
        let before = self.findings.error_count();
        let position = node.position;
        let member = |value| Member { key: first.name, key_position: position, value, position };
        let members = self.value(first, node).map(member).into_iter().collect();
        Mapping { position, is_misshapen: self.findings.error_count() > before, members }
    }

    fn each(
        &mut self,
        key: &Key,
        node: Node<'_>,
        section: &'static Section,
    ) -> Option<Vec<(LocatedText, Mapping)>> {
        let Node { kind: NodeKind::Mapping(entries), .. } = node else {
            self.wrong_key(&node, key, Expected::Each(section));
            self.is_incomplete = true;
            return None;
        };
        let mut read = Vec::new();
        for (name, node) in entries {
            let entry = self.each_entry(key, &name, &node, section);
            // Nobody will read what is wrong with all of them, and there may be a million.
            let is_of_use =
                |record: &Mapping| !record.is_misshapen || self.findings.error_count() <= MAX_FINDINGS;
            match entry.filter(|(_, record)| is_of_use(record)) {
                Some(entry) => read.push(entry),
                None => self.is_incomplete = true,
            }
        }
        shrink(&mut read);
        Some(read)
    }

    /// Reads an entry of a mapping from texts to mappings; nothing if what it is called is unknown.
    pub(crate) fn each_entry(
        &mut self,
        key: &Key,
        name: &Node<'_>,
        node: &Node<'_>,
        section: &'static Section,
    ) -> Option<(LocatedText, Mapping)> {
        if self.is_no_name(key, name, node) {
            return None;
        }
        let name = self.text(name, section.name, Expected::Text)?;
        let outer = std::mem::replace(&mut self.audience, name.value.clone());
        let record = self.named_record(Some(&name), node, section);
        self.audience = outer;
        Some((name, record))
    }

    fn texts(&mut self, key: &Key, node: &Node<'_>, most: usize) -> Option<Vec<(LocatedText, LocatedText)>> {
        let NodeKind::Mapping(entries) = &node.kind else {
            self.wrong_key(node, key, Expected::ScopeTexts);
            return None;
        };
        let mut first: HashMap<&str, Position> = HashMap::with_capacity(entries.len());
        let mut read = Vec::with_capacity(entries.len());
        for (name_node, node) in entries {
            if self.is_no_name(key, name_node, node) {
                continue;
            }
            let Some(name) = self.text(name_node, key.name, Expected::Text) else { continue };
            match first.entry(name_node.text()) {
                Entry::Vacant(vacant) => _ = vacant.insert(name.position),
                Entry::Occupied(known) => self.duplicate_key(name_node, key.name, *known.get()),
            }
            let Some(text) = self.text(node, key.name, Expected::Text) else { continue };
            let count = text.value.chars().count();
            self.length(key, &text, 1, Some(most), "characters", count);
            read.push((name, text));
        }
        Some(read)
    }

    fn length(
        &mut self,
        key: &Key,
        text: &LocatedText,
        least: usize,
        most: Option<usize>,
        unit: &str,
        length: usize,
    ) {
        if length < least {
            self.report(Code::EmptyValue, text.position, "", format!("`{}` is empty", key.name), key.hint);
        } else if let Some(most) = most.filter(|most| length > *most) {
            let message = format!("`{}` has {length} {unit}, at most {most} are allowed", key.name);
            self.report(Code::ValueTooLarge, text.position, &text.value, message, "use a shorter text");
        }
    }

    pub(crate) fn text(&mut self, node: &Node<'_>, key: &str, expected: Expected) -> Option<LocatedText> {
        match &node.kind {
            NodeKind::Scalar { text, schema: Schema::String } => {
                Some(Spanned { value: text.as_ref().into(), position: node.position })
            }
            _ => {
                let what = match expected {
                    Expected::Entry => format!("an entry of `{key}`"),
                    _ => format!("`{key}`"),
                };
                self.wrong_type(node, &what, key, expected);
                None
            }
        }
    }

    fn sequence<'n, 't>(&mut self, key: &Key, node: &'n Node<'t>, least: usize) -> Option<&'n [Node<'t>]> {
        let expected = match key.kind {
            Is::List(section, _) => Expected::Mappings(section),
            Is::Rows(_) => Expected::Rows,
            _ => Expected::Strings,
        };
        let NodeKind::Sequence(entries) = &node.kind else {
            self.wrong_key(node, key, expected);
            return None;
        };
        if entries.len() < least {
            self.report(Code::EmptyValue, node.position, "", format!("`{}` is empty", key.name), key.hint);
        }
        Some(entries)
    }

    /// The nodes of a list that is not read yet; nothing if it is not there or not a list.
    pub(crate) fn entries<'n, 't>(&mut self, fields: &Fields<'n, 't>, key: &str) -> &'n [Node<'t>] {
        let Some((key, _, node)) = fields.member(key) else { return &[] };
        let least = match key.kind {
            Is::List(_, least) | Is::Rows(least) => least,
            _ => 0,
        };
        self.sequence(key, node, least).unwrap_or_default()
    }

    /// A list of strings that is not read yet.
    pub(crate) fn list(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<List> {
        let (key, _, node) = fields.member(key)?;
        match self.value(key, node)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    fn texts_list(&mut self, key: &Key, node: &Node<'_>, least: usize, most: Option<usize>) -> Option<List> {
        let entries = self.sequence(key, node, least)?;
        let written = entries.len();
        if let Some(most) = most
            && let Some(first_over) = entries.get(most)
        {
            let message = format!("`{}` has {written} entries, at most {most} are allowed", key.name);
            let suggestion = format!("keep at most {most}");
            self.report(Code::ValueTooLarge, first_over.position, first_over.text(), message, suggestion);
        }
        let mut texts = Vec::with_capacity(written.min(MAX_ROOM));
        texts.extend(entries.iter().filter_map(|entry| self.text(entry, key.name, Expected::Entry)));
        shrink(&mut texts);
        Some(List { position: node.position, written, entries: texts })
    }

    /// A list of codes of warnings; those that are none are reported, and are not in it.
    fn warning_codes(&mut self, key: &Key, node: &Node<'_>) -> Option<List> {
        let mut list = self.texts_list(key, node, 0, None)?;
        let mut known: Vec<LocatedText> = Vec::new();
        for entry in std::mem::take(&mut list.entries) {
            let code = shown(&entry.value);
            if let Err(suggestion) = Code::warning(&entry.value) {
                let message = format!("unknown value `{code}` in `{}`", key.name);
                self.report(Code::UnknownValue, entry.position, &entry.value, message, suggestion);
            } else if let Some(first) = known.iter().find(|known| known.value == entry.value) {
                let line = first.position.line;
                let message = format!("duplicate entry `{code}` in `{}`, first on line {line}", key.name);
                self.report(Code::DuplicateEntry, entry.position, &entry.value, message, "remove it");
            } else {
                known.push(entry);
            }
        }
        list.entries = known;
        Some(list)
    }

    fn choice(&mut self, node: &Node<'_>, key: &str, names: &'static [&'static str]) -> Option<&'static str> {
        let text = self.text(node, key, Expected::Text)?;
        if let Some(name) = names.iter().copied().find(|name| *name == &*text.value) {
            return Some(name);
        }
        let suggestion = match nearest(&text.value, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", names.join(", ")),
        };
        let message = format!("unknown value `{}` of `{key}`", shown(&text.value));
        self.report(Code::UnknownValue, text.position, &text.value, message, suggestion);
        None
    }

    fn flag(&mut self, node: &Node<'_>, key: &str) -> Option<bool> {
        if let NodeKind::Scalar { text, schema: Schema::Boolean } = &node.kind {
            return Some(text.eq_ignore_ascii_case("true"));
        }
        self.wrong_type(node, &format!("`{key}`"), key, Expected::Flag);
        None
    }

    fn number(&mut self, node: &Node<'_>, key: &str, most: u32) -> Option<u32> {
        let NodeKind::Scalar { text, schema: Schema::Number } = &node.kind else {
            self.wrong_type(node, &format!("`{key}`"), key, Expected::Number(most));
            return None;
        };
        let Ok(value) = text.parse::<u32>() else {
            let message = format!("`{key}` needs a whole number from 0 to {most}, not `{}`", shown(text));
            let suggestion = format!("write a whole number from 0 to {most}");
            self.report(Code::WrongType, node.position, text, message, suggestion);
            return None;
        };
        if value > most {
            let message = format!("`{key}` is {value}, at most {most} is allowed");
            let suggestion = format!("a number from 0 to {most}");
            self.report(Code::ValueTooLarge, node.position, text, message, suggestion);
        }
        Some(value)
    }

    fn wrong_key(&mut self, node: &Node<'_>, key: &Key, expected: Expected) {
        self.wrong_type(node, &format!("`{}`", key.name), key.name, expected);
    }

    /// Reports a value of the wrong shape; `what` it is, and the `name` that is written in front of it.
    pub(crate) fn wrong_type(&mut self, node: &Node<'_>, what: &str, name: &str, expected: Expected) {
        let needs = if matches!(expected, Expected::Entry) { "has to be" } else { "needs" };
        let message = format!("{what} {needs} {}, not {}", expected.words(), node.describe());
        let suggestion = advice::wrong_type(node, name, expected);
        self.report(Code::WrongType, node.position, node.text(), message, suggestion);
    }
}

fn one_of<'k>(names: impl Iterator<Item = &'k str>) -> String {
    format!("one of: {}", names.collect::<Vec<_>>().join(", "))
}

const MERGE_KEYS: &str = "merge keys (`<<`) are not supported";

/// Adds a member. Of a second one only the entries of a mapping to audiences are read: see
/// [`DocumentReader::named_fields`].
fn add(members: &mut Vec<Member>, member: Member) {
    match members.iter_mut().find(|known| known.key == member.key) {
        Some(Member { value: Value::Each(entries), .. }) => {
            if let Value::Each(more) = member.value {
                entries.extend(more);
            }
        }
        _ => members.push(member),
    }
}

/// Most entries that room is made for before they are read: with a long list of mistakes there would be a large
/// block that is never filled, and the allocator keeps more once it has seen large ones come and go.
const MAX_ROOM: usize = 64;

/// Takes away the room that a long list does not need.
fn shrink<T>(entries: &mut Vec<T>) {
    if entries.capacity() > MAX_ROOM {
        entries.shrink_to_fit();
    }
}

/// Where a node starts: to underline all of a mapping would underline nothing.
pub(crate) fn point(node: &Node<'_>) -> Position {
    Position { end: node.position.start, ..node.position }
}
