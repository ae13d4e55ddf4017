//! Policy tests: what a policy must answer, written next to it in `*_test.yaml`.
//!
//! A [`Suite`] is one such file: named cases, each a question as on the wire and what the answer must
//! be. [`Suite::read`] and [`Suite::check`] report everything that is wrong with the file itself (a
//! broken case is never skipped), [`run()`] asks the decision core. Knows nothing about folders, flags
//! and exit codes.
//!
//! # What is compared
//! Only what `expect` names. `scope`, `effectiveRegisteredScope` and `audienceGrants` are compared as sets,
//! since the order of scopes has no meaning (RFC 6749 section 3.3). `added` and `refused` are complete
//! lists, in any order: `added: []` says that nothing is added. Of an entry only the members that are
//! written are compared, and a scope alone stands for an entry with nothing else.

use std::sync::Arc;

use crate::call::Call;
use crate::decision::{Origin, Reason};
use crate::escape::shown;
use crate::policy::PolicySet;
use crate::policy::finding::{self, Code, Finding, Position, nearest};
use crate::policy::format::read::{LocatedText, Spanned};

mod impossible;
pub mod keys;
pub mod output;
mod read;
pub mod reference;
pub mod run;
mod table;
pub mod trail;

pub use run::{SuiteReport, run};
pub use table::MAX_ROWS;

/// One test file.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Path of the file as found.
    pub file: Arc<str>,
    /// Its cases in file order, the rows of tables included.
    pub cases: Vec<Case>,
    /// What is wrong with the file alone, by position.
    pub findings: Vec<Finding>,
}

/// One question and what the answer must be.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique in its file; for a row of a table without one, `NAME, row N`.
    pub name: String,
    /// Where it starts.
    pub position: Position,
    /// The question.
    pub call: Call,
    /// Where each audience of the question stands.
    pub audience_positions: Vec<Position>,
    /// The answer, as far as it is written down.
    pub expect: Expectation,
}

/// What an answer must be. `None` is not compared.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Where `expect` stands.
    pub position: Position,
    /// `decision`.
    pub decision: Option<Spanned<Decision>>,
    /// `scope`: compared as a set.
    pub scope: Option<LocatedText>,
    /// `added`: complete, in any order.
    pub added: Option<Vec<ExpectedAdded>>,
    /// `refused`: complete, in any order.
    pub refused: Option<Vec<ExpectedRefused>>,
    /// `error`: the OAuth error code.
    pub error: Option<Spanned<&'static str>>,
    /// `reason`: why the whole was denied.
    pub reason: Option<Spanned<Reason>>,
    /// `effectiveRegisteredScope`: compared as a set.
    pub effective_registered_scope: Option<LocatedText>,
    /// `audienceGrants`: complete, in any order.
    pub audience_grants: Option<Vec<ExpectedGrant>>,
}

/// The two ways an answer can go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
}

impl Decision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    /// The name in the API without its prefix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        }
    }
}

/// An entry of `added`.
#[derive(Clone, Debug)]
pub struct ExpectedAdded {
    /// `scope`.
    pub scope: LocatedText,
    /// `origin`.
    pub origin: Option<Spanned<Origin>>,
    /// `rule`; `""` means that no rule gives it.
    pub rule: Option<LocatedText>,
}

/// An entry of `refused`.
#[derive(Clone, Debug)]
pub struct ExpectedRefused {
    /// `scope`.
    pub scope: LocatedText,
    /// `reason`.
    pub reason: Option<Spanned<Reason>>,
}

/// An entry of `audienceGrants`.
#[derive(Clone, Debug)]
pub struct ExpectedGrant {
    /// `audience`, compared as audiences are.
    pub audience: LocatedText,
    /// `scope`: compared as a set.
    pub scope: Option<LocatedText>,
}

impl Suite {
    /// Reads one test file. Never fails: what is wrong is in `findings`.
    #[must_use]
    pub fn read(file: &Arc<str>, text: &str) -> Self {
        read::suite(file, text)
    }

    /// Everything that is wrong with the file under this policy: its own findings, and each audience
    /// that the policy does not declare, unless the case is about just that (it expects
    /// `invalid_target`, `AUDIENCE_UNKNOWN` or `AUDIENCE_MALFORMED`). By position.
    #[must_use]
    pub fn check(&self, policy: &PolicySet) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        for case in self.cases.iter().filter(|case| !case.is_about_audience()) {
            for (audience, position) in case.call.audiences.iter().zip(&case.audience_positions) {
                let message = match policy.audience(audience) {
                    Ok(Some(_)) => continue,
                    Ok(None) => format!("the policy does not declare the audience `{}`", shown(audience)),
                    Err(error) => format!("audience `{}`: {error}", shown(audience)),
                };
                let all = policy.audiences();
                let near = if all.len() <= 1000 {
                    nearest(audience, all.iter().map(|audience| &*audience.audience))
                } else {
                    None
                };
                findings.push(Finding {
                    code: Code::TestAudienceNotDeclared,
                    file: Arc::clone(&self.file),
                    position: *position,
                    audience: String::new(),
                    value: finding::value(audience),
                    message,
                    suggestion: near.map_or_else(
                        || {
                            "name a declared one; to test the denial, expect `reason: AUDIENCE_UNKNOWN`"
                                .to_owned()
                        },
                        |near| format!("did you mean `{near}`?"),
                    ),
                });
            }
        }
        sort(&mut findings);
        findings
    }
}

impl Case {
    /// Tells whether the case expects a denial because of its audiences.
    fn is_about_audience(&self) -> bool {
        let Expectation { error, reason, .. } = &self.expect;
        error.is_some_and(|error| error.value == "invalid_target")
            || reason.is_some_and(|reason| {
                matches!(reason.value, Reason::AudienceUnknown | Reason::AudienceMalformed)
            })
    }
}

/// By position; what a table says once for many rows is reported once.
fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by_key(|finding| finding.position);
    let mut seen = std::collections::HashSet::new();
    findings.retain(|finding| seen.insert((finding.position.start, finding.code, finding.message.clone())));
}

#[cfg(test)]
mod tests;
