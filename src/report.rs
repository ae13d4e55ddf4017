//! Findings and test results in the formats of other tools: workflow annotations, SARIF, JUnit.
//!
//! Each is one pure function from data to text. What is shown to people on a terminal is elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::finding::Position;

pub mod github;
pub mod junit;
pub mod sarif;

/// The text of each file by its name in findings; a file that is not there has no end positions.
pub type Texts = HashMap<Arc<str>, Arc<str>>;

/// The end of what a finding underlines: 1-based line, and 1-based column in characters behind the
/// last one. `None` if nothing is underlined or the text is not known.
fn end(position: &Position, text: Option<&str>) -> Option<(u32, u32)> {
    if position.line == 0 || position.end <= position.start {
        return None;
    }
    let inside = text?.get(position.start as usize..position.end as usize)?.trim_end();
    let characters = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    match inside.rsplit_once('\n') {
        None => Some((position.line, position.column.saturating_add(characters(inside)))),
        Some((before, last)) => {
            let breaks = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX).saturating_add(1);
            Some((position.line.saturating_add(breaks), characters(last).saturating_add(1)))
        }
    }
}

#[cfg(test)]
mod sample {
    use super::*;
    use crate::policy::check::check;
    use crate::policy::document::Document;
    use crate::policy::finding::Finding;

    pub(super) const FILE: &str = "policies/mcp, 100% é.yaml";
    pub(super) const TEXT: &str = "audiences:\n  api:\n    scopesSupported: [openid]\n    \
                                   baselineClientScopes: [offline_access]\n    color: \"re\\nd\"\n";

    /// Two errors in a file with an awkward name, one about the set, one warning.
    pub(super) fn findings() -> (Vec<Finding>, Texts) {
        let file: Arc<str> = FILE.into();
        let documents = [Document::read(&file, TEXT), Document::read(&"policies/empty.yaml".into(), "")];
        let mut findings = check(&"policies".into(), &documents).unwrap_err();
        let nothing = [Document::read(&"policies/empty.yaml".into(), "")];
        let about_the_set = check(&"policies".into(), &nothing).unwrap_err();
        findings.extend(about_the_set.into_iter().filter(Finding::is_error));
        (findings.into_vec(), HashMap::from([(file, TEXT.into())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_in_characters_and_lines() {
        #[track_caller]
        fn check(text: &str, start: u32, end: u32, line: u32, column: u32, expected: Option<(u32, u32)>) {
            assert_eq!(super::end(&Position { line, column, start, end }, Some(text)), expected);
        }
        check("a: bcd\n", 3, 6, 1, 4, Some((1, 7)));
        check("é: éé\n", 4, 8, 1, 4, Some((1, 6)));
        check("a: {b: c,\n d: e}\n", 3, 16, 1, 4, Some((2, 7)));
        check("a: b\n", 3, 3, 1, 4, None);
        check("a: b\n", 0, 4, 0, 0, None);
        check("é", 1, 2, 1, 1, None);
        check("a", 70, 80, 1, 1, None);
        assert_eq!(super::end(&Position { line: 1, column: 1, start: 0, end: 1 }, None), None);
    }
}
