//! A PostgreSQL of a test: on loopback, in a folder of its own, with its own roles. Ended with the test.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::certs::{Authority, Issued};

/// The programs of the newest version that is installed; Debian has them outside of the search path.
fn program(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.map(|version| version.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    folders
        .iter()
        .rev()
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

/// PostgreSQL does not run as root.
fn command(name: &str) -> Command {
    if !is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program(name));
    command
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A server with the role `writer` (password `writing`), who owns the database `audit`, and the superuser `postgres`, who needs no password.
pub struct Postgres {
    folder: TempDir,
    host: String,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
    /// Whether its folder is a disk of its own.
    has_disk: bool,
}

/// A port that nobody listens on.
pub fn free_port(host: &str) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1", None, &[])
    }

    /// Starts one that listens on this address, with more settings (`name=value`), on a disk of its own with so many MiB, which needs root.
    pub fn start_at(host: &str, disk: Option<u32>, settings: &[&str]) -> Self {
        let mut server = Self::prepare(host, free_port(host), disk, settings);
        let data = server.data();
        let made = command("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-locale",
                "-D",
            ])
            .arg(&data)
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules =
            "host all writer all scram-sha-256\nhost all all all trust\nhost replication all all trust\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        server.resume();
        server.run("postgres", "CREATE ROLE writer LOGIN PASSWORD 'writing'");
        server.run("postgres", "CREATE DATABASE audit OWNER writer");
        server
    }

    /// A standby of this one, with a port of its own, which follows it.
    pub fn standby(&self, port: u16) -> Self {
        let mut standby = Self::prepare(&self.host, port, None, &[]);
        let copied = command("pg_basebackup")
            .args([
                "-h",
                &self.host,
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-X",
                "stream",
                "-R",
                "-c",
                "fast",
                "-D",
            ])
            .arg(standby.data())
            .current_dir("/")
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        standby.resume();
        standby
    }

    fn prepare(host: &str, port: u16, disk: Option<u32>, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        if let Some(size) = disk {
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "none"])
                .arg(folder.path())
                .status()
                .unwrap();
            assert!(mounted.success());
        }
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::set_permissions(folder.path().join("data"), fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:"]).arg(folder.path()).status().unwrap();
            assert!(owned.success());
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, host: host.to_owned(), port, settings, process: None, has_disk: disk.is_some() }
    }

    /// Fills its disk to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.folder.path().join("full")).unwrap();
        let block = vec![1; 1 << 16];
        for size in [block.len(), 1] {
            while file.write_all(&block[..size]).is_ok() {}
        }
    }

    /// Makes the room again, and starts it if it crashed.
    pub fn empty(&mut self) {
        fs::remove_file(self.folder.path().join("full")).unwrap();
        let process = self.process.as_mut().unwrap();
        if process.try_wait().unwrap().is_some() {
            self.resume();
        }
    }

    /// Lets the writer in by TLS alone, with this certificate, and, if clients need one, those of this issuer.
    pub fn encrypt(&self, issued: &Issued, clients: Option<&Authority>) {
        let data = self.data();
        fs::write(data.join("root.crt"), clients.map_or_else(|| issued.chain.clone(), Authority::pem))
            .unwrap();
        fs::write(data.join("server.crt"), &issued.chain).unwrap();
        fs::write(data.join("server.key"), &issued.key).unwrap();
        fs::set_permissions(data.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let client = if clients.is_some() { " clientcert=verify-ca" } else { "" };
        let rules = format!("hostssl all writer all scram-sha-256{client}\nhost all postgres all trust\n");
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        if is_root() {
            let files = ["root.crt", "server.crt", "server.key"].map(|name| data.join(name));
            assert!(Command::new("chown").arg("postgres:").args(files).status().unwrap().success());
        }
        self.run("postgres", "ALTER SYSTEM SET ssl = on");
        self.run("postgres", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
        self.run("postgres", "SELECT pg_reload_conf()");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.run("postgres", "SHOW ssl_ca_file") != "root.crt" {
            assert!(Instant::now() < deadline, "the settings are not taken");
        }
    }

    /// Ends each process of it with SIGKILL.
    pub fn kill_9(&mut self) {
        self.signal("-KILL");
        let mut process = self.process.take().unwrap();
        process.wait().unwrap();
        // Its shared memory is in use until the last child is gone.
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.psql("postgres", "SELECT 1").is_ok() {
            assert!(Instant::now() < deadline, "PostgreSQL outlives SIGKILL");
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the process, and waits until it answers.
    pub fn resume(&mut self) {
        let process = command("postgres")
            .arg("-D")
            .arg(self.data())
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                &format!("listen_addresses={}", self.host),
                "-c",
                "unix_socket_directories=",
            ])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=30"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.psql("postgres", "SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends every process of it at once, as a crash does.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // An immediate shutdown: without a checkpoint, so that the next start recovers.
        let told = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status().unwrap();
        assert!(told.success());
        process.wait().unwrap();
    }

    /// Lets it hang (`-STOP`), or go on (`-CONT`).
    pub fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap();
        // Its children serve the connections.
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        // One of them may have ended meanwhile.
        _ = Command::new("kill").arg(signal).args(children.split_whitespace()).stderr(Stdio::null()).status();
        let id = process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// The URL for a role.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}@{}:{}/audit", self.host, self.port)
    }

    /// Runs a statement as the superuser and returns its rows, fields separated by `|`.
    pub fn run(&self, database: &str, statement: &str) -> String {
        self.psql(database, statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The same in the joined store.
    pub fn query(&self, statement: &str) -> String {
        self.run("audit", statement)
    }

    fn psql(&self, database: &str, statement: &str) -> Result<String, String> {
        let done = Command::new("psql")
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &self.host,
                "-U",
                "postgres",
                "-d",
                database,
            ])
            .args(["-p", &self.port.to_string(), "-c", statement])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// A file with the password of `writer`.
    pub fn password_file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("password");
        fs::write(&path, "writing\n").unwrap();
        path
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some() {
            // A process that was stopped takes no other signal.
            self.signal("-CONT");
        }
        self.kill();
        if self.has_disk {
            _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}
