//! The contents of the files of a policy, in a directory: each in a file of its own, or many in a bundle.
//!
//! To make a file durable costs the disk the same for one byte and for a hundred megabytes, so many new contents are written
//! behind one another into one file. A content that is there is not written again, wherever it is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{LastGoodError, hash_of};
use crate::store::read::SourceFile;
use crate::{file, hex};

/// From so many new contents on they are written into a bundle.
const MANY: usize = 16;
/// What bundles may have at least that is no longer used, in bytes.
const WASTE: u64 = 1 << 20;

/// The part of a bundle that a content is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct BundlePart {
    bundle: String,
    offset: u64,
    length: u64,
}

/// Where contents are, by their names, which are their hashes: in files of these names, or in parts of bundles.
pub(super) type ContentPlaces = HashMap<String, Option<BundlePart>>;

/// The directory with the contents.
#[derive(Debug)]
pub(super) struct Contents {
    directory: PathBuf,
    /// As the manifest says that is there.
    known: ContentPlaces,
}

impl Contents {
    /// A part of what is no bundle is known to nobody.
    pub(super) fn new(directory: PathBuf, mut known: ContentPlaces) -> Self {
        let is_bundle = |part: &BundlePart| part.bundle.strip_prefix(BUNDLE).is_some_and(is_hash);
        known.retain(|_, part| part.as_ref().is_none_or(is_bundle));
        Self { directory, known }
    }

    /// A content, whose hash is the one that it is named by.
    pub(super) fn read(&self, name: &str) -> Result<String, LastGoodError> {
        let part = self.known.get(name).and_then(Option::as_ref);
        let path = self.directory.join(part.map_or(name, |part| &part.bundle));
        let damaged = |reason: &str| LastGoodError::Damaged { path: path.clone(), reason: reason.to_owned() };
        if !is_hash(name) {
            return Err(damaged("its name is not a hash"));
        }
        let bytes = match self.bytes(name, part) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is not there"));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("it is cut off"));
            }
            Err(source) => return Err(LastGoodError::Io { path, source }),
        };
        if hex::encode(&<[u8; 32]>::from(Sha256::digest(&bytes))) != name {
            return Err(damaged("it does not have the hash that it is named by"));
        }
        String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8"))
    }

    fn bytes(&self, name: &str, part: Option<&BundlePart>) -> io::Result<Vec<u8>> {
        let Some(BundlePart { bundle, offset, length }) = part else {
            return fs::read(self.directory.join(name));
        };
        let file = File::open(self.directory.join(bundle))?;
        if offset.checked_add(*length).is_none_or(|end| end > file.metadata().map_or(0, |found| found.len()))
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, *offset)?;
        Ok(bytes)
    }

    /// Whether a content is there. What is in memory is compared: what is there may be damaged.
    fn has(&self, name: &str, text: Option<&str>) -> bool {
        let part = self.known.get(name).and_then(Option::as_ref);
        match (text, part) {
            (Some(text), part) => self.bytes(name, part).is_ok_and(|kept| kept == text.as_bytes()),
            (None, None) => self.directory.join(name).exists(),
            (None, Some(BundlePart { bundle, offset, length })) => {
                self.size(bundle).is_some_and(|size| offset.saturating_add(*length) <= size)
            }
        }
    }

    fn size(&self, bundle: &str) -> Option<u64> {
        fs::metadata(self.directory.join(bundle)).ok().map(|found| found.len())
    }

    /// Writes the contents that are not there, durably; returns where all of them are.
    ///
    /// # Errors
    /// [`LastGoodError`] if something cannot be written, or a content is nowhere any more.
    pub(super) fn keep(&self, files: &[SourceFile]) -> Result<ContentPlaces, LastGoodError> {
        let mut places = ContentPlaces::with_capacity(files.len());
        let mut new: Vec<(String, &SourceFile)> = Vec::new();
        for file in files {
            if let Entry::Vacant(place) = places.entry(hex::encode(&file.content_hash)) {
                let part = self.known.get(place.key()).cloned().flatten();
                if !self.has(place.key(), file.text.as_deref()) {
                    new.push((place.key().clone(), file));
                }
                place.insert(part);
            }
        }
        if self.is_wasteful(&places) {
            // What is still used of bundles is written once more, and they can go.
            new = Vec::new();
            let mut seen = HashSet::new();
            for file in files {
                let name = hex::encode(&file.content_hash);
                let is_own = places.get(&name).is_some_and(Option::is_none);
                if !(is_own && self.has(&name, file.text.as_deref())) && seen.insert(name.clone()) {
                    new.push((name, file));
                }
            }
        }
        if new.is_empty() {
            return Ok(places);
        }
        let failed = |path: &Path, source| LastGoodError::Io { path: path.to_owned(), source };
        if new.len() < MANY {
            for (name, file) in new {
                let (text, path) = (self.content(&name, file)?, self.directory.join(&name));
                file::write_whole(&path, |out| out.write_all(text.as_bytes()))
                    .map_err(|source| failed(&path, source))?;
                places.insert(name, None);
            }
        } else {
            self.bundle(&new, &mut places)?;
        }
        let any = self.directory.join(BUNDLE);
        file::sync_parent(&any).map_err(|source| failed(&self.directory, source))?;
        Ok(places)
    }

    /// Writes contents behind one another into one file.
    fn bundle(&self, new: &[(String, &SourceFile)], places: &mut ContentPlaces) -> Result<(), LastGoodError> {
        let mut hasher = Sha256::new();
        new.iter().for_each(|(name, _)| hasher.update(name));
        let bundle = format!("{BUNDLE}{}", hex::encode(&<[u8; 32]>::from(hasher.finalize())));
        let path = self.directory.join(&bundle);
        let (mut offset, mut missing) = (0, None);
        let write = |out: &mut dyn Write| {
            for (name, file) in new {
                let text = self.content(name, file).map_err(|error| {
                    missing = Some(error);
                    io::Error::from(io::ErrorKind::NotFound)
                })?;
                out.write_all(text.as_bytes())?;
                let length = u64::try_from(text.len()).map_err(io::Error::other)?;
                places.insert(name.clone(), Some(BundlePart { bundle: bundle.clone(), offset, length }));
                offset += length;
            }
            Ok(())
        };
        let written = file::write_whole(&path, write);
        written.map_err(|source| missing.unwrap_or(LastGoodError::Io { path, source }))
    }

    /// What a file held when it was read: from memory, from here, or from where it was read.
    fn content(&self, name: &str, file: &SourceFile) -> Result<Arc<str>, LastGoodError> {
        if let Some(text) = &file.text {
            return Ok(Arc::clone(text));
        }
        if let Ok(text) = self.read(name) {
            return Ok(text.into());
        }
        let text = fs::read_to_string(&*file.path).ok().filter(|text| hash_of(text) == file.content_hash);
        text.map(Arc::from).ok_or_else(|| LastGoodError::Changed { path: Arc::clone(&file.path) })
    }

    /// Returns `true` if less than half of the bundles is used by these contents.
    fn is_wasteful(&self, places: &ContentPlaces) -> bool {
        let parts = || places.values().flatten();
        let bundles: HashSet<&str> = parts().map(|part| &*part.bundle).collect();
        let stored: u64 = bundles.into_iter().filter_map(|bundle| self.size(bundle)).sum();
        let used = parts().fold(0_u64, |sum, part| sum.saturating_add(part.length));
        stored > used.saturating_mul(2).saturating_add(WASTE)
    }

    /// Removes what is in none of these places.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn remove_others(&self, places: &ContentPlaces) -> io::Result<()> {
        let used: HashSet<&str> =
            places.iter().map(|(name, part)| part.as_ref().map_or(&**name, |part| &part.bundle)).collect();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            if !name.to_str().is_some_and(|name| used.contains(name)) {
                fs::remove_file(self.directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// How the names of bundles begin.
const BUNDLE: &str = "bundle-";

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
