//! What a service manager hears of the server over its socket (sd_notify(3)), and what it means when it hears nothing.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use scopeward::server::app::App;
use scopeward::server::config::Fault;
use scopeward::server::service_manager::{NotifySocket, ServiceManager};
use scopeward::server::supervisor::Part;

use crate::service::{DEADLINE, POLICY, settings};

/// A service manager: hears what is sent to its socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    /// The next message.
    #[track_caller]
    fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// The next message that is something else than a sign of life or a line about the state.
    #[track_caller]
    fn next_state(&self) -> String {
        loop {
            let message = self.next();
            if !message.starts_with("WATCHDOG=1") && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }

    /// Whether there is a message within so much time.
    fn hears_within(&self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        let heard = self.0.recv(&mut [0; 4096]);
        self.0.set_read_timeout(Some(DEADLINE)).unwrap();
        match heard {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The binary as a service, ended when this is dropped.
struct Unit {
    folder: tempfile::TempDir,
    child: Child,
}

impl Unit {
    /// Starts it with a policy and an access file of one caller, whose token is `first`.
    fn start(policy: &str, variables: &[(&str, &OsStr)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/mcp.yaml"), policy).unwrap();
        fs::write(folder.path().join("access.yaml"), access(&[FIRST])).unwrap();
        fs::write(folder.path().join("token"), "second").unwrap();
        let socket = format!("unix:{}", folder.path().join("grpc").display());
        let mut command = command(folder.path(), &["serve", "--listen", &socket]);
        command.args(["--admin-listen", "127.0.0.1:0", "--access-file", "access.yaml"]);
        let child = command.envs(variables.iter().copied()).stdout(Stdio::null()).spawn().unwrap();
        Self { folder, child }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How a client verb ends that asks it.
    fn ask(&self, args: &[&str]) -> Option<i32> {
        let socket = format!("unix:{}", self.folder.path().join("grpc").display());
        let mut command = command(self.folder.path(), args);
        command.args(["--server", &socket]).stdout(Stdio::null()).status().unwrap().code()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Callers by the hashes of their tokens.
fn access(hashes: &[&str]) -> String {
    let entries = hashes.iter().map(|hash| format!("{{tokenSha256: {hash}}}"));
    let entries = entries.collect::<Vec<_>>().join(", ");
    format!("callers: [{{name: a, may: [decide, describe, status], match: [{entries}]}}]\n")
}

/// Of the tokens `first` and `second`.
const FIRST: &str = "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e";
const SECOND: &str = "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4";

#[test]
fn a_service_manager_hears_of_each_phase_as_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let mut unit = Unit::start(POLICY, &[("NOTIFY_SOCKET", path.as_os_str())]);
    let ready = manager.next();
    assert!(ready.starts_with("READY=1\nSTATUS=serving generation 1, sha256:"), "{ready}");
    assert!(ready.contains(", audiences: 1"), "{ready}");
    // It serves already.
    assert_eq!(unit.ask(&["health"]), Some(0));
    assert_eq!(unit.ask(&["describe", "--token-file", "token"]), Some(2));

    // What SIGHUP asks for is done when the service manager hears that it is ready again: policy and credentials.
    fs::write(unit.folder.path().join("access.yaml"), access(&[FIRST, SECOND])).unwrap();
    let wider = POLICY.replace("openid", "openid, profile");
    fs::write(unit.folder.path().join("policies/mcp.yaml"), wider).unwrap();
    unit.signal("HUP");
    let reloading = manager.next_state();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a time");
    let since: i64 = since.parse().unwrap();
    let now = rustix_now();
    assert!((now - since).abs() < i64::try_from(DEADLINE.as_micros()).unwrap(), "{since} {now}");
    let ready = manager.next_state();
    assert!(ready.starts_with("READY=1\nSTATUS=serving generation 2, sha256:"), "{ready}");
    assert_eq!(unit.ask(&["describe", "--token-file", "token"]), Some(0));

    // A policy that is not valid is in the status; nobody has to be told to look.
    fs::write(unit.folder.path().join("policies/mcp.yaml"), "audiences: {}\n").unwrap();
    let bad = loop {
        let message = manager.next();
        if message.contains("PolicyAccepted=False") {
            break message;
        }
    };
    assert!(bad.starts_with("STATUS=serving generation 2, ") && bad.contains("; look at "), "{bad}");

    unit.signal("TERM");
    let stopping = manager.next_state();
    assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000\nSTATUS=stopping");
    assert_eq!(unit.child.wait().unwrap().code(), Some(0));
    assert!(!manager.hears_within(Duration::from_millis(1)));
}

/// Microseconds of the monotonic clock.
fn rustix_now() -> i64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    // Since the boot, in hundredths of a second; the clocks differ only by the time a machine slept.
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "a few days")]
    let micros = (seconds * 1e6) as i64;
    micros
}

#[test]
fn a_server_that_does_not_serve_is_never_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let mut unit = Unit::start("audiences: {}\n", &[("NOTIFY_SOCKET", path.as_os_str())]);
    assert_eq!(unit.child.wait().unwrap().code(), Some(1));
    assert!(!manager.hears_within(Duration::from_millis(1)));
}

#[test]
fn a_socket_may_be_abstract_and_the_watchdog_is_for_one_process() {
    let name = format!("scopeward-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap());
    let name = format!("@{name}");
    let variables = [("NOTIFY_SOCKET", OsStr::new(&name)), ("WATCHDOG_USEC", OsStr::new("100000"))];
    let unit = Unit::start(POLICY, &variables);
    while !manager.next().starts_with("READY=1") {}
    for _ in 0..5 {
        while manager.next() != "WATCHDOG=1" {}
    }
    drop(unit);
    while manager.hears_within(Duration::from_millis(1)) {}
    // Of another process, whose child this one is.
    let other = std::process::id().to_string();
    let variables = [&variables[..], &[("WATCHDOG_PID", OsStr::new(&other))]].concat();
    let unit = Unit::start(POLICY, &variables);
    while !manager.next().starts_with("READY=1") {}
    unit.signal("HUP");
    // The first sign of life would come with the first READY=1; by the second it has come.
    let heard: Vec<String> =
        std::iter::from_fn(|| Some(manager.next()).filter(|next| !next.starts_with("READY=1"))).collect();
    assert!(!heard.iter().any(|message| message == "WATCHDOG=1"), "{heard:?}");
    drop(unit);
}

#[test]
fn a_server_whose_thread_is_blocked_does_not_seem_alive() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/mcp.yaml"), POLICY).unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    // While the switch is on, a connection blocks the thread that serves it.
    let is_on = Arc::new(AtomicBool::new(true));
    let blocked = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new((Mutex::new(()), Condvar::new()));
    let mut settings = settings(folder.path());
    settings.server.fault = Fault(Some({
        let (is_on, blocked, gate) = (Arc::clone(&is_on), Arc::clone(&blocked), Arc::clone(&gate));
        Arc::new(move |part| {
            if part == Part::Connection && is_on.load(Ordering::SeqCst) {
                blocked.fetch_add(1, Ordering::SeqCst);
                let (lock, opened) = &*gate;
                let waiting = lock.lock().unwrap();
                drop(opened.wait_while(waiting, |()| is_on.load(Ordering::SeqCst)).unwrap());
            }
        })
    }));
    let socket = NotifySocket::parse(path.as_os_str()).unwrap();
    settings.service_manager = Some(ServiceManager { socket, watchdog: Some(Duration::from_millis(200)) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = runtime.block_on(App::start(settings)).unwrap();
    let grpc = crate::harness::tcp(&app.addresses());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(app.run(async {
        _ = stopped.await;
    }));
    for _ in 0..3 {
        while manager.next() != "WATCHDOG=1" {}
    }
    let connection = std::net::TcpStream::connect(grpc).unwrap();
    while blocked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // What was sent before that.
    while manager.hears_within(Duration::from_millis(1)) {}
    assert!(!manager.hears_within(Duration::from_millis(600)), "a sign of life of a server that is blocked");
    {
        let _waiting = gate.0.lock().unwrap();
        is_on.store(false, Ordering::SeqCst);
    }
    gate.1.notify_all();
    while manager.next() != "WATCHDOG=1" {}
    drop((connection, stop));
    let stopped = runtime.block_on(crate::harness::within("the service stops", running)).unwrap().unwrap();
    assert_eq!(stopped.abandoned, []);
}
