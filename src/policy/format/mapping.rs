//! A mapping of a file as it was read by its section: values by key, each with its place.

use crate::policy::Word;
use crate::policy::finding::Position;

/// A value and where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it is.
    pub position: Position,
}

/// A text from the file and where it is.
pub type LocatedText = Spanned<Box<str>>;

impl From<Spanned<&str>> for LocatedText {
    fn from(text: Spanned<&str>) -> Self {
        Self { value: text.value.into(), position: text.position }
    }
}

/// A list of texts and where it is; entries as written, duplicates kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct List {
    /// Where the list is.
    pub position: Position,
    /// How many entries were written, wrong ones counted.
    pub written: usize,
    /// Its entries that are strings.
    pub entries: Vec<LocatedText>,
}

/// One mapping of a file. What is not there was not written, or was written wrongly and is a finding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// Where it is.
    pub position: Position,
    /// Its shape is wrong, or that of something in it, and a finding says so.
    pub is_misshapen: bool,
    /// Its members, in file order, each key once.
    pub members: Vec<Member>,
}

/// A member of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The key.
    pub key: &'static str,
    /// Where the key is.
    pub key_position: Position,
    /// The value.
    pub value: Value,
    /// Where the value is.
    pub position: Position,
}

impl Member {
    /// The mapping behind the key.
    #[must_use]
    pub fn record(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Record(record) => Some(record),
            _ => None,
        }
    }
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(Box<str>),
    /// A word of a choice.
    Word(&'static str),
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(u32),
    /// A list of texts.
    List(List),
    /// A mapping.
    Record(Mapping),
    /// A list of mappings.
    Records(Vec<Mapping>),
    /// A mapping from texts to mappings, duplicates kept.
    Each(Vec<(LocatedText, Mapping)>),
    /// A mapping from texts to texts, duplicates kept.
    Texts(Vec<(LocatedText, LocatedText)>),
}

impl Mapping {
    /// The member of a key; one in a mapping below by its path, as in `authorization.omittedScope`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Member> {
        self.members.iter().find_map(|member| {
            let rest = path.strip_prefix(member.key)?;
            match (rest.strip_prefix('.'), &member.value) {
                (None, _) => rest.is_empty().then_some(member),
                (Some(rest), Value::Record(record)) => record.get(rest),
                (Some(_), _) => None,
            }
        })
    }

    /// A list.
    #[must_use]
    pub fn list(&self, path: &str) -> Option<&List> {
        match &self.get(path)?.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The entries of a list.
    pub fn entries(&self, path: &str) -> impl Iterator<Item = &LocatedText> {
        self.list(path).into_iter().flat_map(|list| &list.entries)
    }

    /// A text.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<Spanned<&str>> {
        let Member { value: Value::Text(value), position, .. } = self.get(path)? else { return None };
        Some(Spanned { value, position: *position })
    }

    /// A word of a choice, as what it means.
    #[must_use]
    pub fn word<T: Word>(&self, path: &str) -> Option<Spanned<T>> {
        let Spanned { value, position } = self.choice(path)?;
        Some(Spanned { value: T::parse(value)?, position })
    }

    /// A word of a choice, as written.
    #[must_use]
    pub fn choice(&self, path: &str) -> Option<Spanned<&'static str>> {
        let Member { value: Value::Word(value), position, .. } = self.get(path)? else { return None };
        Some(Spanned { value, position: *position })
    }

    /// `true` or `false`.
    #[must_use]
    pub fn flag(&self, path: &str) -> Option<Spanned<bool>> {
        let Member { value: Value::Flag(value), position, .. } = self.get(path)? else { return None };
        Some(Spanned { value: *value, position: *position })
    }

    /// A number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<Spanned<u32>> {
        let Member { value: Value::Number(value), position, .. } = self.get(path)? else { return None };
        Some(Spanned { value: *value, position: *position })
    }

    /// A mapping.
    #[must_use]
    pub fn record(&self, path: &str) -> Option<&Self> {
        self.get(path)?.record()
    }

    /// A list of mappings; nothing if it is not there.
    #[must_use]
    pub fn records(&self, path: &str) -> &[Self] {
        match self.get(path).map(|member| &member.value) {
            Some(Value::Records(records)) => records,
            _ => &[],
        }
    }

    /// A mapping from texts to mappings; nothing if it is not there.
    #[must_use]
    pub fn each(&self, path: &str) -> &[(LocatedText, Self)] {
        match self.get(path).map(|member| &member.value) {
            Some(Value::Each(entries)) => entries,
            _ => &[],
        }
    }

    /// Takes a mapping from texts to mappings out; nothing if it is not there.
    #[must_use]
    pub fn take_each(&mut self, key: &str) -> Vec<(LocatedText, Self)> {
        match self.members.iter_mut().find(|member| member.key == key) {
            Some(Member { value: Value::Each(entries), .. }) => std::mem::take(entries),
            _ => Vec::new(),
        }
    }

    /// A mapping from texts to texts; nothing if it is not there.
    #[must_use]
    pub fn texts(&self, path: &str) -> &[(LocatedText, LocatedText)] {
        match self.get(path).map(|member| &member.value) {
            Some(Value::Texts(entries)) => entries,
            _ => &[],
        }
    }
}
