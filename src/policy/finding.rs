//! Findings: what is wrong (or doubtful) in policy files, with what would be right.
//!
//! A finding has a stable code, a position, the offending value, a message and a suggestion. It knows
//! nothing about how it is printed.

use std::fmt;
use std::sync::Arc;

use crate::audience::MAX_AUDIENCE_BYTES;
use crate::escape::shown;

mod nearest;

pub use nearest::{nearest, nearest_few};

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// 1-based line; 0 if the finding is about the file as a whole.
    pub line: u32,
    /// 1-based column in characters; 0 if the finding is about the file as a whole.
    pub column: u32,
    /// 0-based offset of the first byte.
    pub start: u32,
    /// 0-based offset behind the last byte; equal to `start` if there is nothing to underline.
    pub end: u32,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The policy set is not valid.
    Error,
    /// The policy set is valid; the author should look at it.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem in one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What kind of problem; decides the severity.
    pub code: Code,
    /// Path of the file as it was named or found; the directory for a finding about the whole set.
    pub file: Arc<str>,
    /// Where in the file.
    pub position: Position,
    /// The audience it belongs to, as spelled in the policy; empty if none. One over
    /// [`MAX_AUDIENCE_BYTES`] is cut and ends in `...`.
    pub audience: String,
    /// The offending text as written, at most [`MAX_VALUE_BYTES`]; may be empty.
    pub value: String,
    /// What is wrong: one sentence without a full stop, the user's text in backticks.
    pub message: String,
    /// What would be right; empty if nothing is known.
    pub suggestion: String,
}

/// Most findings that are kept of one attempt to read a policy; the rest is counted.
pub const MAX_FINDINGS: usize = 1000;

/// What was found, within bounds: at most [`MAX_FINDINGS`] are kept, errors before warnings, and all are counted.
///
/// Reads like a slice of what is kept, in the order in which it was pushed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Findings {
    kept: Vec<Finding>,
    kept_warnings: u32,
    errors: usize,
    warnings: usize,
    /// How many are kept.
    room: u32,
}

impl Default for Findings {
    fn default() -> Self {
        Self::new()
    }
}

impl Findings {
    /// No findings.
    #[must_use]
    pub const fn new() -> Self {
        Self { kept: Vec::new(), kept_warnings: 0, errors: 0, warnings: 0, room: MAX_FINDINGS as u32 }
    }

    /// No findings; those that are pushed are counted alone.
    #[must_use]
    pub const fn counted() -> Self {
        Self { kept: Vec::new(), kept_warnings: 0, errors: 0, warnings: 0, room: 0 }
    }

    /// Counts a finding, and keeps it if there is room. An error takes the place of the newest warning.
    pub fn push(&mut self, finding: Finding) {
        self.push_with(finding.code, || finding);
    }

    /// Like [`Findings::push`], for a finding that is only made if it is kept.
    pub fn push_with(&mut self, code: Code, make: impl FnOnce() -> Finding) {
        match code.severity() {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        self.keep(code.severity(), make);
    }

    fn keep(&mut self, severity: Severity, make: impl FnOnce() -> Finding) {
        if self.kept.len() >= self.room as usize {
            if severity == Severity::Warning || self.kept_warnings == 0 {
                return;
            }
            if let Some(at) = self.kept.iter().rposition(|kept| !kept.is_error()) {
                self.kept.remove(at);
                self.kept_warnings -= 1;
            }
        }
        self.kept_warnings += u32::from(severity == Severity::Warning);
        self.kept.push(make());
    }

    /// Removes what is kept of these warnings, as if it had never been pushed.
    pub fn accept(&mut self, accepted: AcceptedWarnings) {
        let before = self.kept.len();
        self.kept.retain(|finding| !accepted.contains(finding.code));
        let removed = before - self.kept.len();
        self.count_kept_warnings();
        self.warnings -= removed;
    }

    /// Adds what others found: what is kept of it as far as there is room, and its counts.
    pub fn append(&mut self, others: &Self) {
        self.errors += others.errors;
        self.warnings += others.warnings;
        for finding in &others.kept {
            self.keep(finding.severity(), || finding.clone());
        }
    }

    /// How many findings there are, kept or not.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.errors + self.warnings
    }

    /// How many of them are errors.
    #[must_use]
    pub const fn error_count(&self) -> usize {
        self.errors
    }

    /// Returns `true` if every finding is kept.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kept.len() == self.count()
    }

    /// The first error that is kept; there is one if there are errors.
    #[must_use]
    pub fn first_error(&self) -> Option<&Finding> {
        self.kept.iter().find(|finding| finding.is_error())
    }

    /// Sorts what is kept by a key; equal ones stay in their order.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&Finding) -> K) {
        self.kept.sort_by_key(key);
    }

    /// Sorts what is kept by file and position.
    pub fn sort(&mut self) {
        self.kept.sort_by(|one, other| (&one.file, one.position).cmp(&(&other.file, other.position)));
    }

    /// Keeps at most so many errors and warnings, the first ones; the counts stay.
    pub fn keep_at_most(&mut self, errors: usize, warnings: usize) {
        let mut left = (errors, warnings);
        self.kept.retain(|finding| {
            let left = if finding.is_error() { &mut left.0 } else { &mut left.1 };
            let stays = *left > 0;
            *left = left.saturating_sub(1);
            stays
        });
        self.kept.shrink_to_fit();
        self.count_kept_warnings();
    }

    fn count_kept_warnings(&mut self) {
        self.kept_warnings = self.kept.iter().map(|finding| u32::from(!finding.is_error())).sum();
    }

    /// Changes what is kept, one by one; the code must stay, since it is counted.
    pub(crate) fn update(&mut self, change: impl FnMut(&mut Finding)) {
        self.kept.iter_mut().for_each(change);
    }

    /// What is kept.
    #[must_use]
    pub fn into_vec(self) -> Vec<Finding> {
        self.kept
    }
}

impl std::ops::Deref for Findings {
    type Target = [Finding];

    fn deref(&self) -> &[Finding] {
        &self.kept
    }
}

impl Extend<Finding> for Findings {
    fn extend<I: IntoIterator<Item = Finding>>(&mut self, findings: I) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }
}

impl FromIterator<Finding> for Findings {
    fn from_iter<I: IntoIterator<Item = Finding>>(findings: I) -> Self {
        let mut all = Self::new();
        all.extend(findings);
        all
    }
}

impl From<Vec<Finding>> for Findings {
    fn from(findings: Vec<Finding>) -> Self {
        findings.into_iter().collect()
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl<'f> IntoIterator for &'f Findings {
    type Item = &'f Finding;
    type IntoIter = std::slice::Iter<'f, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

/// Codes of warnings that somebody has looked at and accepts: findings with them are neither listed nor counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AcceptedWarnings(u128);

const _: () = assert!(Code::ALL.len() <= u128::BITS as usize, "each code has a bit");

impl AcceptedWarnings {
    /// No warnings.
    pub const NONE: Self = Self(0);

    /// Returns `true` if findings with this code are accepted; an error never is.
    #[must_use]
    pub const fn contains(self, code: Code) -> bool {
        self.0 & Self::bit(code) != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    const fn bit(code: Code) -> u128 {
        match code.severity() {
            Severity::Warning => 1 << code as u32,
            Severity::Error => 0,
        }
    }
}

impl FromIterator<Code> for AcceptedWarnings {
    /// Those among the codes that are warnings.
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(codes.into_iter().fold(0, |bits, code| bits | Self::bit(code)))
    }
}

/// Longest `value` of a finding in bytes; what is longer is cut and ends in `...`.
pub const MAX_VALUE_BYTES: usize = 256;

impl Finding {
    /// The severity of its code.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Returns `true` if it makes the set invalid.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity() == Severity::Error
    }
}

impl fmt::Display for Finding {
    /// `file:line:column: message (Code)`, on one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", shown(&self.file))?;
        if self.position.line > 0 {
            write!(formatter, ":{}:{}", self.position.line, self.position.column)?;
        }
        write!(formatter, ": {} ({})", self.message, self.code.as_str())
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident: $severity:ident,)+) => {
        /// The stable code of a finding: CamelCase, as in the reasons of Kubernetes conditions.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as it is printed.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The code of this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }

            /// The codes of warnings, in the order of the reference.
            pub fn warnings() -> impl Iterator<Item = Self> + Clone {
                Self::ALL.iter().copied().filter(|code| code.severity() == Severity::Warning)
            }

            /// Reads the code of a warning.
            ///
            /// # Errors
            /// What to write instead, if it is not one.
            pub fn warning(name: &str) -> Result<Self, String> {
                match Self::parse(name) {
                    Some(code) if code.severity() == Severity::Warning => Ok(code),
                    Some(_) => Err("an error cannot be accepted, only a warning can".to_owned()),
                    None => Err(match nearest(name, Self::warnings().map(Self::as_str)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "a code of a warning, as findings have it in parentheses or brackets".to_owned(),
                    }),
                }
            }

            /// The page about it, from the root of the repository.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("docs/reference/findings/", stringify!($name), ".md"),)+
                }
            }

            /// The text of that page; Markdown.
            #[must_use]
            pub const fn page_text(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/docs/reference/findings/", stringify!($name), ".md"
                    )),)+
                }
            }

            /// The severity, fixed for each code.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// What the code means, in a sentence or two.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc, "\n",)+),)+ }
            }
        }
    };
}

codes! {
    /// A file or folder of the policy cannot be read.
    FileUnreadable: Error,
    /// A file or the whole set is over a size limit.
    FileTooLarge: Error,
    /// A file is not UTF-8 text.
    FileNotUtf8: Error,
    /// Something with the name of a policy file is not a regular file.
    FileNotRegular: Error,
    /// A file whose size is not the number of its bytes, such as those of `/proc`.
    FileSizeMismatch: Error,
    /// A symbolic link leads out of the policy directory.
    LinkLeadsOutside: Error,
    /// A symbolic link leads back into a folder that contains it.
    DirectoryLoop: Error,
    /// The text is not YAML.
    YamlSyntax: Error,
    /// The YAML is nested too deeply.
    YamlTooDeep: Error,
    /// The YAML has too many nodes, aliases counted as what they stand for.
    YamlTooLarge: Error,
    /// A YAML tag, which policies do not use.
    YamlTag: Error,
    /// A second YAML document in one file.
    MultipleDocuments: Error,
    /// A key that the policy format does not know.
    UnknownKey: Error,
    /// A duplicate key in a mapping.
    DuplicateKey: Error,
    /// A value of the wrong type, such as a number where a string belongs.
    WrongType: Error,
    /// A value outside the fixed set of a key.
    UnknownValue: Error,
    /// A required key that is not there.
    MissingKey: Error,
    /// A value that must not be empty.
    EmptyValue: Error,
    /// A value that is over a limit.
    ValueTooLarge: Error,
    /// A scope that is not a token of RFC 6749 section 3.3.
    ScopeMalformed: Error,
    /// A duplicate entry in a list.
    DuplicateEntry: Error,
    /// A baseline scope (of the audience or of a client rule) that the audience does not support.
    BaselineScopeNotSupported: Error,
    /// A baseline scope (of the audience or of a client rule) that is privileged.
    BaselineScopePrivileged: Error,
    /// A baseline scope (of the audience or of a client rule) that is forbidden.
    BaselineScopeForbidden: Error,
    /// A baseline list (of the audience or of a client rule) over the size limit.
    TooManyBaselineScopes: Error,
    /// A baseline scope with a `*` segment under `wildcard` matching.
    BaselineScopeWildcard: Error,
    /// A default scope that the audience does not support.
    DefaultScopeNotSupported: Error,
    /// A default scope that is privileged.
    DefaultScopePrivileged: Error,
    /// A default scope that is forbidden.
    DefaultScopeForbidden: Error,
    /// A default scope with a `*` segment under `wildcard` matching.
    DefaultScopeWildcard: Error,
    /// A step-up scope that the audience does not support.
    StepUpScopeNotSupported: Error,
    /// A step-up scope that is forbidden.
    StepUpScopeForbidden: Error,
    /// A scope in `alwaysGrantScopes` that the audience does not support.
    AlwaysGrantScopeNotSupported: Error,
    /// A scope in `alwaysGrantScopes` that is privileged.
    AlwaysGrantScopePrivileged: Error,
    /// A scope in `alwaysGrantScopes` that is forbidden.
    AlwaysGrantScopeForbidden: Error,
    /// A scope in `alwaysGrantScopes` that is a step-up scope.
    AlwaysGrantScopeStepUp: Error,
    /// A scope in `alwaysGrantScopes` with a `*` segment under `wildcard` matching.
    AlwaysGrantScopeWildcard: Error,
    /// A scope in `scopeDescriptions` that the audience does not support.
    DescribedScopeNotSupported: Error,
    /// A text that is not a valid audience.
    AudienceMalformed: Error,
    /// An audience or alias that means another audience of the set already.
    DuplicateAudience: Error,
    /// An alias that is its own audience, or means the same as another of its aliases.
    RedundantAlias: Error,
    /// `ignoreQuery` of an audience that is not of the form `scheme://host`.
    IgnoreQueryWithoutUrl: Error,
    /// A policy set that declares no audience.
    NoAudience: Error,
    /// A `defaultAudience` that no file declares.
    DefaultAudienceNotDeclared: Error,
    /// A `defaultAudience` that is set in more than one file.
    DuplicateDefaultAudience: Error,
    /// An audience in `registrationAudiences` that no file declares.
    RegistrationAudienceNotDeclared: Error,
    /// `registrationAudiences` in more than one file.
    DuplicateRegistrationAudiences: Error,
    /// Guardrails in more than one file.
    DuplicateGuardrails: Error,
    /// A duplicate name of a client rule in one audience.
    DuplicateRuleName: Error,
    /// A `clientIdHost` that is not a bare host name.
    HostMalformed: Error,
    /// An audience in a test file that the policy does not declare.
    TestAudienceNotDeclared: Error,
    /// A duplicate name of a test case in one file.
    DuplicateTestName: Error,
    /// An expectation of a test case that no answer can meet.
    ImpossibleExpectation: Error,
    /// An access file by which nobody may call anything.
    NobodyMayCall: Error,
    /// A caller's name that is not printable ASCII.
    CallerNameMalformed: Error,
    /// A duplicate name of a caller in an access file.
    DuplicateCallerName: Error,
    /// A SPIFFE ID, a DNS name or a token hash of a caller that is not valid.
    CallerMatchMalformed: Error,
    /// The same match twice in an access file.
    DuplicateCallerMatch: Error,
    /// A file without any content.
    EmptyFile: Warning,
    /// An audience where a request without a scope would be denied.
    OmittedScopeDenied: Warning,
    /// A scope in a baseline that reads like a privilege, such as `admin`, `mcp:write` or `sudo`.
    BaselineScopeLooksPrivileged: Warning,
    /// A default scope that reads like a privilege.
    DefaultScopeLooksPrivileged: Warning,
    /// A step-up scope that reads like the privilege of an administrator, and is not listed as privileged.
    StepUpScopeLooksPrivileged: Warning,
    /// Clients whose registration is unknown may get any supported scope, and some of those are privileged.
    UnknownRegistrationPrivileged: Warning,
    /// A privileged or forbidden scope (of an audience or of the guardrails) that matches no supported scope.
    UnusedProtection: Warning,
    /// A `*` that is plain text under `wildcard` matching, since it is not a whole segment.
    LiteralWildcard: Warning,
    /// An audience whose supported scopes have no ceiling, since one of them matches whatever is asked for.
    SupportsEveryScope: Warning,
    /// `offline_access` in the baseline of an audience without a client rule on the refresh grant.
    OfflineAccessForEveryClient: Warning,
    /// A baseline scope without effect: every client has the scope without it.
    RedundantBaselineScope: Warning,
    /// Requests that name no audience are denied: there are several audiences, and none of them is the default.
    NoDefaultAudience: Warning,
    /// Registrations that name no audience are denied: there are too many audiences to mean all of them.
    RegistrationNeedsAudience: Warning,
    /// An audience or alias that no request is likely to name, such as `https:/mcp.example.com`.
    AudienceUnlikely: Warning,
    /// An audience that differs from another one only by a last `/`, by upper and lower case, or by `http`.
    NearTwinAudience: Warning,
    /// A condition of a client rule on a value that clients do not send, such as a misspelt grant type.
    ConditionUnlikely: Warning,
    /// A file that is not read as part of the policy, although it looks as if it was meant to be.
    FileNotRead: Warning,
    /// A client rule that can never add a scope.
    UnusedClientRule: Warning,
    /// A `nothingLeft: default` that never decides anything: no scope is dropped, or an omitted scope is denied as well.
    UnusedNothingLeft: Warning,
    /// An access file by which no caller may ask for decisions.
    NobodyMayDecide: Warning,
    /// A caller that nobody can be, or that may do nothing.
    UselessCaller: Warning,
    /// An audience of a caller that no policy file declares.
    AccessAudienceNotDeclared: Warning,
}

/// Cuts a text to [`MAX_VALUE_BYTES`] for the `value` of a finding.
pub(crate) fn value(text: &str) -> String {
    cut(text, MAX_VALUE_BYTES)
}

/// Cuts an audience that is too long to be one, for the `audience` of a finding: a file may have many
/// findings about it. One that may be valid stays whole, since others look it up.
pub(crate) fn audience(text: &str) -> String {
    cut(text, MAX_AUDIENCE_BYTES)
}

fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", text.get(..end).unwrap_or_default())
}

/// A text with plain characters in the place of those that word processors put there (quotes, dashes, spaces that
/// do not break or have no width), and the first of them as it is; `None` if there is none.
pub(crate) fn typographic(text: &str) -> Option<(String, char)> {
    let is_quote = |character: char| matches!(character, '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}');
    let is_dash = |character: char| matches!(character, '\u{2010}'..='\u{2015}' | '\u{2212}');
    let is_space = |character: char| {
        character != ' '
            && (character.is_whitespace() || matches!(character, '\u{200b}'..='\u{200d}' | '\u{feff}'))
    };
    let first =
        text.chars().find(|one| !one.is_ascii() && (is_quote(*one) || is_dash(*one) || is_space(*one)))?;
    let bare = text.trim_matches(|character| is_quote(character) || is_space(character));
    let plain = bare.chars().filter(|one| !is_space(*one)).map(|one| if is_dash(one) { '-' } else { one });
    Some((plain.collect(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(code: Code, line: u32) -> Finding {
        let position = Position { line, ..Position::default() };
        let file = "a.yaml".into();
        let (audience, value) = (String::new(), String::new());
        Finding { code, file, position, audience, value, message: String::new(), suggestion: String::new() }
    }

    #[test]
    fn all_findings_are_counted_and_the_first_are_kept_errors_before_warnings() {
        let mut findings = Findings::new();
        for line in 0..1500 {
            findings.push(numbered(Code::EmptyFile, line));
        }
        assert_eq!((findings.len(), findings.count(), findings.error_count()), (1000, 1500, 0));
        findings.push(numbered(Code::UnknownKey, 7));
        assert_eq!((findings.len(), findings.count(), findings.error_count()), (1000, 1501, 1));
        assert_eq!(findings.first_error().map(|first| first.position.line), Some(7));
        assert_eq!(findings[998].position.line, 998, "the newest warning made room");
        for line in 0..1_000_000 {
            findings.push_with(Code::UnknownKey, || numbered(Code::UnknownKey, line));
        }
        assert_eq!((findings.len(), findings.count()), (1000, 1_001_501));
        assert!(findings.iter().all(Finding::is_error));
        findings.push_with(Code::UnknownKey, || panic!("made though it is not kept"));
    }

    #[test]
    fn findings_of_several_files_are_one_count() {
        let file = |count: u32| (0..count).map(|line| numbered(Code::UnknownKey, line)).collect::<Findings>();
        let mut all = file(600);
        all.append(&file(600));
        all.append(&file(1600));
        assert_eq!((all.len(), all.count(), all.is_complete()), (1000, 2800, false));
        let mut few = file(5);
        few.push(numbered(Code::EmptyFile, 9));
        few.keep_at_most(2, 0);
        assert_eq!((few.len(), few.count(), few.error_count()), (2, 6, 5));
    }

    #[test]
    fn values_are_cut_between_characters() {
        assert_eq!(value(&"é".repeat(1000)).len(), 255);
    }
}
