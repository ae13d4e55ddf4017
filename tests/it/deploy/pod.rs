//! A pod, as far as the server can tell: the container of a manifest is started as a process, with its arguments and variables,
//! its volumes as folders and its ports replaced by free ones. Volumes change as the kubelet changes them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::Value;
use tempfile::TempDir;

use super::manifest::{entries, find, named, only, text};

/// Files by their names.
pub(super) type Files = BTreeMap<String, String>;

/// What is in a cluster besides the manifests: `Secret/NAME`, `ConfigMap/NAME`, and `volume/NAME` for volumes that neither
/// of these fills.
pub(super) type Cluster = BTreeMap<String, Files>;

/// How long something that is sure to happen may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where a volume is, and how it changes.
struct Volume {
    path: PathBuf,
    /// The link that is swapped: `..data`, or `current` as git-sync does it.
    link: &'static str,
}

/// A started pod; it ends when it is dropped.
pub(super) struct Pod {
    folder: TempDir,
    server: Child,
    volumes: BTreeMap<String, Volume>,
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Drop for Pod {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

impl Pod {
    /// Starts the container `scopeward` of the StatefulSet among manifests, and waits until its probes succeed.
    ///
    /// # Errors
    /// What a person would see of a pod that does not become ready.
    pub(super) fn start(manifests: &[Value], cluster: &Cluster) -> Result<Self, String> {
        let set = &only(manifests, "StatefulSet")["spec"];
        let spec = &set["template"]["spec"];
        let container = named(&spec["containers"], "scopeward").ok_or("no container `scopeward`")?;
        let folder = tempfile::tempdir().unwrap();
        let mut volumes = BTreeMap::new();
        for mount in entries(&container["volumeMounts"]) {
            let name = text(&mount["name"]);
            let path = inside(folder.path(), text(&mount["mountPath"]));
            fs::create_dir_all(&path).unwrap();
            let is_checkout =
                named(&spec["volumes"], name).is_some_and(|volume| volume["emptyDir"].is_object());
            let volume = Volume { path, link: if is_checkout { "current" } else { "..data" } };
            if let Some(files) = content(name, set, manifests, cluster)? {
                volume.swap(&files);
            }
            volumes.insert(name.to_owned(), volume);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_scopeward"));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SCOPEWARD_")) {
            command.env_remove(name);
        }
        for argument in entries(&container["args"]) {
            command.arg(adapted(text(argument), container, folder.path())?);
        }
        for variable in entries(&container["env"]) {
            command.env(text(&variable["name"]), text(&variable["value"]));
        }
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = command.spawn().expect("the binary runs");
        let ready = ready_line(&mut server);
        let address = |ready: &str, name| {
            let word = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            let port =
                word.and_then(|address| address.parse::<SocketAddr>().ok()).map(|address| address.port());
            SocketAddr::from(([127, 0, 0, 1], port.expect("an address in the ready line")))
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(printed) => {
                let status = server.wait().unwrap();
                return Err(format!("the server ended with {status}: {printed}"));
            }
        };
        let pod = Self {
            folder,
            server,
            volumes,
            grpc: address(&ready, "grpc="),
            admin: address(&ready, "admin="),
        };
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            pod.probe(container, &container[probe])?;
        }
        Ok(pod)
    }

    fn probe(&self, container: &Value, probe: &Value) -> Result<(), String> {
        let get = &probe["httpGet"];
        let address = match get["port"].as_str() {
            Some("admin") => self.admin,
            Some("grpc") => self.grpc,
            _ => return Err(format!("a probe of the port {}", get["port"])),
        };
        let path = text(&get["path"]);
        assert!(named(&container["ports"], text(&get["port"])).is_some());
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{path}: {answer}")) }
    }

    /// Changes the files of a volume, as the kubelet does once a ConfigMap or a Secret changed.
    pub(super) fn swap(&self, volume: &str, files: &Files) {
        self.volumes[volume].swap(files);
    }

    /// The files of a volume.
    pub(super) fn files(&self, volume: &str) -> Files {
        let Volume { path, link } = &self.volumes[volume];
        read(&path.join(link), Path::new(""))
    }

    /// Runs a verb of the command line against the server, as a caller in another pod would.
    pub(super) fn ask(&self, args: &[&str], scheme: &str) -> (bool, String) {
        let server = format!("{scheme}://{}", self.grpc);
        let output = Command::new(env!("CARGO_BIN_EXE_scopeward"))
            .args(args)
            .args(["--server", &server])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), printed)
    }

    /// Writes a file that a caller has.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

/// A path of the container in the folder that stands for its root.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// An argument with its path in the folder, and with its port replaced by a free one.
fn adapted(argument: &str, container: &Value, root: &Path) -> Result<String, String> {
    let Some((flag, value)) = argument.split_once('=') else { return Ok(argument.to_owned()) };
    // A path can also be a parameter of a URL, at its end.
    if let Some((url, path)) = value.split_once("=/") {
        let path = adapted(&format!("path=/{path}"), container, root)?;
        return Ok(format!("{flag}={url}={}", path.trim_start_matches("path=")));
    }
    if value.starts_with('/') {
        let is_mounted = |mount: &&Value| Path::new(value).starts_with(text(&mount["mountPath"]));
        let mounts = entries(&container["volumeMounts"]);
        let mount = mounts.iter().find(is_mounted).ok_or(format!("{argument}: nothing is mounted there"))?;
        if flag == "--state-dir" && mount["readOnly"] == true {
            return Err(format!("{argument}: mounted to be read only"));
        }
        return Ok(format!("{flag}={}", inside(root, value).display()));
    }
    let port = match flag {
        "--listen" => "grpc",
        "--admin-listen" => "admin",
        "--http-listen" => "http",
        _ => return Ok(argument.to_owned()),
    };
    let (address, number) = value.rsplit_once(':').ok_or(format!("{argument}: no port"))?;
    let declared = named(&container["ports"], port).map(|port| port["containerPort"].to_string());
    if declared.as_deref() != Some(number) {
        return Err(format!("{argument}: the port `{port}` of the container is {declared:?}"));
    }
    // Without IPv6 on this machine, its place is taken by what it would accept as well.
    let has_ipv6 = TcpListener::bind("[::]:0").is_ok();
    Ok(format!("{flag}={}:0", if address == "[::]" && !has_ipv6 { "0.0.0.0" } else { address }))
}

/// What is in a volume at the start; nothing if it is empty.
fn content(name: &str, set: &Value, manifests: &[Value], cluster: &Cluster) -> Result<Option<Files>, String> {
    let is_claimed =
        entries(&set["volumeClaimTemplates"]).iter().any(|claim| claim["metadata"]["name"] == name);
    let Some(volume) = named(&set["template"]["spec"]["volumes"], name) else {
        return if is_claimed { Ok(None) } else { Err(format!("no volume `{name}`")) };
    };
    let (kind, object) = if let Some(object) = volume["configMap"]["name"].as_str() {
        ("ConfigMap", object)
    } else if let Some(object) = volume["secret"]["secretName"].as_str() {
        ("Secret", object)
    } else {
        return Ok(cluster.get(&format!("volume/{name}")).cloned());
    };
    let data = if kind == "Secret" { "stringData" } else { "data" };
    let rendered = find(manifests, kind, object).map(|found| {
        let files = found[data].as_object().expect("files");
        files.iter().map(|(name, content)| (name.clone(), text(content).to_owned())).collect()
    });
    let files = rendered.or_else(|| cluster.get(&format!("{kind}/{object}")).cloned());
    files.map(Some).ok_or(format!("volume `{name}`: {kind} `{object}` not found"))
}

impl Volume {
    /// What the kubelet does, and git-sync: the files in a new folder, a link to it renamed over the former one, the old folder
    /// removed.
    fn swap(&self, files: &Files) {
        let Self { path, link } = self;
        let old = fs::read_link(path.join(link)).ok();
        let version = old.as_ref().map_or(0, |old| {
            let (_, version) = old.to_str().unwrap().rsplit_once('_').unwrap();
            version.parse::<u32>().unwrap() + 1
        });
        let folder = format!("..2026_11_26_{version}");
        for (name, content) in files {
            let file = path.join(&folder).join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        symlink(&folder, path.join("..next")).unwrap();
        fs::rename(path.join("..next"), path.join(link)).unwrap();
        if *link == "..data" {
            for name in files.keys().filter(|name| !path.join(name).is_symlink()) {
                symlink(Path::new(link).join(name), path.join(name)).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(path.join(old)).unwrap();
        }
    }
}

fn read(folder: &Path, prefix: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(folder.join(prefix)).unwrap() {
        let entry = entry.unwrap();
        let path = prefix.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files.extend(read(folder, &path));
        } else {
            files.insert(path.to_str().unwrap().to_owned(), fs::read_to_string(entry.path()).unwrap());
        }
    }
    files
}

/// The line that says that the server is ready, wherever it is printed; what was printed if it ends before.
fn ready_line(server: &mut Child) -> Result<String, String> {
    let (lines, printed) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(server.stdout.take().unwrap()), Box::new(server.stderr.take().unwrap())];
    for stream in streams {
        let lines = lines.clone();
        // To the end: a server whose reader went away would lose what it writes.
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                _ = lines.send(line);
            }
        });
    }
    drop(lines);
    let mut all = String::new();
    loop {
        match printed.recv_timeout(DEADLINE) {
            Ok(line) if line.starts_with("scopeward ready: ") => return Ok(line),
            Ok(line) => all.extend([&line, "\n"]),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(all),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                _ = server.kill();
                return Err(format!("{all}neither ready nor ended"));
            }
        }
    }
}
