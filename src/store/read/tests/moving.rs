//! What the reader does while files, folders and links change.

use super::*;

/// Moves the world once, at the first step that `when` accepts, and reads on.
fn read_while(
    dir: &TempDir,
    when: impl Fn(&ReadMoment<'_>) -> bool + Sync,
    change: impl FnOnce() + Send,
) -> (FolderSnapshot, usize) {
    let mut change = Some(change);
    let mut pauses = 0;
    let snapshot = read_with(
        &[dir.path().to_owned()],
        None,
        &ReadSettings::default(),
        &mut WatchTargets::default(),
        &mut |step| {
            pauses += usize::from(step == ReadMoment::Pause);
            if when(&step)
                && let Some(change) = change.take()
            {
                change();
            }
        },
    );
    (snapshot.unwrap(), pauses)
}

#[track_caller]
fn assert_moved(
    dir: &TempDir,
    when: impl Fn(&ReadMoment<'_>) -> bool + Sync,
    change: impl FnOnce() + Send,
    expected: &[(&str, &str)],
) {
    let (snapshot, pauses) = read_while(dir, when, change);
    let found: Vec<_> =
        snapshot.files.iter().map(|file| (below(dir, &file.path), file.text().to_owned())).collect();
    let expected: Vec<_> =
        expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    assert_eq!(found, expected);
    assert_eq!(pauses, 1, "one attempt failed, the next did not");
    assert_problems(dir, &snapshot, &[]);
}

fn opened_is(name: &str) -> impl Fn(&ReadMoment<'_>) -> bool + Sync {
    move |step| matches!(step, ReadMoment::Opened(path) if path.ends_with(name))
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let files = [("a.yaml", "old"), ("b.yaml", "old")];
    let dir = folder(&files);
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    let whole = [("a.yaml", "new, longer"), ("b.yaml", "old")];
    assert_moved(&dir, |step| *step == ReadMoment::Listed, || write("a.yaml", "new, longer"), &whole);
    assert_moved(
        &dir,
        opened_is("b.yaml"),
        || write("a.yaml", "newer"),
        &[("a.yaml", "newer"), ("b.yaml", "old")],
    );
    assert_moved(&dir, opened_is("a.yaml"), || write("a.yaml", "n"), &[("a.yaml", "n"), ("b.yaml", "old")]);
    let last = || write("c.yaml", "c");
    assert_moved(
        &dir,
        |step| *step == ReadMoment::Read,
        last,
        &[("a.yaml", "n"), ("b.yaml", "old"), ("c.yaml", "c")],
    );
    let gone = || fs::remove_file(path("c.yaml")).unwrap();
    assert_moved(&dir, |step| *step == ReadMoment::Listed, gone, &[("a.yaml", "n"), ("b.yaml", "old")]);
    let pipe = || {
        fs::remove_file(path("b.yaml")).unwrap();
        assert!(Command::new("mkfifo").arg(path("b.yaml")).status().unwrap().success());
    };
    let (snapshot, pauses) = read_while(&dir, |step| *step == ReadMoment::Listed, pipe);
    assert_eq!((names(&dir, &snapshot), pauses), (vec!["a.yaml".to_owned()], 1));
    assert_problems(&dir, &snapshot, &[("b.yaml", "is a named pipe, not a regular file")]);
}

#[test]
fn a_change_is_near_within_the_window_or_ahead_of_the_clock() {
    let dir = folder(&[("a.yaml", "a")]);
    let stamp = Stamp::of(&fs::metadata(dir.path().join("a.yaml")).unwrap());
    assert!(stamp.changed_near(SystemTime::now(), Duration::from_secs(3600)));
    assert!(stamp.changed_near(SystemTime::UNIX_EPOCH, CLOCK_GRAIN));
    let later = SystemTime::now() + Duration::from_secs(60);
    assert!(!stamp.changed_near(later, Duration::from_secs(2)));
}

#[test]
fn a_folder_that_never_stands_still_is_left_for_later() {
    let dir = folder(&[("a.yaml", "")]);
    let mut text = String::new();
    let mut pauses = 0;
    let error = read_with(
        &[dir.path().to_owned()],
        None,
        &ReadSettings::default(),
        &mut WatchTargets::default(),
        &mut |step| match step {
            ReadMoment::Read => {
                text.push('x');
                fs::write(dir.path().join("a.yaml"), &text).unwrap();
            }
            ReadMoment::Pause => pauses += 1,
            _ => {}
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the policy kept changing during 10 attempts to read it: {}",
            dir.path().join("a.yaml").display()
        )
    );
    assert_eq!(pauses, 9);
}

#[test]
fn a_named_folder_that_comes_back_at_once_was_never_missing() {
    let dir = folder(&[("p/a.yaml", "a")]);
    let (path, away) = (dir.path().join("p"), dir.path().join("away"));
    fs::rename(&path, &away).unwrap();
    let snapshot = read_with(
        std::slice::from_ref(&path),
        None,
        &ReadSettings::default(),
        &mut WatchTargets::default(),
        &mut |step| {
            if step == ReadMoment::Pause {
                fs::rename(&away, &path).unwrap();
            }
        },
    );
    assert_eq!(names(&dir, &snapshot.unwrap()), ["p/a.yaml"]);
}

/// Twelve files that each hold the number of their volume.
fn volume(dir: &Path, number: usize) -> String {
    let name = format!("..2026_{number}");
    fs::create_dir(dir.join(&name)).unwrap();
    for file in 0..12 {
        fs::write(dir.join(&name).join(format!("{file}.yaml")), number.to_string()).unwrap();
    }
    name
}

fn swap(dir: &Path, name: &str) {
    symlink(name, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

fn assert_whole(snapshot: &FolderSnapshot) {
    assert_eq!(snapshot.files.len(), 12);
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    let numbers: Vec<_> = snapshot.files.iter().map(|file| file.text()).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "mixed: {numbers:?}");
}

#[test]
fn a_swap_at_any_step_leaves_the_snapshot_whole() {
    for stop in 0..14 {
        let dir = folder(&[]);
        swap(dir.path(), &volume(dir.path(), 1));
        for file in 0..12 {
            symlink(format!("..data/{file}.yaml"), dir.path().join(format!("{file}.yaml"))).unwrap();
        }
        let next = volume(dir.path(), 2);
        let mut steps = 0;
        let snapshot = read_with(
            &[dir.path().to_owned()],
            None,
            &ReadSettings::default(),
            &mut WatchTargets::default(),
            &mut |_| {
                if steps == stop {
                    swap(dir.path(), &next);
                    fs::remove_dir_all(dir.path().join("..2026_1")).unwrap();
                }
                steps += 1;
            },
        )
        .unwrap();
        assert_whole(&snapshot);
        assert_eq!(snapshot.files[0].text(), "2", "swapped at step {stop}");
    }
}

#[test]
fn volumes_swapped_all_the_time_are_never_mixed() {
    let dir = folder(&[]);
    swap(dir.path(), &volume(dir.path(), 0));
    for file in 0..12 {
        symlink(format!("..data/{file}.yaml"), dir.path().join(format!("{file}.yaml"))).unwrap();
    }
    let done = AtomicBool::new(false);
    let settings = ReadSettings { pause: Duration::from_micros(100), ..ReadSettings::default() };
    let mut seen = std::collections::HashSet::new();
    thread::scope(|scope| {
        // Also ends the swapping when an assertion fails.
        let _stop = Stop(&done);
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                swap(dir.path(), &volume(dir.path(), number));
                fs::remove_dir_all(dir.path().join(format!("..2026_{}", number - 1))).unwrap();
                // Without a breath for the reader there is nothing to see.
                thread::sleep(Duration::from_micros(u64::try_from(number % 7).unwrap() * 300));
            }
        });
        let mut previous = None;
        while seen.len() < 50 {
            match read_folder(&[dir.path().to_owned()], previous.as_ref(), &settings) {
                Ok(snapshot) => {
                    assert_whole(&snapshot);
                    seen.insert(snapshot.digest);
                    previous = Some(snapshot);
                }
                Err(error) => assert!(matches!(error, ReadError::Unstable { .. }), "{error}"),
            }
        }
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_link_turned_away_and_back_does_not_lend_its_stamps_to_other_bytes() {
    let dir = folder(&[("one/a.yaml", "1"), ("two/a.yaml", "2")]);
    let link = dir.path().join("link");
    let turn = |target: &str| {
        symlink(target, dir.path().join("next")).unwrap();
        fs::rename(dir.path().join("next"), &link).unwrap();
    };
    turn("one");
    let mut turns = vec!["one", "two"];
    let snapshot = read_with(
        std::slice::from_ref(&link),
        None,
        &ReadSettings::default(),
        &mut WatchTargets::default(),
        &mut |step| {
            if matches!(step, ReadMoment::Listed | ReadMoment::Read)
                && let Some(target) = turns.pop()
            {
                turn(target);
            }
        },
    )
    .unwrap();
    // Both listings of the first attempt are equal, and saw nothing of where the link led between them.
    assert_eq!(snapshot.files[0].text(), "1");
}

#[test]
fn entries_that_do_not_concern_the_policy_do_not_disturb_reading() {
    let dir = folder(&[("a.yaml", "a"), ("sub/b.yaml", "b")]);
    let mut number = 0;
    let mut pauses = 0;
    let paths = [dir.path().to_owned()];
    let snapshot =
        read_with(&paths, None, &ReadSettings::default(), &mut WatchTargets::default(), &mut |step| {
            pauses += usize::from(step == ReadMoment::Pause);
            number += 1;
            // A lock, what editors leave, files of other kinds: they come, change and go at each step.
            for name in
                [".a.yaml.swp", "a.yaml~", "lock", "notes.txt", "sub/4913", "sub/.#b.yaml", "a_test.yaml"]
            {
                let path = dir.path().join(name);
                if path.exists() && number % 3 == 0 {
                    fs::remove_file(path).unwrap();
                } else {
                    fs::write(path, number.to_string()).unwrap();
                }
            }
        });
    assert_eq!(names(&dir, &snapshot.unwrap()), ["a.yaml", "sub/b.yaml"]);
    assert_eq!(pauses, 0, "one attempt was enough");
}

#[test]
fn an_edit_among_10_000_files_is_read_alone_while_a_lock_comes_and_goes() {
    let dir = folder(&[]);
    for number in 0..10_000 {
        fs::write(dir.path().join(format!("{number:04}.yaml")), "").unwrap();
    }
    let paths = [dir.path().to_owned()];
    let lock = dir.path().join("policies.lock");
    let mut steps = Vec::new();
    let mut look = |previous: Option<&FolderSnapshot>| {
        steps.clear();
        let snapshot = read_with(&paths, previous, &trusting(), &mut WatchTargets::default(), &mut |step| {
            if fs::remove_file(&lock).is_err() {
                fs::write(&lock, "").unwrap();
            }
            steps.push(match step {
                ReadMoment::Opened(path) => path.rsplit('/').next().unwrap().to_owned(),
                ReadMoment::Listed => "listed".to_owned(),
                ReadMoment::Read => "read".to_owned(),
                ReadMoment::Pause => "pause".to_owned(),
            });
        });
        (snapshot.unwrap(), std::mem::take(&mut steps))
    };
    let (first, _) = look(None);
    fs::write(dir.path().join("7777.yaml"), "edited").unwrap();
    let (second, steps) = look(Some(&first));
    assert_eq!((second.files.len(), second.files[7777].text()), (10_000, "edited"));
    // One attempt, and one file of it.
    assert_eq!(steps, ["listed", "7777.yaml", "read"]);
    let (third, steps) = look(Some(&second));
    assert_eq!((third.digest, third.stamps), (second.digest, second.stamps), "the lock is no change");
    assert_eq!(steps, ["listed", "read"]);
}
