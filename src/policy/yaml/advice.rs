//! What to do about a text that is not YAML: looks at the line where the parser stopped, and around it.
//!
//! The parser says which rule is broken. Here is guessed what was written instead; where nothing is recognized, the
//! advice stays general.

use granit_parser::ErrorKind;

use super::narrow;
use crate::escape::shown;
use crate::policy::finding::Position;

/// What is said instead of the parser's words.
pub(super) struct Advice {
    /// Where the slip is, if that is not where the parser stopped.
    pub(super) position: Option<Position>,
    /// What is wrong, if there are better words for it.
    pub(super) message: Option<String>,
    /// What to do.
    pub(super) suggestion: String,
}

impl From<String> for Advice {
    fn from(suggestion: String) -> Self {
        Self { position: None, message: None, suggestion }
    }
}

/// What to do about an error at this place.
pub(super) fn advice(text: &str, kind: &ErrorKind, at: Position) -> Advice {
    if let Some(position) = conflict_marker(text) {
        return Advice {
            position: Some(position),
            message: Some("merge conflict marker".to_owned()),
            suggestion: "resolve the conflict: keep one side, and remove the lines that start with `<<<<<<<`, `=======` and `>>>>>>>`"
                .to_owned(),
        };
    }
    let place = Place::new(text, at);
    let known = match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => Some("indent with spaces".to_owned()),
        ErrorKind::UnexpectedCharacter { .. }
        | ErrorKind::MissingAnchorOrAliasName
        | ErrorKind::UnknownAnchor
        | ErrorKind::PlainScalarStartsWithDashFlowIndicator => place.quote(),
        ErrorKind::UnclosedFlowCollection { .. } => place.close_bracket(),
        ErrorKind::UnclosedQuotedScalar => Some("close the quote that starts here".to_owned()),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => place.colon(),
        ErrorKind::MappingValueNotAllowed => place.value_with_colon().or_else(|| place.colon_above()),
        ErrorKind::InvalidColonPlacement
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::ExpectedFlowMappingSeparator => place.open_bracket_above(),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => place.indentation(),
        _ => None,
    };
    known
        .unwrap_or_else(|| {
            "check indentation, quotes and brackets on this line and the one before it".to_owned()
        })
        .into()
}

/// The first line that a version control system left to be resolved.
fn conflict_marker(text: &str) -> Option<Position> {
    let (mut start, mut line) = (0, 1);
    for piece in text.split_inclusive('\n') {
        let is_marker = ["<<<<<<<", ">>>>>>>"].iter().any(|marker| {
            piece.strip_prefix(marker).is_some_and(|rest| rest.trim().is_empty() || rest.starts_with(' '))
        });
        if is_marker {
            let start = narrow(start);
            return Some(Position { line, column: 1, start, end: start + 7 });
        }
        start += piece.len();
        line += 1;
    }
    None
}

/// The line of an error, and what is before it.
struct Place<'t> {
    before: &'t str,
    line: &'t str,
    /// From the error on.
    behind: &'t str,
    number: u32,
}

impl<'t> Place<'t> {
    fn new(text: &'t str, at: Position) -> Self {
        let offset = at.start as usize;
        let start = text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = |from: usize| text.get(from..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        Self {
            before: text.get(..start).unwrap_or_default(),
            line: line(start),
            behind: line(offset),
            number: at.line,
        }
    }

    /// The line above that has content, with its number.
    fn above(&self) -> Option<(u32, &'t str)> {
        let mut number = self.number;
        self.before.lines().rev().find_map(|line| {
            number = number.saturating_sub(1);
            let content = line.trim();
            (!content.is_empty() && !content.starts_with('#')).then_some((number, line))
        })
    }

    /// A plain text may not start with every character.
    fn quote(&self) -> Option<String> {
        let word = self.behind.split([',', ']', '}', ' ', '\t']).next().filter(|word| !word.is_empty())?;
        let first = word.chars().next()?;
        Some(format!("quote a text that starts with `{}`: \"{}\"", shown(&first.to_string()), shown(word)))
    }

    fn close_bracket(&self) -> Option<String> {
        let open = self.behind.chars().next()?;
        let close = if open == '{' { '}' } else { ']' };
        Some(if self.behind.contains(" #") {
            format!("close the `{open}` with `{close}`; ` #` starts a comment, so quote a text that has it")
        } else {
            format!("close the `{open}` with `{close}`")
        })
    }

    /// A key without the colon behind it, or without the space behind the colon.
    fn colon(&self) -> Option<String> {
        let content = self.line.trim();
        let (key, value) = content.split_once(':').unwrap_or((content, ""));
        if content.is_empty() || key.contains([' ', '"', '\'']) {
            return None;
        }
        Some(if value.is_empty() || value.starts_with("//") {
            format!("put a colon behind `{}`", shown(content))
        } else {
            format!("put a space after the colon: `{}: {}`", shown(key), shown(value))
        })
    }

    /// The value of this line has a colon of its own.
    fn value_with_colon(&self) -> Option<String> {
        let content = self.line.trim_start().trim_start_matches("- ");
        let (key, value) = content.split_once(": ")?;
        let value = value.trim();
        let is_plain = !value.starts_with(['"', '\'', '[', '{', '|', '>']);
        (is_plain && (value.contains(": ") || value.ends_with(':')))
            .then(|| format!("quote a text with a colon in it: `{}: \"{}\"`", shown(key), shown(value)))
    }

    /// What is above is a key, and has no colon.
    fn colon_above(&self) -> Option<String> {
        let (number, line) = self.above()?;
        let content = line.trim();
        (!content.ends_with(':') && !content.contains(": "))
            .then(|| format!("put a colon behind `{}` on line {number}", shown(content)))
    }

    /// The nearest line, this one included, that opens more brackets than it closes.
    fn open_bracket_above(&self) -> Option<String> {
        let mut number = self.number;
        let lines = std::iter::once(self.line).chain(self.before.lines().rev().take(MAX_LINES));
        for line in lines {
            for (open, close) in [('[', ']'), ('{', '}')] {
                if line.matches(open).count() > line.matches(close).count() {
                    return Some(format!(
                        "separate entries with commas, and close the `{open}` on line {number} with `{close}`"
                    ));
                }
            }
            number = number.saturating_sub(1);
        }
        None
    }

    fn indentation(&self) -> Option<String> {
        let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let (own, (number, above)) = (spaces(self.line), self.above()?);
        let above = spaces(above);
        (own != above).then(|| {
            format!(
                "the keys of a mapping are indented alike: this line by {own} spaces, line {number} by {above}"
            )
        })
    }
}

/// How far above an error a bracket is looked for.
const MAX_LINES: usize = 1000;
