//! The folders whose events can concern a policy: the way that leads to it, and what is below.
//!
//! Each folder is shown to a [`Visitor`] before it is looked into. A visitor that starts to watch it
//! there and then misses nothing: what comes into it later has an event, what came before is walked.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::store::read::{MAX_DEPTH, is_hidden, is_policy_name};

/// Most links that are followed from one path, as in Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Hears what is on the way. All paths are absolute and free of links.
pub(super) trait Visitor {
    /// A folder in which this entry matters, or each one if there is no name. The same folder comes
    /// again for other names.
    fn folder(&mut self, folder: &Path, name: Option<&OsStr>);

    /// A file of the policy, at the end of all links.
    fn file(&mut self, _file: &Path) {}
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// The identity of what is a folder.
pub(super) fn identity(folder: &Path) -> Option<Identity> {
    let metadata = fs::metadata(folder).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

/// Shows all folders that matter to these paths, as far as they are there.
pub(super) fn survey(paths: &[PathBuf], visitor: &mut dyn Visitor) {
    let mut survey = Survey { visitor, walked: HashSet::new() };
    for path in paths {
        // Fails for an empty path or without a current folder; reading fails then too.
        let Ok(path) = std::path::absolute(path) else { continue };
        if let Some(end) = survey.resolve(Path::new("/"), &path) {
            survey.end(&end, 0, true);
        }
    }
}

struct Survey<'a> {
    visitor: &'a mut dyn Visitor,
    walked: HashSet<Identity>,
}

impl Survey<'_> {
    /// Goes from a folder along a path, link by link, and shows where each step is taken: whoever
    /// replaces a name on the way does it there. Nothing if the way ends early; the folder where it
    /// does was shown, and its event comes when the missing name does.
    fn resolve(&mut self, from: &Path, path: &Path) -> Option<PathBuf> {
        let mut here = from.to_owned();
        let mut steps = Vec::new();
        push(&mut steps, path);
        let mut links = 0;
        while let Some(step) = steps.pop() {
            match step {
                Step::Root => here = PathBuf::from("/"),
                Step::Up => _ = here.pop(),
                Step::Down(name) => {
                    self.visitor.folder(&here, Some(&name));
                    let next = here.join(&name);
                    if fs::symlink_metadata(&next).ok()?.is_symlink() {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        push(&mut steps, &fs::read_link(&next).ok()?);
                    } else {
                        here = next;
                    }
                }
            }
        }
        Some(here)
    }

    /// Goes on at the end of a way, into a folder or to a file that is named or linked as policy.
    fn end(&mut self, end: &Path, depth: usize, is_policy_file: bool) {
        if end.is_dir() {
            self.walk(end, depth);
        } else if is_policy_file && end.is_file() {
            self.visitor.file(end);
        }
    }

    fn walk(&mut self, folder: &Path, depth: usize) {
        let Some(identity) = identity(folder) else { return };
        if depth > MAX_DEPTH || !self.walked.insert(identity) {
            return;
        }
        self.visitor.folder(folder, None);
        // Whatever cannot be listed is reported by reading; here it only has no events.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.walk(&folder.join(&name), depth + 1),
                Ok(kind) if kind.is_symlink() => {
                    if let Some(end) = self.resolve(folder, Path::new(&name)) {
                        self.end(&end, depth + 1, is_policy_name(&name));
                    }
                }
                Ok(kind) if kind.is_file() && is_policy_name(&name) => self.visitor.file(&folder.join(&name)),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

/// Puts the steps of a path on top, the first one last.
fn push(steps: &mut Vec<Step>, path: &Path) {
    steps.extend(path.components().rev().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    }));
}
