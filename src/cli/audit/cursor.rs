//! The file in which a cursor is kept, which is never half-written.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::audit::Cursor;
use crate::file;

/// Where a cursor is kept.
#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
}

/// Why a cursor file cannot be used.
#[derive(Debug, Error)]
pub(super) enum CursorError {
    #[error("could not read cursor file `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a cursor file: {problem}; remove it to start again", path.display())]
    NotACursor { path: PathBuf, problem: String },
    #[error("could not write cursor file `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl CursorFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the cursor; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has something else in it. It is not taken for a missing one: that
    /// would repeat the whole log.
    pub(super) fn read(&self) -> Result<Option<Cursor>, CursorError> {
        let path = &self.path;
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CursorError::Read { path: path.clone(), source }),
        };
        Cursor::read(&text)
            .map(Some)
            .map_err(|error| CursorError::NotACursor { path: path.clone(), problem: error.to_string() })
    }

    /// Replaces the cursor in one step: whoever reads the file, even after a loss of power, finds the
    /// old one or the new one.
    ///
    /// # Errors
    ///
    /// If it is not known to be durable.
    pub(super) fn write(&self, cursor: &Cursor) -> Result<(), CursorError> {
        let write = |out: &mut dyn Write| {
            serde_json::to_writer(&mut *out, cursor)?;
            out.write_all(b"\n")
        };
        file::replace(&self.path, write)
            .map_err(|source| CursorError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = CursorFile::new(folder.path().join("cursor"));
        assert_eq!(file.read().unwrap(), None);
        for sequence in [0, 7, u64::MAX] {
            let cursor = Cursor { log_id: "log".to_owned(), sequence };
            file.write(&cursor).unwrap();
            assert_eq!(file.read().unwrap(), Some(cursor));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_cursor_is_not_taken_for_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = CursorFile::new(folder.path().join("cursor"));
        for text in ["", "{}", "{\"log_id\":\"a\"}", "{\"log_id\":\"a\",\"sequence\":-1}", "[1]", "\u{0}"] {
            fs::write(file.path(), text).unwrap();
            assert!(matches!(file.read(), Err(CursorError::NotACursor { .. })), "{text}");
        }
        let folder = CursorFile::new(folder.path().to_owned());
        assert!(matches!(folder.read(), Err(CursorError::Read { .. })));
    }
}
