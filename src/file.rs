//! Files that are replaced as a whole: whoever reads one, even after a loss of power, finds the old
//! content or the new.
//!
//! Knows nothing of what is in them. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Replaces a file, or makes it, with what `write` writes. Durable when it returns.
///
/// A link is followed, so that it stays one. Written first to a file next to it, whose name has `.new`
/// at the end; that one is gone afterwards, whether it succeeded or not.
///
/// # Errors
///
/// What the system says, or what `write` returned. The file is then as it was, unless only the sync of
/// its directory failed.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_whole(&path, write)?;
    sync_parent(&path)
}

/// Does what [`replace`] does, but follows no link, and leaves it to the caller to make the name durable: of several files in
/// one directory, at once.
///
/// # Errors
///
/// As for [`replace`].
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let new = path.with_added_extension("new");
    let written = File::create(&new).and_then(|file| {
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        // What is left of it is overwritten next time.
        _ = fs::remove_file(&new);
    }
    written
}

/// Makes a file's name durable: that it was created, renamed or removed.
///
/// # Errors
///
/// What the system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        for text in ["first", "", "second, longer"] {
            replace(&path, |out| out.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["file.json"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, |out| out.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(target).unwrap(), "new");
        assert_eq!(names(folder.path()), ["link", "target"]);
    }

    #[test]
    fn after_a_failure_the_file_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let failed = replace(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["file"]);
        assert!(replace(folder.path(), |_| Ok(())).is_err(), "a directory is not a file");
        assert!(replace(&folder.path().join("no/file"), |_| Ok(())).is_err());
    }
}
