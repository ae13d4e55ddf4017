//! What the reader does with good, bad and moving folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;

mod moving;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Settings under which no file counts as fresh from the last read, so that stamps alone decide.
fn trusting() -> ReadSettings {
    ReadSettings { recheck_window: Duration::ZERO, ..ReadSettings::default() }
}

fn limited(limits: ReadLimits) -> ReadSettings {
    ReadSettings { limits, ..ReadSettings::default() }
}

fn read(dir: &TempDir) -> FolderSnapshot {
    read_folder(&[dir.path().to_owned()], None, &ReadSettings::default()).unwrap()
}

fn names(dir: &TempDir, snapshot: &FolderSnapshot) -> Vec<String> {
    snapshot.files.iter().map(|file| below(dir, &file.path)).collect()
}

fn below(dir: &TempDir, path: &str) -> String {
    path.strip_prefix(dir.path().to_str().unwrap()).unwrap().trim_start_matches('/').to_owned()
}

#[track_caller]
fn assert_problems(dir: &TempDir, snapshot: &FolderSnapshot, expected: &[(&str, &str)]) {
    let found: Vec<_> = snapshot
        .problems
        .iter()
        .map(|problem| {
            (below(dir, &problem.path), problem.kind.to_string().replace(dir.path().to_str().unwrap(), "T"))
        })
        .collect();
    let expected: Vec<_> =
        expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    assert_eq!(found, expected);
}

/// Counts which files are opened.
fn opened(
    paths: &[PathBuf],
    previous: &FolderSnapshot,
    settings: &ReadSettings,
) -> (FolderSnapshot, Vec<String>) {
    let mut opened = Vec::new();
    let snapshot = read_with(paths, Some(previous), settings, &mut WatchTargets::default(), &mut |step| {
        if let ReadMoment::Opened(path) = step {
            opened.push(path.rsplit('/').next().unwrap().to_owned());
        }
    });
    (snapshot.unwrap(), opened)
}

#[test]
fn policy_files_are_found_by_name_in_all_folders_and_sorted() {
    let dir = folder(&[
        ("b.yml", "b"),
        ("a.yaml", "a"),
        ("a_test.yaml", ""),
        ("a_test.yml", ""),
        (".hidden.yaml", ""),
        (".git/config.yaml", ""),
        ("README.md", ""),
        ("d.yaml.bak", ""),
        ("team/deep/c.yaml", "c"),
        ("some_test.yaml.d/x.yaml", "x"),
    ]);
    let snapshot = read(&dir);
    assert_eq!(names(&dir, &snapshot), ["a.yaml", "b.yml", "some_test.yaml.d/x.yaml", "team/deep/c.yaml"]);
    assert_problems(&dir, &snapshot, &[]);
    assert_eq!(snapshot.files[0].text(), "a");
}

#[test]
fn files_that_look_like_policies_and_are_not_read_are_reported() {
    let is_reported = |name: &str| looks_like_policy(name.as_ref());
    for name in [
        "a.YAML",
        "a.Yml",
        "a.ymal",
        "a.json",
        "a.JSON",
        "a.yaml.txt",
        "a.yml.j2",
        "a.json.txt",
        "a_test.YAML",
    ] {
        assert!(is_reported(name) && !is_policy_name(name.as_ref()), "{name}");
    }
    for name in [
        "a.yaml",
        "a.yml",
        "a_test.yaml",
        "README",
        "README.md",
        "LICENSE",
        "notes.txt",
        "yaml",
        "a.yaml~",
        "a.yaml.bak",
        "a.yaml.orig",
        "a.yaml.tmp",
        "a.yaml.lock",
        "a.toml",
        "Makefile",
        "OWNERS",
        "json.txt",
    ] {
        assert!(!is_reported(name), "{name}");
    }
    let dir = folder(&[
        ("a.yaml", "a"),
        ("b.YAML", ""),
        ("team/c.json", ""),
        (".hidden.json", ""),
        (".git/config.json", ""),
        ("README.md", ""),
        ("named.json", "n"),
        ("folder.json/x.yaml", "x"),
    ]);
    symlink("b.YAML", dir.path().join("link.yaml.txt")).unwrap();
    let snapshot =
        read_folder(&[dir.path().to_owned(), dir.path().join("named.json")], None, &ReadSettings::default())
            .unwrap();
    assert_eq!(names(&dir, &snapshot), ["a.yaml", "folder.json/x.yaml", "named.json"]);
    let why = "is not read: policy files end in `.yaml` or `.yml`";
    assert_problems(&dir, &snapshot, &[("b.YAML", why), ("link.yaml.txt", why), ("team/c.json", why)]);
    // Tests are looked for by those who read the policy as well.
    let settings = ReadSettings { wanted: Wanted::Tests, ..ReadSettings::default() };
    let snapshot = read_folder(&[dir.path().to_owned()], None, &settings).unwrap();
    assert_problems(&dir, &snapshot, &[]);
}

#[test]
fn tests_beside_a_policy_are_found_by_name() {
    let dir = folder(&[
        ("a.yaml", ""),
        ("a_test.yaml", "a"),
        ("b_test.yml", "b"),
        (".hidden_test.yaml", ""),
        ("c_test.yaml.bak", ""),
        ("team/deep/_test.yaml", "c"),
    ]);
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("gone_test.yaml")).unwrap();
    let settings = ReadSettings { wanted: Wanted::Tests, ..ReadSettings::default() };
    let snapshot = read_folder(&[dir.path().to_owned()], None, &settings).unwrap();
    assert_eq!(names(&dir, &snapshot), ["a_test.yaml", "b_test.yml", "team/deep/_test.yaml"]);
    assert_eq!(snapshot.problems.len(), 1, "{:?}", snapshot.problems);
    assert!(snapshot.problems[0].path.ends_with("/gone_test.yaml"));
}

#[test]
fn paths_are_shown_as_they_were_named() {
    let dir = folder(&[("p/a.yaml", "a"), ("p/q/b.yaml", "b")]);
    let mut path = dir.path().join("p/q/..").into_os_string();
    path.push("/");
    let snapshot = read_folder(&[path.clone().into()], None, &ReadSettings::default()).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(&*snapshot.files[0].path, format!("{path}a.yaml"));
    assert_eq!(&*snapshot.files[1].path, format!("{path}q/b.yaml"));
}

#[test]
fn suites_are_found_by_name_as_policies_are() {
    let dir = folder(&[
        ("a.yaml", "a"),
        ("b_test.yml", "b"),
        ("team/a_test.yaml", "a"),
        (".hidden_test.yaml", ""),
        (".git/a_test.yaml", ""),
        ("test.yaml", ""),
        ("a_test.yaml.bak", ""),
    ]);
    symlink("nowhere", dir.path().join("gone.yaml")).unwrap();
    let settings = ReadSettings { wanted: Wanted::Tests, ..ReadSettings::default() };
    let snapshot = read_folder(&[dir.path().to_owned()], None, &settings).unwrap();
    assert_eq!(names(&dir, &snapshot), ["b_test.yml", "team/a_test.yaml"]);
    // What is wrong with a policy file is for those to say who read the policy.
    assert_problems(&dir, &snapshot, &[]);
    fs::write(dir.path().join("c_test.yaml"), b"\xff").unwrap();
    let snapshot = read_folder(&[dir.path().to_owned()], None, &settings).unwrap();
    assert_problems(&dir, &snapshot, &[("c_test.yaml", "is not UTF-8 at byte offset 0 (line 1, column 1)")]);
}

#[test]
fn an_empty_folder_is_a_snapshot_without_files() {
    let dir = folder(&[("a_test.yaml", "")]);
    let snapshot = read(&dir);
    assert!(snapshot.files.is_empty() && snapshot.problems.is_empty());
}

#[test]
fn a_named_file_is_read_whatever_its_name() {
    let dir = folder(&[("policy.txt", "x"), ("a.yaml", "a"), ("p/b.yaml", "b")]);
    let paths = ["policy.txt", "a.yaml", "a.yaml", "p", "p/b.yaml"].map(|name| dir.path().join(name));
    let snapshot = read_folder(&paths, None, &ReadSettings::default()).unwrap();
    assert_eq!(names(&dir, &snapshot), ["a.yaml", "p/b.yaml", "policy.txt"]);
}

#[test]
fn a_named_path_that_cannot_be_read_is_an_error_of_its_own() {
    let dir = folder(&[]);
    let missing = dir.path().join("nowhere");
    let error = read_folder(std::slice::from_ref(&missing), None, &ReadSettings::default()).unwrap_err();
    assert!(error.is_missing());
    assert_eq!(
        error.to_string(),
        format!("cannot read `{}`: no such file or directory", missing.to_str().unwrap())
    );
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = read_folder(&[socket], None, &ReadSettings::default()).unwrap_err();
    assert!(matches!(error, ReadError::NotRegular { kind: FileKind::Socket, .. }), "{error}");
}

#[test]
fn a_kubernetes_volume_is_read_through_its_links() {
    let dir = folder(&[("..2026_01/mcp.yaml", "new"), ("..2026_01/team/x.yaml", "x")]);
    symlink("..2026_01", dir.path().join("..data")).unwrap();
    symlink("..data/mcp.yaml", dir.path().join("mcp.yaml")).unwrap();
    symlink("..data/team", dir.path().join("team")).unwrap();
    let snapshot = read(&dir);
    assert_eq!(names(&dir, &snapshot), ["mcp.yaml", "team/x.yaml"]);
    assert_problems(&dir, &snapshot, &[]);
    assert_eq!(snapshot.files[0].text(), "new");
}

#[test]
fn a_folder_that_two_links_reach_is_read_once() {
    let dir = folder(&[("real/a.yaml", "a")]);
    symlink("real", dir.path().join("again")).unwrap();
    let snapshot = read(&dir);
    assert_eq!(names(&dir, &snapshot), ["again/a.yaml"]);
    assert_problems(&dir, &snapshot, &[]);
}

#[test]
fn a_link_back_to_a_folder_above_is_a_problem_that_names_both() {
    let dir = folder(&[("a/b/x.yaml", "x")]);
    symlink("../..", dir.path().join("a/b/up")).unwrap();
    symlink("self", dir.path().join("self")).unwrap();
    let snapshot = read(&dir);
    assert_eq!(names(&dir, &snapshot), ["a/b/x.yaml"]);
    assert_problems(
        &dir,
        &snapshot,
        &[
            ("a/b/up", "leads back to `T`, which contains it"),
            ("self", "cannot be read: too many levels of symbolic links"),
        ],
    );
}

#[test]
fn what_is_no_regular_file_is_a_problem_and_never_waited_for() {
    let dir = folder(&[("good.yaml", "good")]);
    let path = |name: &str| dir.path().join(name);
    assert!(Command::new("mkfifo").arg(path("pipe.yaml")).status().unwrap().success());
    let _listener = UnixListener::bind(path("socket.yaml")).unwrap();
    fs::create_dir(path("folder.yaml")).unwrap();
    symlink("/dev/zero", path("zero.yaml")).unwrap();
    symlink("/etc/hostname", path("etc.yaml")).unwrap();
    symlink("/etc", path("etc")).unwrap();
    symlink("nowhere", path("dangling.yaml")).unwrap();
    symlink("nowhere", path("team")).unwrap();
    symlink("nowhere", path(".lock")).unwrap();
    let snapshot = read(&dir);
    assert_eq!(names(&dir, &snapshot), ["good.yaml"]);
    assert_problems(
        &dir,
        &snapshot,
        &[
            ("dangling.yaml", "is a link to `nowhere`, which is not there"),
            ("etc", "is a link to `/etc`, outside of the policy directory"),
            ("etc.yaml", "is a link to `/etc/hostname`, outside of the policy directory"),
            ("folder.yaml", "is a directory, not a regular file"),
            ("pipe.yaml", "is a named pipe, not a regular file"),
            ("socket.yaml", "is a socket, not a regular file"),
            ("team", "is a link to `nowhere`, which is not there"),
            ("zero.yaml", "is a link to `/dev/zero`, outside of the policy directory"),
        ],
    );
    fs::remove_file(path("etc")).unwrap();
    fs::remove_file(path("etc.yaml")).unwrap();
    let allowing = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
    let snapshot = read_folder(&[dir.path().to_owned()], None, &allowing).unwrap();
    let zero = snapshot.problems.last().map(|problem| problem.kind.to_string());
    assert_eq!(zero.as_deref(), Some("is a device, not a regular file"));
}

#[test]
fn a_file_and_a_folder_that_are_refused_are_problems() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder(&[("a.yaml", "a"), ("closed/b.yaml", "b"), ("c.yaml", "c")]);
    let closed = [dir.path().join("a.yaml"), dir.path().join("closed")];
    for path in &closed {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    // The superuser is refused nothing.
    let refused = File::open(&closed[0]).is_err();
    let snapshot = read(&dir);
    for path in &closed {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    if refused {
        assert_eq!(names(&dir, &snapshot), ["c.yaml"]);
        let denied = "cannot be read: permission denied";
        assert_problems(&dir, &snapshot, &[("a.yaml", denied), ("closed", denied)]);
    } else {
        assert_eq!(names(&dir, &snapshot), ["a.yaml", "c.yaml", "closed/b.yaml"]);
    }
}

#[test]
fn a_name_that_is_not_utf8_is_a_problem() {
    use std::os::unix::ffi::OsStrExt;
    let dir = folder(&[]);
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.yaml")), "x").unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "x").unwrap();
    assert_problems(&dir, &read(&dir), &[("\u{fffd}.yaml", "has a name that is not UTF-8")]);
}

#[test]
fn a_file_over_the_limit_is_named_with_its_size_and_not_opened() {
    let dir = folder(&[("good.yaml", "good")]);
    File::create(dir.path().join("huge.yaml")).unwrap().set_len(100 << 20).unwrap();
    let empty = FolderSnapshot { files: Vec::new(), problems: Vec::new(), digest: [0; 32], stamps: 0 };
    let (snapshot, opened) = opened(&[dir.path().to_owned()], &empty, &ReadSettings::default());
    assert_eq!(opened, ["good.yaml"]);
    assert_problems(&dir, &snapshot, &[("huge.yaml", "has 104857600 bytes; at most 16777216 are read")]);
}

#[test]
fn each_limit_is_itself_allowed() {
    let dir = folder(&[("a.yaml", "aaaa"), ("d/b.yaml", "bbbb")]);
    let exact = ReadLimits { file_bytes: 4, total_bytes: 8, files: 3, depth: 1 };
    let read = |limits| read_folder(&[dir.path().to_owned()], None, &limited(limits)).unwrap();
    assert_problems(&dir, &read(exact), &[]);
    let large = "has 4 bytes; at most 3 are read";
    assert_problems(
        &dir,
        &read(ReadLimits { file_bytes: 3, ..exact }),
        &[("a.yaml", large), ("d/b.yaml", large)],
    );
    let sum = "brings the policy to 8 bytes; at most 7 are read";
    assert_problems(&dir, &read(ReadLimits { total_bytes: 7, ..exact }), &[("d/b.yaml", sum)]);
    let many = "holds the policy's files and folders beyond 2, which is the most";
    assert_problems(&dir, &read(ReadLimits { files: 2, ..exact }), &[("d", many)]);
    let deep = "is nested more than 0 folders deep";
    assert_problems(&dir, &read(ReadLimits { depth: 0, ..exact }), &[("d", deep)]);
}

#[test]
fn the_first_byte_that_is_not_utf8_is_placed() {
    #[track_caller]
    fn check(bytes: &[u8], line: u32, column: u32, offset: u64) {
        let dir = folder(&[]);
        fs::write(dir.path().join("a.yaml"), bytes).unwrap();
        let snapshot = read(&dir);
        assert!(snapshot.files.is_empty());
        assert_eq!(snapshot.problems[0].kind, ProblemKind::NotUtf8 { line, column, offset });
    }
    check(b"\xff", 1, 1, 0);
    check("größe: \u{1f600}".as_bytes().strip_suffix(b"\x80").unwrap(), 1, 8, 9);
    check(b"a: b\nc: \xc3(", 2, 4, 8);
    check(b"a\r\nb\r\rc\n\xfe", 5, 1, 8);
}

#[test]
fn unchanged_files_are_not_opened_again_and_share_their_text() {
    let dir = folder(&[("a.yaml", "a"), ("b.yaml", "b")]);
    let paths = [dir.path().to_owned()];
    let first = read_folder(&paths, None, &trusting()).unwrap();
    let (second, seen) = opened(&paths, &first, &trusting());
    assert_eq!(seen, Vec::<String>::new());
    assert_eq!(first.digest, second.digest);
    fs::write(dir.path().join("b.yaml"), "changed").unwrap();
    let (third, seen) = opened(&paths, &second, &trusting());
    assert_eq!(seen, ["b.yaml"]);
    assert_ne!(first.digest, third.digest);
    assert!(std::ptr::eq(first.files[0].text(), third.files[0].text()));
    assert_eq!(third.files[1].text(), "changed");
}

#[test]
fn a_file_that_changed_just_before_it_was_read_is_read_again() {
    let dir = folder(&[("a.yaml", "a")]);
    let paths = [dir.path().to_owned()];
    // The clock of a test cannot be set, so "just before" is made long.
    let wary = ReadSettings { recheck_window: Duration::from_secs(3600), ..ReadSettings::default() };
    let first = read_folder(&paths, None, &wary).unwrap();
    let (second, seen) = opened(&paths, &first, &wary);
    assert_eq!(seen, ["a.yaml"]);
    assert!(std::ptr::eq(first.files[0].text(), second.files[0].text()), "equal text is shared");
}

#[test]
fn the_digest_tells_paths_contents_and_problems_apart() {
    let digest_of = |files: &[(&str, &str)]| {
        let dir = folder(files);
        let mut snapshot = read(&dir);
        for file in &mut snapshot.files {
            file.path = below(&dir, &file.path).into();
        }
        for problem in &mut snapshot.problems {
            problem.path = below(&dir, &problem.path).into();
        }
        digest(&snapshot.files, &snapshot.problems)
    };
    let one = digest_of(&[("a.yaml", "x"), ("b.yaml", "y")]);
    assert_eq!(one, digest_of(&[("b.yaml", "y"), ("a.yaml", "x")]));
    assert_ne!(one, digest_of(&[("a.yaml", "y"), ("b.yaml", "x")]));
    assert_ne!(one, digest_of(&[("a.yaml", "x"), ("c.yaml", "y")]));
    assert_ne!(one, digest_of(&[("a.yaml", "x")]));
    assert_ne!(one, digest_of(&[("a.yaml", "x"), ("b.yaml", "y"), ("c.yaml/d", "")]));
}

#[test]
fn a_file_that_disagrees_with_its_size_is_a_problem_and_not_the_end_of_reading() {
    let dir = folder(&[("good.yaml", "good")]);
    symlink("/proc/self/limits", dir.path().join("proc.yaml")).unwrap();
    let allowing = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
    let snapshot = read_folder(&[dir.path().to_owned()], None, &allowing).unwrap();
    assert_eq!(names(&dir, &snapshot), ["good.yaml"]);
    let problem = "has 1 bytes and says that it has 0: it is not an ordinary file";
    assert_problems(&dir, &snapshot, &[("proc.yaml", problem)]);
}

#[test]
fn links_inside_the_directory_and_of_the_named_path_itself_are_no_problem() {
    let dir = folder(&[("real/a.yaml", "a"), ("real/sub/b.yaml", "b")]);
    symlink("real", dir.path().join("named")).unwrap();
    symlink("a.yaml", dir.path().join("real/same.yaml")).unwrap();
    symlink(dir.path().join("real/sub"), dir.path().join("real/team")).unwrap();
    let snapshot = read_folder(&[dir.path().join("named")], None, &ReadSettings::default()).unwrap();
    assert_eq!(names(&dir, &snapshot), ["named/a.yaml", "named/same.yaml", "named/sub/b.yaml"]);
    assert!(snapshot.problems.is_empty() && snapshot.files.iter().all(|file| !file.is_outside));
}

#[test]
fn errors_of_the_system_are_told_from_those_of_a_file() {
    for code in [libc::EMFILE, libc::ENFILE, libc::EIO, libc::ESTALE, libc::EINTR, libc::ENOMEM] {
        assert!(is_transient(&io::Error::from_raw_os_error(code)), "{code}");
    }
    for code in [libc::ENOENT, libc::EACCES, libc::ELOOP, libc::ENOTDIR, libc::ENAMETOOLONG] {
        assert!(!is_transient(&io::Error::from_raw_os_error(code)), "{code}");
    }
}
