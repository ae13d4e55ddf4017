//! Each way in which people and programs change policies, seen through events alone.

use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicUsize;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::store::read::{ReadSettings, read_folder_and_targets};

/// Far more than any event needs; only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A folder `p` that is watched and looked into whenever there is a hint; never for another reason.
struct Rig {
    dir: TempDir,
    path: PathBuf,
    hints: Hints,
    watch: FolderWatch,
    /// As of the newest walk.
    targets: WatchTargets,
    looks: usize,
}

impl Rig {
    fn new(path: &str, files: &[(&str, &str)]) -> Self {
        Self::prepared(path, files, |_| ())
    }

    fn prepared(path: &str, files: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            write(&dir.path().join(name), text);
        }
        prepare(dir.path());
        let path = dir.path().join(path);
        let hints = Hints::new(Duration::from_millis(10), NEVER);
        let watch = FolderWatch::new(hints.clone());
        let mut rig = Self { dir, path, hints, watch, targets: WatchTargets::default(), looks: 0 };
        rig.look();
        assert_eq!(*rig.watch.state(), WatchState::Events);
        rig
    }

    /// Walks and arms once; returns whether something is watched that was not before.
    fn arm(&mut self) -> bool {
        let (_, targets) = walk(&self.path);
        self.watch.arm(&targets)
    }

    /// Reads until nothing new is to be watched, as the server does.
    fn look(&mut self) -> Option<Vec<(String, String)>> {
        self.watch.before_walk(&self.targets);
        loop {
            let (texts, targets) = walk(&self.path);
            self.targets = targets;
            if !self.watch.arm(&self.targets) {
                return texts;
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn texts(&self) -> Option<Vec<(String, String)>> {
        walk(&self.path).0
    }

    /// Looks at each hint until the folder holds this; nothing stands for no folder.
    async fn sees(&mut self, expected: Option<&[(&str, &str)]>) {
        let expected: Option<Vec<_>> = expected
            .map(|all| all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect());
        loop {
            let hint = timeout(DEADLINE, self.hints.next(None)).await;
            assert_eq!(hint, Ok(Hint::Event), "no hint, expected {expected:?}, there is {:?}", self.texts());
            self.looks += 1;
            if self.look() == expected {
                break;
            }
        }
        // Late events of this change must not stand in for those of the next.
        while timeout(Duration::from_millis(50), self.hints.next(None)).await.is_ok() {
            self.look();
        }
    }
}

/// What a folder holds, and what to watch; links out of it are followed.
fn walk(path: &Path) -> (Option<Vec<(String, String)>>, WatchTargets) {
    let mut targets = WatchTargets::default();
    let settings = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
    let paths = [path.to_owned()];
    let snapshot = read_folder_and_targets(&paths, None, &settings, &mut targets).ok();
    let name = |file: &str| file.strip_prefix(path.to_str().unwrap()).unwrap()[1..].to_owned();
    let texts = |file: &crate::store::read::SourceFile| (name(&file.path), file.text().to_owned());
    (snapshot.map(|snapshot| snapshot.files.iter().map(texts).collect()), targets)
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Puts a link in place of another in one step, as `ln -sfT` does not.
fn turn(link: &Path, target: &str) {
    let next = link.with_file_name("..next");
    symlink(target, &next).unwrap();
    fs::rename(next, link).unwrap();
}

#[tokio::test]
async fn files_are_written_replaced_made_moved_and_deleted() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "1"), ("p/sub/b.yaml", "1")]);
    for text in ["2", "3"] {
        fs::write(rig.at("p/a.yaml"), text).unwrap();
        rig.sees(Some(&[("a.yaml", text), ("sub/b.yaml", "1")])).await;
    }
    for text in ["4", "5"] {
        // As vim and `mv` do it.
        fs::write(rig.at("p/sub/.b.yaml.swp"), text).unwrap();
        fs::rename(rig.at("p/sub/.b.yaml.swp"), rig.at("p/sub/b.yaml")).unwrap();
        rig.sees(Some(&[("a.yaml", "3"), ("sub/b.yaml", text)])).await;
    }
    fs::write(rig.at("p/c.yml"), "c").unwrap();
    rig.sees(Some(&[("a.yaml", "3"), ("c.yml", "c"), ("sub/b.yaml", "5")])).await;
    fs::rename(rig.at("p/c.yml"), rig.at("p/sub/d.yml")).unwrap();
    rig.sees(Some(&[("a.yaml", "3"), ("sub/b.yaml", "5"), ("sub/d.yml", "c")])).await;
    fs::rename(rig.at("p/sub/d.yml"), rig.at("away.yml")).unwrap();
    rig.sees(Some(&[("a.yaml", "3"), ("sub/b.yaml", "5")])).await;
    fs::remove_file(rig.at("p/a.yaml")).unwrap();
    rig.sees(Some(&[("sub/b.yaml", "5")])).await;
}

#[tokio::test]
async fn folders_are_made_moved_and_deleted() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "a")]);
    for text in ["1", "2"] {
        write(&rig.at("p/x/y/b.yaml"), text);
        rig.sees(Some(&[("a.yaml", "a"), ("x/y/b.yaml", text)])).await;
        fs::rename(rig.at("p/x"), rig.at("p/z")).unwrap();
        rig.sees(Some(&[("a.yaml", "a"), ("z/y/b.yaml", text)])).await;
        fs::write(rig.at("p/z/y/b.yaml"), "in place").unwrap();
        rig.sees(Some(&[("a.yaml", "a"), ("z/y/b.yaml", "in place")])).await;
        fs::remove_dir_all(rig.at("p/z")).unwrap();
        rig.sees(Some(&[("a.yaml", "a")])).await;
    }
}

#[tokio::test]
async fn a_folder_moved_away_and_back_at_once_is_still_watched() {
    let mut rig = Rig::new("p", &[("p/sub/a.yaml", "1")]);
    fs::rename(rig.at("p/sub"), rig.at("away")).unwrap();
    fs::rename(rig.at("away"), rig.at("p/sub")).unwrap();
    rig.sees(Some(&[("sub/a.yaml", "1")])).await;
    fs::write(rig.at("p/sub/a.yaml"), "2").unwrap();
    rig.sees(Some(&[("sub/a.yaml", "2")])).await;
}

#[tokio::test]
async fn a_folder_that_is_gone_before_it_is_watched_is_looked_for_again() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "a"), ("q/b.yaml", "b")]);
    symlink("sub", rig.at("link")).unwrap();
    rig.watch.before_walk(&rig.targets);
    fs::rename(rig.at("q"), rig.at("p/sub")).unwrap();
    fs::rename(rig.at("link"), rig.at("p/link")).unwrap();
    let (texts, targets) = walk(&rig.path);
    assert_eq!(texts.map(|texts| texts.len()), Some(2));
    // After the walk, before anything of it is watched.
    fs::remove_file(rig.at("p/link")).unwrap();
    fs::rename(rig.at("p/sub"), rig.at("q")).unwrap();
    let event = |name: &str| {
        let path = rig.dir.path().canonicalize().unwrap().join(name);
        Event::new(EventKind::Remove(RemoveKind::File)).add_path(path)
    };
    assert!(rig.watch.shared.concerns(&event("p/link")), "the walk may have seen it");
    assert!(rig.watch.arm(&targets), "what is gone is a reason to walk again");
    assert!(!rig.watch.shared.concerns(&event("p/lock")), "the next walk has not");
}

#[tokio::test]
async fn a_folder_deleted_and_made_again_at_once_is_still_watched() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "0")]);
    for round in 1..4 {
        // The new folder often gets the inode of the old one.
        fs::remove_dir_all(rig.at("p")).unwrap();
        let text = format!("made {round}");
        write(&rig.at("p/a.yaml"), &text);
        rig.sees(Some(&[("a.yaml", &text)])).await;
        let text = format!("written {round}");
        fs::write(rig.at("p/a.yaml"), &text).unwrap();
        rig.sees(Some(&[("a.yaml", &text)])).await;
    }
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_swapped() {
    let mut rig = Rig::prepared("p", &[("p/..2026_0/a.yaml", "0")], |dir| {
        symlink("..2026_0", dir.join("p/..data")).unwrap();
        symlink("..data/a.yaml", dir.join("p/a.yaml")).unwrap();
    });
    for number in 1..4 {
        let text = format!("volume {number}");
        write(&rig.at(&format!("p/..2026_{number}/a.yaml")), &text);
        turn(&rig.at("p/..data"), &format!("..2026_{number}"));
        fs::remove_dir_all(rig.at(&format!("p/..2026_{}", number - 1))).unwrap();
        rig.sees(Some(&[("a.yaml", &text)])).await;
    }
    // The kubelet never does this; an operator who tries things out does.
    fs::write(rig.at("p/..2026_3/a.yaml"), "in place").unwrap();
    rig.sees(Some(&[("a.yaml", "in place")])).await;
}

#[tokio::test]
async fn the_folder_and_those_above_it_are_gone_for_a_while() {
    let mut rig = Rig::new("x/y/p", &[("x/y/p/a.yaml", "0")]);
    for text in ["1", "2"] {
        fs::remove_dir_all(rig.at("x/y/p")).unwrap();
        rig.sees(None).await;
        write(&rig.at("x/y/p/a.yaml"), text);
        rig.sees(Some(&[("a.yaml", text)])).await;
        fs::remove_dir_all(rig.at("x")).unwrap();
        rig.sees(None).await;
        write(&rig.at("x/y/p/a.yaml"), "back");
        rig.sees(Some(&[("a.yaml", "back")])).await;
    }
}

#[tokio::test]
async fn a_folder_further_up_is_exchanged() {
    let mut rig = Rig::new("x/y/p", &[("x/y/p/a.yaml", "1"), ("other/y/p/a.yaml", "2")]);
    fs::rename(rig.at("x"), rig.at("old")).unwrap();
    rig.sees(None).await;
    fs::rename(rig.at("other"), rig.at("x")).unwrap();
    rig.sees(Some(&[("a.yaml", "2")])).await;
    fs::write(rig.at("x/y/p/a.yaml"), "3").unwrap();
    rig.sees(Some(&[("a.yaml", "3")])).await;
}

#[tokio::test]
async fn a_folder_that_moved_is_watched_under_its_new_name() {
    let mut rig = Rig::new("x/y/p", &[("x/y/p/a.yaml", "1")]);
    fs::rename(rig.at("x"), rig.at("z")).unwrap();
    symlink("z", rig.at("x")).unwrap();
    rig.sees(Some(&[("a.yaml", "1")])).await;
    for text in ["2", "3"] {
        fs::write(rig.at("z/y/p/a.yaml"), text).unwrap();
        rig.sees(Some(&[("a.yaml", text)])).await;
    }
}

#[tokio::test]
async fn the_folder_is_a_link_that_is_turned() {
    let files = [("one/a.yaml", "1"), ("two/a.yaml", "2")];
    let mut rig = Rig::prepared("p", &files, |dir| symlink("one", dir.join("p")).unwrap());
    for (target, text) in [("two", "2"), ("one", "1"), ("two", "2")] {
        turn(&rig.at("p"), target);
        rig.sees(Some(&[("a.yaml", text)])).await;
    }
    fs::write(rig.at("two/a.yaml"), "in place").unwrap();
    rig.sees(Some(&[("a.yaml", "in place")])).await;
}

#[tokio::test]
async fn a_link_above_the_folder_is_turned() {
    let files = [("releases/1/p/a.yaml", "1"), ("releases/2/p/a.yaml", "2")];
    let mut rig =
        Rig::prepared("now/p", &files, |dir| symlink(dir.join("releases/1"), dir.join("now")).unwrap());
    for (target, text) in [("releases/2", "2"), ("releases/1", "1")] {
        turn(&rig.at("now"), target);
        rig.sees(Some(&[("a.yaml", text)])).await;
    }
    fs::write(rig.at("releases/1/p/a.yaml"), "in place").unwrap();
    rig.sees(Some(&[("a.yaml", "in place")])).await;
}

#[tokio::test]
async fn what_links_inside_the_folder_stand_for_changes_elsewhere() {
    let files = [("far/a.yaml", "a"), ("far/d/b.yaml", "b"), ("p/c.yaml", "c")];
    let mut rig = Rig::prepared("p", &files, |dir| {
        symlink("../mid/a.yaml", dir.join("p/a.yaml")).unwrap();
        symlink("../mid/d", dir.join("p/d")).unwrap();
        symlink("far", dir.join("mid")).unwrap();
    });
    for text in ["1", "2"] {
        fs::write(rig.at("far/a.yaml"), text).unwrap();
        rig.sees(Some(&[("a.yaml", text), ("c.yaml", "c"), ("d/b.yaml", "b")])).await;
    }
    fs::write(rig.at("far/d/b.yaml"), "3").unwrap();
    rig.sees(Some(&[("a.yaml", "2"), ("c.yaml", "c"), ("d/b.yaml", "3")])).await;
    write(&rig.at("new/a.yaml"), "new");
    write(&rig.at("new/d/b.yaml"), "new");
    turn(&rig.at("mid"), "new");
    rig.sees(Some(&[("a.yaml", "new"), ("c.yaml", "c"), ("d/b.yaml", "new")])).await;
    fs::write(rig.at("new/a.yaml"), "4").unwrap();
    rig.sees(Some(&[("a.yaml", "4"), ("c.yaml", "c"), ("d/b.yaml", "new")])).await;
}

#[tokio::test]
async fn links_that_go_round_do_not_stop_the_watch() {
    let mut rig = Rig::prepared("p", &[("p/x/a.yaml", "1")], |dir| {
        symlink("../..", dir.join("p/x/up")).unwrap();
        symlink("me", dir.join("p/me")).unwrap();
    });
    fs::write(rig.at("p/x/a.yaml"), "2").unwrap();
    rig.sees(Some(&[("x/a.yaml", "2")])).await;
}

#[tokio::test]
async fn a_burst_of_writes_is_few_looks() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "")]);
    for number in 0..1000 {
        fs::write(rig.at("p/a.yaml"), number.to_string()).unwrap();
    }
    rig.sees(Some(&[("a.yaml", "999")])).await;
    assert!(rig.looks < 10, "{}", rig.looks);
}

#[test]
fn reading_is_no_reason_to_look_again() {
    let rig = Rig::new("p", &[("p/a.yaml", "a"), ("p/b.yaml", "b")]);
    let (sender, events) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(sender).unwrap();
    watcher.watch(&rig.at("p"), RecursiveMode::NonRecursive).unwrap();
    rig.texts().unwrap();
    fs::write(rig.at("p/marker"), "").unwrap();
    // Events come in the order of what happened.
    let mut before = 0;
    loop {
        let event = events.recv_timeout(DEADLINE).unwrap().unwrap();
        if event.paths.contains(&rig.at("p/marker")) {
            break;
        }
        before += 1;
        assert!(!rig.watch.shared.concerns(&event), "{event:?}");
    }
    assert!(before > 0, "reading was not reported at all, so this test shows nothing");
}

#[test]
fn the_doings_of_others_above_the_folder_do_not_count() {
    let rig = Rig::new("x/p", &[("x/p/a.yaml", "a")]);
    let root = rig.dir.path().canonicalize().unwrap();
    let concerns = |name: &str, kind: EventKind| {
        let path = if name.is_empty() { root.clone() } else { root.join(name) };
        rig.watch.shared.concerns(&Event::new(kind).add_path(path))
    };
    let written = EventKind::Modify(notify::event::ModifyKind::Any);
    write(&rig.at("x/p/new/b.yaml"), "b");
    symlink("new", rig.at("x/p/link")).unwrap();
    for name in ["x/p/a.yaml", "x/p/b.yml", "x/p/new", "x/p/link", "x/p", "x", ""] {
        assert!(concerns(name, written), "{name}");
        assert!(!concerns(name, EventKind::Access(AccessKind::Open(AccessMode::Any))), "{name}");
    }
    write(&rig.at("x/p/notes.txt"), "");
    let others =
        ["x/p/notes.txt", "x/p/lock", "x/p/.a.yaml.swp", "x/p/a.yaml~", "x/p/4913", "x/p/a_test.yaml"];
    for name in others.into_iter().chain(["x/service.log", "other", "x/p/a/b.yaml"]) {
        assert!(!concerns(name, written), "{name}");
    }
    assert!(concerns("x/p/a.yaml", EventKind::Access(AccessKind::Close(AccessMode::Write))));
    let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    assert!(rig.watch.shared.concerns(&overflow), "lost events may have been ours");
}

#[test]
fn arming_again_is_news_only_if_a_folder_came_up() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "a")]);
    assert!(!rig.arm());
    write(&rig.at("p/sub/b.yaml"), "b");
    assert!(rig.arm());
    assert!(!rig.arm());
    let armed = rig.watch.armed.len();
    fs::remove_dir_all(rig.at("p/sub")).unwrap();
    assert!(!rig.arm());
    assert_eq!(rig.watch.armed.len(), armed - 1, "what is gone is let go of");
}

/// Watches up to as many folders as it is allowed to, and counts what it is asked.
struct Allowed {
    folders: HashSet<PathBuf>,
    most: Arc<AtomicUsize>,
}

impl Watcher for Allowed {
    fn new<F: EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        Err(notify::Error::generic("made by hand"))
    }

    fn watch(&mut self, path: &Path, _: RecursiveMode) -> notify::Result<()> {
        if !self.folders.contains(path) && self.folders.len() >= self.most.load(Ordering::SeqCst) {
            return Err(notify::Error::new(ErrorKind::MaxFilesWatch));
        }
        self.folders.insert(path.to_owned());
        Ok(())
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        self.folders.remove(path);
        Ok(())
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::NullWatcher
    }
}

#[tokio::test]
async fn without_a_watcher_the_rescan_goes_on_until_there_is_one() {
    let dir = TempDir::new().unwrap();
    let hints = Hints::new(Duration::ZERO, Duration::from_millis(5));
    let mut left = 2;
    let make: Make = Box::new(move |listener| {
        if left == 0 {
            return Ok(Box::new(notify::recommended_watcher(listener)?) as Box<dyn Watcher + Send>);
        }
        left -= 1;
        Err(notify::Error::io(std::io::Error::other("too many open files")))
    });
    let mut watch = FolderWatch::with_watcher(hints.clone(), make);
    let targets = walk(dir.path()).1;
    for _ in 0..2 {
        assert!(!watch.arm(&targets));
        assert_eq!(*watch.state(), WatchState::PollingOnly("too many open files".to_owned()));
        assert_eq!(timeout(DEADLINE, hints.next(None)).await, Ok(Hint::Rescan));
    }
    assert!(watch.arm(&targets));
    assert_eq!(*watch.state(), WatchState::Events);
}

#[test]
fn out_of_watches_is_said_until_there_are_enough() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("p/sub/a.yaml"), "a");
    let most = Arc::new(AtomicUsize::new(1));
    let allowed = Arc::clone(&most);
    let make: Make = Box::new(move |_| {
        Ok(Box::new(Allowed { folders: HashSet::new(), most: Arc::clone(&allowed) })
            as Box<dyn Watcher + Send>)
    });
    let hints = Hints::new(Duration::ZERO, NEVER);
    let mut watch = FolderWatch::with_watcher(hints, make);
    let targets = walk(&dir.path().join("p")).1;
    watch.arm(&targets);
    let refused = "the system's limit of watches is reached";
    assert_eq!(*watch.state(), WatchState::PollingOnly(refused.to_owned()));
    assert_eq!(watch.armed.len(), 1);
    most.store(100, Ordering::SeqCst);
    assert!(watch.arm(&targets));
    assert_eq!(*watch.state(), WatchState::Events);
}

#[tokio::test]
async fn a_watcher_that_reports_an_error_is_replaced() {
    let mut rig = Rig::new("p", &[("p/a.yaml", "1")]);
    let mut listener = Listener { shared: Arc::clone(&rig.watch.shared) };
    listener.handle_event(Err(notify::Error::generic("broken")));
    rig.sees(Some(&[("a.yaml", "1")])).await;
    fs::write(rig.at("p/a.yaml"), "2").unwrap();
    rig.sees(Some(&[("a.yaml", "2")])).await;
}

#[tokio::test]
async fn hints_say_why() {
    let hints = Hints::new(Duration::from_millis(1), NEVER);
    hints.hint();
    hints.hint();
    assert_eq!(timeout(DEADLINE, hints.next(None)).await, Ok(Hint::Event));
    assert_eq!(timeout(DEADLINE, hints.next(Some(std::time::Instant::now()))).await, Ok(Hint::Planned));
    let hints = Hints::new(Duration::from_millis(1), Duration::from_millis(1));
    let later = std::time::Instant::now() + NEVER;
    assert_eq!(timeout(DEADLINE, hints.next(Some(later))).await, Ok(Hint::Rescan));
}
