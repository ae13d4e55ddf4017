//! Three servers under load while everything around them fails, and at the end the joined store is the union of their logs.
//!
//! `TEST_FLEET_SECONDS` says for how long each failure lasts; see `docs/performance.md`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use scopeward::proto::v1;
use scopeward::rpc::v1::scope_policy_service_client::ScopePolicyServiceClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use self::network::Network;
use super::joined::condition;
use super::serve::{Piped, place as serve_place};
use super::*;
use crate::postgres::{Postgres, free_port};
use crate::tools::wanted;

mod network;

const SERVERS: usize = 3;
const CALLERS: usize = 4;
/// The retry policy of the guide *More than one machine*.
const ATTEMPTS: usize = 3;
const BACKOFF: Duration = Duration::from_millis(50);
/// Between two calls of one caller, so that a longer run is not a larger store.
const PAUSE: Duration = Duration::from_millis(20);
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn whatever_fails_the_joined_store_is_the_union_of_all_logs() {
    if !wanted("postgres") {
        return;
    }
    let hold = std::env::var("TEST_FLEET_SECONDS").map_or(2, |text| text.parse().expect("seconds"));
    let mut fleet = Fleet::new(Duration::from_secs(hold));
    postgres_fails(&mut fleet);
    #[cfg(feature = "nats")]
    nats_fails(&mut fleet);
    let (answered, failed, again) = fleet.load.end();
    println!("{} calls answered, {again} asked again elsewhere, {} failed", answered.len(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    // What was answered is in the log of one of them.
    let mut recorded: Vec<String> = fleet.places.iter().flat_map(decision_ids).collect();
    recorded.sort_unstable();
    for decision_id in answered {
        assert!(recorded.binary_search(&decision_id).is_ok(), "{decision_id} was answered and is in no log");
    }
}

/// PostgreSQL is the store: what can happen to it, and to a server that copies to it.
fn postgres_fails(fleet: &mut Fleet) {
    let host = fleet.network.store_host();
    let is_rooted = fleet.network.has_namespaces();
    let disk = is_rooted.then_some(if fleet.hold > Duration::from_secs(10) { 512 } else { 192 });
    // Its log on disk stays small beside the records.
    let mut store = Postgres::start_at(&host, disk, &["min_wal_size=32MB", "max_wal_size=64MB"]);
    let standby_port = free_port(&host);
    let password = store.password_file(fleet.places[0].0.path()).to_str().unwrap().to_owned();
    for server in 0..SERVERS {
        let ports = [store.port(), standby_port].map(|port| fleet.network.store_port(server, port));
        let [first, second] = ports.map(|port| format!("{host}:{port}"));
        let url = format!(
            "postgres://writer@{first},{second}/audit?target_session_attrs=read-write&sslmode=disable"
        );
        fleet.start(server, &["--audit-forward", &url, "--audit-forward-password-file", &password]);
    }
    fleet.step("all is well", |_| {});
    fleet.caught_up();

    fleet.step("one server is killed", |fleet| fleet.servers[0].as_mut().unwrap().signal("KILL"));
    fleet.restart(0);
    fleet.caught_up();

    fleet.step("one server is cut off from PostgreSQL", |fleet| fleet.network.cut());
    fleet.until("records that wait at the first server", |fleet| {
        fleet.metric(0, "scopeward_audit_forward_lag") > 0.0
    });
    fleet.network.heal();
    fleet.caught_up();

    fleet.step("PostgreSQL is killed", |_| store.kill_9());
    fleet.until("the outage in the status", |fleet| fleet.behind(1).is_some());
    store.resume();
    fleet.caught_up();

    if disk.is_some() {
        fleet.step("the disk of PostgreSQL is full", |_| store.fill());
        fleet.until("the outage in the status", |fleet| fleet.behind(2).is_some());
        store.empty();
        fleet.caught_up();
    } else {
        println!("without a full disk of PostgreSQL, which needs a volume of its own");
    }

    let standby = store.standby(standby_port);
    store.run("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    store.run("postgres", "SELECT pg_reload_conf()");
    fleet.until("a standby that is waited for", |_| {
        store.run("postgres", "SELECT sync_state FROM pg_stat_replication") == "sync"
    });
    fleet.step("a standby is there, and commits wait for it", |_| {});
    fleet.step("PostgreSQL fails over to it", |_| store.kill_9());
    standby.run("postgres", "SELECT pg_promote()");
    fleet.caught_up();

    fleet.stop();
    let mut records = 0;
    for place in &fleet.places {
        let local = verified(place);
        records += local["records"].as_u64().unwrap();
        let rows = standby.query(&format!(
            "SELECT sequence, encode(hash, 'hex') FROM scopeward_audit WHERE log_id = '{}' AND kind <> 'GAP' ORDER BY sequence",
            local["logId"].as_str().unwrap()
        ));
        assert!(rows.lines().eq(hashes(place)), "the joined store has other records");
    }
    let url = format!("{}?sslmode=disable", standby.url("postgres"));
    let there = fleet.places[0].run(&["audit", "verify", "--from", &url]);
    assert_eq!(there.code, 0, "{}{}", there.stdout, there.stderr);
    assert!(there.stdout.contains(&format!("3 logs, 0 broken, {records} good records")), "{}", there.stdout);
    println!("PostgreSQL has the {records} records of three logs, each once, and every chain holds");
}

/// The same servers go on with a stream of NATS, which has nothing of their logs yet.
#[cfg(feature = "nats")]
fn nats_fails(fleet: &mut Fleet) {
    if !wanted("nats") {
        return;
    }
    let host = fleet.network.store_host();
    let mut store = crate::nats::Nats::start_at(&host);
    let ruling = store.password_file(fleet.places[0].0.path(), "ruling");
    let writing = store.password_file(fleet.places[0].0.path(), "writing");
    let place = Place::new();
    let admin = format!("{}?sslmode=disable", store.url("admin"));
    let make = || {
        let args =
            ["audit", "forward-schema", "--audit-forward", &admin, "--audit-forward-password-file", &ruling];
        let made = place.run(&args);
        assert_eq!(made.code, 0, "{}", made.stderr);
    };
    make();
    for server in 0..SERVERS {
        let port = fleet.network.store_port(server, store.port());
        let url = format!("nats://writer@{host}:{port}/AUDIT?sslmode=disable");
        fleet.start(server, &["--audit-forward", &url, "--audit-forward-password-file", &writing]);
    }
    fleet.load.resume();
    fleet.step("all is well, with NATS", |_| {});
    fleet.caught_up();

    fleet.step("one server is cut off from NATS", |fleet| fleet.network.cut());
    fleet.until("records that wait at the first server", |fleet| {
        fleet.metric(0, "scopeward_audit_forward_lag") > 0.0
    });
    fleet.network.heal();
    fleet.caught_up();

    fleet.step("NATS is killed", |_| store.kill());
    store.resume();
    fleet.caught_up();

    fleet.step("NATS loses all that it had", |_| {
        store.kill();
        store.wipe();
        store.resume();
    });
    make();
    fleet.caught_up();
    fleet.stop();
    let args = ["audit", "verify", "--from", &admin, "--audit-forward-password-file", &ruling];
    let there = place.run(&args);
    assert_eq!(there.code, 0, "{}{}", there.stdout, there.stderr);
    let mut records = 0;
    for place in &fleet.places {
        let local = verified(place);
        records += local["records"].as_u64().unwrap();
        let head = format!("{}:{}", local["headSequence"], local["headHash"].as_str().unwrap());
        assert!(there.stdout.contains(&head), "{head}: {}", there.stdout);
    }
    assert_eq!(store.messages(), records);
    assert!(there.stdout.contains(&format!("3 logs, 0 broken, {records} good records")), "{}", there.stdout);
    println!("NATS has the {records} records of three logs, each once, and every chain holds");
}

/// Three servers, who calls them, and what is between them and the store.
struct Fleet {
    network: Network,
    places: Vec<Place>,
    listen: Vec<[String; 2]>,
    flags: Vec<Vec<String>>,
    servers: Vec<Option<Piped>>,
    load: Load,
    /// How long each failure lasts.
    hold: Duration,
}

impl Fleet {
    fn new(hold: Duration) -> Self {
        let network = Network::new(SERVERS);
        let listen: Vec<[String; 2]> = (0..SERVERS).map(|server| network.listen(server)).collect();
        let load = Load::new(listen.iter().map(|[grpc, _]| format!("http://{grpc}")).collect());
        Self {
            network,
            places: (0..SERVERS).map(|_| serve_place()).collect(),
            listen,
            flags: vec![Vec::new(); SERVERS],
            servers: (0..SERVERS).map(|_| None).collect(),
            load,
            hold,
        }
    }

    fn start(&mut self, server: usize, flags: &[&str]) {
        self.flags[server] = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.restart(server);
    }

    fn restart(&mut self, server: usize) {
        if let Some(mut old) = self.servers[server].take() {
            old.end();
        }
        let [grpc, admin] = &self.listen[server];
        let mut args =
            vec!["serve", "--listen", grpc, "--admin-listen", admin, "--insecure-allow-remote-plaintext"];
        args.extend(self.flags[server].iter().map(String::as_str));
        let command = self.network.place(server, self.places[server].command(&args));
        self.servers[server] = Some(Piped::spawn(command, false));
    }

    /// Does something while calls go on, and lets them go on for as long as failures last.
    fn step(&mut self, name: &str, act: impl FnOnce(&mut Self)) {
        self.load.resume();
        let (begin, before) = (Instant::now(), self.load.begin());
        act(self);
        self.until("answers", |fleet| begin.elapsed() >= fleet.hold && fleet.load.answered() >= before + 100);
        println!("{name}: {}", self.load.figures());
    }

    /// Waits, without calls, until the store has every record.
    fn caught_up(&mut self) {
        self.load.pause();
        let (begin, lag) =
            (Instant::now(), (0..SERVERS).map(|server| self.metric(server, "scopeward_audit_forward_lag")));
        let lag: f64 = lag.sum();
        self.until("the store has every record", |fleet| {
            (0..SERVERS).all(|server| {
                fleet.metric(server, "scopeward_audit_forward_lag") == 0.0
                    && fleet.metric(server, "scopeward_audit_forward_last_success_timestamp_seconds") > 0.0
                    && fleet.behind(server).is_none()
            })
        });
        println!("  {lag} records waited; the store had all {:.1} s later", begin.elapsed().as_secs_f64());
        for server in 0..SERVERS {
            assert!(self.metric(server, "scopeward_audit_forward_missing_records_total") == 0.0);
        }
    }

    #[track_caller]
    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE.max(2 * self.hold);
        while !done(self) {
            assert!(Instant::now() < deadline, "not seen: {what}; {:?}", self.load.failed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metric(&self, server: usize, name: &str) -> f64 {
        self.servers[server].as_ref().unwrap().metric(name)
    }

    /// Why a server says that records wait.
    fn behind(&self, server: usize) -> Option<String> {
        let url = &self.servers[server].as_ref().unwrap().url;
        let status = self.places[server].run(&["status", "--output", "json", "--server", url]).json();
        condition(&status, "AuditForwardingBehind").map(str::to_owned)
    }

    /// Ends all servers in order, while nobody calls them.
    fn stop(&mut self) {
        self.load.pause();
        for server in self.servers.iter_mut().flatten() {
            server.signal("TERM");
            assert_eq!(server.end().code(), Some(0), "{}", server.errors());
        }
    }
}

/// The events of a log, as its disk has them.
fn events(place: &Place) -> Vec<Value> {
    let told = place.run(&["audit", "tail", "--state-dir", ".scopeward", "--output", "json"]);
    let events = told.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|line| line["gap"].is_null()).collect()
}

/// Sequence and hash of each of them.
fn hashes(place: &Place) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events(place)
        .iter()
        .map(|event| format!("{}|{}", text(&event["sequence"]), text(&event["hash"])))
        .collect()
}

fn decision_ids(place: &Place) -> Vec<String> {
    events(place).iter().filter_map(|event| event["decisionId"].as_str().map(str::to_owned)).collect()
}

/// What `audit verify` says of the log on its disk: it holds.
#[track_caller]
fn verified(place: &Place) -> Value {
    let verified = place.run(&["audit", "verify", "--output", "json"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    verified.json()
}

/// Callers, who ask one server after the other, as a balancer does.
struct Load {
    shared: Arc<Calls>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Calls {
    servers: Vec<String>,
    is_over: AtomicBool,
    is_paused: AtomicBool,
    /// Callers that wait because of that.
    idle: AtomicU64,
    again: AtomicU64,
    answered: Mutex<Vec<String>>,
    failed: Mutex<Vec<String>>,
    /// How long each call of this step took.
    times: Mutex<Vec<Duration>>,
}

impl Load {
    fn new(servers: Vec<String>) -> Self {
        let shared = Arc::new(Calls { servers, is_paused: true.into(), ..Calls::default() });
        let calls = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let callers = (0..CALLERS).map(|caller| tokio::spawn(call(Arc::clone(&calls), caller)));
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.unwrap();
                }
            });
        });
        Self { shared, thread: Some(thread) }
    }

    fn resume(&self) {
        self.shared.is_paused.store(false, Ordering::SeqCst);
    }

    /// Returns when no call is under way.
    fn pause(&self) {
        self.shared.is_paused.store(true, Ordering::SeqCst);
        while self.shared.idle.load(Ordering::SeqCst) < CALLERS as u64 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins to measure. Returns how many calls were answered so far.
    fn begin(&self) -> usize {
        self.shared.times.lock().unwrap().clear();
        self.answered()
    }

    fn answered(&self) -> usize {
        self.shared.answered.lock().unwrap().len()
    }

    fn failed(&self) -> Vec<String> {
        self.shared.failed.lock().unwrap().clone()
    }

    fn figures(&self) -> String {
        let mut times = self.shared.times.lock().unwrap().clone();
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        format!(
            "{} calls, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }

    fn end(&mut self) -> (Vec<String>, Vec<String>, u64) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        let taken = |list: &Mutex<Vec<String>>| std::mem::take(&mut *list.lock().unwrap());
        (taken(&self.shared.answered), taken(&self.shared.failed), self.shared.again.load(Ordering::SeqCst))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
    }
}

/// One caller.
async fn call(calls: Arc<Calls>, caller: usize) {
    let channel = |server: &String| Endpoint::from_shared(server.clone()).unwrap().connect_lazy();
    let channels: Vec<Channel> = calls.servers.iter().map(channel).collect();
    let mut next = caller;
    while !calls.is_over.load(Ordering::SeqCst) {
        if calls.is_paused.load(Ordering::SeqCst) {
            calls.idle.fetch_add(1, Ordering::SeqCst);
            while calls.is_paused.load(Ordering::SeqCst) && !calls.is_over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            calls.idle.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let begin = Instant::now();
        let mut attempt = 0;
        let answer = loop {
            attempt += 1;
            next += 1;
            let mut client = ScopePolicyServiceClient::new(channels[next % SERVERS].clone());
            let mut request = tonic::Request::new(v1::ExpandRegistrationScopesRequest {
                audiences: vec![MCP.to_owned()],
                scope: Some("openid".to_owned()),
                ..Default::default()
            });
            request.set_timeout(Duration::from_secs(20));
            match client.expand_registration_scopes(request).await {
                Err(status) if attempt < ATTEMPTS && is_unavailable(&status) => {
                    calls.again.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(BACKOFF * attempt as u32).await;
                }
                answer => break answer,
            }
        };
        calls.times.lock().unwrap().push(begin.elapsed());
        match answer {
            Ok(answer) => calls.answered.lock().unwrap().push(answer.into_inner().decision_id),
            Err(status) => calls.failed.lock().unwrap().push(status.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The server is not there, or its connection broke.
fn is_unavailable(status: &tonic::Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}
