//! What a bad policy costs: memory of the real server while it reads one, and after.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use scopeward::rpc::v1;
use scopeward::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;

use crate::service::POLICY;

/// The most that a rejected attempt may cost beyond the bytes of its files, while it is read.
const MOST: u64 = 64 << 20;
/// What all attempts together may leave: pages that small allocations share, caches of threads, findings.
const KEPT: u64 = 12 << 20;
/// How long one attempt may take, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The real server in a process of its own.
struct Server {
    child: Child,
    client: PolicyStatusServiceClient<tonic::transport::Channel>,
}

impl Server {
    async fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scopeward"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--debounce", "20ms", "--policies"])
            .arg(folder.join("policies"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let grpc = ready.split("grpc=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let client = PolicyStatusServiceClient::connect(format!("http://{grpc}")).await.unwrap();
        Self { child, client: client.max_decoding_message_size(16 << 20) }
    }

    /// Waits for a state; every change wakes it.
    async fn when(&mut self, wanted: impl Fn(&v1::PolicyStatus) -> bool) -> v1::PolicyStatus {
        let mut stream =
            self.client.watch_policy_status(v1::WatchPolicyStatusRequest {}).await.unwrap().into_inner();
        loop {
            let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("seen in time");
            let status = next.unwrap().unwrap().status.unwrap();
            if wanted(&status) {
                return status;
            }
        }
    }

    /// A line of `/proc/PID/status` in bytes, such as `VmRSS`, what of it is no file, `RssAnon`, or the peak `VmHWM`.
    fn memory(&self, line: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files that are wrong in as many places as fit, or large and wrong in one place, by kind: all are about three
/// megabytes together.
fn bad() -> Vec<(&'static str, Vec<String>)> {
    let many = |count: usize, write: &dyn Fn(&mut String, usize)| {
        let mut text = String::new();
        (0..count).for_each(|n| write(&mut text, n));
        text
    };
    let audiences = many(75_000, &|text, n| {
        let lead = if n == 0 { "audiences:\n" } else { "" };
        writeln!(text, "{lead} a{n:05}: {{scopesSupported: [openid]}}").unwrap();
    });
    let keys = many(155_000, &|text, n| writeln!(text, "{n:06}:").unwrap());
    let lists = |count: usize, length: usize, entry: &str| {
        let list = format!("[{}]", format!("{entry},").repeat(length));
        many(count, &|text, n| {
            let lead = if n == 0 { "audiences:\n" } else { "" };
            writeln!(text, "{lead} a{n}: {{scopesSupported: {list}}}").unwrap();
        })
    };
    vec![
        ("more entries than a list may have", vec![lists(1, 900_000, "a")]),
        ("75,000 audiences and one unknown key", vec![format!("{audiences}badkey: 1\n")]),
        ("more entries than a mapping may have", vec![format!("{{{}}}", "a,".repeat(1_500_000))]),
        ("more nodes than a tree may have", vec![lists(6, 150_000, "a")]),
        ("unknown keys", vec![keys.clone()]),
        (
            "audiences that are nothing",
            vec![format!("audiences:\n{}", keys.replace("\n", "\n ").replacen('0', " 0", 1))],
        ),
        ("entries that are no scopes", vec![lists(5, 150_000, "1")]),
        ("equal entries", vec![lists(5, 150_000, "a")]),
        ("lists of lists", vec![format!("[{}]", "[a],".repeat(155_000))]),
        ("75,000 audiences and an undeclared one", vec![format!("{audiences}defaultAudience: b\n")]),
        (
            "75,000 audiences and one that gives what it has not",
            vec![format!("{audiences} b: {{scopesSupported: [a], baselineClientScopes: [b]}}\n")],
        ),
        ("many files", (0..1000).map(|_| many(400, &|text, n| writeln!(text, "{n:05}:").unwrap())).collect()),
    ]
}

/// The two kinds that cost most before there were limits; with `SCOPEWARD_BAD_POLICIES=full` all of them, one after
/// the other, see docs/performance.md.
#[tokio::test]
async fn a_rejected_policy_costs_little() {
    let is_full = std::env::var_os("SCOPEWARD_BAD_POLICIES").is_some_and(|value| value == "full");
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("mcp.yaml"), POLICY).unwrap();
    let mut server = Server::start(folder.path()).await;
    let idle = server.memory("RssAnon");
    let mib = |bytes: u64| bytes >> 20;
    for (what, files) in bad().into_iter().take(if is_full { usize::MAX } else { 2 }) {
        let before = server.memory("VmRSS");
        // 5 starts the peak again, see proc_pid_clear_refs(5).
        fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5").unwrap();
        let bytes: u64 = files.iter().map(|text| text.len() as u64).sum();
        let next = folder.path().join("next");
        fs::create_dir(&next).unwrap();
        for (n, text) in files.iter().enumerate() {
            fs::write(next.join(format!("bad{n}.yaml")), text).unwrap();
        }
        fs::rename(&next, policies.join("bad")).unwrap();
        let status =
            server.when(|status| status.last_attempt.as_ref().is_some_and(|last| !last.accepted)).await;
        let last = status.last_attempt.unwrap();
        assert!(last.findings.len() <= 1000, "{what}");
        assert!(last.finding_count >= 150_000 || last.finding_count == 1, "{what}: {}", last.finding_count);
        fs::rename(policies.join("bad"), folder.path().join("away")).unwrap();
        server.when(|status| status.last_attempt.as_ref().is_some_and(|last| last.accepted)).await;
        let peak = server.memory("VmHWM");
        // Memory is given back after the status is there.
        let mut after = server.memory("RssAnon");
        for _ in 0..100 {
            if after.saturating_sub(idle) <= KEPT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = server.memory("RssAnon");
        }
        println!("{what}: {} MiB before, {} at most, {} after", mib(before), mib(peak), mib(after));
        assert!(peak.saturating_sub(before) <= MOST + 2 * bytes, "{what}: {} MiB", mib(peak - before));
        assert!(after.saturating_sub(idle) <= KEPT, "{what}: {} MiB are kept", mib(after - idle));
        fs::remove_dir_all(folder.path().join("away")).unwrap();
    }
}
