//! Which audiences a question is for: those it names, or those that stand in where it names none.

use super::{Answer, AudienceList, Reason, RequestKind, refusal};
use crate::policy::{AudiencePolicy, PolicySet};
use crate::short_list::TextsRef;

/// The audiences of a question.
pub(super) struct Targets<'a> {
    /// Each once, in the order named; not empty.
    pub(super) audiences: AudienceList<'a>,
    /// Whether one that forbids a scope takes it from all of them: where the request named them. A registration that
    /// names none is for authorize requests that each decide for their own audience.
    pub(super) forbid_together: bool,
}

/// Finds the audiences of a question. `near`: one that it may well name. An empty name is one that was left out (RFC 6749 section 3.1).
pub(super) fn find<'a>(
    policy: &'a PolicySet,
    named: TextsRef<'_>,
    kind: RequestKind,
    near: Option<&'a AudiencePolicy>,
) -> Result<Targets<'a>, Box<Answer<'a>>> {
    let mut found = AudienceList::new();
    let mut reason = None;
    let mut offenders: Vec<(Reason, &str)> = Vec::new();
    for name in named.iter().filter(|name| !name.is_empty()) {
        let problem = match policy.audience_near(name, near) {
            Ok(Some(audience)) => {
                if !found.iter().any(|known| std::ptr::eq(*known, audience)) {
                    found.push(audience);
                }
                continue;
            }
            Ok(None) => Reason::AudienceUnknown,
            Err(_) => Reason::AudienceMalformed,
        };
        reason = reason.or(Some(problem));
        offenders.push((problem, name));
    }
    if let Some(reason) = reason {
        let description = refusal::describe(&offenders);
        return Err(Box::new(refusal::denied(kind, reason, Vec::new(), description)));
    }
    if !found.is_empty() {
        return Ok(Targets { audiences: found, forbid_together: true });
    }
    let audiences = unnamed(policy, kind).ok_or_else(|| {
        let description = "an audience is required: this server protects several".to_owned();
        Box::new(refusal::denied(kind, Reason::AudienceRequired, Vec::new(), description))
    })?;
    Ok(Targets { audiences, forbid_together: kind != RequestKind::Registration })
}

fn unnamed(policy: &PolicySet, kind: RequestKind) -> Option<AudienceList<'_>> {
    let found: AudienceList<'_> = match kind {
        // RFC 7591 knows no `resource`: a registration is for whatever this server protects.
        RequestKind::Registration => {
            policy.registration_audiences().iter().map(|audience| &**audience).collect()
        }
        RequestKind::Authorize | RequestKind::Token if policy.unnamed_means_all() => {
            policy.audiences().iter().map(|audience| &**audience).collect()
        }
        RequestKind::Authorize | RequestKind::Token => {
            policy.unnamed_audience().into_iter().map(|audience| &**audience).collect()
        }
    };
    (!found.is_empty()).then_some(found)
}
