//! Clients that were read lately, known or not, so that most logins read no file.
//!
//! Bounded by their number and by the bytes of their texts. What this process commits is taken out before anybody hears of the
//! commit. What another process commits, it announces in a file next to the record ([`OtherChanges`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{Equivalent, HashMap};

use super::ClientRecord;

/// What is known of a client; `None` if nothing is.
pub(super) type KnownClient = Option<Arc<ClientRecord>>;

/// How often the record was changed, as far as a read of the file can be too old by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct CacheVersion(u64);

/// The clients that were read lately.
#[derive(Debug)]
pub(super) struct ClientCache {
    others: OtherChanges,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    version: u64,
    /// The changes of other processes that are known.
    others: u64,
    /// What was read or found since the last turn. When it is full it becomes `older`, and what was in there goes.
    recent: CachedClients,
    older: CachedClients,
}

#[derive(Debug, Default)]
struct CachedClients {
    by_key: HashMap<CachedKey, KnownClient>,
    bytes: usize,
}

#[derive(Debug, Eq, Hash, PartialEq)]
struct CachedKey {
    issuer: Box<str>,
    client_id: Box<str>,
}

/// A [`CachedKey`] to look up; its fields are in the same order, so that both have the same hash.
#[derive(Clone, Copy, Hash)]
struct CachedKeyRef<'k> {
    issuer: &'k str,
    client_id: &'k str,
}

impl Equivalent<CachedKey> for CachedKeyRef<'_> {
    fn equivalent(&self, key: &CachedKey) -> bool {
        *key.client_id == *self.client_id && *key.issuer == *self.issuer
    }
}

impl ClientCache {
    /// An empty cache of a record to which other processes announce their changes here.
    pub(super) fn new(others: OtherChanges) -> Self {
        Self { others, state: Mutex::default() }
    }

    /// What is known of a client.
    ///
    /// # Errors
    /// If the file must be read, the version to [`ClientCache::keep`] with what is read.
    pub(super) fn get(&self, issuer: &str, client_id: &str) -> Result<KnownClient, CacheVersion> {
        let others = self.others.count();
        let mut state = self.lock();
        let Some(others) = others else {
            // Nothing that is read now may be kept.
            *state = CacheState { version: state.version + 1, others: state.others, ..CacheState::default() };
            return Err(CacheVersion(state.version - 1));
        };
        if state.others != others {
            *state = CacheState { version: state.version + 1, others, ..CacheState::default() };
        }
        let key = CachedKeyRef { issuer, client_id };
        let CacheState { version, recent, older, .. } = &mut *state;
        if let Some(known) = recent.by_key.get(&key) {
            return Ok(known.clone());
        }
        let (key, known) = older.take(&key).ok_or(CacheVersion(*version))?;
        let found = known.clone();
        state.insert(key, known);
        Ok(found)
    }

    /// Keeps what was read of a client, unless the record was changed after `version`.
    pub(super) fn keep(&self, version: CacheVersion, issuer: &str, client_id: &str, known: &KnownClient) {
        let key = CachedKey { issuer: issuer.into(), client_id: client_id.into() };
        let mut state = self.lock();
        if CacheVersion(state.version) == version && bytes_of(&key, known) <= MAX_CLIENT_BYTES {
            state.insert(key, known.clone());
        }
    }

    /// Takes out clients that were changed, or may have been.
    pub(super) fn changed<'k>(&self, keys: impl IntoIterator<Item = (&'k str, &'k str)>) {
        let mut state = self.lock();
        state.version += 1;
        for (issuer, client_id) in keys {
            let key = CachedKeyRef { issuer, client_id };
            state.recent.take(&key);
            state.older.take(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    fn insert(&mut self, key: CachedKey, known: KnownClient) {
        let bytes = bytes_of(&key, &known);
        let Self { recent, older, .. } = self;
        if recent.by_key.len() >= MAX_CLIENTS / 2 || recent.bytes + bytes > MAX_BYTES / 2 {
            *older = std::mem::take(recent);
        }
        // What replaces another is of the same version, and as large.
        if recent.by_key.insert(key, known).is_none() {
            recent.bytes += bytes;
        }
    }
}

impl CachedClients {
    fn take(&mut self, key: &CachedKeyRef<'_>) -> Option<(CachedKey, KnownClient)> {
        let (key, known) = self.by_key.remove_entry(key)?;
        self.bytes = self.bytes.saturating_sub(bytes_of(&key, &known));
        Some((key, known))
    }
}

/// About what a client takes.
fn bytes_of(key: &CachedKey, known: &KnownClient) -> usize {
    let of_record = known.as_ref().map_or(0, |record| size_of::<ClientRecord>() + record.text_bytes());
    size_of::<(CachedKey, KnownClient)>() + key.issuer.len() + key.client_id.len() + of_record
}

/// The changes of a record that other processes made, while a gateway has it open: one byte each in a file next to it, so that their
/// number is the length of that file.
#[derive(Debug)]
pub(super) struct OtherChanges(File);

impl OtherChanges {
    /// Those of the record in this file.
    pub(super) fn of(record: &Path) -> io::Result<Self> {
        let path = record.with_extension("changes");
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        // As SQLite does with its files: root may have made it, and who owns the record has to write it.
        let (owner, own) = (std::fs::metadata(record)?, file.metadata()?);
        if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(Self(file))
    }

    /// Announces a change that was committed.
    pub(super) fn announce(&self) -> io::Result<()> {
        (&self.0).write_all(b".")
    }

    /// Forgets the changes before now: for a gateway that starts, and has read nothing yet.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.0.set_len(0)
    }

    /// How many there were; `None` if the file is not the one that others write any more.
    fn count(&self) -> Option<u64> {
        self.0.metadata().ok().filter(|metadata| metadata.nlink() > 0).map(|metadata| metadata.len())
    }
}

/// How many clients are kept at most.
const MAX_CLIENTS: usize = 4096;
/// How many bytes they take at most, about.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// A larger client is read again each time.
const MAX_CLIENT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::gateway::metadata::ClientMetadata;

    fn client(id: &str, scope: &str) -> KnownClient {
        let metadata = ClientMetadata::default();
        Some(Arc::new(ClientRecord::registered("", id, scope, metadata, UNIX_EPOCH)))
    }

    fn cache(folder: &Path) -> ClientCache {
        let record = folder.join("clients.db");
        std::fs::write(&record, "").unwrap();
        ClientCache::new(OtherChanges::of(&record).unwrap())
    }

    /// Reads a client through the cache; `read` is what the file has.
    fn through(cache: &ClientCache, id: &str, read: &KnownClient) -> KnownClient {
        cache.get("", id).unwrap_or_else(|version| {
            cache.keep(version, "", id, read);
            read.clone()
        })
    }

    #[test]
    fn what_was_read_is_kept_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (first, second) = (client("a", "x"), client("a", "y"));
        assert_eq!(through(&cache, "a", &first), first);
        assert_eq!(through(&cache, "b", &None), None);
        assert_eq!(through(&cache, "a", &None), first);
        assert_eq!(through(&cache, "b", &first), None, "that there is none is known, too");
        cache.get("/realms/t", "a").unwrap_err();
        cache.changed([("", "a")]);
        assert_eq!(through(&cache, "a", &second), second);
        assert_eq!(through(&cache, "b", &first), None);
        // Another process.
        cache.others.announce().unwrap();
        assert_eq!(through(&cache, "a", &first), first);
        assert_eq!(through(&cache, "b", &second), second);
        let other = OtherChanges::of(&folder.path().join("clients.db")).unwrap();
        other.announce().unwrap();
        assert_eq!(through(&cache, "a", &second), second);
        other.clear().unwrap();
        assert_eq!((other.count(), cache.others.count()), (Some(0), Some(0)));
    }

    /// What others announce then, they announce in another file.
    #[test]
    fn nothing_is_kept_once_the_file_of_changes_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (first, second) = (client("a", "x"), client("a", "y"));
        assert_eq!(through(&cache, "a", &first), first);
        std::fs::remove_file(folder.path().join("clients.changes")).unwrap();
        assert_eq!(through(&cache, "a", &second), second);
        assert_eq!(through(&cache, "a", &first), first);
    }

    /// A read that began before a commit may end after it.
    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let before = cache.get("", "a").unwrap_err();
        cache.changed([("", "b")]);
        cache.keep(before, "", "a", &client("a", "x"));
        let before = cache.get("", "a").unwrap_err();
        cache.others.announce().unwrap();
        cache.get("", "b").unwrap_err();
        cache.keep(before, "", "a", &client("a", "x"));
        cache.get("", "a").unwrap_err();
    }

    #[test]
    fn what_was_not_used_for_long_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let used = client("used", "x");
        for number in 0..3 * MAX_CLIENTS {
            through(&cache, &format!("n{number}"), &None);
            assert_eq!(through(&cache, "used", &used), used);
        }
        let sizes = |cache: &ClientCache| {
            let state = cache.lock();
            [&state.recent, &state.older].map(|clients| (clients.by_key.len(), clients.bytes))
        };
        assert!(sizes(&cache).iter().all(|(clients, _)| *clients <= MAX_CLIENTS / 2));
        cache.get("", "n0").unwrap_err();
        assert_eq!(cache.get("", "used").unwrap(), used, "it was used all the time");
        // Large ones, and one that is too large.
        let large = client("l", &"x".repeat(MAX_CLIENT_BYTES - 1024));
        for number in 0..3 * MAX_BYTES / MAX_CLIENT_BYTES {
            through(&cache, &format!("l{number}"), &large);
            assert!(sizes(&cache).iter().all(|(_, bytes)| *bytes <= MAX_BYTES / 2));
        }
        through(&cache, "m", &client("m", &"x".repeat(MAX_CLIENT_BYTES)));
        cache.get("", "m").unwrap_err();
        let keys: Vec<String> = (0..3 * MAX_CLIENTS).map(|number| format!("l{number}")).collect();
        cache.changed(keys.iter().map(|key| ("", key.as_str())).chain([("", "used")]));
        let state = cache.lock();
        let counted = |clients: &CachedClients| -> usize {
            clients.by_key.iter().map(|(key, known)| bytes_of(key, known)).sum()
        };
        assert_eq!(counted(&state.recent), state.recent.bytes);
        assert_eq!(counted(&state.older), state.older.bytes);
    }
}
