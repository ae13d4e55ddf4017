//! One line for people for each event and each gap.
//!
//! Everything that a caller or a client chose stands in quotes, with what does not print made visible:
//! a client must not be able to write what looks like another field, or another line.

use std::fmt::Write;

use prost_types::Timestamp;

use crate::cli::output::{bad, bold, dim, notable};
use crate::escape::clean;
use crate::rpc::v1::{self, AuditEventKind};

/// The line of an event, with its line break.
pub(super) fn event(event: &v1::AuditEvent) -> String {
    let mut line = String::new();
    begin(&mut line, event.event_time, event.sequence);
    match event.kind() {
        AuditEventKind::Expansion => push(&mut line, &notable("expansion    ")),
        AuditEventKind::Denial => push(&mut line, &bad("denial       ")),
        AuditEventKind::PolicyChange => push(&mut line, &bold("policy-change")),
        AuditEventKind::LogOpened => push(&mut line, &bold("log-opened   ")),
        AuditEventKind::AccessChange => push(&mut line, &bold("access-change")),
        AuditEventKind::Unspecified => push(&mut line, &bold("unknown      ")),
    }
    match &event.policy_change {
        Some(change) => policy_change(&mut line, event, change),
        None => decision(&mut line, event),
    }
    line.push('\n');
    line
}

/// The line of a gap, with its line break.
pub(super) fn gap(gap: &v1::Gap) -> String {
    let v1::Gap { log_id: _, sequence, count, reason, first_time, last_time, reason_counts: _ } = gap;
    let mut line = String::new();
    begin(&mut line, *last_time, *sequence);
    push(&mut line, &bad("gap          "));
    push(&mut line, &format_args!(" {} missing ({})", counted(*count, "event"), clean(reason)));
    push(&mut line, &format_args!(", the first at {}", time(*first_time)));
    line.push('\n');
    line
}

fn begin(line: &mut String, at: Option<Timestamp>, sequence: u64) {
    push(line, &format_args!("{} {sequence:>6} ", dim(&time(at))));
}

fn decision(line: &mut String, event: &v1::AuditEvent) {
    match &event.client {
        None => push(line, &" no client"),
        Some(v1::Client { client_id, client_name, .. }) => match (&**client_id, &**client_name) {
            ("", "") => push(line, &" client without a name"),
            ("", name) => push(line, &format_args!(" client named {} (claimed)", quoted(name))),
            (id, _) => push(line, &format_args!(" client {} (claimed)", quoted(id))),
        },
    }
    let audiences: Vec<String> = event.audiences.iter().map(|audience| quoted(audience)).collect();
    match audiences.is_empty() {
        true => push(line, &" at no audience"),
        false => push(line, &format_args!(" at {}", audiences.join(" "))),
    }
    let requested = event.requested_scope.as_deref().map_or_else(|| "(omitted)".to_owned(), quoted);
    push(line, &format_args!(": {requested}"));
    if event.grant() != v1::TokenGrant::Unspecified {
        push(line, &format_args!(" by {}", short(event.grant().as_str_name(), "TOKEN_GRANT_")));
        if let Some(granted) = &event.granted_scope {
            push(line, &format_args!(" of {}", quoted(granted)));
        }
    }
    push(line, &" -> ");
    match event.kind() {
        AuditEventKind::Denial => {
            let reason = short(event.reason().as_str_name(), "REASON_");
            push(line, &format_args!("denied ({reason})"));
        }
        _ => push(line, &quoted(&event.effective_scope)),
    }
    for (at, added) in event.added.iter().enumerate() {
        let origin = short(added.origin().as_str_name(), "ORIGIN_");
        let label = if at == 0 { "; added" } else { "," };
        push(line, &format_args!("{label} {} ({origin}", clean(&added.scope)));
        if !added.rule.is_empty() {
            push(line, &format_args!(", rule {}", quoted(&added.rule)));
        }
        line.push(')');
    }
    for (at, refused) in event.refused.iter().enumerate() {
        let label = if at == 0 { "; refused" } else { "," };
        let reason = short(refused.reason().as_str_name(), "REASON_");
        push(line, &format_args!("{label} {} ({reason})", quoted(&refused.scope)));
    }
}

fn policy_change(line: &mut String, event: &v1::AuditEvent, change: &v1::PolicyChange) {
    let v1::PolicyChange { accepted, previous_digest, finding_count, .. } = change;
    let v1::PolicyVersion { generation, digest } = event.policy.clone().unwrap_or_default();
    let digest = brief(&digest);
    match (accepted, &**previous_digest) {
        (true, "") => push(line, &format_args!(" accepted generation {generation} {digest}")),
        // After files that were rejected.
        (true, before) if event.policy.as_ref().is_some_and(|policy| policy.digest == before) => {
            push(line, &format_args!(" accepted again, generation {generation} {digest} as before"));
        }
        (true, before) => {
            push(line, &format_args!(" accepted generation {generation} {digest} after {}", brief(before)));
        }
        (false, _) => push(line, &format_args!(" rejected; generation {generation} {digest} serves on")),
    }
    if *finding_count > 0 {
        push(line, &format_args!("; {}", counted(u64::from(*finding_count), "finding")));
    }
}

/// A digest as far as people compare it; the JSON form has the whole.
fn brief(digest: &str) -> String {
    clean(digest).chars().take(SHOWN_DIGEST).collect()
}

/// A time in UTC with milliseconds, always of the same width in the years that matter.
fn time(time: Option<Timestamp>) -> String {
    let Some(Timestamp { seconds, nanos }) = time else { return "(no time)".to_owned() };
    let millis = Timestamp { seconds, nanos: nanos - nanos.rem_euclid(1_000_000) }.to_string();
    match millis.strip_suffix('Z') {
        Some(whole) if !whole.contains('.') => format!("{whole}.000Z"),
        _ => millis,
    }
}

/// `1 event`, `2 events`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Any text, so that its end can be seen.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in clean(text).chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// The name of an enum value without the name of its enum.
fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn push(line: &mut String, text: &dyn std::fmt::Display) {
    // Writing to a String does not fail.
    _ = write!(line, "{text}");
}

/// `sha256:` and twelve digits.
const SHOWN_DIGEST: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    /// Without colour.
    fn plain(line: &str) -> String {
        anstream::adapter::strip_str(line).to_string()
    }

    fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos })
    }

    #[test]
    fn an_expansion_has_what_was_asked_what_was_given_and_why() {
        let shown = v1::AuditEvent {
            sequence: 17,
            event_time: at(1_767_323_045, 123_999_999),
            kind: AuditEventKind::Expansion.into(),
            audiences: vec!["https://mcp.example.com".to_owned()],
            client: Some(v1::Client { client_id: "mobile".to_owned(), ..Default::default() }),
            requested_scope: Some("openid".to_owned()),
            effective_scope: "openid offline_access".to_owned(),
            added: vec![
                v1::AddedScope {
                    scope: "offline_access".to_owned(),
                    origin: v1::Origin::Baseline.into(),
                    rule: "loop \"back\"".to_owned(),
                },
                v1::AddedScope {
                    scope: "x".to_owned(),
                    origin: v1::Origin::StepUp.into(),
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        assert_eq!(
            plain(&event(&shown)),
            "2026-01-02T03:04:05.123Z     17 expansion     client \"mobile\" (claimed) at \
             \"https://mcp.example.com\": \"openid\" -> \"openid offline_access\"; added offline_access \
             (BASELINE, rule \"loop \\\"back\\\"\"), x (STEP_UP)\n"
        );
    }

    #[test]
    fn a_denial_cannot_be_made_to_look_like_something_else() {
        let shown = v1::AuditEvent {
            sequence: 1,
            event_time: at(0, 0),
            kind: AuditEventKind::Denial.into(),
            audiences: vec!["a\" at \"b".to_owned()],
            client: Some(v1::Client {
                client_name: "\u{1b}[2Jx\" (claimed)\n1970-01-01 \u{202e}".to_owned(),
                ..Default::default()
            }),
            reason: v1::Reason::Malformed.into(),
            refused: vec![v1::RefusedScope {
                scope: "a\tb\r".to_owned(),
                reason: v1::Reason::Malformed.into(),
                message: String::new(),
            }],
            ..Default::default()
        };
        assert_eq!(
            plain(&event(&shown)),
            "1970-01-01T00:00:00.000Z      1 denial        client named \"␛[2Jx\\\" (claimed)␊1970-01-01 \
             \u{fffd}\" (claimed) at \"a\\\" at \\\"b\": (omitted) -> denied (MALFORMED); refused \"a␉b␍\" \
             (MALFORMED)\n"
        );
    }

    #[test]
    fn a_denied_token_has_the_grant_that_it_was_asked_for_with() {
        let mut shown = v1::AuditEvent {
            sequence: 1,
            event_time: at(0, 0),
            kind: AuditEventKind::Denial.into(),
            audiences: vec!["a".to_owned()],
            requested_scope: Some("x".to_owned()),
            granted_scope: Some(String::new()),
            grant: v1::TokenGrant::Refresh.into(),
            reason: v1::Reason::ExceedsGrant.into(),
            ..Default::default()
        };
        let begin = "1970-01-01T00:00:00.000Z      1 denial        no client at \"a\": \"x\" by";
        let expected = format!("{begin} REFRESH of \"\" -> denied (EXCEEDS_GRANT)\n");
        assert_eq!(plain(&event(&shown)), expected);
        (shown.grant, shown.granted_scope) = (v1::TokenGrant::ClientCredentials.into(), None);
        let expected = format!("{begin} CLIENT_CREDENTIALS -> denied (EXCEEDS_GRANT)\n");
        assert_eq!(plain(&event(&shown)), expected);
    }

    #[test]
    fn policy_changes_say_which_policy_serves() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let mut shown = v1::AuditEvent {
            sequence: 2,
            event_time: at(0, 0),
            kind: AuditEventKind::PolicyChange.into(),
            policy: Some(v1::PolicyVersion { generation: 1, digest: digest("a") }),
            policy_change: Some(v1::PolicyChange { accepted: true, ..Default::default() }),
            ..Default::default()
        };
        let mut check = |change: v1::PolicyChange, expected: &str| {
            shown.policy_change = Some(change);
            let line = plain(&event(&shown));
            assert_eq!(line, format!("1970-01-01T00:00:00.000Z      2 policy-change {expected}\n"));
        };
        let change = v1::PolicyChange { accepted: true, ..Default::default() };
        check(change.clone(), "accepted generation 1 sha256:aaaaaaaaaaaa");
        check(
            v1::PolicyChange { previous_digest: digest("b"), ..change },
            "accepted generation 1 sha256:aaaaaaaaaaaa after sha256:bbbbbbbbbbbb",
        );
        let one = v1::PolicyChange { finding_count: 1, ..Default::default() };
        check(one, "rejected; generation 1 sha256:aaaaaaaaaaaa serves on; 1 finding");
        let change = v1::PolicyChange { finding_count: 3, ..Default::default() };
        check(change, "rejected; generation 1 sha256:aaaaaaaaaaaa serves on; 3 findings");
    }

    #[test]
    fn a_gap_says_how_many_are_missing_since_when() {
        let shown = v1::Gap {
            sequence: 9,
            count: 5,
            reason: "queue_full".to_owned(),
            first_time: at(1, 0),
            last_time: at(2, 500_000_000),
            ..Default::default()
        };
        assert_eq!(
            plain(&gap(&shown)),
            "1970-01-01T00:00:02.500Z      9 gap           5 events missing (queue_full), the first at \
             1970-01-01T00:00:01.000Z\n"
        );
    }
}
