//! Server processes that are measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::Channel;

/// The variable that makes a bench process the bare server.
pub const BARE_SERVER: &str = "BENCH_BARE_SERVER";

/// The bare service, as a process of this program.
pub fn bare() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(BARE_SERVER, "1");
    command
}

/// `scopeward serve` of the program built with the bench.
pub fn scopeward(policies: &Path, state: &Path, flags: &[&str]) -> Command {
    scopeward_of(Path::new(env!("CARGO_BIN_EXE_scopeward")), policies, state, flags)
}

/// `scopeward serve` of any program.
pub fn scopeward_of(program: &Path, policies: &Path, state: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--policies")
        .arg(policies)
        .arg("--state-dir")
        .arg(state)
        .args(flags)
        .env("SCOPEWARD_LOG", "warn");
    command
}

/// A started server; ended when dropped.
pub struct Process {
    child: Child,
    address: String,
    admin: String,
    /// From the start of the process to its ready line.
    pub ready_after: Duration,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a server and waits for its ready line.
    pub fn start(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready_after = started.elapsed();
        let word = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
        let address = word("grpc=").or_else(|| word("http="));
        let address = address.unwrap_or_else(|| panic!("no address in the ready line {line:?}")).to_owned();
        let admin = word("admin=").unwrap_or_default().to_owned();
        Self { child, address, admin, ready_after }
    }

    /// Asks the server to stop, and waits until it has.
    pub fn stop(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the server is there");
        self.child.wait().expect("the server ends");
    }

    /// Resident memory now, in MiB.
    pub fn resident(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most resident memory so far, in MiB.
    pub fn peak(&self) -> f64 {
        self.status("VmHWM:")
    }

    /// Forgets what was the most so far.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn status(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        kib / 1024.0
    }

    /// CPU time used so far in seconds, that of the kernel included; counted in hundredths.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The name of the program is in parentheses and may hold anything; user and system time are 14th and 15th.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap_or_default()).sum();
        ticks / 100.0
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A figure of its metrics that has no labels.
    pub fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.admin).expect("it tells of itself");
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    /// Connections to it.
    pub async fn channels(&self, count: usize) -> Vec<Channel> {
        let mut channels = Vec::new();
        for _ in 0..count {
            let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
            channels.push(endpoint.tcp_nodelay(true).connect().await.expect("the server is reachable"));
        }
        channels
    }
}

/// The middle of some figures.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
