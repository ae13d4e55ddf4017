//! A row of the joined store as it was read, and its place among the rows of all logs.

use std::time::SystemTime;

use uuid::Uuid;

use super::{Columns, JoinedProblem};
use crate::audit::chain::{BadRecord, StoredRow};
use crate::audit::record::{Hash, Record};

/// A place in the merged order of all logs: by time, then log, then sequence.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MergePlace {
    /// When the event happened.
    pub time: SystemTime,
    /// Its log.
    pub log_id: Uuid,
    /// Its sequence there.
    pub sequence: u64,
}

/// A row as it was read: nothing of it is believed yet.
#[derive(Debug)]
pub(super) struct ReadRow {
    pub(super) log_id: Uuid,
    pub(super) prev_hash: Hash,
    /// Its `latest_time` is not known here.
    pub(super) stored: StoredRow,
    pub(super) event_time: SystemTime,
    /// `None` where the store has none.
    pub(super) columns: Option<ReadColumns>,
}

/// What the columns of a row say.
#[derive(Debug)]
pub(super) struct ReadColumns {
    pub(super) texts: [Option<String>; 9],
    pub(super) lists: [Option<Vec<String>>; 8],
    pub(super) missing_events: Option<i64>,
}

impl ReadRow {
    /// Checks the record against its own hash, and gives it its place among all.
    pub(super) fn checked(self) -> Result<(MergePlace, Record), JoinedProblem> {
        let Self { log_id, stored, event_time, .. } = self;
        let sequence = stored.sequence;
        let bad = |problem| JoinedProblem::Bad { log_id, bad: BadRecord { sequence, problem } };
        let record = stored.check_alone(&log_id.to_string()).map_err(bad)?;
        Ok((MergePlace { time: event_time, log_id, sequence }, record))
    }

    /// The name of the first column that does not say what the record says; `None` if all do.
    pub(super) fn differs(&self, expected: &Columns) -> Option<&'static str> {
        let Columns {
            event_time,
            kind,
            decision_id,
            correlation_id,
            caller,
            client_id,
            client_name,
            audiences,
            requested_scopes,
            granted_scopes,
            added_scopes,
            added_origins,
            added_rules,
            refused_scopes,
            reason,
            policy_digest,
            missing_events,
            token_grant,
            token_granted_scopes,
        } = expected;
        let ReadColumns { texts, lists, missing_events: missing } = self.columns.as_ref()?;
        let texts_expected = [
            ("kind", Some(*kind)),
            ("decision_id", decision_id.as_deref()),
            ("correlation_id", correlation_id.as_deref()),
            ("caller", caller.as_deref()),
            ("client_id", client_id.as_deref()),
            ("client_name", client_name.as_deref()),
            ("reason", *reason),
            ("policy_digest", policy_digest.as_deref()),
            ("token_grant", *token_grant),
        ];
        let text = |list: &Vec<String>| Some(list.iter().map(String::clone).collect::<Vec<String>>());
        let lists_expected = [
            ("audiences", text(audiences)),
            ("requested_scopes", requested_scopes.as_ref().and_then(text)),
            ("granted_scopes", text(granted_scopes)),
            ("added_scopes", text(added_scopes)),
            ("added_origins", Some(added_origins.iter().map(|origin| (*origin).to_owned()).collect())),
            ("added_rules", text(added_rules)),
            ("refused_scopes", text(refused_scopes)),
            ("token_granted_scopes", token_granted_scopes.as_ref().and_then(text)),
        ];
        if self.event_time != *event_time {
            return Some("event_time");
        }
        let text = texts_expected.iter().zip(texts).find(|((_, wanted), found)| *wanted != found.as_deref());
        let list = lists_expected.iter().zip(lists).find(|((_, wanted), found)| wanted != *found);
        text.map(|((name, _), _)| *name)
            .or(list.map(|((name, _), _)| *name))
            .or((missing != missing_events).then_some("missing_events"))
    }
}
