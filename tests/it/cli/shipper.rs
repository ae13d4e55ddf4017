//! The configuration of the guide for rsyslog, run as it stands there but for its paths and its target.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::audit::sequences;
use super::serve::{Piped, place};
use super::*;
use crate::tools::wanted;

/// The configuration in the guide.
fn configuration() -> &'static str {
    let guide = include_str!("../../../docs/guides/audit-consumers.md");
    let (_, rest) = guide.split_once("**rsyslog**").unwrap();
    let (_, rest) = rest.split_once("```text\n").unwrap();
    rest.split_once("```").unwrap().0
}

struct Shipper(Child);

impl Shipper {
    fn start(place: &Place, port: u16) -> Self {
        let folder = place.0.path().to_str().unwrap();
        let text = configuration()
            .replace("/var/lib/rsyslog", &format!("{folder}/shipper"))
            .replace("/var/log/scopeward", folder)
            .replace("siem.example.com", "127.0.0.1")
            .replace("10514", &port.to_string());
        assert!(!text.contains("/var/"), "{text}");
        place.write("shipper.conf", text);
        fs::create_dir_all(place.0.path().join("shipper")).unwrap();
        let process = Command::new("rsyslogd")
            .args(["-n", "-f", "shipper.conf", "-i", &format!("{folder}/shipper.pid")])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(process)
    }

    fn stop(&mut self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Hands on the lines of every connection.
fn receive(listener: TcpListener) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream.unwrap()).lines() {
                    let Ok(()) = sender.send(line.unwrap_or_default()) else { return };
                }
            });
        }
    });
    lines
}

#[test]
fn every_line_reaches_a_receiver_that_was_down_and_through_a_restart() {
    if !wanted("rsyslogd") {
        return;
    }
    let place = place();
    let server = Piped::start(&place, &["--audit-jsonl", "audit.jsonl"]);
    // A port that nobody listens at yet.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut shipper = Shipper::start(&place, port);
    server.expand(50);
    let lines = receive(TcpListener::bind(("127.0.0.1", port)).unwrap());
    let mut seen = BTreeSet::new();
    let mut until = |newest: u64| {
        while seen.len() < usize::try_from(newest).unwrap() {
            let line = lines.recv_timeout(Duration::from_secs(60)).expect("another line");
            seen.extend(sequences(&line));
        }
        assert_eq!(seen.last(), Some(&newest));
    };
    // The policy that serves is the first record.
    until(51);
    server.expand(20);
    until(71);
    shipper.stop();
    server.expand(30);
    let _shipper = Shipper::start(&place, port);
    until(101);
}
