//! The last good policy on disk: the files of the set that served last, for a start when the policy
//! directory is broken.
//!
//! One JSON file in the state directory, replaced atomically and checked by digest when it is read: it
//! holds the policy files as text, which go through the same check as any other policy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::read::SourceFile;
use crate::file;
use crate::policy::PolicySet;
use crate::policy::check::{Accepted, check};
use crate::policy::document::Document;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "last-good.json";

/// Why there is no last good policy to start from.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// None was kept.
    #[error("no last good policy is kept in `{}`", path.display())]
    None {
        /// Where it would be.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("last good policy `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("last good policy `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

#[derive(Serialize)]
struct KeptSet<'a> {
    format: u32,
    digest: &'a str,
    files: Vec<KeptFile<'a>>,
}

#[derive(Serialize)]
struct KeptFile<'a> {
    path: &'a str,
    text: &'a str,
}

#[derive(Deserialize)]
struct KeptFound {
    format: u32,
    digest: String,
    files: Vec<FoundFile>,
}

#[derive(Deserialize)]
struct FoundFile {
    path: String,
    text: String,
}

/// Keeps the files of a set, replacing what was kept before. Blocks; durable when it returns.
///
/// # Errors
/// [`LastGoodError::Io`] if the state directory is not there or cannot be written; what was kept before is then intact.
pub fn keep(state_dir: &Path, set: &PolicySet, files: &[SourceFile]) -> Result<(), LastGoodError> {
    let path = state_dir.join(FILE_NAME);
    let failed = |source| LastGoodError::Io { path: path.clone(), source };
    let kept = KeptSet {
        format: 1,
        digest: set.digest().as_str(),
        files: files.iter().map(|file| KeptFile { path: &file.path, text: &file.text }).collect(),
    };
    // Not made if it is gone: a state directory that vanished is for people to look at.
    file::replace(&path, |out| serde_json::to_writer(out, &kept).map_err(io::Error::from)).map_err(failed)
}

/// What was kept.
#[derive(Debug)]
pub struct RestoredPolicy {
    /// The set.
    pub accepted: Accepted,
    /// The path and the text of each file that it was made of.
    pub files: Vec<(Arc<str>, Arc<str>)>,
}

/// Reads what was kept and checks that it means what it meant.
///
/// # Errors
/// [`LastGoodError`] if nothing was kept, or it cannot be read, or is not valid, or has another digest.
pub fn restore(state_dir: &Path) -> Result<RestoredPolicy, LastGoodError> {
    let path = state_dir.join(FILE_NAME);
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LastGoodError::None { path: path.clone() },
        io::ErrorKind::InvalidData => {
            LastGoodError::Damaged { path: path.clone(), reason: "it is not UTF-8".to_owned() }
        }
        _ => LastGoodError::Io { path: path.clone(), source },
    })?;
    let damaged = |reason: String| LastGoodError::Damaged { path: path.clone(), reason };
    let found: KeptFound = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if found.format != 1 {
        return Err(damaged(format!("format {} is not known to this version", found.format)));
    }
    let files: Vec<(Arc<str>, Arc<str>)> =
        found.files.into_iter().map(|file| (file.path.into(), file.text.into())).collect();
    let documents: Vec<Document> = files.iter().map(|(path, text)| Document::read(path, text)).collect();
    let accepted = check(&Arc::from("last good policy"), &documents).map_err(|findings| {
        damaged(findings.first().map_or_else(|| "it is not valid".to_owned(), ToString::to_string))
    })?;
    if accepted.set.digest().as_str() != found.digest {
        return Err(damaged(format!(
            "it should have digest {} and has {}",
            crate::escape::shown(&found.digest),
            accepted.set.digest()
        )));
    }
    Ok(RestoredPolicy { accepted, files })
}

#[cfg(test)]
mod tests {
    use super::super::load::Loader;
    use super::super::read::ReadSettings;
    use super::*;

    #[test]
    fn what_was_kept_is_restored_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let policies = folder.path().join("policies");
        let state = folder.path().join("state");
        fs::create_dir(&policies).unwrap();
        assert!(matches!(restore(&state), Err(LastGoodError::None { .. })));
        fs::write(policies.join("a.yaml"), "audiences: {a: {scopesSupported: [x]}}").unwrap();
        let loaded = Loader::new(vec![policies], ReadSettings::default()).load().unwrap();
        let set = loaded.outcome.unwrap().set;
        // A state directory that was removed is not made again.
        assert!(matches!(keep(&state, &set, &loaded.files), Err(LastGoodError::Io { .. })));
        assert!(!state.exists());
        fs::create_dir(&state).unwrap();
        keep(&state, &set, &loaded.files).unwrap();
        assert_eq!(restore(&state).unwrap().accepted.set.digest(), set.digest());
        let path = state.join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in
            [text.replace("[x]", "[y]"), text.replace("[x]", "x"), text[..text.len() / 2].to_owned()]
        {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(restore(&state), Err(LastGoodError::Damaged { .. })));
        }
        fs::write(&path, [0xFF]).unwrap();
        assert!(matches!(restore(&state), Err(LastGoodError::Damaged { .. })));
    }
}
