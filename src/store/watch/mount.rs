//! Finds out whether a policy file is a mount of its own, by proc_pid_mountinfo(5).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::escape::shown;

/// Returns why the source never changes, for people, if a policy file is mounted as a single file, as a `subPath` volume of Kubernetes is: a
/// file that takes its place outside is not seen while the process runs.
///
/// `files` are the policy files at the end of all links, `mountinfo` is the text of `/proc/self/mountinfo`.
#[must_use]
pub fn static_source(files: &[PathBuf], mountinfo: &str) -> Option<String> {
    let mounts: HashSet<PathBuf> =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped).collect();
    // Directories name their entries in any order; the words must not change from look to look.
    let file = files.iter().filter(|file| mounts.contains(*file)).min()?;
    Some(format!(
        "`{}` is mounted as a single file (`subPath`), which is never updated; mount its folder",
        shown(&file.to_string_lossy())
    ))
}

/// Space, tab, line feed and backslash are written as `\040` and the like.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| more.split_at_checked(3))
            .flatten()
            .and_then(|(digits, more)| Some((std::str::from_utf8(digits).ok()?, more)))
            .and_then(|(digits, more)| Some((u8::from_str_radix(digits, 8).ok()?, more)));
        let (byte, more) = code.unwrap_or((*first, more));
        bytes.push(byte);
        rest = more;
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::store::read::{ReadSettings, read_folder_and_targets};
    use crate::store::watch_targets::WatchTargets;

    /// The mount table of a container with one more mount.
    fn table(mount_point: &Path) -> String {
        let mount_point = mount_point.to_str().unwrap().replace(' ', "\\040");
        format!(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
             510 480 8:1 /pods/1/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
             1037 480 8:1 /pods/1/volume-subpaths/policy/mcp.yaml {mount_point} ro,relatime master:1 - ext4 /dev/sda1 rw\n"
        )
    }

    #[track_caller]
    fn check(path: &str, mount_point: &str, expected: Option<&str>) {
        let dir = TempDir::new().unwrap();
        // The temporary folder itself may be reached by a link.
        let root = dir.path().canonicalize().unwrap();
        for file in ["plain/mcp.yaml", "with space/mcp.yaml", "elsewhere/base.yaml", "elsewhere/notes.txt"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        symlink("../elsewhere/base.yaml", root.join("plain/base.yaml")).unwrap();
        symlink("plain", root.join("linked")).unwrap();
        let mut targets = WatchTargets::default();
        let settings = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
        _ = read_folder_and_targets(&[root.join(path)], None, &settings, &mut targets);
        let found = static_source(targets.files(), &table(&root.join(mount_point)));
        let expected = expected.map(|file| {
            format!(
                "`{}` is mounted as a single file (`subPath`), which is never updated; mount its folder",
                root.join(file).display()
            )
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_a_mount_is_named() {
        check("plain", "plain/mcp.yaml", Some("plain/mcp.yaml"));
        check("plain/mcp.yaml", "plain/mcp.yaml", Some("plain/mcp.yaml"));
        check("with space", "with space/mcp.yaml", Some("with space/mcp.yaml"));
    }

    #[test]
    fn a_mount_is_found_through_links() {
        check("linked", "plain/mcp.yaml", Some("plain/mcp.yaml"));
        check("plain", "elsewhere/base.yaml", Some("elsewhere/base.yaml"));
    }

    #[test]
    fn mounted_folders_and_files_that_are_no_policy_do_not_count() {
        check("plain", "plain", None);
        check("elsewhere", "elsewhere/notes.txt", None);
        check("plain", "with space/mcp.yaml", None);
        check("missing", "missing", None);
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        let same = [r"/a\", r"/a\04", r"/a\99x", r"/a\777", r"/a\é1"];
        for text in same {
            assert_eq!(unescaped(text), Path::new(text));
        }
        assert_eq!(unescaped(r"/a\040b\134\011"), Path::new("/a b\\\t"));
    }
}
