//! Opening a store that no server has open, for tools that read it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::AuditError;
use super::sqlite::{identify, not_ours, wal_path};

/// Opens a store for reading and reads its log id. Blocks.
///
/// # Errors
///
/// The file is not there, is not an audit log that this program understands, or a running server
/// has it ([`AuditError::StoreInUse`]).
pub(super) fn open(path: &Path) -> Result<(Connection, Uuid), AuditError> {
    std::fs::metadata(path).map_err(AuditError::io("read", path))?;
    let connection = connect(path).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            AuditError::StoreInUse { path: path.to_owned() }
        }
        _ => not_ours(path, error),
    })?;
    let log_id = identify(&connection, path)?;
    Ok((connection, log_id))
}

/// Opens a store for reading only. A store in a folder that cannot be written, and that no
/// process has open, can be read too.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |location: &Path, flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(location, flags)?;
        connection.busy_timeout(Duration::from_millis(100))?;
        connection.execute_batch(
            "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON",
        )?;
        // The first read is what opens the files.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open(path, flags) {
        Ok(connection) => Ok(connection),
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && path.exists()
                && !wal_path(path).exists() =>
        {
            // Nothing is left in a write-ahead file, and none can be made here.
            let location = format!("file:{}?immutable=1", escaped(path));
            open(Path::new(&location), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        Err(error) => Err(error),
    }
}

/// A path as a part of a `file:` URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    path.as_os_str().as_bytes().iter().fold(String::new(), |mut uri, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            other => {
                // Writing to a string cannot fail.
                let _ = write!(uri, "%{other:02X}");
            }
        }
        uri
    })
}
