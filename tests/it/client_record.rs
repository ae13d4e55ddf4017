//! The record of clients, whatever moment a process ends at and however full the disk is.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use scopeward::clients::{ClientFile, ClientRecord, Clients};

/// Makes each test below put one client after the other in this directory, until it is killed or an error ends it.
const DIRECTORY: &str = "TEST_CLIENTS_DIRECTORY";
const UPSTREAM: &str = "http://upstream";

/// Puts clients by many tasks at once, says each that is durable, and the error that ends it.
fn put_forever(directory: &Path) -> ! {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let clients = Clients::open(directory, UPSTREAM, 1_000_000).unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let clients = clients.clone();
                tokio::spawn(async move {
                    for number in 0.. {
                        let id = format!("{}-{task}-{number}", std::process::id());
                        let record = ClientRecord::registered(
                            "",
                            id.clone(),
                            "openid",
                            Default::default(),
                            SystemTime::now(),
                        );
                        if let Err(error) = clients.put(record).await {
                            return error.to_string();
                        }
                        println!("put {id}");
                    }
                    String::new()
                })
            })
            .collect();
        let mut error = String::new();
        for task in tasks {
            error = task.await.unwrap();
        }
        // Those that are there are still read, and the space is the only thing that is missing.
        let lookup = clients.get("", "unknown").await;
        format!("{error}, {lookup:?}")
    });
    println!("failed {error}");
    std::process::exit(0);
}

fn start(test: &str, directory: &Path, shell: &str) -> Child {
    let own = env::current_exe().unwrap();
    Command::new("bash")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn recorded(directory: &Path) -> BTreeSet<String> {
    let mut recorded = BTreeSet::new();
    ClientFile::open(directory).unwrap().list(|record| recorded.insert(record.client_id)).unwrap();
    recorded
}

#[test]
fn what_was_put_survives_kill_9_at_any_moment() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        put_forever(Path::new(&directory));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut durable = BTreeSet::new();
    for round in 0..8 {
        let mut child = start("client_record::what_was_put_survives_kill_9_at_any_moment", folder.path(), "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment of the work each time: after another number of lines.
        let mut wanted = 20 + 7 * round;
        while wanted > 0 {
            let line = lines.next().expect("it goes on until it is killed").unwrap();
            if let Some(id) = line.strip_prefix("put ") {
                durable.insert(id.to_owned());
                wanted -= 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it was killed.
        durable.extend(
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("put ").map(str::to_owned)),
        );
        let recorded = recorded(folder.path());
        let missing: Vec<_> = durable.difference(&recorded).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        assert!(
            recorded.len() <= durable.len() + 8 * (round + 1),
            "at most what was being written is there too"
        );
    }
}

#[test]
fn a_disk_that_is_full_loses_nothing_that_was_put() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        put_forever(Path::new(&directory));
    }
    let folder = tempfile::tempdir().unwrap();
    // No file grows beyond 256 blocks. SIGXFSZ is ignored, so that writing fails as on a full disk instead of ending the process.
    let shell = "trap '' XFSZ; ulimit -S -f 256;";
    let mut child =
        start("client_record::a_disk_that_is_full_loses_nothing_that_was_put", folder.path(), shell);
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    child.wait().unwrap();
    let durable: BTreeSet<String> =
        lines.iter().filter_map(|line| line.strip_prefix("put ").map(str::to_owned)).collect();
    let error = lines.iter().find_map(|line| line.strip_prefix("failed ")).expect("it ends with an error");
    assert!(
        error.contains("the record of clients could not be written") && error.ends_with("Ok(None)"),
        "{error}"
    );
    assert!(durable.len() > 50, "{} were put before the disk was full", durable.len());
    let recorded = recorded(folder.path());
    let missing: Vec<_> = durable.difference(&recorded).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
