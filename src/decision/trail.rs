//! How each scope fared at each audience: the steps that lead to an answer, and what `explain` shows of it.

use super::{Origin, Reason};
use crate::policy::AudiencePolicy;

/// How one scope fared at one audience. Positions are 0-based in the compiled lists.
#[derive(Clone, Copy, Debug)]
pub struct ScopeStep<'a> {
    /// The scope.
    pub scope: &'a str,
    /// The audience.
    pub audience: &'a AudiencePolicy,
    /// Whether the request named it.
    pub asked: bool,
    /// The entry of `scopesSupported` that covers it.
    pub supported: Option<usize>,
    /// The entry of `forbiddenScopes` that stops it.
    pub forbidden: Option<usize>,
    /// What covers it; at registration, what gives it.
    pub held: Option<Coverage<'a>>,
    /// How it ended at this audience.
    pub outcome: ScopeOutcome,
}

impl ScopeStep<'_> {
    /// The same for a scope that the request does not name.
    pub(super) fn unasked(mut self) -> Self {
        self.asked = false;
        self.outcome = match self.outcome {
            ScopeOutcome::Refused(Reason::Forbidden) => ScopeOutcome::Withheld(Withheld::Forbidden),
            ScopeOutcome::Refused(Reason::Unsupported) => ScopeOutcome::Withheld(Withheld::Unsupported),
            ScopeOutcome::Refused(_) => ScopeOutcome::Withheld(Withheld::NotHeld),
            other => other,
        };
        self
    }
}

/// What covers a scope, the first that fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coverage<'a> {
    /// This registered scope.
    Registered(&'a str),
    /// This scope of the grant that a token is for.
    Granted(&'a str),
    /// Any supported scope, because the registration is unknown.
    AnySupported,
    /// This entry of `defaultClientScopes`.
    Default(usize),
    /// This entry of `baselineClientScopes`.
    Baseline(usize),
    /// This entry of the baseline of this client rule.
    Rule(usize, usize),
    /// This entry of `stepUpScopes`.
    StepUp(usize),
}

impl Coverage<'_> {
    pub(super) const fn origin(self) -> Option<Origin> {
        match self {
            Self::AnySupported | Self::Granted(_) => None,
            Self::Registered(_) => Some(Origin::Registered),
            Self::Default(_) => Some(Origin::Default),
            Self::Baseline(_) | Self::Rule(..) => Some(Origin::Baseline),
            Self::StepUp(_) => Some(Origin::StepUp),
        }
    }
}

/// How a scope ended at one audience.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScopeOutcome {
    /// Granted here.
    Granted,
    /// Asked for and refused here.
    Refused(Reason),
    /// Not asked for, and not given unasked for this reason.
    Withheld(Withheld),
}

/// Why a scope that the client holds is not given to a request that does not name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Withheld {
    /// It is forbidden, here or at another named audience.
    Forbidden,
    /// It is not supported any more.
    Unsupported,
    /// It is privileged.
    Privileged,
    /// It is a step-up scope.
    StepUp,
    /// It is a pattern.
    Wildcard,
    /// A list of the policy has it, but the client does not hold it.
    NotHeld,
}

/// The steps of an answer, kept where they are `WANTED`: a question may have very many.
#[derive(Debug, Default)]
pub(super) struct Trail<'a, const WANTED: bool> {
    steps: Vec<ScopeStep<'a>>,
}

impl<'a, const WANTED: bool> Trail<'a, WANTED> {
    #[inline]
    pub(super) fn record(&mut self, steps: &[ScopeStep<'a>]) {
        if WANTED {
            self.steps.extend_from_slice(steps);
        }
    }

    pub(super) fn into_steps(self) -> Vec<ScopeStep<'a>> {
        self.steps
    }
}

/// The rule name that a scope is given under; `""` for everything but a client rule.
pub(super) fn rule_name<'a>(audience: &'a AudiencePolicy, held: Coverage<'a>) -> &'a str {
    match held {
        Coverage::Rule(rule, _) => audience.client_rules.get(rule).map_or("", |rule| &rule.name),
        _ => "",
    }
}
