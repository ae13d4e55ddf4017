//! What the tests of this module share: events, a log in a temporary folder, a ledger that fails on demand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::chain::StoredRow;
use super::ledger::{Cut, Ledger, LedgerError, Trimmed};
use super::segments::SegmentLedger;
use super::*;
use crate::proto::v1::{AddedScope, AuditEvent, AuditEventKind, Client, Origin, PolicyVersion};

/// Longer than anything here takes on the slowest machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder in memory where there is one: nothing here depends on a disk, and each store is synced many times.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// An event that names a client and an audience.
pub(super) fn event(kind: AuditEventKind, client_id: &str) -> AuditEvent {
    AuditEvent {
        decision_id: Uuid::now_v7().to_string(),
        method: "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes".to_owned(),
        audiences: vec!["https://mcp.example.com".to_owned()],
        client: Some(Client { client_id: client_id.to_owned(), ..Client::default() }),
        requested_scope: Some("openid mcp:read".to_owned()),
        effective_scope: "openid mcp:read offline_access".to_owned(),
        added: vec![AddedScope {
            scope: "offline_access".to_owned(),
            origin: Origin::Baseline.into(),
            rule: String::new(),
        }],
        policy: Some(PolicyVersion { generation: 3, digest: format!("sha256:{}", "ab".repeat(32)) }),
        ..new_event(kind, SystemTime::now())
    }
}

pub(super) fn expansion(client_id: &str) -> AuditEvent {
    event(AuditEventKind::Expansion, client_id)
}

pub(super) fn denial(client_id: &str) -> AuditEvent {
    event(AuditEventKind::Denial, client_id)
}

/// Clocks that a test moves ahead, by seconds: the wall clock and the monotonic one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(Arc<[AtomicU64; 2]>);

impl Ahead {
    pub(super) fn clock(&self) -> Clock {
        let ahead = |which: usize| {
            let Self(seconds) = self.clone();
            move || Duration::from_secs(seconds[which].load(Ordering::Relaxed))
        };
        let (wall, monotonic) = (ahead(0), ahead(1));
        Clock {
            wall: Arc::new(move || SystemTime::now() + wall()),
            monotonic: Arc::new(move || std::time::Instant::now() + monotonic()),
        }
    }

    /// Sets the wall clock alone.
    pub(super) fn jump(&self, seconds: u64) {
        self.0[0].store(seconds, Ordering::Relaxed);
    }

    /// Lets time pass.
    pub(super) fn pass(&self, seconds: u64) {
        self.0.iter().for_each(|clock| clock.store(seconds, Ordering::Relaxed));
    }
}

/// Puts an event into the queue of a log that has room for it.
pub(super) fn append(log: &AuditLog, event: AuditEvent) -> Appending {
    let (reply, appending) = AppendReply::future();
    log.append(event, log.reserve(0).unwrap(), reply);
    appending
}

/// All records of a log.
pub(super) async fn all(log: &AuditLog) -> Vec<Record> {
    let mut after = 0;
    let mut records = Vec::new();
    loop {
        let page = log.read_after(after, &Filter::default(), 1000).await.unwrap();
        records.extend(page.records);
        if page.through == page.head {
            return records;
        }
        after = page.through.sequence;
    }
}

/// Waits until the status of a log is as wanted.
pub(super) async fn until(log: &AuditLog, wanted: impl Fn(&AuditStatus) -> bool) {
    let reached = async {
        while !wanted(&log.status()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, reached).await.is_err() {
        panic!("not reached: {:?}", log.status());
    }
}

/// The chain of a store that nobody has open holds; returns the report.
#[track_caller]
pub(super) fn assert_holds(state_dir: &std::path::Path) -> VerifyReport {
    let report = verify(&store_of(state_dir), &VerifyOptions::default()).unwrap();
    assert_eq!(report.bad, None);
    report
}

/// What a [`FaultyLedger`] is to do wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Commits fail and leave nothing.
    pub(super) lose_commits: bool,
    /// The next commits fail although they happened; counted down.
    pub(super) hide_commits: u32,
    /// Probes fail.
    pub(super) fail_probes: bool,
    /// Commits panic.
    pub(super) panic: bool,
    /// The store may not grow.
    pub(super) full: bool,
    /// The store cannot be opened again, which also leaves it closed.
    pub(super) fail_reopen: bool,
    pub(super) reopened: u32,
    /// The next page is read only when it is sent a `()`, or the sender is dropped.
    pub(super) page_gate: Option<Receiver<()>>,
    /// Closing the store waits for the gate.
    pub(super) hang_on_close: bool,
    /// Transactions that were begun.
    pub(super) begun: u32,
    /// Pages that were read, commits that were tried and probes, in order.
    pub(super) steps: Vec<&'static str>,
}

/// The store with faults that a test turns on and off.
pub(super) struct FaultyLedger {
    ledger: SegmentLedger,
    faults: Arc<Mutex<Faults>>,
    gate: Option<Receiver<()>>,
}

/// Opens a log with faults.
pub(super) fn open_faulty(options: AuditOptions) -> (AuditLog, Arc<Mutex<Faults>>) {
    let faults = Arc::new(Mutex::new(Faults::default()));
    let shared = Arc::clone(&faults);
    let log =
        AuditLog::open_with(options, |ledger| Box::new(FaultyLedger { ledger, faults: shared, gate: None }));
    (log.unwrap(), faults)
}

/// Opens a log that commits a transaction only when it is sent a `()`, or the sender is dropped:
/// like a disk that neither fails nor answers.
pub(super) fn open_gated(options: AuditOptions) -> (AuditLog, Sender<()>) {
    let (log, gate, _) = open_gated_and_faulty(options);
    (log, gate)
}

/// Both in one.
pub(super) fn open_gated_and_faulty(options: AuditOptions) -> (AuditLog, Sender<()>, Arc<Mutex<Faults>>) {
    let (sender, gate) = channel();
    let faults = Arc::new(Mutex::new(Faults::default()));
    let shared = Arc::clone(&faults);
    let log = AuditLog::open_with(options, |ledger| {
        Box::new(FaultyLedger { ledger, faults: shared, gate: Some(gate) })
    });
    (log.unwrap(), sender, faults)
}

impl Drop for FaultyLedger {
    fn drop(&mut self) {
        let hangs = self.faults.lock().unwrap_or_else(PoisonError::into_inner).hang_on_close;
        if let Some(gate) = self.gate.as_ref().filter(|_| hangs) {
            let _ = gate.recv();
        }
    }
}

impl Ledger for FaultyLedger {
    fn tip(&mut self) -> Result<Tip, LedgerError> {
        self.ledger.tip()
    }

    fn base(&mut self) -> Result<Tip, LedgerError> {
        self.ledger.base()
    }

    fn accounted(&mut self) -> Result<u64, LedgerError> {
        self.ledger.accounted()
    }

    fn tip_at(&mut self, sequence: u64) -> Result<Option<Tip>, LedgerError> {
        self.ledger.tip_at(sequence)
    }

    fn page(
        &mut self,
        after: u64,
        until: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredRow>, LedgerError> {
        let gate = {
            let mut faults = self.faults.lock().unwrap();
            faults.steps.push("page");
            faults.page_gate.take()
        };
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        self.ledger.page(after, until, limit, bytes)
    }

    fn begin(&mut self) -> Result<(), LedgerError> {
        let full = {
            let mut faults = self.faults.lock().unwrap();
            faults.begun += 1;
            faults.full
        };
        self.ledger.limit(full.then_some(0));
        self.ledger.begin()
    }

    fn append(&mut self, rows: &[StoredRow]) -> Result<(), LedgerError> {
        self.ledger.append(rows)
    }

    fn account(&mut self, accounted: u64) -> Result<(), LedgerError> {
        self.ledger.account(accounted)
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let mut faults = self.faults.lock().unwrap();
        faults.steps.push("commit");
        assert!(!faults.panic, "a panic on demand");
        if faults.lose_commits {
            return Err(LedgerError::Injected("disk I/O error"));
        }
        self.ledger.commit()?;
        if faults.hide_commits > 0 {
            faults.hide_commits -= 1;
            return Err(LedgerError::Injected("disk I/O error after all"));
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.ledger.rollback();
    }

    fn probe(&mut self) -> Result<(), LedgerError> {
        let mut faults = self.faults.lock().unwrap();
        faults.steps.push("probe");
        if faults.fail_probes || faults.lose_commits {
            return Err(LedgerError::Injected("disk I/O error"));
        }
        self.ledger.limit(faults.full.then_some(0));
        self.ledger.probe()
    }

    fn usage(&mut self) -> Result<u64, LedgerError> {
        self.ledger.usage()
    }

    fn look(&mut self) -> Result<(), LedgerError> {
        self.ledger.look()
    }

    fn trim(&mut self, cut: Cut) -> Result<Trimmed, LedgerError> {
        self.ledger.trim(cut)
    }

    fn reopen(&mut self) -> Result<(), LedgerError> {
        let mut faults = self.faults.lock().unwrap();
        faults.reopened += 1;
        if faults.fail_reopen {
            self.ledger.close();
            return Err(LedgerError::Injected("disk I/O error on opening"));
        }
        self.ledger.reopen()
    }
}
