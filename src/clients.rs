//! What clients registered: the record that a gateway keeps, since the authorization server behind it cannot be asked.
//!
//! One SQLite file in the state directory, `clients.db`, of one upstream. What was put is durable when [`Clients::put`] returns;
//! what happens at the same time shares one commit. It is bounded: where it is full, clients that never began a login go first. What
//! was read lately is kept in memory, bounded too.
//! Knows neither HTTP nor policies, and is told the time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::oneshot;
use tracing::warn;

use self::cache::{CacheVersion, ClientCache, OtherChanges};
use self::queue::JobQueue;
use self::store::{ClientChange, ClientStore, WrittenChanges};
use crate::gateway::metadata::ClientMetadata;

mod cache;
mod queue;
mod store;

/// The name of the file in the state directory.
pub const FILE_NAME: &str = "clients.db";

/// How many clients are kept if nobody says otherwise.
pub const DEFAULT_LIMIT: u64 = 100_000;

/// How much a client may take on the average, in bytes of text: the record is bounded by this times the number of clients.
pub const AVERAGE_BYTES: u64 = 4096;

/// How many jobs may wait, reads and writes each.
const PLACES: usize = 4096;

/// How old a noted login is before another one of the same client is noted.
const LOGIN_GRAIN: Duration = Duration::from_secs(60 * 60);

/// From where a client is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordSource {
    /// It registered through the gateway.
    Registration,
    /// The gateway looked it up at the upstream.
    Upstream,
}

/// One client.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientRecord {
    /// The path of its issuer; `""` for one without. Ids are unique in it.
    pub issuer: String,
    /// Its id.
    pub client_id: String,
    /// From where it is known.
    pub source: RecordSource,
    /// What it registered: tokens with single spaces between; may be empty.
    pub registered_scope: String,
    /// What was added at the upstream for authorize requests, and is not registered. As above.
    pub added_scope: String,
    /// What it said of itself.
    pub metadata: ClientMetadata,
    /// When it was first known.
    #[serde(serialize_with = "as_text")]
    pub first_time: SystemTime,
    /// When it was last registered, read or changed.
    #[serde(serialize_with = "as_text")]
    pub registered_time: SystemTime,
    /// When it last began a login, up to an hour old; `None` if it never did.
    #[serde(serialize_with = "as_optional_text")]
    pub login_time: Option<SystemTime>,
}

impl ClientRecord {
    /// A client whose registration was seen, now.
    #[must_use]
    pub fn registered(
        issuer: impl Into<String>,
        client_id: impl Into<String>,
        registered_scope: impl Into<String>,
        metadata: ClientMetadata,
        now: SystemTime,
    ) -> Self {
        let now = whole_seconds(now);
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
            source: RecordSource::Registration,
            registered_scope: registered_scope.into(),
            added_scope: String::new(),
            metadata,
            first_time: now,
            registered_time: now,
            login_time: None,
        }
    }

    /// The bytes of its texts.
    fn text_bytes(&self) -> usize {
        let Self { issuer, client_id, registered_scope, added_scope, metadata, .. } = self;
        let ClientMetadata {
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = metadata;
        let texts =
            [issuer, client_id, registered_scope, added_scope, client_name, software_id, software_version];
        let lists = redirect_uris.iter().chain(grant_types).map(|text| size_of::<String>() + text.len());
        texts.into_iter().map(String::len).sum::<usize>() + application_type.len() + lists.sum::<usize>()
    }
}

/// Why the record of clients cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientsError {
    /// The file, or its directory.
    #[error("could not {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// There is no record in the directory.
    #[error("there is no record of clients in `{}`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It is the record of another upstream: ids of clients mean something else there.
    #[error(
        "`{}` has the clients of the upstream `{found}`, and not of `{wanted}`: use another --state-dir, or, if it is the same \
         server at another address, `scopeward gateway clients move --to {wanted}`",
        path.display()
    )]
    OtherUpstream {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: String,
    },
    /// It is a file of something else.
    #[error("`{}` is not a record of clients", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer program made it.
    #[error("`{}` has format {found}, and this program knows {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// SQLite finds something wrong with it.
    #[error(
        "`{}` is damaged: {cause}; restore a copy, or move it away: the clients in it are then unknown until they register again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: String,
    },
    /// The file was removed or replaced while it was in use; what is written would be lost.
    #[error("`{}` was removed or replaced; start the gateway again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// What was put is not durable.
    #[error("the record of clients could not be written: {cause}")]
    NotDurable {
        /// What SQLite says.
        cause: String,
    },
    /// The record was changed, and a gateway that has it open may not know.
    #[error(
        "the client is forgotten, but a gateway that runs may know it until this is run again or the gateway is started again: {cause}"
    )]
    NotAnnounced {
        /// What the system says.
        cause: String,
    },
    /// A client could not be looked up.
    #[error("the record of clients could not be read: {cause}")]
    Unreadable {
        /// What SQLite says.
        cause: String,
    },
    /// Too many wait already.
    #[error("too many wait for the record of clients")]
    Busy,
}

/// Figures for monitoring.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClientsStatus {
    /// How many clients are kept.
    pub clients: u64,
    /// The most that are.
    pub limit: u64,
    /// Bytes of text that they take.
    pub bytes: u64,
    /// Clients that made room for others and never began a login, since the process started.
    pub evicted_unused: u64,
    /// The same of those that did.
    pub evicted_used: u64,
    /// Commits that failed, since the process started.
    pub errors: u64,
}

/// The record of clients of one upstream. Clones share it.
#[derive(Clone, Debug)]
pub struct Clients(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    limit: u64,
    writer: Mutex<ClientStore>,
    /// A connection of its own, so that no read waits for a sync of the disk.
    reader: Mutex<ClientStore>,
    writes: Arc<JobQueue<Write>>,
    reads: Arc<JobQueue<Lookup>>,
    cache: ClientCache,
    clients: AtomicU64,
    bytes: AtomicU64,
    evicted_unused: AtomicU64,
    evicted_used: AtomicU64,
    errors: AtomicU64,
}

type Outcome<T> = oneshot::Sender<Result<T, ClientsError>>;

#[derive(Debug)]
struct Write {
    change: ClientChange,
    /// `None` where nobody waits.
    outcome: Option<Outcome<bool>>,
}

#[derive(Debug)]
enum Lookup {
    Client { issuer: String, client_id: String, outcome: Outcome<Option<ClientRecord>> },
    Added { issuer: String, client_id: String, outcome: Outcome<String> },
}

impl Clients {
    /// Opens the record in a state directory, or makes it. Blocks. The caller holds the lock of the directory.
    ///
    /// # Errors
    /// If the file cannot be used, is damaged, or is of another upstream.
    pub fn open(state_dir: &Path, upstream: &str, limit: u64) -> Result<Self, ClientsError> {
        let path = state_dir.join(FILE_NAME);
        let writer = ClientStore::create(&path, upstream)?;
        let reader = ClientStore::open(&path)?;
        let (clients, bytes) = writer.totals()?;
        let others = changes(&path)?;
        others.clear().map_err(|cause| ClientsError::Io {
            action: "clear the changes of",
            path,
            cause: cause.to_string(),
        })?;
        Ok(Self(Arc::new(Opened {
            limit: limit.max(1),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            writes: JobQueue::new(PLACES),
            reads: JobQueue::new(PLACES),
            cache: ClientCache::new(others),
            clients: clients.into(),
            bytes: bytes.into(),
            evicted_unused: AtomicU64::default(),
            evicted_used: AtomicU64::default(),
            errors: AtomicU64::default(),
        })))
    }

    /// What is known of a client; `None` if nothing is.
    ///
    /// # Errors
    /// If the file cannot be read, or too many wait.
    pub async fn get(
        &self,
        issuer: &str,
        client_id: &str,
    ) -> Result<Option<Arc<ClientRecord>>, ClientsError> {
        match self.0.cache.get(issuer, client_id) {
            Ok(known) => Ok(known),
            // Boxed: most are there at once, and then nothing is made to wait with.
            Err(version) => Box::pin(self.read(version, issuer, client_id)).await,
        }
    }

    /// What the file has of a client, which is kept if the record is still of this version.
    async fn read(
        &self,
        version: CacheVersion,
        issuer: &str,
        client_id: &str,
    ) -> Result<Option<Arc<ClientRecord>>, ClientsError> {
        let (outcome, found) = oneshot::channel();
        self.look_up(Lookup::Client { issuer: issuer.to_owned(), client_id: client_id.to_owned(), outcome })?;
        let known = found.await.unwrap_or_else(|_| Err(reader_ended()))?.map(Arc::new);
        self.0.cache.keep(version, issuer, client_id, &known);
        Ok(known)
    }

    /// What was added to a client at the upstream, whether it is known or not.
    ///
    /// # Errors
    /// As [`Clients::get`].
    pub async fn added(&self, issuer: &str, client_id: &str) -> Result<String, ClientsError> {
        let (outcome, found) = oneshot::channel();
        self.look_up(Lookup::Added { issuer: issuer.to_owned(), client_id: client_id.to_owned(), outcome })?;
        found.await.unwrap_or_else(|_| Err(reader_ended()))
    }

    /// Remembers a client. Of one that is known, when it was first known and when it began a login stay. What was added to it is
    /// not taken from `record`, see [`Clients::add`]. Durable when it returns.
    ///
    /// # Errors
    /// If it is not durable, or too many wait.
    pub async fn put(&self, record: ClientRecord) -> Result<(), ClientsError> {
        self.write(ClientChange::Put(Box::new(record))).await.map(drop)
    }

    /// Remembers that scopes are being added to a client at the upstream, which are not registered: for as long as the client is
    /// at the upstream, also where it is forgotten here. Durable when it returns.
    ///
    /// # Errors
    /// As [`Clients::put`].
    pub async fn add(&self, issuer: &str, client_id: &str, scopes: &str) -> Result<(), ClientsError> {
        let (issuer, client_id, scopes) = (issuer.to_owned(), client_id.to_owned(), scopes.to_owned());
        self.write(ClientChange::Add { issuer, client_id, scopes }).await.map(drop)
    }

    /// Forgets a client that is gone at the upstream; `false` if it was not known. Durable when it returns.
    ///
    /// # Errors
    /// As [`Clients::put`].
    pub async fn forget(&self, issuer: &str, client_id: &str) -> Result<bool, ClientsError> {
        let (issuer, client_id) = (issuer.to_owned(), client_id.to_owned());
        self.write(ClientChange::Forget { issuer, client_id, is_gone: true }).await
    }

    /// Notes that a client begins a login, so that it is kept for longer than those that never do. Waits for nothing: a note
    /// that is lost is made again at the next login.
    pub fn note_login(&self, record: &ClientRecord, now: SystemTime) {
        let is_noted =
            record.login_time.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < LOGIN_GRAIN));
        if is_noted {
            return;
        }
        let (issuer, client_id) = (record.issuer.clone(), record.client_id.clone());
        let change = ClientChange::Login { issuer, client_id, time: now };
        // Where too many wait, this can.
        _ = self.push(Write { change, outcome: None });
    }

    /// Figures for monitoring.
    #[must_use]
    pub fn status(&self) -> ClientsStatus {
        let at = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let opened = &self.0;
        ClientsStatus {
            clients: at(&opened.clients),
            limit: opened.limit,
            bytes: at(&opened.bytes),
            evicted_unused: at(&opened.evicted_unused),
            evicted_used: at(&opened.evicted_used),
            errors: at(&opened.errors),
        }
    }

    fn look_up(&self, lookup: Lookup) -> Result<(), ClientsError> {
        let opened = Arc::clone(&self.0);
        self.0.reads.push(lookup, move |jobs| opened.look_up(jobs))
    }

    fn push(&self, write: Write) -> Result<(), ClientsError> {
        let opened = Arc::clone(&self.0);
        self.0.writes.push(write, move |jobs| opened.write(jobs))
    }

    async fn write(&self, change: ClientChange) -> Result<bool, ClientsError> {
        let (outcome, done) = oneshot::channel();
        self.push(Write { change, outcome: Some(outcome) })?;
        done.await.unwrap_or_else(|_| {
            Err(ClientsError::NotDurable { cause: "the writer exited unexpectedly".to_owned() })
        })
    }
}

impl Opened {
    /// One commit for all that waits.
    fn write(&self, jobs: Vec<Write>) {
        let (changes, outcomes): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|Write { change, outcome }| (change, outcome)).unzip();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.write(&changes, self.limit);
        drop(writer);
        // Before anybody hears of it; also if it failed, since then nobody knows what is in the file.
        let evicted = written.as_ref().map_or(&[][..], |written| &written.evicted);
        let evicted = evicted.iter().map(|(issuer, client_id)| (issuer.as_str(), client_id.as_str()));
        self.cache.changed(changes.iter().map(ClientChange::client).chain(evicted));
        match written {
            Ok(written) => {
                let WrittenChanges { done, clients, bytes, evicted, evicted_used } = written;
                let evicted_unused = (evicted.len() as u64).saturating_sub(evicted_used);
                self.clients.store(clients, Ordering::Relaxed);
                self.bytes.store(bytes, Ordering::Relaxed);
                self.evicted_unused.fetch_add(evicted_unused, Ordering::Relaxed);
                self.evicted_used.fetch_add(evicted_used, Ordering::Relaxed);
                for (outcome, done) in outcomes.into_iter().zip(done) {
                    // Who asked may have gone.
                    _ = outcome.map(|outcome| outcome.send(Ok(done)));
                }
            }
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                if outcomes.iter().all(Option::is_none) {
                    warn!(%error, "logins were not noted in the record of clients");
                }
                for outcome in outcomes {
                    _ = outcome.map(|outcome| outcome.send(Err(error.clone())));
                }
            }
        }
    }

    fn look_up(&self, jobs: Vec<Lookup>) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        for lookup in jobs {
            // Who asked may have gone.
            _ = match lookup {
                Lookup::Client { issuer, client_id, outcome } => {
                    outcome.send(reader.get(&issuer, &client_id)).is_ok()
                }
                Lookup::Added { issuer, client_id, outcome } => {
                    outcome.send(reader.added(&issuer, &client_id)).is_ok()
                }
            };
        }
    }
}

/// The record of a state directory for people, with or without a gateway that has it open.
#[derive(Debug)]
pub struct ClientFile {
    store: ClientStore,
    path: PathBuf,
}

impl ClientFile {
    /// Opens the record in a state directory.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn open(state_dir: &Path) -> Result<Self, ClientsError> {
        let path = state_dir.join(FILE_NAME);
        if !path.exists() {
            return Err(ClientsError::Missing { path: state_dir.to_owned() });
        }
        Ok(Self { store: ClientStore::open(&path)?, path })
    }

    /// Whose clients they are.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn upstream(&self) -> Result<String, ClientsError> {
        self.store.upstream()
    }

    /// Visits each client, by issuer and id, until `visit` says no.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(&self, visit: impl FnMut(ClientRecord) -> bool) -> Result<(), ClientsError> {
        self.store.list(visit)
    }

    /// Forgets a client, but not what was added to it at the upstream; `false` if it was not known. Durable when it returns, and
    /// known to a gateway that has the record open.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn forget(&mut self, issuer: &str, client_id: &str) -> Result<bool, ClientsError> {
        let change = ClientChange::Forget {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            is_gone: false,
        };
        let written = self.store.write(&[change], u64::MAX)?;
        OtherChanges::of(&self.path)
            .and_then(|changes| changes.announce())
            .map_err(|cause| ClientsError::NotAnnounced { cause: cause.to_string() })?;
        Ok(written.done.first().copied().unwrap_or(false))
    }

    /// Says that the upstream is at another address now. No gateway may have the record open.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn move_to(&mut self, upstream: &str) -> Result<(), ClientsError> {
        self.store.move_to(upstream)
    }
}

/// The changes of other processes to a record.
fn changes(path: &Path) -> Result<OtherChanges, ClientsError> {
    OtherChanges::of(path).map_err(|cause| ClientsError::Io {
        action: "note changes of",
        path: path.to_owned(),
        cause: cause.to_string(),
    })
}

fn reader_ended() -> ClientsError {
    ClientsError::Unreadable { cause: "the reader exited unexpectedly".to_owned() }
}

/// What is kept of a time.
fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds(time))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn as_text<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&prost_types::Timestamp::from(*time))
}

fn as_optional_text<S: serde::Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_text(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
