//! Findings for people: the source line, a caret under the offence, what would be right.
//!
//! Files are text of others: nothing of them reaches a terminal before it is made harmless, and of
//! an endless line only the part around the offence is shown.

use std::collections::HashSet;
use std::fmt::Write;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::output::{bad, dim, good, notable};
use crate::escape::{clean, stand_in};
use crate::policy::finding::{Finding, Findings, Position, Severity};
use crate::store::read::SourceFile;

/// Shows each finding with its excerpt from `files` (sorted by path), and sums up at the end.
pub(super) fn findings(findings: &Findings, files: &[SourceFile]) -> String {
    let renderer = Renderer::styled();
    let mut report = String::new();
    for finding in findings {
        let file = files.binary_search_by(|file| file.path.cmp(&finding.file)).ok();
        let file = file.and_then(|at| files.get(at)).filter(|file| !file.is_outside);
        let text = file.map(SourceFile::text);
        report.push_str(&renderer.render(&groups(finding, text)));
        report.push_str("\n\n");
    }
    // Each code has a page that says more than fits here.
    let mut codes: Vec<&str> = findings.iter().map(|finding| finding.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    for code in codes {
        // Writing to a String does not fail.
        _ = writeln!(report, "{}", dim(&format!("see `scopeward help {code}`")));
    }
    report.push_str(&summary(findings));
    report.push('\n');
    report
}

fn groups<'f>(finding: &'f Finding, text: Option<&str>) -> Vec<Group<'f>> {
    let level = match finding.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(clean(&finding.message)).id(finding.code.as_str());
    let path = clean(&finding.file);
    let Position { line, column, .. } = finding.position;
    let (line, column) = (line as usize, column as usize);
    let group = match text {
        _ if line == 0 => title.element(Origin::path(path)),
        None => title.element(Origin::path(path).line(line).char_column(column)),
        Some(text) => {
            let Excerpt { source, span } = excerpt(text, &finding.position);
            let shown_column = source.get(..span.start).unwrap_or_default().chars().count() + 1;
            let snippet = Snippet::source(source).line_start(line);
            let snippet = snippet.annotation(AnnotationKind::Primary.span(span));
            if shown_column == column {
                title.element(snippet.path(path))
            } else {
                // The line is cut at its start, so the renderer cannot know the column.
                title.element(Origin::path(path).line(line).char_column(column)).element(snippet)
            }
        }
    };
    let mut groups = vec![group];
    if !finding.suggestion.is_empty() {
        groups.push(Group::with_title(Level::HELP.secondary_title(clean(&finding.suggestion))));
    }
    groups
}

/// One line, such as `error: 2 errors and 1 warning in 2 files`.
fn summary(findings: &Findings) -> String {
    let errors = findings.error_count();
    let warnings = findings.count() - errors;
    let files = findings.iter().map(|finding| &finding.file).collect::<HashSet<_>>().len();
    let mut text = match errors {
        0 => format!("{}: ", notable("warning")),
        _ => format!("{}: {}", bad("error"), counted(errors, "error")),
    };
    if errors > 0 && warnings > 0 {
        text.push_str(" and ");
    }
    if warnings > 0 {
        text.push_str(&counted(warnings, "warning"));
    }
    // Writing to a String does not fail.
    _ = write!(text, " in {}", counted(files, "file"));
    if !findings.is_complete() {
        _ = write!(text, "; the first {} are listed", findings.len());
    }
    text
}

/// The line that says that a set is valid.
pub(super) fn valid(files: usize, audiences: usize, digest: &str) -> String {
    format!("{}: {} in {}, {digest}\n", good("valid"), counted(audiences, "audience"), counted(files, "file"))
}

/// A number with its word in the singular or the plural.
pub(super) fn counted(count: usize, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    }
}

/// Part of one line, harmless, and what to underline in it.
#[derive(Debug, Eq, PartialEq)]
struct Excerpt {
    source: String,
    span: Range<usize>,
}

/// Cuts the line of a position out of a file. Of what lies over several lines only the first is underlined.
fn excerpt(text: &str, position: &Position) -> Excerpt {
    let start = boundary(text, position.start as usize);
    let from = boundary(text, start.saturating_sub(MOST_BEFORE));
    let to = boundary(text, start.saturating_add(MOST_BEHIND));
    let before = text.get(from..start).unwrap_or_default();
    let behind = text.get(start..to).unwrap_or_default();
    let mut source = String::new();
    // YAML ends a line with CR LF, LF or CR (YAML 1.2.2 section 5.4).
    let before = match before.rfind(['\n', '\r']) {
        Some(at) => before.get(at + 1..).unwrap_or_default(),
        None => {
            if from > 0 {
                source.push_str(CUT);
            }
            before
        }
    };
    let line_end = behind.find(['\n', '\r']);
    let is_cut = line_end.is_none() && to < text.len();
    let behind = behind.get(..line_end.unwrap_or(behind.len())).unwrap_or_default();
    let length = (position.end.saturating_sub(position.start) as usize).min(behind.len());
    let (inside, behind) = behind.split_at(boundary(behind, length));

    let push = |source: &mut String, part: &str| source.extend(part.chars().map(kept));
    push(&mut source, before.trim_start_matches('\u{feff}'));
    let span_start = source.len();
    push(&mut source, inside);
    let span = span_start..source.len();
    push(&mut source, behind);
    if is_cut {
        source.push_str(CUT);
    }
    Excerpt { source, span }
}

/// The last place up to `at` where the text may be cut.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Tabs are left to the renderer, which knows how wide it draws them.
fn kept(character: char) -> char {
    match character {
        '\t' => '\t',
        other => stand_in(other),
    }
}

/// How many bytes of a line are shown before the offence.
const MOST_BEFORE: usize = 160;
/// How many bytes of a line are shown from the start of the offence on.
const MOST_BEHIND: usize = 160;
const CUT: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, start: usize, end: usize, source: &str, underlined: &str) {
        let position = Position { line: 1, column: 1, start: start as u32, end: end as u32 };
        let made = excerpt(text, &position);
        assert_eq!((&*made.source, &made.source[made.span.clone()]), (source, underlined));
    }

    #[test]
    fn the_line_of_the_offence_is_cut_out() {
        check("a: b\nc: d\ne: f\n", 8, 9, "c: d", "d");
        check("a: b\r\nc: d\r\n", 9, 10, "c: d", "d");
        check("a: b", 3, 4, "a: b", "b");
        check("a: {b:\n c}\n", 3, 10, "a: {b:", "{b:");
        check("a:\n", 2, 2, "a:", "");
        check("", 0, 0, "", "");
        check("\u{feff}a: b", 6, 7, "a: b", "b");
    }

    #[test]
    fn places_outside_of_the_text_do_no_harm() {
        check("é", 1, 9, "é", "é");
        check("a", 70, 90, "a", "");
    }

    #[test]
    fn of_an_endless_line_only_the_surroundings_are_shown() {
        let text = format!("{}X{}", "a".repeat(1000), "b".repeat(1000));
        let source = format!("...{}X{}...", "a".repeat(160), "b".repeat(159));
        check(&text, 1000, 1001, &source, "X");
    }

    #[test]
    fn control_characters_are_shown_as_pictures() {
        check("a: \u{1b}[31m\u{9b}x\0", 3, 11, "a: ␛[31m\u{fffd}x␀", "␛[31m\u{fffd}x");
    }
}
