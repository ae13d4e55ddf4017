//! What a policy change does to real clients: recorded calls, run through the old and the new policy.
//!
//! Knows only what the audit recorded: registrations and authorize requests that were denied or that
//! expanded a client's scopes. A call that was allowed as it was asked left no record, and [`ReplayReport`] and
//! every form of it say so. Each question is asked as it was, audiences unnamed included; records from
//! before that was kept are asked at the audiences that decided. Reads no files; the records come in one
//! by one.

use std::collections::{BTreeSet, HashMap};

use crate::call::Call;
use crate::decision::{Answer, Reason, RequestKind};
use crate::policy::PolicySet;
use crate::scope::distinct_tokens;

pub mod output;
pub mod record;

pub use record::{Line, RecordError, RecordedCall};

/// What a replay cannot know, for every form of its report.
pub const CAVEAT: &str = "a replay knows only recorded calls: denials, and answers that gave a client more than it asked for; \
                          what was allowed as asked is not recorded, and may flip unseen";

/// Runs records through two policies.
#[derive(Debug)]
pub struct Replay<'p> {
    before: &'p PolicySet,
    after: &'p PolicySet,
    groups: HashMap<FlipKey, Tally>,
    report: ReplayReport,
}

/// What came out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReplayReport {
    /// How many calls were replayed.
    pub calls: usize,
    /// How many of their answers differ between the two policies.
    pub flipped: usize,
    /// How many calls the old policy answers otherwise than was recorded: it is not the one that
    /// answered then.
    pub not_as_recorded: usize,
    /// How many calls had client metadata that was cut, so that a client rule may judge them otherwise.
    pub cut: usize,
    /// How many calls cannot be repeated: they were denied for more client metadata than is recorded.
    pub not_repeatable: usize,
    /// How many calls do not say which audiences they named, and were asked at those that decided: an older version wrote
    /// them.
    pub audiences_assumed: usize,
    /// How many events the log says are missing: not recorded, or deleted since.
    pub lost: u64,
    /// How many records are no calls: policy changes and checkpoints.
    pub others: usize,
    /// The flips: the worst kind first, then the most frequent.
    pub groups: Vec<FlipGroup>,
}

/// Equal flips of equal questions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlipGroup {
    /// What flips.
    pub flip: Flip,
    /// Which question.
    pub kind: RequestKind,
    /// The audiences of the question.
    pub audiences: Vec<String>,
    /// The requested scopes, separated by spaces; `None` if the scope was omitted.
    pub asked: Option<String>,
    /// The answer of the old policy.
    pub before: VisibleAnswer,
    /// The answer of the new policy.
    pub after: VisibleAnswer,
    /// How often.
    pub count: usize,
    /// Names of the clients, sorted, at most [`MAX_CLIENTS`]; the client id where there is no name.
    pub clients: Vec<String>,
    /// How many more there are.
    pub more_clients: usize,
    /// The first and the last record, by their sequence in the log.
    pub sequences: (u64, u64),
}

/// Most clients that a group names.
pub const MAX_CLIENTS: usize = 5;

/// How an answer differs. In the order of a report.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Flip {
    /// Was allowed and is denied.
    NowDenied,
    /// Is still allowed and lacks a scope; it may have another one instead.
    LosesScopes,
    /// Was denied and is allowed.
    NowAllowed,
    /// Is still allowed and has more scopes.
    GainsScopes,
    /// Is still denied, for another reason or because of other scopes.
    DeniedOtherwise,
}

impl Flip {
    /// Every kind, in the order of a report.
    pub const ALL: [Self; 5] =
        [Self::NowDenied, Self::LosesScopes, Self::NowAllowed, Self::GainsScopes, Self::DeniedOtherwise];

    /// A word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NowDenied => "now-denied",
            Self::LosesScopes => "loses-scopes",
            Self::NowAllowed => "now-allowed",
            Self::GainsScopes => "gains-scopes",
            Self::DeniedOtherwise => "denied-otherwise",
        }
    }
}

/// The part of an answer that a client can tell.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VisibleAnswer {
    /// Why it was denied; `None` if it was allowed.
    pub reason: Option<Reason>,
    /// The granted scopes, sorted; empty on denial.
    pub scope: Vec<String>,
    /// The refused scopes with their reasons, sorted by scope; `drop` refuses on allowed answers, too.
    pub refused: Vec<(String, Reason)>,
}

impl VisibleAnswer {
    fn of(answer: &Answer<'_>) -> Self {
        let mut scope: Vec<String> = answer.scope.iter().map(|token| (*token).to_owned()).collect();
        scope.sort();
        let mut refused: Vec<_> =
            answer.refused.iter().map(|one| (one.scope.to_owned(), one.reason)).collect();
        refused.sort_by(|one, other| one.0.cmp(&other.0));
        Self { reason: answer.reason, scope, refused }
    }
}

#[derive(Debug, Eq, Hash, PartialEq)]
struct FlipKey {
    kind: RequestKind,
    audiences: Vec<String>,
    asked: Option<String>,
    before: VisibleAnswer,
    after: VisibleAnswer,
}

#[derive(Debug)]
struct Tally {
    count: usize,
    clients: BTreeSet<String>,
    sequences: (u64, u64),
}

impl<'p> Replay<'p> {
    /// Starts with nothing.
    #[must_use]
    pub fn new(before: &'p PolicySet, after: &'p PolicySet) -> Self {
        Self { before, after, groups: HashMap::new(), report: ReplayReport::default() }
    }

    /// Takes one line of the log into account.
    pub fn take(&mut self, line: Line) {
        match line {
            Line::Call(recorded) => self.call(*recorded),
            Line::Gap { count } => self.report.lost = self.report.lost.saturating_add(count),
            Line::Other => self.report.others += 1,
        }
    }

    fn call(&mut self, recorded: RecordedCall) {
        let RecordedCall {
            sequence,
            call,
            allowed,
            scope,
            client_truncated,
            audiences_assumed,
            client_too_large,
        } = recorded;
        self.report.calls += 1;
        if client_too_large {
            // No policy changes that, and what is left of the client would be judged as another one.
            self.report.not_repeatable += 1;
            return;
        }
        self.report.cut += usize::from(client_truncated);
        self.report.audiences_assumed += usize::from(audiences_assumed);
        let old = call.answer(self.before);
        let as_recorded = old.is_allowed() == allowed && same(&old.scope, &distinct_tokens(&scope));
        self.report.not_as_recorded += usize::from(!as_recorded);
        let before = VisibleAnswer::of(&old);
        let after = VisibleAnswer::of(&call.answer(self.after));
        if before == after {
            return;
        }
        self.report.flipped += 1;
        let tokens = distinct_tokens(call.scope.as_deref().unwrap_or_default());
        let asked = (!tokens.is_empty()).then(|| tokens.join(" "));
        let client = client_name(&call);
        let Call { kind, audiences, .. } = call;
        let tally = self
            .groups
            .entry(FlipKey { kind, audiences, asked, before, after })
            .or_insert_with(|| Tally { count: 0, clients: BTreeSet::new(), sequences: (sequence, sequence) });
        tally.count += 1;
        tally.clients.extend(client);
        tally.sequences = (tally.sequences.0.min(sequence), tally.sequences.1.max(sequence));
    }

    /// The report.
    #[must_use]
    pub fn finish(self) -> ReplayReport {
        let Self { groups, mut report, .. } = self;
        report.groups = groups.into_iter().map(|(key, tally)| group(key, tally)).collect();
        report.groups.sort_by(|one, other| {
            (one.flip, other.count, &one.sequences).cmp(&(other.flip, one.count, &other.sequences))
        });
        report
    }
}

fn group(key: FlipKey, tally: Tally) -> FlipGroup {
    let FlipKey { kind, audiences, asked, before, after } = key;
    let Tally { count, clients, sequences } = tally;
    let flip = match (before.reason, after.reason) {
        (None, Some(_)) => Flip::NowDenied,
        (Some(_), None) => Flip::NowAllowed,
        (Some(_), Some(_)) => Flip::DeniedOtherwise,
        (None, None) if before.scope.iter().any(|scope| !after.scope.contains(scope)) => Flip::LosesScopes,
        (None, None) if after.scope.len() > before.scope.len() => Flip::GainsScopes,
        // The same scopes, but others are refused with them.
        (None, None) => Flip::DeniedOtherwise,
    };
    let more_clients = clients.len().saturating_sub(MAX_CLIENTS);
    let clients = clients.into_iter().take(MAX_CLIENTS).collect();
    FlipGroup { flip, kind, audiences, asked, before, after, count, clients, more_clients, sequences }
}

fn client_name(call: &Call) -> Option<String> {
    let named = [&call.client.client_name, &call.client.client_id];
    named.into_iter().find(|name| !name.is_empty()).cloned()
}

fn same(one: &[&str], other: &[&str]) -> bool {
    one.len() == other.len() && one.iter().all(|token| other.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::set;

    const BEFORE: &str = "audiences: {api: {scopesSupported: [openid, a, b], baselineClientScopes: [a]}, gone: {scopesSupported: [x]}}";
    const AFTER: &str =
        "audiences: {api: {scopesSupported: [openid, a, c], authorization: {unregisteredScopes: drop}}}";

    fn event(kind: &str, method: &str, sequence: u64, rest: &str) -> String {
        format!(
            r#"{{"kind":"AUDIT_EVENT_KIND_{kind}","method":"/scopeward.v1.ScopePolicyService/{method}","sequence":"{sequence}",{rest}}}"#
        )
    }

    #[track_caller]
    fn replayed(lines: &[String]) -> ReplayReport {
        let (before, after) = (set(BEFORE), set(AFTER));
        let mut replay = Replay::new(&before, &after);
        for line in lines {
            replay.take(Line::read(line).unwrap());
        }
        replay.finish()
    }

    #[test]
    fn answers_that_flip_are_grouped_and_counted() {
        let expansion = |sequence, client: &str| {
            event(
                "EXPANSION",
                "ExpandRegistrationScopes",
                sequence,
                &format!(
                    r#""audiences":["api"],"requestedScope":"openid","effectiveScope":"openid a","client":{{"clientName":"{client}"}}"#
                ),
            )
        };
        let mut lines: Vec<String> = (1..=7).map(|at| expansion(at, &format!("client {at}"))).collect();
        lines.push(expansion(8, "client 1"));
        let denial = |sequence, scope: &str, registered: &str, audience: &str| {
            event(
                "DENIAL",
                "CheckAuthorizeScopes",
                sequence,
                &format!(
                    r#""audiences":["{audience}"],"requestedScope":"{scope}","registeredScope":"{registered}","reason":"REASON_UNSUPPORTED""#
                ),
            )
        };
        lines.push(denial(9, "openid c", "openid", "api"));
        lines.push(denial(10, "root", "openid", "api"));
        lines.push(denial(11, "y", "x", "gone"));
        lines.push(denial(12, "b", "", "api"));
        let report = replayed(&lines);
        assert_eq!((report.calls, report.flipped, report.not_as_recorded), (12, 11, 0));
        let brief: Vec<_> = report
            .groups
            .iter()
            .map(|group| (group.flip, group.asked.as_deref().unwrap_or("-"), group.count, group.sequences))
            .collect();
        assert_eq!(
            brief,
            [
                (Flip::LosesScopes, "openid", 8, (1, 8)),
                (Flip::NowAllowed, "openid c", 1, (9, 9)),
                (Flip::DeniedOtherwise, "y", 1, (11, 11)),
                (Flip::DeniedOtherwise, "b", 1, (12, 12)),
            ]
        );
        let first = &report.groups[0];
        assert_eq!(first.clients, ["client 1", "client 2", "client 3", "client 4", "client 5"]);
        assert_eq!((first.more_clients, &*first.audiences), (2, &["api".to_owned()][..]));
        assert_eq!(
            (&*first.before.scope, &*first.after.scope),
            (&["a".into(), "openid".into()][..], &["openid".to_owned()][..])
        );
    }

    #[test]
    fn a_denied_token_is_asked_for_again_with_its_grant() {
        let rest = r#""audiences":["api"],"askedAudiences":["api"],"requestedScope":"openid c","grantedScope":"openid c","grant":"TOKEN_GRANT_REFRESH","effectiveScope":"","reason":"REASON_FORBIDDEN""#;
        let (before, after) = (
            set(
                "audiences: {api: {scopesSupported: [openid, c], forbiddenScopes: [c], token: {unsupportedScopes: reject}}}",
            ),
            set("audiences: {api: {scopesSupported: [openid, c]}}"),
        );
        let mut replay = Replay::new(&before, &after);
        replay.take(Line::read(&event("DENIAL", "CheckTokenScopes", 1, rest)).unwrap());
        let report = replay.finish();
        assert_eq!((report.calls, report.flipped, report.not_as_recorded), (1, 1, 0));
        let group = &report.groups[0];
        assert_eq!((group.flip, group.kind), (Flip::NowAllowed, RequestKind::Token));
        assert_eq!(group.after.scope, ["c", "openid"]);
        assert!(output::text(&report).contains("1 x token openid c at api"), "{}", output::text(&report));
    }

    #[test]
    fn what_is_no_call_is_counted_apart() {
        let report = replayed(&[
            r#"{"kind":"AUDIT_EVENT_KIND_POLICY_CHANGE","sequence":"1"}"#.to_owned(),
            r#"{"gap":{"sequence":"2","count":"40"}}"#.to_owned(),
            r#"{"checkpoint":{"durableSequence":"2"}}"#.to_owned(),
        ]);
        assert_eq!((report.calls, report.others, report.lost), (0, 2, 40));
        assert!(report.groups.is_empty());
    }

    #[test]
    fn an_old_policy_that_did_not_answer_then_is_noticed() {
        let line = event(
            "EXPANSION",
            "ExpandRegistrationScopes",
            1,
            r#""audiences":["api"],"requestedScope":"openid","effectiveScope":"openid z","clientTruncated":true"#,
        );
        let report = replayed(&[line]);
        assert_eq!((report.not_as_recorded, report.cut), (1, 1));
    }

    #[test]
    fn a_client_that_was_too_large_cannot_be_asked_for_again() {
        let line = event(
            "DENIAL",
            "ExpandRegistrationScopes",
            1,
            r#""requestedScope":"b","reason":"REASON_CLIENT_TOO_LARGE","client":{"clientName":"x"},"clientTruncated":true"#,
        );
        let report = replayed(&[line]);
        assert_eq!((report.calls, report.not_repeatable), (1, 1));
        assert_eq!((report.flipped, report.not_as_recorded, report.cut), (0, 0, 0));
        assert!(
            output::text(&report).contains("\nnote: 1 cannot be repeated: "),
            "{}",
            output::text(&report)
        );
        assert_eq!(output::json(&report)["notRepeatable"], 1);
    }

    #[test]
    fn a_request_that_named_no_audience_is_asked_without_one() {
        let before = set("audiences: {api: {scopesSupported: [a, b], baselineClientScopes: [b]}}");
        let after = set(
            "audiences: {api: {scopesSupported: [a, b], baselineClientScopes: [b]}, other: {scopesSupported: [x]}}",
        );
        let flips = |asked: &str| {
            let rest = format!(
                r#""audiences":["api"],{asked}"requestedScope":"b","registeredScope":"a","effectiveScope":"b""#
            );
            let mut replay = Replay::new(&before, &after);
            replay.take(Line::read(&event("EXPANSION", "CheckAuthorizeScopes", 1, &rest)).unwrap());
            let report = replay.finish();
            assert_eq!((report.calls, report.not_as_recorded), (1, 0));
            let note = "note: 1 are from before it was recorded which audiences a request names";
            assert_eq!(output::text(&report).contains(note), asked.is_empty());
            assert_eq!(output::json(&report)["audiencesAssumed"], usize::from(asked.is_empty()));
            report.groups.first().map(|group| (group.flip, group.after.reason))
        };
        let required = Some((Flip::NowDenied, Some(Reason::AudienceRequired)));
        assert_eq!(flips(r#""askedAudiences":[],"#), required);
        assert_eq!(flips(r#""askedAudiences":["api"],"#), None);
        // A record from before this was kept.
        assert_eq!(flips(""), None);
    }

    #[test]
    fn the_same_policy_flips_nothing() {
        let policy = set(BEFORE);
        let mut replay = Replay::new(&policy, &policy);
        replay.take(
            Line::read(&event(
                "DENIAL",
                "CheckAuthorizeScopes",
                1,
                r#""audiences":["nowhere"],"requestedScope":"a""#,
            ))
            .unwrap(),
        );
        let report = replay.finish();
        assert_eq!((report.calls, report.flipped), (1, 0));
    }
}
