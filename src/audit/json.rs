//! Records as JSON lines: the JSON of the message, as everywhere, with gaps marked.
//!
//! An event is its object, a gap is inside a member `gap`. `docs/reference/audit-event.schema.json` describes a
//! line. The same record always becomes the same bytes.

use std::time::SystemTime;

use prost_types::Timestamp;

use super::record::Body;
use crate::proto::json::{JsonError, to_string};
use crate::proto::v1::Gap;

/// Writes a record as one line of JSON without the line break.
///
/// # Errors
///
/// If a time is outside the years that RFC 3339 can write.
pub fn line(record: &Body) -> Result<String, JsonError> {
    match record {
        Body::Event(event) => to_string(&**event),
        Body::Gap(gap) => gap_line(gap),
    }
}

/// The line of a gap.
///
/// # Errors
///
/// As for [`line()`].
pub fn gap_line(gap: &Gap) -> Result<String, JsonError> {
    Ok(format!(r#"{{"gap":{}}}"#, to_string(gap)?))
}

/// The gap for records that retention deleted before they could be written: all from the first to the last
/// sequence.
pub(super) fn retention_gap(log_id: String, first: u64, last: u64, time: SystemTime) -> Gap {
    let time: Option<Timestamp> = Some(time.into());
    Gap {
        log_id,
        sequence: last,
        count: last + 1 - first,
        reason: "retention".to_owned(),
        first_time: time,
        last_time: time,
        ..Gap::default()
    }
}

#[cfg(test)]
mod tests;
