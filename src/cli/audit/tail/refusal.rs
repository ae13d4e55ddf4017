//! Why a server does not go on from a cursor, in words that say what is kept and how to go on.

use std::path::PathBuf;

use tonic::Status;
use tonic_types::StatusExt;

use super::{AuditClient, end_of};
use crate::audit::Cursor;
use crate::cli::remote::ServerTarget;
use crate::rpc::v1::AuditStart;

/// Where a cursor came from.
#[derive(Debug)]
pub(super) enum CursorOrigin {
    /// From a file.
    File(PathBuf),
    /// From `--after`.
    Flag,
    /// From what was received in this run.
    Stream,
}

impl CursorOrigin {
    fn named(&self) -> String {
        match self {
            Self::File(path) => format!("cursor file `{}`", path.display()),
            Self::Flag => "`--after`".to_owned(),
            Self::Stream => "the last record that was read".to_owned(),
        }
    }

    /// How to begin with the oldest record.
    fn restart(&self) -> String {
        match self {
            Self::File(path) => format!("remove `{}`", path.display()),
            Self::Flag | Self::Stream => "use `--from earliest` instead".to_owned(),
        }
    }
}

/// Explains an error that is about the cursor; `None` if it is another one. With a client it asks what
/// the server keeps if the error does not say.
pub(super) async fn explain(
    status: &Status,
    cursor: &Cursor,
    origin: &CursorOrigin,
    server: &ServerTarget,
    client: Option<AuditClient>,
) -> Option<String> {
    let info = status.get_details_error_info()?;
    let number = |key| info.metadata.get(key).and_then(|value| value.parse::<u64>().ok());
    match &*info.reason {
        "SEQUENCE_OUT_OF_RANGE" => {
            let (oldest, newest) = (number("oldest_sequence")?, number("newest_sequence")?);
            Some(out_of_range(cursor.sequence, origin, "the server", oldest, newest))
        }
        "LOG_ID_FOREIGN" => {
            let theirs = info.metadata.get("log_id")?;
            let mut kept = String::new();
            if let Some(mut client) = client
                && let Ok(base) = end_of(&mut client, AuditStart::Earliest).await
                && let Ok(head) = end_of(&mut client, AuditStart::Latest).await
            {
                kept = format!(", which keeps {}", range(base.durable_sequence + 1, head.durable_sequence));
            }
            Some(replaced(
                &cursor.log_id,
                origin,
                &format!("the server at {server} has log `{theirs}`{kept}"),
            ))
        }
        _ => None,
    }
}

/// For a cursor of another log. `theirs` says what there is instead.
pub(super) fn replaced(log_id: &str, origin: &CursorOrigin, theirs: &str) -> String {
    format!(
        "{} belongs to log `{log_id}`, but {theirs}: it is another server, or its state directory was replaced; \
         name the right one with `--server` or `--state-dir`, or, to go on with the oldest record of this one, {}",
        origin.named(),
        origin.restart(),
    )
}

/// For a cursor outside of what `keeper` keeps.
pub(super) fn out_of_range(
    sequence: u64,
    origin: &CursorOrigin,
    keeper: &str,
    oldest: u64,
    newest: u64,
) -> String {
    let (named, restart, kept) = (origin.named(), origin.restart(), range(oldest, newest));
    if sequence > newest {
        return format!(
            "{named} is at sequence {sequence}, but {keeper} keeps {kept}: its end was cut off, or an older \
             copy put in its place; check it with `scopeward audit verify`, then, to go on with the oldest \
             record, {restart}"
        );
    }
    let lost = oldest.saturating_sub(1).saturating_sub(sequence);
    format!(
        "{named} is at sequence {sequence}, but {keeper} keeps {kept}: {lost} records were deleted by \
         retention before they were read; to go on with the oldest record, {restart}"
    )
}

fn range(oldest: u64, newest: u64) -> String {
    if oldest > newest {
        format!("no records after {newest}")
    } else {
        format!("records {oldest} to {newest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_outside_of_what_is_kept_is_told_from_both_sides() {
        let out_of_range = |origin: &CursorOrigin, oldest, newest| {
            super::out_of_range(7, origin, "the server", oldest, newest)
        };
        let older = out_of_range(&CursorOrigin::File("c".into()), 11, 20);
        assert!(
            older.starts_with("cursor file `c` is at sequence 7, but the server keeps records 11 to 20: 3 ")
        );
        assert!(older.ends_with("remove `c`"), "{older}");
        let newer = out_of_range(&CursorOrigin::Flag, 1, 5);
        assert!(
            newer.starts_with("`--after` is at sequence 7, but the server keeps records 1 to 5: its end")
        );
        assert!(newer.ends_with("use `--from earliest` instead"), "{newer}");
        let empty = out_of_range(&CursorOrigin::Stream, 1, 0);
        assert!(empty.contains("keeps no records after 0"), "{empty}");
    }
}
