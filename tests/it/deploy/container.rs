//! The image: built without a registry, and run as a cluster would run it at its strictest.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::package::{as_root, run, staged};
use crate::service::{DEADLINE, POLICY};
use crate::tools;

#[test]
fn the_image_runs_read_only_without_rights_and_answers() {
    if !tools::wanted("container") {
        return;
    }
    staged();
    let folder = tempfile::tempdir().unwrap();
    let image = Image::build(folder.path());
    assert_eq!(image.config["User"], "65532:65532");
    assert_eq!(image.config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    let health = &image.health["Test"];
    assert_eq!(*health, json!(["CMD", "/usr/bin/scopeward", "health"]), "{health}");

    let container = Container::start(&image, folder.path());
    container.wait_until_healthy();
    let (code, said) =
        container.exec(&["expand", "--audience", "https://mcp.example.com", "--scope", "openid"]);
    assert_eq!((code, said.lines().next()), (0, Some("ALLOW openid offline_access")), "{said}");
    // Names are looked up without a shared library: as /etc/hosts of the engine has them.
    let (code, said) = container.exec(&["health", "--server", "pdp.example.com:50551"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = container.exec(&["health", "--server", "nowhere.invalid:50551"]);
    assert!(code == 2 && said.contains("the host is not known"), "{code} {said}");
    // Nothing but the volume can be written, not even by who tries.
    let (code, said) = container.exec(&["audit", "tail", "--cursor-file", "/cursor"]);
    assert!(code != 0 && said.contains("ead-only file system"), "{code} {said}");
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    for expected in
        ["Uid:\t65532\t65532\t", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(status.contains(expected), "{expected}: {status}");
    }
    assert_eq!(container.stop(), Some(0));
}

/// An image in a store of its own.
struct Image {
    /// What it says of how it wants to be run.
    config: Value,
    health: Value,
    rootfs: String,
}

impl Image {
    fn build(folder: &Path) -> Self {
        let store = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let flags = ["--root", &store("root"), "--runroot", &store("runroot"), "--storage-driver", "vfs"];
        let buildah = |args: &[&str]| {
            let ran = run(as_root("buildah").args(flags).args(args));
            ran.trim().to_owned()
        };
        let builder = format!("buildah {}", flags.join(" "));
        run(as_root("env").arg(format!("BUILDER={builder}")).args([
            "deploy/build-image",
            "scopeward:test",
            "--isolation",
            "chroot",
        ]));
        let inspected = buildah(&["inspect", "--type", "image", "scopeward:test"]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        let working = buildah(&["from", "--pull-never", "scopeward:test"]);
        let rootfs = buildah(&["mount", &working]);
        let config = inspected["OCIv1"]["config"].clone();
        let health = inspected["Docker"]["config"]["Healthcheck"].clone();
        println!(
            "the image is one layer of {} bytes",
            fs::metadata(format!("{rootfs}/usr/bin/scopeward")).unwrap().len()
        );
        Self { config, health, rootfs }
    }
}

/// A running container; ended when it is dropped.
struct Container {
    id: String,
    state: String,
    child: Child,
}

impl Container {
    fn start(image: &Image, folder: &Path) -> Self {
        let bundle = folder.join("bundle");
        fs::create_dir_all(bundle.join("policies")).unwrap();
        fs::create_dir(bundle.join("state")).unwrap();
        fs::write(bundle.join("policies/mcp.yaml"), POLICY).unwrap();
        fs::write(bundle.join("hosts"), "127.0.0.1 localhost pdp.example.com\n").unwrap();
        run(as_root("chown").arg("65532:65532").arg(bundle.join("state")));
        let words = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let config = &image.config;
        let (user, group) = config["User"].as_str().unwrap().split_once(':').unwrap();
        let bind = |source: &str, target: &str, how: &str| {
            let source = bundle.join(source);
            json!({"destination": target, "type": "bind", "source": source, "options": ["bind", how, "nosuid", "nodev"]})
        };
        let nothing = json!([]);
        let arguments = [words(&config["Entrypoint"]), words(&config["Cmd"])].concat();
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let spec = json!({
            "ociVersion": "1.0.2",
            "root": {"path": image.rootfs, "readonly": true},
            "process": {
                "user": {"uid": user.parse::<u32>().unwrap(), "gid": group.parse::<u32>().unwrap()},
                "args": arguments,
                "env": config["Env"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": nothing, "effective": nothing, "permitted": nothing, "inheritable": nothing},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                bind("policies", "/etc/scopeward/policies", "ro"),
                bind("state", "/var/lib/scopeward", "rw"),
                bind("hosts", "/etc/hosts", "ro"),
            ],
            // A network of its own, which has loopback alone.
            "linux": {"namespaces": namespaces},
        });
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let id = format!("scopeward-test-{}", std::process::id());
        let state = folder.join("runc").to_str().unwrap().to_owned();
        let mut command = as_root("runc");
        command.args(["--root", &state, "run", "--bundle"]).arg(&bundle).arg(&id);
        let log = fs::File::create(folder.join("log")).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("runc");
        Self { id, state, child }
    }

    fn runc(&self, args: &[&str]) -> std::process::Output {
        as_root("runc").args(["--root", &self.state]).args(args).output().expect("runc")
    }

    /// Runs a verb in it: the exit code, and what it printed.
    fn exec(&self, verb: &[&str]) -> (i32, String) {
        let ran = self.runc(&[&["exec", &self.id, "/usr/bin/scopeward"], verb].concat());
        (ran.status.code().unwrap(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    }

    /// As an engine does: by the health check again and again.
    fn wait_until_healthy(&self) {
        let begun = Instant::now();
        loop {
            let (code, said) = self.exec(&["health", "--timeout", "1s"]);
            if code == 0 {
                assert!(said.starts_with("SERVING at http://127.0.0.1:50551/"), "{said}");
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn pid(&self) -> u64 {
        let state = self.runc(&["state", &self.id]).stdout;
        serde_json::from_slice::<Value>(&state).unwrap()["pid"].as_u64().unwrap()
    }

    /// How it ends after SIGTERM.
    fn stop(mut self) -> Option<i32> {
        let told = self.runc(&["kill", &self.id, "TERM"]);
        assert!(told.status.success(), "{told:?}");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        _ = self.runc(&["delete", "--force", &self.id]);
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
