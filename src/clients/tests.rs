use std::fs;

use tempfile::TempDir;

use super::*;

const UPSTREAM: &str = "http://hydra:4444";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn client(id: &str, scope: &str, time: u64) -> ClientRecord {
    let metadata = ClientMetadata {
        client_name: "name \u{202e}\"".into(),
        redirect_uris: vec!["http://localhost/cb".into()],
        ..Default::default()
    };
    ClientRecord::registered("", id, scope, metadata, at(time))
}

fn open(folder: &TempDir, limit: u64) -> Clients {
    Clients::open(folder.path(), UPSTREAM, limit).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn ids(clients: &Clients, among: &[&str]) -> Vec<String> {
    let mut there = Vec::new();
    for id in among {
        there.extend(clients.get("", id).await.unwrap().map(|record| record.client_id.clone()));
    }
    there
}

#[tokio::test]
async fn what_was_put_is_there_after_a_new_start() {
    let folder = folder();
    let clients = open(&folder, 10);
    let first = client("a", "openid x", 100);
    clients.put(first.clone()).await.unwrap();
    assert_eq!(clients.get("", "a").await.unwrap().as_deref(), Some(&first));
    assert_eq!(clients.get("/realms/t", "a").await.unwrap(), None, "an id is unique in its issuer");
    assert_eq!(clients.get("", "A").await.unwrap(), None);
    drop(clients);
    let clients = open(&folder, 10);
    assert_eq!(clients.get("", "a").await.unwrap().as_deref(), Some(&first));
    assert_eq!(clients.status().clients, 1);
    assert!(clients.forget("", "a").await.unwrap());
    assert!(!clients.forget("", "a").await.unwrap());
    assert_eq!(
        (clients.get("", "a").await.unwrap(), clients.status().clients, clients.status().bytes),
        (None, 0, 0)
    );
}

#[tokio::test]
async fn a_client_that_registers_again_keeps_what_was_added_and_when_it_was_first_known() {
    let folder = folder();
    let clients = open(&folder, 10);
    clients.put(client("a", "openid", 100)).await.unwrap();
    clients.add("", "a", "s t").await.unwrap();
    clients.add("", "a", "t u").await.unwrap();
    let known = clients.get("", "a").await.unwrap().unwrap();
    assert_eq!((known.registered_scope.as_str(), known.added_scope.as_str()), ("openid", "s t u"));
    clients.note_login(&known, at(200));
    clients.put(client("a", "openid x", 300)).await.unwrap();
    let known = clients.get("", "a").await.unwrap().unwrap();
    let expected = ClientRecord {
        added_scope: "s t u".into(),
        first_time: at(100),
        login_time: Some(at(200)),
        ..client("a", "openid x", 300)
    };
    assert_eq!(*known, expected);
    // Within an hour no other login is noted.
    clients.note_login(&known, at(200 + 3599));
    clients.put(client("b", "", 1)).await.unwrap();
    assert_eq!(clients.get("", "a").await.unwrap().unwrap().login_time, Some(at(200)));
    clients.note_login(&known, at(200 + 3600));
    clients.put(client("c", "", 1)).await.unwrap();
    assert_eq!(clients.get("", "a").await.unwrap().unwrap().login_time, Some(at(3800)));
}

/// What is kept in memory is never older than the file, whoever changes that.
#[tokio::test]
async fn every_change_is_known_at_the_next_look() {
    let folder = folder();
    let clients = open(&folder, 2);
    let scope = async |id: &str| {
        let twice = [clients.get("", id).await.unwrap(), clients.get("", id).await.unwrap()];
        assert_eq!(twice[0], twice[1]);
        twice[0].as_ref().map(|record| format!("{}+{}", record.registered_scope, record.added_scope))
    };
    assert_eq!(scope("a").await, None);
    clients.put(client("a", "x", 1)).await.unwrap();
    assert_eq!(scope("a").await.as_deref(), Some("x+"));
    clients.put(client("a", "y", 2)).await.unwrap();
    assert_eq!(scope("a").await.as_deref(), Some("y+"));
    clients.add("", "a", "s").await.unwrap();
    assert_eq!(scope("a").await.as_deref(), Some("y+s"));
    clients.forget("", "a").await.unwrap();
    assert_eq!(scope("a").await, None);
    for (id, time) in [("a", 1), ("b", 2), ("c", 3)] {
        clients.put(client(id, "x", time)).await.unwrap();
        assert_eq!(scope(id).await.as_deref(), Some("x+"));
    }
    assert_eq!(scope("a").await, None, "it made room");
    let mut file = ClientFile::open(folder.path()).unwrap();
    assert!(file.forget("", "b").unwrap());
    assert_eq!(scope("b").await, None, "people forgot it");
    assert!(!file.forget("", "b").unwrap());
    assert_eq!(scope("c").await.as_deref(), Some("x+"));
    drop((clients, file));
    let clients = open(&folder, 2);
    assert_eq!(ids(&clients, &["a", "b", "c"]).await, ["c"]);
    assert!(ClientFile::open(folder.path()).unwrap().forget("", "c").unwrap());
    assert_eq!(ids(&clients, &["c"]).await, [""; 0]);
}

/// A client that is looked up again has not registered what was only added to it.
#[tokio::test]
async fn what_was_added_is_known_until_the_client_is_gone_at_the_upstream() {
    let folder = folder();
    let clients = open(&folder, 1);
    let added = async |clients: &Clients| clients.get("", "a").await.unwrap().unwrap().added_scope.clone();
    clients.put(client("a", "x", 1)).await.unwrap();
    clients.add("", "a", "s").await.unwrap();
    clients.put(client("b", "x", 2)).await.unwrap();
    assert_eq!(ids(&clients, &["a", "b"]).await, ["b"], "it made room");
    assert_eq!(clients.added("", "a").await.unwrap(), "s");
    assert_eq!(clients.added("", "b").await.unwrap(), "");
    clients.put(client("a", "x", 3)).await.unwrap();
    assert_eq!(added(&clients).await, "s");
    assert!(ClientFile::open(folder.path()).unwrap().forget("", "a").unwrap());
    clients.put(client("a", "x", 4)).await.unwrap();
    assert_eq!(added(&clients).await, "s");
    clients.forget("", "a").await.unwrap();
    clients.put(client("a", "x", 5)).await.unwrap();
    assert_eq!(added(&clients).await, "");
}

#[tokio::test]
async fn clients_that_never_began_a_login_make_room_first_and_then_the_oldest_login() {
    let folder = folder();
    let clients = open(&folder, 3);
    for (id, time) in [("a", 10), ("b", 20), ("c", 30)] {
        clients.put(client(id, "x", time)).await.unwrap();
    }
    clients.note_login(&client("a", "x", 10), at(100));
    clients.put(client("d", "x", 40)).await.unwrap();
    let all = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(ids(&clients, &all).await, ["a", "c", "d"]);
    // One that is known needs no room.
    clients.put(client("c", "y", 50)).await.unwrap();
    assert_eq!(ids(&clients, &all).await, ["a", "c", "d"]);
    clients.note_login(&client("d", "x", 10), at(90));
    clients.note_login(&client("c", "x", 10), at(110));
    clients.put(client("e", "x", 60)).await.unwrap();
    assert_eq!(ids(&clients, &all).await, ["a", "c", "e"]);
    clients.put(client("f", "x", 60)).await.unwrap();
    assert_eq!(ids(&clients, &all).await, ["a", "c", "f"]);
    let status = clients.status();
    assert_eq!((status.clients, status.evicted_unused, status.evicted_used), (3, 2, 1));
    drop(clients);
    let clients = open(&folder, 1);
    clients.put(client("g", "x", 70)).await.unwrap();
    assert_eq!(ids(&clients, &all).await, ["g"], "a lower limit holds from the next client on");
}

#[tokio::test]
async fn large_clients_make_room_too() {
    let folder = folder();
    let clients = open(&folder, 4);
    let mut large = client("large", "x", 10);
    large.metadata.client_name = "n".repeat(4 * usize::try_from(AVERAGE_BYTES).unwrap());
    clients.put(large.clone()).await.unwrap();
    assert!(clients.status().bytes > 4 * AVERAGE_BYTES);
    clients.put(client("a", "x", 20)).await.unwrap();
    assert_eq!(ids(&clients, &["large", "a"]).await, ["a"]);
    // A change of one counts as well.
    let before = clients.status().bytes;
    clients.put(client("a", "x y", 20)).await.unwrap();
    assert_eq!(clients.status().bytes, before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_leave_one_consistent_record() {
    let folder = folder();
    let clients = open(&folder, 1000);
    let tasks: Vec<_> = (0..50_u32)
        .map(|number| {
            let clients = clients.clone();
            tokio::spawn(async move {
                clients.put(client("shared", "openid", 10)).await.unwrap();
                clients.add("", "shared", &format!("s{number}")).await.unwrap();
                clients.put(client(&format!("own{number}"), "x", 10)).await.unwrap();
                clients.get("", &format!("own{number}")).await.unwrap().unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let shared = clients.get("", "shared").await.unwrap().unwrap();
    let mut added: Vec<&str> = shared.added_scope.split(' ').collect();
    added.sort_unstable();
    let mut expected: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    expected.sort_unstable();
    assert_eq!(added, expected);
    assert_eq!(clients.status().clients, 51);
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_what_was_put_stays() {
    let folder = folder();
    let clients = open(&folder, 1000);
    clients.put(client("a", "x", 10)).await.unwrap();
    let pages = 12;
    clients.0.writer.lock().unwrap().limit_pages(pages);
    let mut large = client("b", "x", 10);
    large.metadata.client_name = "n".repeat(100_000);
    let error = clients.put(large.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "the record of clients could not be written: database or disk is full");
    assert_eq!(clients.status().errors, 1);
    assert_eq!(ids(&clients, &["a", "b"]).await, ["a"]);
    // There is room again.
    clients.0.writer.lock().unwrap().limit_pages(1 << 20);
    clients.put(large).await.unwrap();
    assert_eq!(ids(&clients, &["a", "b"]).await, ["a", "b"]);
    assert_eq!(clients.status().clients, 2);
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_noticed() {
    let folder = folder();
    let clients = open(&folder, 10);
    clients.put(client("a", "x", 10)).await.unwrap();
    fs::rename(folder.path().join(FILE_NAME), folder.path().join("away")).unwrap();
    let error = clients.put(client("b", "x", 10)).await.unwrap_err();
    assert!(matches!(error, ClientsError::Replaced { .. }), "{error}");
    fs::write(folder.path().join(FILE_NAME), "").unwrap();
    let error = clients.forget("", "a").await.unwrap_err();
    assert!(matches!(error, ClientsError::Replaced { .. }), "{error}");
}

#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let clients = open(&folder, 10);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(clients.put(client("a", "x", 10))).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        files += 1;
    }
    assert!(files >= 2, "the file and its log");
}

#[test]
fn what_is_no_record_of_this_upstream_is_refused_and_named() {
    #[track_caller]
    fn check(prepare: impl FnOnce(&Path), upstream: &str, expected: &str) {
        let folder = folder();
        let path = folder.path().join(FILE_NAME);
        prepare(&path);
        let before = fs::read(&path).unwrap();
        let error = Clients::open(folder.path(), upstream, 10).unwrap_err().to_string();
        let shown = error.replace(&path.display().to_string(), "FILE");
        assert!(shown.starts_with(expected), "{shown}");
        assert_eq!(fs::read(&path).unwrap(), before, "it is left as it was");
    }
    let make = |path: &Path| drop(Clients::open(path.parent().unwrap(), UPSTREAM, 10).unwrap());
    check(
        make,
        "http://keycloak:8080",
        "`FILE` has the clients of the upstream `http://hydra:4444`, and not of `http://keycloak:8080`: use another --state-dir, or, \
         if it is the same server at another address, `scopeward gateway clients move --to http://keycloak:8080`",
    );
    check(
        |path| fs::write(path, "no database, but a longer text than that").unwrap(),
        UPSTREAM,
        "`FILE` is not a record of clients",
    );
    check(
        |path| {
            let other = rusqlite::Connection::open(path).unwrap();
            other
                .execute_batch("PRAGMA journal_mode = WAL; PRAGMA application_id = 7; CREATE TABLE t (a)")
                .unwrap();
        },
        UPSTREAM,
        "`FILE` is not a record of clients",
    );
    check(
        |path| {
            make(path);
            rusqlite::Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
        },
        UPSTREAM,
        "`FILE` has format 9, and this program knows 1",
    );
    check(
        |path| {
            make(path);
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 5000]).unwrap();
        },
        UPSTREAM,
        "`FILE` is damaged: ",
    );
    check(
        |path| {
            make(path);
            let mut bytes = fs::read(path).unwrap();
            let length = bytes.len();
            bytes[4096..length].fill(0xaa);
            fs::write(path, bytes).unwrap();
        },
        UPSTREAM,
        "`FILE` is damaged: ",
    );
}

/// What is torn at the end of the log of SQLite is what was not acknowledged; the rest is there.
#[test]
fn a_torn_end_loses_only_what_was_not_acknowledged() {
    let folder = folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wal = |folder: &TempDir| folder.path().join("clients.db-wal");
    let clients = open(&folder, 100);
    for number in 0..10 {
        runtime.block_on(clients.put(client(&format!("c{number}"), "x", number))).unwrap();
    }
    // As a crash leaves it: no connection has closed the file.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(folder.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
    let log = fs::read(wal(&folder)).unwrap();
    drop(clients);
    let mut counts = Vec::new();
    for keep in (0..=log.len()).rev().step_by(4_500) {
        for tear in [false, true] {
            let torn = tempfile::tempdir().unwrap();
            fs::copy(copy.path().join(FILE_NAME), torn.path().join(FILE_NAME)).unwrap();
            let mut bytes = log[..keep].to_vec();
            if tear {
                // A page that was never written is zeros.
                bytes.extend(std::iter::repeat_n(0, 4096));
            }
            fs::write(wal(&torn), bytes).unwrap();
            let Ok(clients) = Clients::open(torn.path(), UPSTREAM, 100) else {
                // The tables themselves are in the log until it is moved into the file for the first time.
                continue;
            };
            let all: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let there = runtime.block_on(ids(&clients, &all));
            assert_eq!(there, all[..there.len()], "the first ones, without a hole");
            assert_eq!(clients.status().clients, there.len() as u64);
            counts.push(there.len());
        }
    }
    assert_eq!(counts.first(), Some(&10));
    assert!(counts.contains(&5) && counts.is_sorted_by(|one, other| one >= other), "{counts:?}");
}

#[tokio::test]
async fn people_read_and_forget_while_it_is_open() {
    let folder = folder();
    let missing = ClientFile::open(folder.path()).unwrap_err();
    assert!(matches!(missing, ClientsError::Missing { .. }), "{missing}");
    let clients = open(&folder, 1000);
    let put = (0..300).map(|number| clients.put(client(&format!("{number:03}"), "x", number)));
    futures_util::future::join_all(put).await.into_iter().for_each(Result::unwrap);
    let mut file = ClientFile::open(folder.path()).unwrap();
    assert_eq!(file.upstream().unwrap(), UPSTREAM);
    let mut seen = Vec::new();
    file.list(|record| {
        seen.push(record.client_id);
        true
    })
    .unwrap();
    assert_eq!(seen, (0..300).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    let mut first = 0;
    file.list(|_| {
        first += 1;
        first < 3
    })
    .unwrap();
    assert_eq!(first, 3);
    assert!(file.forget("", "007").unwrap());
    assert!(!file.forget("", "007").unwrap());
    assert_eq!(clients.get("", "007").await.unwrap(), None);
    clients.put(client("new", "x", 1)).await.unwrap();
    assert_eq!(clients.status().clients, 300, "the totals are those of the file");
    drop(clients);
    file.move_to("http://other").unwrap();
    drop(file);
    Clients::open(folder.path(), "http://other", 10).unwrap();
}
