//! Opening a store that no server has open, for tools that read it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::AuditError;
use super::header::StoreHeader;
use super::sqlite::{check_header, identify, wal_path};

/// A store that is open for reading.
#[derive(Debug)]
pub(super) struct OfflineStore {
    pub(super) connection: Connection,
    pub(super) log_id: Uuid,
    /// INVARIANT: closed after the connection, hence declared after it: closing any descriptor of a file
    /// gives the process's locks on it back, SQLite's too.
    _file: File,
}

impl OfflineStore {
    /// Opens a store for reading and reads its log id. Blocks.
    ///
    /// # Errors
    ///
    /// The file is not there, is damaged, is not an audit log that this program understands, or a running
    /// server has it ([`AuditError::StoreInUse`]).
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        std::fs::metadata(path).map_err(AuditError::io("read", path))?;
        let connected = connect(path);
        if let Err(error) = &connected
            && let Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) = error.sqlite_error_code()
        {
            return Err(AuditError::StoreInUse { path: path.to_owned() });
        }
        let file = File::open(path).map_err(AuditError::io("read", path))?;
        match StoreHeader::read(&file).map_err(AuditError::io("read", path))? {
            Some(header) => check_header(&header, path)?,
            None => return Err(AuditError::Damaged { what: "the file is empty".to_owned() }),
        }
        let connection = connected.map_err(AuditError::database("open the audit log"))?;
        let log_id = identify(&connection, path)?;
        Ok(Self { connection, log_id, _file: file })
    }
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
