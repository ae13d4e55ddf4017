//! What is wrong with files and folders, in words.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::escape::shown;

/// Something inside a policy folder that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadProblem {
    /// The file or folder, named like [`SourceFile::path`](super::SourceFile::path); bytes outside UTF-8 are replaced.
    pub path: Arc<str>,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// What is wrong with a file or folder; the text continues after its name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProblemKind {
    /// The system refuses to list or read it.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// The words of the system.
        reason: String,
    },
    /// A symbolic link to nothing.
    #[error("is a link to `{}`, which is not there", shown(target))]
    DanglingLink {
        /// What the link holds.
        target: String,
    },
    /// Has the name of a policy file and is none.
    #[error("is {kind}, not a regular file")]
    NotRegular {
        /// What it is instead.
        kind: FileKind,
    },
    /// Over [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES); it was not read.
    #[error("has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes, itself allowed.
        limit: u64,
    },
    /// The first file, in the order of the paths, that brings the sum over [`MAX_TOTAL_BYTES`](super::MAX_TOTAL_BYTES).
    #[error("brings the policy to {size} bytes; at most {limit} are read")]
    SetTooLarge {
        /// The size of all files in bytes.
        size: u64,
        /// The limit in bytes, itself allowed.
        limit: u64,
    },
    /// Over [`MAX_FILES`](super::MAX_FILES); the rest was not looked at.
    #[error("holds the policy's files and folders beyond {limit}, which is the most")]
    TooManyFiles {
        /// The limit, itself allowed.
        limit: usize,
    },
    /// Over [`MAX_DEPTH`](super::MAX_DEPTH); the folder was not looked into.
    #[error("is nested more than {limit} folders deep")]
    TooDeep {
        /// The limit, itself allowed.
        limit: usize,
    },
    /// Looks like a policy file by its name, and is not read as one.
    #[error("is not read: policy files end in `.yaml` or `.yml`")]
    NotRead,
    /// The name itself is not UTF-8, so no report could say it.
    #[error("has a name that is not UTF-8")]
    NameNotUtf8,
    /// The content is not UTF-8.
    #[error("is not UTF-8 at byte offset {offset} (line {line}, column {column})")]
    NotUtf8 {
        /// 1-based line of the first bad byte.
        line: u32,
        /// 1-based column of the first bad byte, in characters.
        column: u32,
        /// 0-based offset of the first bad byte.
        offset: u64,
    },
    /// A regular file whose size is not the number of its bytes, as those of `/proc` and `/sys`.
    #[error("has {read} bytes and says that it has {size}: it is not an ordinary file")]
    WrongSize {
        /// What the file system says.
        size: u64,
        /// What could be read, at most one byte more than that.
        read: u64,
    },
    /// A link to something outside of the named directories.
    #[error("is a link to `{}`, outside of the policy directory", shown(target))]
    LeadsOutside {
        /// The end of all links.
        target: String,
    },
    /// A link leads back to a folder that it stands in.
    #[error("leads back to `{}`, which contains it", shown(leads_to))]
    DirectoryLoop {
        /// The path by which the folder was reached first.
        leads_to: Arc<str>,
    },
}

impl ProblemKind {
    pub(super) fn unreadable(error: &io::Error) -> Self {
        Self::Unreadable { reason: plain(error) }
    }
}

/// What stands where a regular file belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A named pipe; opening one would wait for a writer.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character or block device.
    Device,
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Directory => "a directory",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// Why there is no snapshot at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A path that the operator named cannot be looked at or listed.
    #[error("cannot read `{}`: {}", shown(&path.to_string_lossy()), plain(source))]
    Named {
        /// The path as named.
        path: PathBuf,
        /// Why; `NotFound` if it is not there.
        source: io::Error,
    },
    /// A path that the operator named is neither a folder nor a regular file.
    #[error("cannot read `{}`: it is {kind}", shown(&path.to_string_lossy()))]
    NotRegular {
        /// The path as named.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The system had an error that says nothing about the policy, each time it was tried.
    #[error("cannot read `{}` for now: {}", shown(&path.to_string_lossy()), plain(source))]
    Transient {
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Something moved during each attempt; the next quiet moment will do better.
    #[error("the policy kept changing during {attempts} attempts to read it{}", listed(names))]
    Unstable {
        /// How often it was tried.
        attempts: u32,
        /// Some of the files that changed.
        names: Vec<String>,
    },
}

impl ReadError {
    /// Returns `true` for an error of the system that says nothing about the policy.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    pub(super) fn named(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_transient(&source) { Self::Transient { path, source } } else { Self::Named { path, source } }
    }

    /// Returns `true` if a named path is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Named { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Returns `true` for an error that says something about the system at this moment and nothing about a file: no descriptor or
/// memory left, an error of the device, a handle of a network file system that became stale, a signal.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use libc::{EINTR, EIO, EMFILE, ENFILE, ENOMEM, ESTALE};
    error.raw_os_error().is_some_and(|code| [EMFILE, ENFILE, EIO, ESTALE, EINTR, ENOMEM].contains(&code))
}

/// Names for people, after a colon.
fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", shown(&names.join(", "))) }
}

/// The words of the system without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
