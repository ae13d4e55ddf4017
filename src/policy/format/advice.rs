//! What to do about a key in the wrong place or a value of the wrong shape, told from the table of the format.
//!
//! Only guesses: nothing is read in another way than it is written.

use super::{FileFormat, Key, Section, ValueKind};
use crate::escape::shown;
use crate::policy::finding::nearest;
use crate::policy::yaml::{Node, NodeKind, Schema};

/// What to do about a key that its mapping does not know.
#[derive(Debug)]
pub(super) struct KeyAdvice {
    pub(super) suggestion: String,
    /// The key of the same mapping that was meant; it is not missing then.
    pub(super) meant: Option<&'static str>,
    /// The key is at home in another mapping or file: what it would declare is unknown.
    pub(super) is_misplaced: bool,
}

/// What to do about a key of this name and value that `section` does not know.
pub(super) fn unknown_key(
    format: &FileFormat,
    section: &'static Section,
    name: &str,
    value: &Node<'_>,
) -> KeyAdvice {
    let misplaced = |suggestion| KeyAdvice { suggestion, meant: None, is_misplaced: true };
    let meant =
        |key: &'static str, suggestion| KeyAdvice { suggestion, meant: Some(key), is_misplaced: false };
    if name == MERGE {
        return KeyAdvice { suggestion: MERGE_ADVICE.to_owned(), meant: None, is_misplaced: false };
    }
    if std::ptr::eq(section, format.root)
        && let Some((_, text)) = format.elsewhere.iter().find(|(key, _)| *key == name)
    {
        return misplaced((*text).to_owned());
    }
    if name.starts_with("//") {
        let suggestion = "a comment starts with `#`".to_owned();
        return KeyAdvice { suggestion, meant: None, is_misplaced: true };
    }
    if let Some((key, rest)) = name.split_once(':')
        && let Some(key) = section.key(key.trim_matches(['"', '\'']))
    {
        let rest = if rest.is_empty() { "..." } else { rest };
        return meant(key.name, space_after_colon(key.name, rest));
    }
    if let Some(place) = place(format, section, name) {
        return misplaced(format!("`{}` belongs {place}", shown(name)));
    }
    if let Some(near) = nearest(name, section.names()) {
        return meant(key_name(section, near), format!("did you mean `{near}`?"));
    }
    let looks_like_entry = section.keys.iter().find(|key| match key.kind {
        ValueKind::Each(entry) => is_entry(value, entry),
        _ => false,
    });
    if let Some(key) = looks_like_entry {
        return misplaced(format!("`{}` belongs under `{}`: indent it more", shown(name), key.name));
    }
    let all = format.root.all();
    if let Some(near) = nearest(name, all.iter().flat_map(|section| section.names()))
        && let Some(place) = place(format, section, near)
    {
        return misplaced(format!("did you mean `{near}`? it belongs {place}"));
    }
    let lower = name.to_ascii_lowercase();
    let mut containing = section.names().filter(|key| key.to_ascii_lowercase().contains(&lower));
    if name.len() > 3
        && let (Some(only), None) = (containing.next(), containing.next())
    {
        return meant(only, format!("did you mean `{only}`?"));
    }
    let names: Vec<_> = section.names().collect();
    KeyAdvice { suggestion: format!("one of: {}", names.join(", ")), meant: None, is_misplaced: false }
}

fn key_name(section: &Section, name: &str) -> &'static str {
    section.key(name).map_or("", |key| key.name)
}

/// The key by which other formats of YAML copy a mapping into another one.
pub(super) const MERGE: &str = "<<";
pub(super) const MERGE_ADVICE: &str =
    "write the keys out; an alias may stand for one value, as in `scopesSupported: *scopes`";

/// What to do about a name in a mapping from names that is a key of the format.
pub(super) fn key_for_name(format: &FileFormat, key: &Key, name: &str, value: &Node<'_>) -> Option<String> {
    let ValueKind::Each(entry) = key.kind else { return None };
    let has = |name| matches!(&value.kind, NodeKind::Mapping(entries) if entries.iter().any(|(key, _)| key.text() == name));
    if entry.keys.iter().filter(|key| key.required).all(|key| has(key.name)) {
        return None;
    }
    let all = format.root.all();
    let own = all.iter().find(|section| section.keys.iter().any(|other| std::ptr::eq(other, key)))?;
    if own.key(name).is_some() {
        return Some(if std::ptr::eq(*own, format.root) {
            format!("`{name}` belongs at the top of the file, next to `{}`: indent it less", key.name)
        } else {
            format!("`{name}` belongs to `{}`, next to `{}`: indent it less", own.name, key.name)
        });
    }
    place(format, own, name).map(|place| format!("`{name}` belongs {place}: indent it more"))
}

/// Returns `true` for a mapping that has a key of this section.
fn is_entry(node: &Node<'_>, section: &Section) -> bool {
    let NodeKind::Mapping(entries) = &node.kind else { return false };
    entries.iter().any(|(key, _)| section.key(key.text()).is_some())
}

/// The sections from the top of the format to one of its sections, each with the key that leads to it.
type SectionPath = Vec<(Option<&'static Key>, &'static Section)>;

fn trails(format: &FileFormat) -> Vec<SectionPath> {
    fn walk(trail: &SectionPath, found: &mut Vec<SectionPath>) {
        let Some((_, section)) = trail.last() else { return };
        found.push(trail.clone());
        for key in section.keys {
            if let Some(inner) = key.kind.section()
                && trail.len() < MAX_LEVELS
            {
                let mut longer = trail.clone();
                longer.push((Some(key), inner));
                walk(&longer, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&vec![(None, format.root)], &mut found);
    found
}

/// More levels than any format has.
const MAX_LEVELS: usize = 10;

/// Where a key belongs that is in `section` and is known elsewhere in the format; the nearest places, if there are several.
fn place(format: &FileFormat, section: &'static Section, name: &str) -> Option<String> {
    let trails = trails(format);
    let is_own = |trail: &&SectionPath| trail.last().is_some_and(|(_, last)| std::ptr::eq(*last, section));
    let is_home = |trail: &&SectionPath| trail.last().is_some_and(|(_, last)| last.key(name).is_some());
    let mut nearest: Vec<String> = Vec::new();
    let mut distance = usize::MAX;
    for own in trails.iter().filter(is_own) {
        for home in trails.iter().filter(is_home) {
            let common = own.iter().zip(home).take_while(|(one, other)| std::ptr::eq(one.1, other.1)).count();
            let own_distance = own.len() + home.len() - 2 * common;
            if own_distance > distance {
                continue;
            }
            if own_distance < distance {
                nearest.clear();
                distance = own_distance;
            }
            let place = words(own, home, common);
            if !nearest.contains(&place) {
                nearest.push(place);
            }
        }
    }
    (!nearest.is_empty()).then(|| nearest.join(" or "))
}

fn words(own: &SectionPath, home: &SectionPath, common: usize) -> String {
    let below = home.get(common..).unwrap_or_default();
    if below.is_empty() {
        let next = own.get(common).and_then(|(key, _)| *key).map_or("", |key| key.name);
        return match home {
            home if home.len() == 1 => format!("at the top of the file, next to `{next}`"),
            home => format!("to `{}`, next to `{next}`", home.last().map_or("", |(_, section)| section.name)),
        };
    }
    let levels: Vec<String> = below
        .iter()
        .rev()
        .filter_map(|(key, section)| {
            let key = (*key)?;
            Some(match key.kind {
                ValueKind::Each(_) => format!("an {}", section.name),
                ValueKind::List(..) => format!("an entry of `{}`", key.name),
                _ => format!("`{}`", key.name),
            })
        })
        .collect();
    format!("under {}", levels.join(" of "))
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    Mapping(&'static Section),
    /// A mapping from names to mappings.
    Each(&'static Section),
    /// A mapping from scopes to texts.
    ScopeTexts,
    /// A list of strings.
    Strings,
    /// A list of mappings.
    Mappings(&'static Section),
    Rows,
    Cells,
    /// A string in a list.
    Entry,
    Text,
    ScopeString,
    Flag,
    Number(u32),
}

impl Expected {
    /// As in "needs a list of strings".
    pub(super) fn words(self) -> String {
        match self {
            Self::Mapping(_) | Self::Each(_) | Self::ScopeTexts => "a mapping".to_owned(),
            Self::Strings => "a list of strings".to_owned(),
            Self::Mappings(_) | Self::Rows => "a list".to_owned(),
            Self::Cells => "a list of cells".to_owned(),
            Self::Entry | Self::Text | Self::ScopeString => "a string".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(most) => format!("a whole number from 0 to {most}"),
        }
    }
}

/// What to do about a value of the wrong shape under `name`.
pub(super) fn wrong_type(node: &Node<'_>, name: &str, expected: Expected) -> String {
    let special = match &node.kind {
        NodeKind::Scalar { schema: Schema::Null, text } => nothing(text, expected),
        NodeKind::Scalar { text, schema } => scalar(text, *schema, name, expected),
        NodeKind::Sequence(entries) => sequence(entries, expected),
        NodeKind::Mapping(entries) => mapping(entries, expected),
    };
    special.unwrap_or_else(|| format!("write {}", expected.words()))
}

fn nothing(text: &str, expected: Expected) -> Option<String> {
    Some(match expected {
        Expected::Entry | Expected::Text | Expected::ScopeString if !text.is_empty() => {
            format!("quote it: \"{}\"", shown(text))
        }
        Expected::Entry => "write a string, or leave the entry out".to_owned(),
        Expected::Mapping(section) => {
            let required: Vec<_> =
                section.keys.iter().filter(|key| key.required).map(|key| format!("`{}`", key.name)).collect();
            if required.is_empty() {
                format!("write {}, or leave the key out", expected.words())
            } else {
                format!("write its keys below it, indented more: {} at least", required.join(" and "))
            }
        }
        _ => format!("write {}, or leave the key out", expected.words()),
    })
}

fn scalar(text: &str, schema: Schema, name: &str, expected: Expected) -> Option<String> {
    match expected {
        Expected::Entry | Expected::Text | Expected::ScopeString => {
            Some(format!("quote it: \"{}\"", shown(text)))
        }
        Expected::Mapping(section) => {
            if let Some((key, value)) = text.split_once(':')
                && let Some(key) = section.key(key)
                && !value.is_empty()
            {
                return Some(space_after_colon(key.name, value));
            }
            let mut keys = section.keys.iter().filter_map(|key| {
                let ValueKind::Choice(words) = key.kind else { return None };
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(text))?;
                Some((key.name, *word))
            });
            match (keys.next(), keys.next()) {
                (Some((key, word)), None) => Some(format!("write `{name}: {{{key}: {word}}}`")),
                _ => {
                    let keys: Vec<_> = section.names().take(3).map(|key| format!("`{key}`")).collect();
                    Some(format!("write a mapping with keys such as {}", keys.join(", ")))
                }
            }
        }
        Expected::Strings | Expected::Mappings(Section { rule: super::MappingRule::OrText, .. }) => {
            let words: Vec<&str> =
                text.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty()).collect();
            let bare: Option<Vec<&str>> = words.iter().map(|word| word.strip_prefix('-')).collect();
            if let Some(bare) = bare.filter(|bare| !bare.is_empty()) {
                let list = list(bare.into_iter());
                return Some(format!("put a space after the dash of each entry, or write a list: {list}"));
            }
            let is_list = !words.is_empty() && words.len() <= MOST_WORDS && !text.contains(['[', '"']);
            is_list.then(|| format!("write a list: {}", list(words.into_iter())))
        }
        Expected::Flag => {
            let word = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" | "1" => "true",
                "no" | "off" | "n" | "false" | "0" => "false",
                _ => return None,
            };
            Some(format!("write `{word}`, without quotes"))
        }
        Expected::Number(_) if schema == Schema::String && text.parse::<u32>().is_ok() => {
            Some(format!("write `{text}`, without quotes"))
        }
        Expected::ScopeTexts => {
            Some("write a mapping: each scope as a key, its text as the value".to_owned())
        }
        _ => None,
    }
}

fn sequence(entries: &[Node<'_>], expected: Expected) -> Option<String> {
    let texts = || -> Option<Vec<&str>> {
        let texts = entries.iter().map(|entry| match &entry.kind {
            NodeKind::Scalar { text, .. } if !text.is_empty() => Some(&**text),
            _ => None,
        });
        texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty() && texts.len() <= MOST_WORDS)
    };
    match expected {
        Expected::Mapping(section) => {
            // A list of what belongs into a list of this mapping.
            let inner = section.keys.iter().find(|key| match key.kind {
                ValueKind::List(inner, _) => entries.iter().any(|entry| is_entry(entry, inner)),
                _ => false,
            });
            Some(match inner {
                Some(key) => format!("write the list under `{}:`", key.name),
                None => "write the keys without `- ` in front of them".to_owned(),
            })
        }
        Expected::Each(section) => {
            Some(format!("write each {} as a key, without `- ` in front of it", section.name))
        }
        Expected::ScopeTexts => {
            Some("write a mapping: each scope as a key, its text as the value".to_owned())
        }
        Expected::Entry => Some("write one list, without a list inside".to_owned()),
        Expected::ScopeString => texts()
            .map(|texts| format!("write one string, separated by spaces: \"{}\"", shown(&texts.join(" ")))),
        Expected::Text => match texts()?.as_slice() {
            [only] => Some(format!("write it without brackets: {}", word(only))),
            _ => None,
        },
        _ => None,
    }
}

fn mapping(entries: &[(Node<'_>, Node<'_>)], expected: Expected) -> Option<String> {
    // As written, but for the space after the colon.
    let joined = |(key, value): &(Node<'_>, Node<'_>)| -> Option<String> {
        let is_scalar = |node: &Node<'_>| matches!(node.kind, NodeKind::Scalar { .. });
        (is_scalar(key) && is_scalar(value)).then(|| match value.text() {
            "" => key.text().to_owned(),
            text => format!("{}:{text}", key.text()),
        })
    };
    match expected {
        Expected::Entry | Expected::Text | Expected::ScopeString => match entries {
            [only] => {
                let text = joined(only)?;
                Some(if only.1.text().is_empty() {
                    format!("write `{}` without the colon", shown(&text))
                } else {
                    format!("write `{}` without a space after the colon, or quote the text", shown(&text))
                })
            }
            _ => None,
        },
        Expected::Strings => {
            let words = entries.iter().map(joined).collect::<Option<Vec<_>>>()?;
            let is_list = !words.is_empty() && words.len() <= MOST_WORDS;
            is_list.then(|| format!("write a list: {}", list(words.iter().map(String::as_str))))
        }
        Expected::Mappings(section) => {
            let first = section.keys.first()?.name;
            Some(format!("write a list: start each entry with `- {first}: ...`"))
        }
        _ => None,
    }
}

fn space_after_colon(key: &str, value: &str) -> String {
    format!("put a space after the colon: `{key}: {}`", shown(value))
}

/// As a list on one line.
fn list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.map(word).collect();
    format!("[{}]", words.join(", "))
}

/// A text as it is written in a list on one line.
fn word(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.ends_with(':')
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "_-./:+".contains(character));
    if is_plain { text.to_owned() } else { format!("\"{}\"", shown(text)) }
}

/// Most entries of a list that is written out.
const MOST_WORDS: usize = 20;
