//! The directories whose events can concern a policy: those on the way to it, those in it, and those that links in it lead to.
//!
//! Collected by the one walk that also lists the files ([`super::read`]). Whoever watches them after the walk, finds that one was not
//! watched before, and walks again, misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What is to be watched, as of one walk.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WatchTargets {
    directories: BTreeMap<PathBuf, Interest>,
    files: Vec<PathBuf>,
}

/// Which entries of a watched directory matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interest {
    /// It is part of the policy: every entry matters that can be a policy file, a directory or a link.
    pub all: bool,
    /// These matter whatever they are: links, and what is on the way.
    pub names: BTreeSet<OsString>,
}

impl WatchTargets {
    /// Notes that all of a directory matters. The path is absolute and free of links.
    pub(super) fn add_directory(&mut self, directory: &Path) {
        self.directories.entry(directory.to_owned()).or_default().all = true;
    }

    /// Notes that one entry of a directory matters.
    pub(super) fn add_entry(&mut self, directory: &Path, name: &OsStr) {
        let interest = match self.directories.get_mut(directory) {
            Some(interest) => interest,
            None => self.directories.entry(directory.to_owned()).or_default(),
        };
        if !interest.names.contains(name) {
            interest.names.insert(name.to_owned());
        }
    }

    /// Notes a policy file, at the end of all links.
    pub(super) fn add_file(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    /// The directories, sorted; each is absolute and free of links.
    pub fn visit_watch_targets(&self, mut visit: impl FnMut(&Path, &Interest)) {
        self.directories.iter().for_each(|(directory, interest)| visit(directory, interest));
    }

    /// The policy files at the end of all links.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}
