//! The header of the store's main file, looked at before SQLite reads it.
//!
//! SQLite answers a damaged header in many ways: "not a database", a file that can only be read,
//! records read with another page size. Here each is one finding. The layout is that of "The Database
//! Header" in the SQLite documentation. Fields whose values change nothing that is read are left
//! alone, and so are those that SQLite checks itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::APPLICATION_ID;

/// The sizes of a page that these stores have.
const PAGE_BYTES: u16 = 16 << 10;
const SMALL_PAGE_BYTES: u16 = 4096;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The fractions that a payload may take of a page, which SQLite has never varied.
const FRACTIONS: &[u8; 3] = &[64, 32, 32];

/// The first bytes of a file.
#[derive(Debug)]
pub(super) struct StoreHeader([u8; HEADER_BYTES]);

impl StoreHeader {
    /// Reads the header; `None` if the file is empty. Of a shorter file, the rest counts as zeros.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at as u64) {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((at > 0).then_some(Self(bytes)))
    }

    /// What is wrong with it; `None` if SQLite can be asked.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let is = |from: usize, expected: &[u8]| self.0.get(from..from + expected.len()) == Some(expected);
        let at_most = |at: usize, most: u8| self.0.get(at).is_some_and(|byte| *byte <= most);
        // Both are 0 in a database without tables.
        let word_at_most = |at: usize, most: u8| is(at, &[0; 3]) && at_most(at + 3, most);
        let checks = [
            (is(0, MAGIC), "it does not begin as a SQLite database does"),
            (
                is(16, &PAGE_BYTES.to_be_bytes()) || is(16, &SMALL_PAGE_BYTES.to_be_bytes()),
                "its header is damaged: the page size is neither 16384 nor 4096",
            ),
            (
                at_most(18, 2) && at_most(19, 2),
                "its header is damaged: it names a file format that SQLite does not know",
            ),
            (is(20, &[0]), "its header is damaged: it reserves space in each page"),
            (is(21, FRACTIONS), "its header is damaged: it has other payload fractions than 64, 32 and 32"),
            (word_at_most(44, 4), "its header is damaged: it names a schema format that does not exist"),
            (word_at_most(56, 1), "its header is damaged: its text encoding is not UTF-8"),
        ];
        checks.into_iter().find_map(|(holds, problem)| (!holds).then_some(problem))
    }

    /// Returns `true` if the file has the application id of an audit store.
    pub(super) fn is_ours(&self) -> bool {
        self.application_id() == APPLICATION_ID
    }

    /// Returns `true` if the file has the application id of another program. A store that was being
    /// made has none yet.
    pub(super) fn is_foreign(&self) -> bool {
        !self.is_ours() && self.application_id() != 0
    }

    fn application_id(&self) -> i64 {
        let bytes = self.0.get(68..72).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        i64::from(u32::from_be_bytes(bytes))
    }
}
