//! Findings: what is wrong (or doubtful) in policy files, said so that it can be mended.
//!
//! A finding has a stable code, a position, the offending value, a message and a suggestion. It knows
//! nothing about how it is printed.

use std::fmt;
use std::sync::Arc;

use crate::audience::MAX_AUDIENCE_BYTES;
pub use crate::escape::shown;

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

/// Longest `value` of a finding in bytes; what is longer is cut and ends in `...`.
pub const MAX_VALUE_BYTES: usize = 256;

impl Finding {
    /// The severity of its code.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Tells whether it makes the set invalid.
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

            /// The page about it, from the root of the repository.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("docs/reference/findings/", stringify!($name), ".md"),)+
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
    /// A symbolic link leads back into a folder that contains it.
    DirectoryLoop: Error,
    /// The text is not YAML.
    YamlSyntax: Error,
    /// The YAML is nested too deeply.
    YamlTooDeep: Error,
    /// The YAML has too many nodes, aliases counted as what they stand for.
    YamlTooLarge: Error,
    /// A YAML tag that a policy has no use for.
    YamlTag: Error,
    /// A second YAML document in one file.
    MultipleDocuments: Error,
    /// A key that the policy format does not know.
    UnknownKey: Error,
    /// A key that stands twice in one mapping.
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
    /// A list that holds the same entry twice.
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
    /// An audience that cannot be one.
    AudienceMalformed: Error,
    /// An audience that is declared twice, normalised, in the whole set.
    DuplicateAudience: Error,
    /// A policy set that declares no audience.
    NoAudience: Error,
    /// A `defaultAudience` that no file declares.
    DefaultAudienceNotDeclared: Error,
    /// A `defaultAudience` that is set in more than one file.
    DuplicateDefaultAudience: Error,
    /// Guardrails in more than one file.
    DuplicateGuardrails: Error,
    /// Two client rules of one audience with the same name.
    DuplicateRuleName: Error,
    /// A `clientIdHost` that is not a bare host name.
    HostMalformed: Error,
    /// An audience in a test file that the policy does not declare.
    TestAudienceNotDeclared: Error,
    /// Two test cases of one file with the same name.
    DuplicateTestName: Error,
    /// An expectation of a test case that no answer can meet.
    ImpossibleExpectation: Error,
    /// A file without any content.
    EmptyFile: Warning,
    /// An audience where a request without a scope would be denied.
    OmittedScopeDenied: Warning,
    /// A scope in a baseline that reads like a privilege, such as `admin`, `mcp:write` or `sudo`.
    BaselineScopeLooksPrivileged: Warning,
    /// `offline_access` in the baseline of an audience without a client rule on the refresh grant.
    OfflineAccessForEveryClient: Warning,
    /// A baseline scope that no client could lack: it has the scope without it.
    RedundantBaselineScope: Warning,
    /// A client rule that can never add a scope.
    UnusedClientRule: Warning,
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

/// The candidate that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is no typing mistake, and the comparison is quadratic.
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        // Of a short text something must be left, or any letter would be near any other.
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len() / 3).max(1) && *distance < lower.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let keys = ["scopesSupported", "baselineClientScopes", "forbiddenScopes"];
        assert_eq!(nearest("scopeSupported", keys), Some("scopesSupported"));
        assert_eq!(nearest("scopessupported", keys), Some("scopesSupported"));
        assert_eq!(nearest("basline_client_scopes", keys), Some("baselineClientScopes"));
        assert_eq!(nearest("color", keys), None);
        assert_eq!(nearest("a", ["b"]), None);
        assert_eq!(nearest("", ["b"]), None);
        assert_eq!(nearest(&"s".repeat(100_000), keys), None);
    }

    #[test]
    fn values_are_cut_between_characters() {
        assert_eq!(value(&"é".repeat(1000)).len(), 255);
    }
}
