//! A NATS server of a test: on loopback, with JetStream in a folder of its own, and users of its own. Ended with the test.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::free_port;

/// What may write records and no more, as the guide *More than one machine* has it.
const WRITER: &str = r#"{ publish: ["scopeward.audit.*", "$JS.API.STREAM.INFO.AUDIT", "$JS.API.STREAM.MSG.GET.AUDIT"], subscribe: "_INBOX.>" }"#;

/// The one that .ci/install brings, or one of the system.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python-tools/bin/nats-server");
    if own.exists() { own } else { "nats-server".into() }
}

/// A server with the users `admin` (password `ruling`), who may do everything, and `writer` (password `writing`).
pub struct Nats {
    folder: TempDir,
    host: String,
    port: u16,
    process: Option<Child>,
}

impl Nats {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Starts one that listens on this address.
    pub fn start_at(host: &str) -> Self {
        Self::start_with(host, "")
    }

    /// The same with more lines in its configuration.
    pub fn start_with(host: &str, more: &str) -> Self {
        let access = format!(
            "authorization {{ users: [\n{{ user: admin, password: ruling }},\n\
             {{ user: writer, password: writing, permissions: {WRITER} }} ] }}\n{more}"
        );
        let mut server = Self::prepare(host, &access);
        server.resume();
        server
    }

    /// Starts one that lets others in than those two, so that nothing can be asked of it here.
    pub fn start_for(access: &str) -> Self {
        let mut server = Self::prepare("127.0.0.1", access);
        server.spawn();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.greets() {
            assert!(Instant::now() < deadline, "NATS does not greet");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn prepare(host: &str, access: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port(host);
        let store = folder.path().join("store");
        let config = format!("listen: \"{host}:{port}\"\njetstream {{ store_dir: {store:?} }}\n{access}\n");
        fs::write(folder.path().join("nats.conf"), config).unwrap();
        Self { folder, host: host.to_owned(), port, process: None }
    }

    /// Whether it says who it is to who connects.
    fn greets(&self) -> bool {
        let Ok(stream) = TcpStream::connect((&*self.host, self.port)) else { return false };
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO ")
    }

    /// Starts the process, and waits until it answers.
    pub fn resume(&mut self) {
        self.spawn();
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_request("$JS.API.INFO", "").is_none() {
            assert!(Instant::now() < deadline, "NATS does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn spawn(&mut self) {
        let process = Command::new(program())
            .arg("-c")
            .arg(self.folder.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Takes everything away that it had on disk.
    pub fn wipe(&mut self) {
        fs::remove_dir_all(self.folder.path().join("store")).unwrap();
    }

    /// Lets it hang (`-STOP`), or go on (`-CONT`).
    pub fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// The URL for a user, or for somebody with a token.
    pub fn url(&self, user: &str) -> String {
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        format!("nats://{user}{}:{}/AUDIT", self.host, self.port)
    }

    /// Asks as the administrator; the answer is JSON.
    #[track_caller]
    pub fn request(&self, subject: &str, payload: &Value) -> Value {
        let answer = self.try_request(subject, &payload.to_string());
        let answer: Value = serde_json::from_str(&answer.expect("an answer")).unwrap();
        assert!(answer["error"].is_null(), "{subject}: {answer}");
        answer
    }

    /// Makes the stream with settings that are not those of `forward-schema`.
    pub fn make_stream(&self, settings: &Value) {
        let config = stream_config(settings);
        // What was deleted is removed from the disk a moment later.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.try_request("$JS.API.STREAM.CREATE.AUDIT", &config.to_string()).unwrap();
            if !answer.contains("\"error\"") {
                return;
            }
            assert!(Instant::now() < deadline, "{settings}: {answer}");
        }
    }

    /// Gives the stream other settings.
    pub fn change_stream(&self, settings: &Value) {
        self.request("$JS.API.STREAM.UPDATE.AUDIT", &stream_config(settings));
    }

    pub fn delete_stream(&self) {
        self.request("$JS.API.STREAM.DELETE.AUDIT", &json!({}));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The messages in the stream.
    pub fn messages(&self) -> u64 {
        self.request("$JS.API.STREAM.INFO.AUDIT", &json!({}))["state"]["messages"].as_u64().unwrap()
    }

    /// A file with a text, for `--audit-forward-password-file`.
    pub fn password_file(&self, folder: &Path, password: &str) -> String {
        let path = folder.join(format!("password-{}", password.len()));
        fs::write(&path, format!("{password}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// One question in the protocol of NATS.
    fn try_request(&self, subject: &str, payload: &str) -> Option<String> {
        let mut stream = TcpStream::connect((&*self.host, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let hello = r#"CONNECT {"user":"admin","pass":"ruling","verbose":false,"pedantic":false}"#;
        let bytes = payload.len();
        write!(stream, "{hello}\r\nSUB answer 1\r\nPUB {subject} answer {bytes}\r\n{payload}\r\n").ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.starts_with("MSG ") {
                let bytes = line.split_whitespace().last()?.parse().ok()?;
                let mut answer = vec![0; bytes];
                reader.read_exact(&mut answer).ok()?;
                return String::from_utf8(answer).ok();
            }
        }
    }
}

/// A stream for the records that keeps all of them, but for these settings.
fn stream_config(settings: &Value) -> Value {
    let mut config = json!({
        "name": "AUDIT", "subjects": ["scopeward.audit.*"], "retention": "limits", "storage": "file", "discard": "old",
        "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1,
    });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    config
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
