//! A PostgreSQL of a test: on loopback, in a folder of its own, with its own roles. Ended with the test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

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
    if !rustix_is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program(name));
    command
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A server with the role `writer` (password `writing`), who owns the database `audit`, and the superuser `postgres`, who needs no password.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Postgres {
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        if rustix_is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:"]).arg(folder.path()).status().unwrap();
            assert!(owned.success());
        }
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
        let rules = "host all writer 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder, port, process: None };
        server.resume();
        server.run("postgres", "CREATE ROLE writer LOGIN PASSWORD 'writing'");
        server.run("postgres", "CREATE DATABASE audit OWNER writer");
        server
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
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
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
        let ids = children.split_whitespace().map(str::to_owned).chain([process.id().to_string()]);
        assert!(Command::new("kill").arg(signal).args(ids).status().unwrap().success());
    }

    /// The URL for a role.
    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/audit", self.port)
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
                "127.0.0.1",
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
    }
}
