//! The network between servers and the joined store: namespaces where the machine allows them, and otherwise loopback with a relay.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::postgres::{free_port, is_root};

/// Each server in a place of its own, which can be cut off from the store and from nothing else.
pub(super) enum Network {
    /// Network namespaces. Callers and stores are on two networks, so that one can fail without the other.
    Namespaces { id: u8, names: Vec<String> },
    /// Everything on loopback; the first server reaches stores through a relay.
    Loopback { is_cut: Arc<AtomicBool>, relays: HashMap<u16, u16> },
}

impl Network {
    pub(super) fn new(servers: usize) -> Self {
        let id = (std::process::id() % 200 + 20) as u8;
        let network =
            Self::Namespaces { id, names: (0..servers).map(|at| format!("scopeward-{id}-{at}")).collect() };
        if is_root() && network.set_up() {
            println!("three network namespaces, on networks 10.{id}.1 (callers) and 10.{id}.2 (stores)");
            return network;
        }
        // Dropped, it takes away what was set up.
        drop(network);
        println!(
            "without network namespaces, which need root and the command `ip`: everything is on loopback"
        );
        Self::Loopback { is_cut: Arc::default(), relays: HashMap::new() }
    }

    pub(super) fn has_namespaces(&self) -> bool {
        matches!(self, Self::Namespaces { .. })
    }

    fn set_up(&self) -> bool {
        let Self::Namespaces { id, names } = self else { return true };
        for net in [1, 2] {
            let bridge = format!("sw{id}n{net}");
            let made = ip(&["link", "add", &bridge, "type", "bridge"])
                && ip(&["addr", "add", &format!("10.{id}.{net}.1/24"), "dev", &bridge])
                && ip(&["link", "set", &bridge, "up"]);
            if !made {
                return false;
            }
        }
        names.iter().enumerate().all(|(at, name)| {
            ip(&["netns", "add", name])
                && ip(&["-n", name, "link", "set", "lo", "up"])
                && [1, 2].iter().all(|net| {
                    let (outer, inner) = (format!("sw{id}n{net}s{at}"), format!("eth{net}"));
                    ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", name])
                        && ip(&["link", "set", &outer, "master", &format!("sw{id}n{net}"), "up"])
                        && ip(&[
                            "-n",
                            name,
                            "addr",
                            "add",
                            &format!("10.{id}.{net}.{}/24", at + 11),
                            "dev",
                            &inner,
                        ])
                        && ip(&["-n", name, "link", "set", &inner, "up"])
                })
        })
    }

    /// The same command, run where this server is.
    pub(super) fn place(&self, server: usize, command: Command) -> Command {
        let Self::Namespaces { names, .. } = self else { return command };
        let mut placed = Command::new("ip");
        placed.args(["netns", "exec", &names[server]]).arg(command.get_program()).args(command.get_args());
        placed.current_dir(command.get_current_dir().unwrap());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => placed.env(name, value),
                None => placed.env_remove(name),
            };
        }
        placed
    }

    /// Where this server listens for callers and for probes; the same at each of its starts.
    pub(super) fn listen(&self, server: usize) -> [String; 2] {
        match self {
            Self::Namespaces { id, .. } => {
                [50551, 50552].map(|port| format!("10.{id}.1.{}:{port}", server + 11))
            }
            Self::Loopback { .. } => [(); 2].map(|()| format!("127.0.0.1:{}", free_port("127.0.0.1"))),
        }
    }

    /// Where stores listen.
    pub(super) fn store_host(&self) -> String {
        match self {
            Self::Namespaces { id, .. } => format!("10.{id}.2.1"),
            Self::Loopback { .. } => "127.0.0.1".to_owned(),
        }
    }

    /// The port by which this server reaches a store that listens on `port`.
    pub(super) fn store_port(&mut self, server: usize, port: u16) -> u16 {
        match self {
            Self::Loopback { is_cut, relays } if server == 0 => {
                *relays.entry(port).or_insert_with(|| relay(port, Arc::clone(is_cut)))
            }
            _ => port,
        }
    }

    /// Cuts the first server off from the stores: nothing arrives, and nobody is told.
    pub(super) fn cut(&self) {
        self.set_link("down", true);
    }

    pub(super) fn heal(&self) {
        self.set_link("up", false);
    }

    fn set_link(&self, state: &str, cut: bool) {
        match self {
            Self::Namespaces { id, .. } => assert!(ip(&["link", "set", &format!("sw{id}n2s0"), state])),
            Self::Loopback { is_cut, .. } => is_cut.store(cut, Ordering::SeqCst),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Namespaces { id, names } = self {
            names.iter().for_each(|name| _ = ip(&["netns", "del", name]));
            [1, 2].iter().for_each(|net| _ = ip(&["link", "del", &format!("sw{id}n{net}")]));
        }
    }
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|done| done.status.success())
}

/// Passes on what comes, until it is cut; then it keeps everything, new connections too, until it is healed.
fn relay(port: u16, is_cut: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let is_cut = Arc::clone(&is_cut);
            thread::spawn(move || {
                wait_while(&is_cut);
                let Ok(store) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let (back_from, back_to) = (store.try_clone().unwrap(), stream.try_clone().unwrap());
                let cut = Arc::clone(&is_cut);
                thread::spawn(move || pass_on(back_from, back_to, &cut));
                pass_on(stream, store, &is_cut);
            });
        }
    });
    own
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wait_while(is_cut);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}

fn wait_while(is_cut: &AtomicBool) {
    while is_cut.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
}
