//! How a replay is shown: to people, and as JSON.
//!
//! Text carries its colours always; whoever prints it takes them out where they do not belong.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};
use serde_json::{Value, json};

use super::{CAVEAT, Flip, FlipGroup, ReplayReport, VisibleAnswer};
use crate::escape::shown;

/// For people: the flips by kind, each with its count, then what was replayed and what is not known.
#[must_use]
pub fn text(report: &ReplayReport) -> String {
    let mut out = String::new();
    for flip in Flip::ALL {
        let groups: Vec<&FlipGroup> = report.groups.iter().filter(|group| group.flip == flip).collect();
        if groups.is_empty() {
            continue;
        }
        let count: usize = groups.iter().map(|group| group.count).sum();
        let style = match flip {
            Flip::NowDenied | Flip::LosesScopes => colour(AnsiColor::Red),
            Flip::NowAllowed | Flip::GainsScopes => colour(AnsiColor::Yellow),
            Flip::DeniedOtherwise => Style::new().bold(),
        };
        // Writing to a String does not fail.
        _ = writeln!(out, "{style}{}{style:#}: {count}", title(flip));
        for group in groups {
            one(&mut out, group);
        }
    }
    let ReplayReport {
        calls,
        flipped,
        not_as_recorded,
        cut,
        not_repeatable,
        audiences_assumed,
        lost,
        others: _,
        groups: _,
    } = report;
    _ = writeln!(out, "{calls} recorded calls, {flipped} flip");
    if *not_as_recorded > 0 {
        _ = writeln!(
            out,
            "note: {not_as_recorded} were answered otherwise when they were recorded; OLD is not the policy of that time"
        );
    }
    if *cut > 0 {
        _ = writeln!(
            out,
            "note: {cut} have client metadata that was cut; client rules may judge them otherwise"
        );
    }
    if *not_repeatable > 0 {
        _ = writeln!(
            out,
            "note: {not_repeatable} cannot be repeated: denied for more client metadata than is recorded, under any policy"
        );
    }
    if *audiences_assumed > 0 {
        _ = writeln!(
            out,
            "note: {audiences_assumed} are from before it was recorded which audiences a request names; they are asked at those that decided, and what changes for requests that name none is not seen"
        );
    }
    if *lost > 0 {
        _ = writeln!(out, "note: {lost} events are missing in the log");
    }
    _ = writeln!(out, "note: {CAVEAT}");
    out
}

fn one(out: &mut String, group: &FlipGroup) {
    let FlipGroup { flip: _, kind, audiences, asked, before, after, count, clients, more_clients, sequences } =
        group;
    let audiences = if audiences.is_empty() { "no audience".to_owned() } else { each(audiences, ", ") };
    let asked = asked.as_deref().map_or_else(|| "(omitted)".to_owned(), shown);
    _ = writeln!(out, "  {count} x {} {asked} at {audiences}", kind.as_str());
    _ = writeln!(out, "    before: {}", outcome(before));
    _ = writeln!(out, "    after:  {}", outcome(after));
    if !clients.is_empty() {
        let more = if *more_clients > 0 { format!(" and {more_clients} more") } else { String::new() };
        _ = writeln!(out, "    clients: {}{more}", each(clients, ", "));
    }
    let (first, last) = sequences;
    match (*first, *last) {
        (0, 0) => {}
        (first, last) if first == last => _ = writeln!(out, "    record: {first}"),
        (first, last) => _ = writeln!(out, "    records: {first} to {last}"),
    }
}

fn outcome(outcome: &VisibleAnswer) -> String {
    let VisibleAnswer { reason, scope, refused } = outcome;
    let mut text = match reason {
        None => format!("ALLOW {}", each(scope, " ")),
        Some(reason) => format!("DENY {}", reason.as_str()),
    };
    if !refused.is_empty() {
        let refused: Vec<String> =
            refused.iter().map(|(scope, reason)| format!("{} {}", shown(scope), reason.as_str())).collect();
        _ = write!(text, " (refused: {})", refused.join(", "));
    }
    text
}

fn each(entries: &[String], between: &str) -> String {
    entries.iter().map(|entry| shown(entry)).collect::<Vec<_>>().join(between)
}

fn title(flip: Flip) -> &'static str {
    match flip {
        Flip::NowDenied => "allowed before, denied now",
        Flip::LosesScopes => "allowed with fewer or other scopes",
        Flip::NowAllowed => "denied before, allowed now",
        Flip::GainsScopes => "allowed with more scopes",
        Flip::DeniedOtherwise => "refused for other reasons",
    }
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().bold().fg_color(Some(Color::Ansi(colour)))
}

/// For programs.
#[must_use]
pub fn json(report: &ReplayReport) -> Value {
    let outcome = |outcome: &VisibleAnswer| {
        let refused = outcome
            .refused
            .iter()
            .map(|(scope, reason)| json!({ "scope": scope, "reason": reason.as_str() }));
        json!({
            "decision": if outcome.reason.is_none() { "ALLOW" } else { "DENY" },
            "reason": outcome.reason.map(|reason| reason.as_str()),
            "scope": outcome.scope.join(" "),
            "refused": refused.collect::<Vec<_>>(),
        })
    };
    let group = |group: &FlipGroup| {
        json!({
            "flip": group.flip.as_str(),
            "question": group.kind.as_str(),
            "audiences": group.audiences,
            "scope": group.asked,
            "before": outcome(&group.before),
            "after": outcome(&group.after),
            "count": group.count,
            "clients": group.clients,
            "moreClients": group.more_clients,
            "firstSequence": group.sequences.0.to_string(),
            "lastSequence": group.sequences.1.to_string(),
        })
    };
    json!({
        "calls": report.calls,
        "flipped": report.flipped,
        "notAsRecorded": report.not_as_recorded,
        "clientTruncated": report.cut,
        "notRepeatable": report.not_repeatable,
        "audiencesAssumed": report.audiences_assumed,
        "lost": report.lost,
        "otherRecords": report.others,
        "flips": report.groups.iter().map(group).collect::<Vec<_>>(),
        "caveat": CAVEAT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Reason;
    use crate::decision::RequestKind;

    fn report() -> ReplayReport {
        let allowed = |scope: &[&str]| VisibleAnswer {
            reason: None,
            scope: scope.iter().map(|scope| (*scope).to_owned()).collect(),
            refused: Vec::new(),
        };
        let denied = VisibleAnswer {
            reason: Some(Reason::Unsupported),
            scope: Vec::new(),
            refused: vec![("a\n".into(), Reason::Unsupported)],
        };
        let group = FlipGroup {
            flip: Flip::NowDenied,
            kind: RequestKind::Authorize,
            audiences: vec!["api".into()],
            asked: Some("a b".into()),
            before: allowed(&["a", "b"]),
            after: denied,
            count: 3,
            clients: vec!["App\u{1b}".into()],
            more_clients: 2,
            sequences: (4, 9),
        };
        let other = FlipGroup {
            flip: Flip::GainsScopes,
            kind: RequestKind::Registration,
            asked: None,
            audiences: Vec::new(),
            after: allowed(&["a", "b", "c"]),
            clients: Vec::new(),
            more_clients: 0,
            count: 1,
            sequences: (5, 5),
            ..group.clone()
        };
        ReplayReport {
            calls: 9,
            flipped: 4,
            not_as_recorded: 1,
            cut: 2,
            not_repeatable: 5,
            audiences_assumed: 0,
            lost: 3,
            others: 1,
            groups: vec![group, other],
        }
    }

    #[test]
    fn flips_are_shown_to_people() {
        let text = anstream::adapter::strip_str(&text(&report())).to_string();
        let expected = format!(
            "allowed before, denied now: 3
  3 x authorize a b at api
    before: ALLOW a b
    after:  DENY UNSUPPORTED (refused: a\\n UNSUPPORTED)
    clients: App\\u{{1b}} and 2 more
    records: 4 to 9
allowed with more scopes: 1
  1 x register (omitted) at no audience
    before: ALLOW a b
    after:  ALLOW a b c
    record: 5
9 recorded calls, 4 flip
note: 1 were answered otherwise when they were recorded; OLD is not the policy of that time
note: 2 have client metadata that was cut; client rules may judge them otherwise
note: 5 cannot be repeated: denied for more client metadata than is recorded, under any policy
note: 3 events are missing in the log
note: {CAVEAT}
"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn flips_are_shown_to_programs() {
        let json = json(&report());
        assert_eq!(json["flips"][0]["flip"], "now-denied");
        assert_eq!(json["flips"][0]["after"]["refused"][0]["reason"], "UNSUPPORTED");
        assert_eq!(json["flips"][1]["scope"], Value::Null);
        assert_eq!((&json["calls"], &json["caveat"]), (&9.into(), &CAVEAT.into()));
    }
}
