//! The language in which file formats are written down: sections, keys, and kinds of values.
//!
//! One table for each format says which keys there are. From it come the reader ([`read`]), the JSON
//! Schema ([`schema`]), the reference ([`markdown`]), and, for the keys of an audience, what the
//! digest covers and which change widens. Knows no format itself: the tables are
//! [`super::keys`] for policies and `suite::keys` for tests.

use super::{Alias, AudiencePolicy, ClientRule, UnknownRegistrations};
use crate::scope::ScopeList;

pub(crate) mod advice;
/// Names of which one is wanted, as in "`a`, `b` or `c`".
fn either(names: &[&str]) -> String {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} or `{last}`", quoted(rest)),
        names => quoted(names),
    }
}

#[cfg(test)]
pub(crate) mod conform;
pub mod mapping;
pub mod markdown;
pub mod read;
pub mod schema;

/// A format of files.
#[derive(Debug)]
pub struct FileFormat {
    /// The mapping at the top of a file.
    pub root: &'static Section,
    /// Keys that are no part of the format and are found at its top all the same, with what to do.
    pub elsewhere: &'static [(&'static str, &'static str)],
}

/// A mapping of a format.
#[derive(Debug)]
pub struct Section {
    /// Its name in findings and in the schema, and its heading in the reference.
    pub name: &'static str,
    /// What it is for; Markdown, one paragraph.
    pub text: &'static str,
    /// What holds beyond its keys.
    pub rule: MappingRule,
    /// Its keys, in the order of the format.
    pub keys: &'static [Key],
}

impl Section {
    /// The section and all below it, each once, in the order in which the reference shows them.
    #[must_use]
    pub fn all(&'static self) -> Vec<&'static Self> {
        fn walk(section: &'static Section, found: &mut Vec<&'static Section>) {
            if found.iter().any(|known| std::ptr::eq(*known, section)) {
                return;
            }
            found.push(section);
            for inner in section.keys.iter().filter_map(|key| key.kind.section()) {
                walk(inner, found);
            }
        }
        let mut found = Vec::new();
        walk(self, &mut found);
        found
    }

    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// What holds for a mapping beyond its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MappingRule {
    /// Nothing.
    Plain,
    /// At least one member is there; what to do if none is.
    NotEmpty(&'static str),
    /// Exactly one of the first keys is there, and at least one of the second.
    OneOfAndAnyOf(&'static [&'static str], &'static [&'static str]),
    /// A text may be there instead: the value of its first key.
    OrText,
}

/// A key of a mapping.
#[derive(Debug)]
pub struct Key {
    /// The key as written.
    pub name: &'static str,
    /// The value.
    pub kind: ValueKind,
    /// Whether it has to be there.
    pub required: bool,
    /// The default as JSON; `""` if there is none that can be written down.
    pub default: &'static str,
    /// What it means; Markdown, one line.
    pub text: &'static str,
    /// What to do if it is missing or empty.
    pub hint: &'static str,
    /// What a compiled audience has of it; `None` for keys that do not change its meaning.
    pub meaning: Option<Meaning>,
}

/// A key that may be left out, with its default as JSON.
pub(crate) const fn key(
    name: &'static str,
    kind: ValueKind,
    default: &'static str,
    text: &'static str,
) -> Key {
    let hint = "write a value or leave the key out";
    Key { name, kind, required: false, default, text, hint, meaning: None }
}

/// A key that has to be there, and what to do if it is missing or empty.
pub(crate) const fn required(
    name: &'static str,
    kind: ValueKind,
    hint: &'static str,
    text: &'static str,
) -> Key {
    Key { name, kind, required: true, default: "", text, hint, meaning: None }
}

impl Key {
    /// The key with what to do if it is empty.
    pub(crate) const fn hint(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }

    /// The key with its part in the meaning of an audience.
    pub(crate) const fn means(self, effect: Effect, read: Compiled) -> Self {
        Self { meaning: Some(Meaning { effect, read }), ..self }
    }
}

/// The value of a key.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    /// A list of different scopes, with the least and the most entries. The most is a schema's: who
    /// reads the list judges it.
    Scopes(usize, Option<usize>),
    /// One of these.
    Choice(&'static [&'static str]),
    /// One of these, or a mapping.
    ChoiceOrOne(&'static [&'static str], &'static Section),
    /// `true` or `false`.
    Flag,
    /// A whole number from 0 to this.
    Number(u32),
    /// Any string, with the least and the most bytes.
    Text(usize, Option<usize>),
    /// Scopes as on the wire (RFC 6749 section 3.3): one string, separated by spaces.
    ScopeString,
    /// A text for people, not empty, with the most characters.
    Prose(usize),
    /// A list of strings, with the least entries.
    Texts(usize),
    /// A host name.
    Host,
    /// An audience.
    Audience,
    /// A list of different audiences, with the least and the most entries.
    Audiences(usize, usize),
    /// A list of different codes of warnings.
    WarningCodes,
    /// A mapping from scopes to texts for people, with the most characters.
    ScopeTexts(usize),
    /// A mapping.
    One(&'static Section),
    /// A list of mappings, with the least entries.
    List(&'static Section, usize),
    /// A mapping from audiences to mappings.
    Each(&'static Section),
    /// A list of lists of anything, with the least entries.
    Rows(usize),
}

impl ValueKind {
    /// The mapping behind it.
    #[must_use]
    pub const fn section(&self) -> Option<&'static Section> {
        match self {
            Self::One(section) | Self::List(section, _) | Self::Each(section) => Some(section),
            Self::ChoiceOrOne(_, section) => Some(section),
            _ => None,
        }
    }
}

/// The part of a key in what an audience means: covered by the digest, and compared for changes.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// Which change lets clients have more.
    pub effect: Effect,
    /// Reads the compiled value.
    pub read: Compiled,
}

/// Which change of a value lets clients have more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// A further entry.
    Gives,
    /// An entry less.
    Protects,
    /// A word that comes later here.
    Rises(&'static [&'static str]),
    /// Any other value: which one gives more depends on the rest.
    Any,
}

/// Reads the compiled value of a key.
#[derive(Clone, Copy, Debug)]
pub enum Compiled {
    /// A list of scopes.
    Scopes(fn(&AudiencePolicy) -> &ScopeList),
    /// A word.
    Word(fn(&AudiencePolicy) -> &'static str),
    /// A word for each source of clients.
    BySource(fn(&AudiencePolicy) -> UnknownRegistrations),
    /// A list of audiences.
    Aliases(fn(&AudiencePolicy) -> &[Alias]),
    /// The client rules.
    Rules(fn(&AudiencePolicy) -> &[ClientRule]),
}

/// `true` or `false`, as a word.
pub(crate) const fn flag(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}
