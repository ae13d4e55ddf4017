//! The last good policy on disk: the files of the set that served last, for a start when the policy
//! directory is broken.
//!
//! In the state directory there are the contents, each named by its hash, and a manifest that says which of them
//! were the policy: a change of one file among many writes two files. Whatever moment the process or the machine ends at, the
//! manifest is the old one or the new one, and everything that it names is there: contents are durable before it, and
//! removed after it. All of it is checked when it is read, and goes through the same check as any other policy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::read::SourceFile;
use crate::escape::shown;
use crate::policy::check::{Accepted, check};
use crate::policy::document::Document;
use crate::{file, hex};

mod contents;

use contents::{BundlePart, ContentPlaces, Contents};

/// Name of the manifest in the state directory.
pub const FILE_NAME: &str = "last-good.json";
/// Name of the directory with the contents, in the state directory.
pub const CONTENTS_NAME: &str = "last-good";

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
    /// A file was written again before it was kept, and what it held is nowhere any more.
    #[error("policy file `{}` is another one by now", shown(path))]
    Changed {
        /// The file.
        path: Arc<str>,
    },
}

#[derive(Deserialize, Serialize)]
struct Manifest {
    format: u32,
    digest: String,
    files: Vec<ManifestFile>,
}

#[derive(Deserialize, Serialize)]
struct ManifestFile {
    path: String,
    /// The name of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Where in a bundle that is; otherwise it is in a file of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<BundlePart>,
    /// In format 1, the content itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// What is written today. Format 1 had the contents in the manifest, and is read as well.
const FORMAT: u32 = 2;

/// Keeps the files of a set of this digest, replacing what was kept before. Blocks; durable when it returns.
///
/// A content that is there already is not written again, so that a file whose text is not in memory needs none; should it
/// not be there, it is read from the policy.
///
/// # Errors
/// [`LastGoodError`] if the state directory is not there or cannot be written, or a text is nowhere any more; what was kept
/// before is then intact.
pub fn keep(state_dir: &Path, digest: &str, files: &[SourceFile]) -> Result<(), LastGoodError> {
    let directory = state_dir.join(CONTENTS_NAME);
    // The state directory is not made if it is gone: one that vanished is for people to look at.
    match fs::create_dir(&directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(LastGoodError::Io { path: directory, source });
        }
        _ => {}
    }
    // Without a manifest nothing is known to be there.
    let known = Manifest::read(state_dir).map(|manifest| manifest.places()).unwrap_or_default();
    let contents = Contents::new(directory, known);
    let places = contents.keep(files)?;
    let named = files.iter().map(|file| {
        let name = hex::encode(&file.content_hash);
        let part = places.get(&name).cloned().flatten();
        ManifestFile { path: file.path.to_string(), sha256: Some(name), part, text: None }
    });
    let manifest = Manifest { format: FORMAT, digest: digest.to_owned(), files: named.collect() };
    let path = state_dir.join(FILE_NAME);
    file::replace(&path, |out| serde_json::to_writer(out, &manifest).map_err(io::Error::from))
        .map_err(|source| LastGoodError::Io { path: path.clone(), source })?;
    // What cannot be removed now is removed next time.
    _ = contents.remove_others(&places);
    Ok(())
}

impl Manifest {
    fn read(state_dir: &Path) -> Result<Self, LastGoodError> {
        let path = state_dir.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LastGoodError::None { path: path.clone() },
            io::ErrorKind::InvalidData => {
                LastGoodError::Damaged { path: path.clone(), reason: "it is not UTF-8".to_owned() }
            }
            _ => LastGoodError::Io { path: path.clone(), source },
        })?;
        let damaged = |reason: String| LastGoodError::Damaged { path: path.clone(), reason };
        let found: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if !(1..=FORMAT).contains(&found.format) {
            return Err(damaged(format!("format {} is not known to this version", found.format)));
        }
        Ok(found)
    }

    /// Where its contents are.
    fn places(&self) -> ContentPlaces {
        self.files.iter().filter_map(|file| Some((file.sha256.clone()?, file.part.clone()))).collect()
    }
}

/// By what contents are told apart.
#[must_use]
pub fn hash_of(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The contents that are kept.
#[derive(Debug)]
pub struct KeptContents(Contents);

impl KeptContents {
    /// Those of the newest copy; none if there is none. Blocks.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let known = Manifest::read(state_dir).map(|manifest| manifest.places()).unwrap_or_default();
        Self(Contents::new(state_dir.join(CONTENTS_NAME), known))
    }

    /// A content of this hash, if it is kept. Blocks.
    #[must_use]
    pub fn get(&self, content_hash: &[u8; 32]) -> Option<String> {
        self.0.read(&hex::encode(content_hash)).ok()
    }
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
    let damaged = |reason: String| LastGoodError::Damaged { path: path.clone(), reason };
    let found = Manifest::read(state_dir)?;
    let contents = Contents::new(state_dir.join(CONTENTS_NAME), found.places());
    let mut files: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(found.files.len());
    for ManifestFile { path, sha256, text, part: _ } in found.files {
        let text = match (sha256, text) {
            (Some(name), None) => contents.read(&name)?,
            (None, Some(text)) => text,
            _ => return Err(damaged(format!("`{}` has no content", shown(&path)))),
        };
        files.push((path.into(), text.into()));
    }
    let documents: Vec<Document> = files.iter().map(|(path, text)| Document::read(path, text)).collect();
    let accepted = check(&Arc::from("last good policy"), &documents).map_err(|findings| {
        damaged(findings.first().map_or_else(|| "it is not valid".to_owned(), ToString::to_string))
    })?;
    if accepted.set.digest().as_str() != found.digest {
        return Err(damaged(format!(
            "it should have digest {} and has {}",
            shown(&found.digest),
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

    struct Rig {
        folder: tempfile::TempDir,
        loader: Loader,
        state: PathBuf,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (policies, state) = (folder.path().join("policies"), folder.path().join("state"));
            fs::create_dir(&policies).unwrap();
            Self { loader: Loader::new(vec![policies], ReadSettings::default()), state, folder }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join("policies").join(name), text).unwrap();
        }

        /// Loads and keeps; returns the digest.
        fn keep(&mut self) -> Result<String, LastGoodError> {
            let loaded = self.loader.load().unwrap();
            let digest = loaded.outcome.unwrap().set.digest().to_string();
            keep(&self.state, &digest, &loaded.files).map(|()| digest)
        }

        fn contents(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.state.join(CONTENTS_NAME)).unwrap();
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        }

        #[track_caller]
        fn is_damaged(&self) {
            let restored = restore(&self.state);
            assert!(matches!(restored, Err(LastGoodError::Damaged { .. })), "{restored:?}");
        }
    }

    const ONE: &str = "audiences: {a: {scopesSupported: [x]}}";

    #[test]
    fn what_was_kept_is_restored_and_damage_is_noticed() {
        let mut rig = Rig::new();
        assert!(matches!(restore(&rig.state), Err(LastGoodError::None { .. })));
        rig.write("a.yaml", ONE);
        rig.write("b.yaml", "audiences: {b: {scopesSupported: [x]}}");
        // A state directory that was removed is not made again.
        assert!(matches!(rig.keep(), Err(LastGoodError::Io { .. })));
        assert!(!rig.state.exists());
        fs::create_dir(&rig.state).unwrap();
        let digest = rig.keep().unwrap();
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        let whole: Vec<_> = rig.contents().into_iter().chain([rig.state.join(FILE_NAME)]).collect();
        assert_eq!(whole.len(), 3);
        for path in &whole {
            let text = fs::read_to_string(path).unwrap();
            // Cut off anywhere, as by a crash of a system that lost what was said to be durable.
            for end in 0..text.len() {
                fs::write(path, &text[..end]).unwrap();
                rig.is_damaged();
            }
            for damaged in [text.replace(['x', 'a'], "y"), "[".to_owned()] {
                fs::write(path, damaged).unwrap();
                rig.is_damaged();
            }
            fs::write(path, [0xFF]).unwrap();
            rig.is_damaged();
            fs::write(path, &text).unwrap();
        }
        fs::remove_file(&whole[0]).unwrap();
        rig.is_damaged();
        // The next time that it is kept with its text, a damaged content is written again.
        fs::write(&whole[0], "x").unwrap();
        rig.loader = Loader::new(rig.loader.paths().to_vec(), ReadSettings::default());
        rig.keep().unwrap();
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
    }

    #[test]
    fn an_edit_writes_one_content_and_what_is_no_longer_named_is_removed() {
        let mut rig = Rig::new();
        fs::create_dir(&rig.state).unwrap();
        rig.write("a.yaml", ONE);
        rig.write("b.yaml", "audiences: {b: {scopesSupported: [x]}}");
        rig.keep().unwrap();
        rig.loader.forget_texts();
        let before = rig.contents();
        let written = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        let times: Vec<_> = before.iter().map(written).collect();
        rig.write("b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
        fs::write(rig.state.join(CONTENTS_NAME).join("left-over.new"), "x").unwrap();
        let digest = rig.keep().unwrap();
        let after = rig.contents();
        assert_eq!(after.len(), 2);
        let same: Vec<_> = before.iter().zip(&times).filter(|(path, _)| after.contains(path)).collect();
        assert_eq!(same.len(), 1);
        assert_eq!(written(same[0].0), *same[0].1, "not written again");
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        // A content that somebody took away is read from the policy, or it cannot be kept.
        fs::remove_dir_all(rig.state.join(CONTENTS_NAME)).unwrap();
        rig.loader.forget_texts();
        rig.keep().unwrap();
        restore(&rig.state).unwrap();
        let mut files = rig.loader.load().unwrap().files;
        files.iter_mut().for_each(|file| file.text = None);
        fs::remove_dir_all(rig.state.join(CONTENTS_NAME)).unwrap();
        rig.write("a.yaml", "audiences: [");
        let kept = keep(&rig.state, &digest, &files);
        assert!(matches!(kept, Err(LastGoodError::Changed { .. })), "{kept:?}");
    }

    #[test]
    fn what_an_older_version_kept_is_restored_and_what_a_newer_one_kept_is_refused() {
        let rig = Rig::new();
        fs::create_dir(&rig.state).unwrap();
        let digest = crate::policy::sample::set(ONE).digest().to_string();
        let older = |format: u32| serde_json::json!({"format": format, "digest": digest, "files": [{"path": "policies/a.yaml", "text": ONE}]});
        fs::write(rig.state.join(FILE_NAME), older(1).to_string()).unwrap();
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        fs::write(rig.state.join(FILE_NAME), older(3).to_string()).unwrap();
        rig.is_damaged();
    }

    /// Writes a file for each number, `filler` bytes long.
    fn write_many(rig: &Rig, numbers: std::ops::Range<usize>, filler: usize) {
        for number in numbers {
            let comment = "#".repeat(filler);
            rig.write(
                &format!("{number:02}.yaml"),
                &format!("audiences: {{a{number}: {{scopesSupported: [x]}}}}\n{comment}"),
            );
        }
    }

    #[test]
    fn many_contents_are_in_a_bundle_and_damage_to_it_is_noticed() {
        let mut rig = Rig::new();
        fs::create_dir(&rig.state).unwrap();
        write_many(&rig, 0..20, 0);
        let digest = rig.keep().unwrap();
        let [bundle] = &*rig.contents() else { panic!("one file: {:?}", rig.contents()) };
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        let whole = fs::read(bundle).unwrap();
        let hash = crate::store::last_good::hash_of(
            &fs::read_to_string(rig.folder.path().join("policies/07.yaml")).unwrap(),
        );
        assert!(KeptContents::open(&rig.state).get(&hash).unwrap().contains("a7"));
        for end in (0..whole.len()).step_by(17) {
            fs::write(bundle, &whole[..end]).unwrap();
            rig.is_damaged();
            let mut changed = whole.clone();
            changed[end] ^= 1;
            fs::write(bundle, changed).unwrap();
            rig.is_damaged();
        }
        // The content that is damaged is written again, alone; all of them if the bundle is gone.
        rig.keep().unwrap();
        assert_eq!(rig.contents().len(), 2);
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        fs::remove_dir_all(rig.state.join(CONTENTS_NAME)).unwrap();
        rig.loader.forget_texts();
        rig.keep().unwrap();
        assert_eq!(fs::read(bundle).unwrap(), whole);
        let manifest = rig.state.join(FILE_NAME);
        let text = fs::read_to_string(&manifest).unwrap();
        for odd in ["bundle-../../policies/00.yaml", "/etc/passwd", ""] {
            let name = bundle.file_name().unwrap().to_str().unwrap();
            fs::write(&manifest, text.replace(name, odd)).unwrap();
            rig.is_damaged();
        }
        fs::write(&manifest, text.replace("\"offset\":0,", "\"offset\":18446744073709551615,")).unwrap();
        rig.is_damaged();
        rig.keep().unwrap();
        assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
    }

    #[test]
    fn a_bundle_goes_once_less_than_half_of_it_is_used() {
        let mut rig = Rig::new();
        fs::create_dir(&rig.state).unwrap();
        write_many(&rig, 0..20, 200_000);
        rig.keep().unwrap();
        let bundles = |rig: &Rig| {
            let is_bundle =
                |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("bundle-");
            rig.contents().iter().filter(is_bundle).count()
        };
        let own = |rig: &Rig| rig.contents().len() - bundles(rig);
        let edit = |rig: &mut Rig, numbers: std::ops::Range<usize>| {
            rig.loader.forget_texts();
            write_many(rig, numbers, 10);
            let digest = rig.keep().unwrap();
            assert_eq!(restore(&rig.state).unwrap().accepted.set.digest().as_str(), digest);
        };
        for number in 0..3 {
            edit(&mut rig, number..number + 1);
            assert_eq!(
                (bundles(&rig), own(&rig)),
                (1, usize::from(number as u8) + 1),
                "an edit writes one content"
            );
        }
        edit(&mut rig, 3..14);
        // The six that were left of the first bundle are in another one, with those of this edit.
        assert_eq!((bundles(&rig), own(&rig)), (1, 3));
        let stored: u64 = rig.contents().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(stored < 7 * 200_000, "{stored}");
    }
}
