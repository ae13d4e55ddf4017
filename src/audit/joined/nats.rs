//! The joined store in a stream of NATS JetStream: a subject for each log, a message for each record.
//!
//! A message names the one that has to be the last of its subject before it, so that a record is there once and in order, however often and
//! by whomever it is sent. Where the stream takes batches as a whole (ADR 50 of NATS, from version 2.12 on), the first message of one does
//! so for all, and records need no round trip each. A message has no `Nats-Msg-Id`: a server that remembers an id refuses a record that it no longer has. What an
//! acknowledgement promises depends on the stream, and is not relied on.

use std::error::Error;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::row::{MergePlace, ReadRow};
use super::target::{JoinedTarget, NatsPlace};
use super::{Columns, JoinedError, JoinedProblem, JoinedRow, LONGEST_STEP, step, with_causes};
use crate::audit::chain::{StoredRow, decode};
use crate::audit::record::{GENESIS_HASH, Hash, Head, Record, from_nanos, sha256};
use crate::hex;

/// How long one address may take to connect to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many records one page has.
const PAGE_ROWS: usize = 1000;
/// What a credentials file begins with.
const CREDENTIALS: &str = "-----BEGIN NATS USER JWT-----";

/// The most messages that a server takes as a whole.
const MOST_IN_BATCH: usize = 1000;
/// Headers of the messages of a batch.
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Headers that say what the payload says, for readers that do not decode it.
const SEQUENCE: &str = "Scopeward-Sequence";
const HASH: &str = "Scopeward-Hash";
const KIND: &str = "Scopeward-Kind";

/// A connection to a stream.
pub(super) struct NatsStore {
    context: Context,
    place: NatsPlace,
    shown: Arc<str>,
    broken: Broken,
    /// Whether the stream takes several messages as a whole.
    is_atomic: bool,
    /// The message that has the newest record of a log, by its sequence in the stream; 0 if there is none.
    last: Option<(Uuid, u64)>,
    /// How many records are known to be missing of those after a sequence.
    missing: Option<(u64, u64)>,
}

/// Notices the end of a connection, which the library would make again by itself: what the server has is asked for on each one.
#[derive(Clone, Default)]
struct Broken {
    token: CancellationToken,
    /// What the server said, if it did.
    said: Arc<OnceLock<String>>,
}

impl Broken {
    fn take(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => {}
            Event::ServerError(error) => _ = self.said.set(error.to_string()),
            _ => return,
        }
        self.token.cancel();
    }

    fn problem(&self) -> JoinedProblem {
        match self.said.get() {
            Some(said) => JoinedProblem::Refused(said.clone()),
            None => JoinedProblem::Unreachable("the connection broke".to_owned()),
        }
    }
}

impl NatsStore {
    /// Connects.
    pub(super) async fn connect(target: &JoinedTarget, place: &NatsPlace) -> Result<Self, JoinedError> {
        let shown: Arc<str> = target.shown().into();
        let broken = Broken::default();
        let client = step(&shown, connect(target, place, broken.clone())).await?;
        let builder = jetstream::context::ContextBuilder::new().timeout(LONGEST_STEP);
        let context = match &place.domain {
            Some(domain) => builder.domain(domain).build(client),
            None => builder.build(client),
        };
        Ok(Self { context, place: place.clone(), shown, broken, is_atomic: false, last: None, missing: None })
    }

    /// Which stream it is.
    pub(super) const fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// Returns once the connection is gone.
    pub(super) async fn broken(&self) {
        self.broken.token.cancelled().await;
    }

    /// Makes the stream, unless it is there.
    pub(super) async fn create_stream(&mut self, replicas: usize) -> Result<(), JoinedError> {
        match self.check_kept().await {
            Err(JoinedError { problem: JoinedProblem::NoStream { .. }, .. }) => {}
            checked => return checked.map(drop),
        }
        let config = Config {
            name: self.place.stream.clone(),
            description: Some("Audit records of scopeward: a subject for each log".to_owned()),
            subjects: vec![format!("{}.*", self.place.subject)],
            storage: StorageType::File,
            num_replicas: replicas,
            deny_delete: true,
            // Servers before 2.12 do not know it, and leave it out.
            allow_atomic_publish: true,
            ..Config::default()
        };
        let creating = async { self.context.create_stream(config).await.map_err(|error| failed(&error)) };
        self.step(creating).await?;
        self.check_kept().await.map(drop)
    }

    /// Looks whether the stream is there.
    pub(super) async fn check_stream(&self) -> Result<(), JoinedError> {
        self.stream().await.map(drop)
    }

    /// Looks whether the stream takes the records and keeps all of them. Returns on how many servers.
    pub(super) async fn check_kept(&mut self) -> Result<usize, JoinedError> {
        let stream = self.stream().await?;
        let config = &stream.cached_info().config;
        let problems = unfit(config, &self.place.subject);
        if !problems.is_empty() {
            let stream = config.name.clone();
            return Err(self.error(JoinedProblem::UnfitStream { stream, problems: problems.join("; ") }));
        }
        self.is_atomic = config.allow_atomic_publish;
        Ok(config.num_replicas)
    }

    /// The logs that have records there, in no order.
    pub(super) async fn logs(&self) -> Result<Vec<Uuid>, JoinedError> {
        let stream = self.stream().await?;
        let prefix = format!("{}.", self.place.subject);
        self.step(async {
            let mut logs = Vec::new();
            let mut subjects =
                stream.info_with_subjects(format!("{prefix}*")).await.map_err(|error| failed(&error))?;
            while let Some(subject) = subjects.next().await {
                let (subject, _) = subject.map_err(|error| failed(&error))?;
                logs.extend(subject.strip_prefix(&prefix).and_then(|id| id.parse::<Uuid>().ok()));
            }
            logs.sort_unstable();
            Ok(logs)
        })
        .await
    }

    /// The newest record of a log; `None` if it has none there.
    pub(super) async fn head(&mut self, log_id: Uuid) -> Result<Option<Head>, JoinedError> {
        let stream = self.stream().await?;
        let message = self.last_message(&stream, log_id).await?;
        self.last = Some((log_id, message.as_ref().map_or(0, |(place, _)| *place)));
        let Some((_, row)) = message else { return Ok(None) };
        let head = Head { sequence: row.stored.sequence, hash: row.stored.hash };
        row.checked().map_err(|problem| self.error(problem))?;
        Ok(Some(head))
    }

    /// How many records are missing of a log after `after`, up to its newest one there. A stream takes records at its end alone.
    pub(super) async fn missing(&mut self, log_id: Uuid, after: u64) -> Result<u64, JoinedError> {
        let missing = self.count_missing(log_id, after).await?;
        self.missing = Some((after, missing));
        Ok(missing)
    }

    /// Whether no more records are missing than [`missing`](Self::missing) said.
    pub(super) async fn has_lost_no_more(&mut self, log_id: Uuid) -> Result<bool, JoinedError> {
        match self.missing {
            Some((after, known)) => Ok(self.count_missing(log_id, after).await? == known),
            None => Ok(false),
        }
    }

    async fn count_missing(&self, log_id: Uuid, after: u64) -> Result<u64, JoinedError> {
        let stream = self.stream().await?;
        let subject = self.subject(log_id);
        let Some((_, newest)) = self.last_message(&stream, log_id).await? else { return Ok(0) };
        let (first, count) = self
            .step(async {
                let first = stream
                    .get_first_raw_message_by_subject(&subject, 1)
                    .await
                    .map_err(|error| failed(&error))?;
                let mut subjects =
                    stream.info_with_subjects(&subject).await.map_err(|error| failed(&error))?;
                let count = match subjects.next().await {
                    Some(found) => found.map_err(|error| failed(&error))?.1,
                    None => 0,
                };
                Ok((read_row(log_id, &first.headers, &first.payload), count as u64))
            })
            .await?;
        // What was deleted here before forwarding began was never there.
        let begin = first.stored.sequence.min(after + 1);
        Ok((newest.stored.sequence + 1).saturating_sub(begin).saturating_sub(count))
    }

    /// Adds records after the newest one. Those before a failure stay.
    pub(super) async fn append(&mut self, log_id: Uuid, rows: &[JoinedRow]) -> Result<(), JoinedError> {
        let subject = self.subject(log_id);
        let mut last = match self.last {
            Some((of, last)) if of == log_id => last,
            _ => return Err(self.error(JoinedProblem::Failed("it was not asked what it has".to_owned()))),
        };
        let batches = rows.chunks(if self.is_atomic { MOST_IN_BATCH } else { 1 });
        for batch in batches {
            last = self.publish(&subject, batch, last).await?;
            self.last = Some((log_id, last));
        }
        Ok(())
    }

    /// Publishes records, all of them or none. Returns the place of the last one in the stream.
    async fn publish(&self, subject: &str, batch: &[JoinedRow], last: u64) -> Result<u64, JoinedError> {
        let id = Uuid::now_v7().to_string();
        let message = |at: usize, JoinedRow { stored, columns, .. }: &JoinedRow| {
            let mut headers = HeaderMap::new();
            headers.insert(SEQUENCE, stored.sequence.to_string());
            headers.insert(HASH, hex::encode(&stored.hash));
            headers.insert(KIND, columns.kind);
            headers.insert(NATS_EXPECTED_STREAM, &*self.place.stream);
            if at == 0 {
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
            }
            if batch.len() > 1 {
                headers.insert(BATCH_ID, &*id);
                headers.insert(BATCH_SEQUENCE, (at + 1).to_string());
            }
            (headers, stored.content.clone())
        };
        let Some((newest, before)) = batch.split_last() else { return Ok(last) };
        let publishing = async {
            for (at, row) in before.iter().enumerate() {
                let (headers, content) = message(at, row);
                let sent =
                    self.context.client().publish_with_headers(subject.to_owned(), headers, content).await;
                sent.map_err(|error| failed(&error))?;
            }
            let (mut headers, content) = message(before.len(), newest);
            if !before.is_empty() {
                headers.insert(BATCH_COMMIT, "1");
            }
            let message = PublishMessage::build().payload(content).headers(headers);
            let sent = self.context.send_publish(subject.to_owned(), message).await;
            match async { sent?.await }.await {
                Ok(ack) => Ok(ack.sequence),
                Err(error) => Err(match error.kind() {
                    PublishErrorKind::TimedOut => JoinedProblem::Slow(LONGEST_STEP.as_secs()),
                    PublishErrorKind::StreamNotFound => self.no_stream(),
                    PublishErrorKind::WrongLastSequence => {
                        JoinedProblem::Failed("it has other records of this log than it said".to_owned())
                    }
                    _ => failed(&error),
                }),
            }
        };
        self.step(publishing).await
    }

    /// Reads one log, up to what is its newest record now.
    pub(super) async fn read(&self, log_id: Uuid) -> Result<NatsReader<'_>, JoinedError> {
        let stream = self.stream().await?;
        let Some((last, _)) = self.last_message(&stream, log_id).await? else {
            return Ok(NatsReader { store: self, log_id, messages: None, last: 0 });
        };
        let config = OrderedConfig { filter_subject: self.subject(log_id), ..OrderedConfig::default() };
        let messages = self
            .step(async {
                let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
                consumer.messages().await.map_err(|error| failed(&error))
            })
            .await?;
        Ok(NatsReader { store: self, log_id, messages: Some(Box::new(messages)), last })
    }

    /// Reads all logs, merged by time.
    pub(super) async fn read_merged(&self, after: MergePlace) -> Result<NatsMerge<'_>, JoinedError> {
        let mut readers = Vec::new();
        for log_id in self.logs().await? {
            let mut reader = self.read(log_id).await?;
            if let Some(next) = reader.next_after(after).await? {
                readers.push((next, reader));
            }
        }
        Ok(NatsMerge { after, readers })
    }

    async fn stream(&self) -> Result<Stream, JoinedError> {
        let asking = async {
            self.context.get_stream(&self.place.stream).await.map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    self.no_stream()
                }
                GetStreamErrorKind::JetStream(said) => JoinedProblem::Refused(said.to_string()),
                _ => failed(&error),
            })
        };
        self.step(asking).await
    }

    /// The newest message of a log, with its sequence in the stream. The leader is asked, whose answer is not old.
    async fn last_message(
        &self,
        stream: &Stream,
        log_id: Uuid,
    ) -> Result<Option<(u64, ReadRow)>, JoinedError> {
        let subject = self.subject(log_id);
        self.step(async {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => {
                    Ok(Some((message.sequence, read_row(log_id, &message.headers, &message.payload))))
                }
                Err(error) => match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(None),
                    _ => Err(failed(&error)),
                },
            }
        })
        .await
    }

    fn subject(&self, log_id: Uuid) -> String {
        format!("{}.{log_id}", self.place.subject)
    }

    fn no_stream(&self) -> JoinedProblem {
        JoinedProblem::NoStream { stream: self.place.stream.clone(), subject: self.place.subject.clone() }
    }

    /// One exchange on this connection.
    async fn step<T>(
        &self,
        exchange: impl Future<Output = Result<T, JoinedProblem>>,
    ) -> Result<T, JoinedError> {
        step(&self.shown, async {
            tokio::select! {
                // An answer that is there goes before the end of the connection.
                biased;
                done = exchange => done,
                () = self.broken.token.cancelled() => Err(self.broken.problem()),
            }
        })
        .await
    }

    fn error(&self, problem: JoinedProblem) -> JoinedError {
        JoinedError { store: Arc::clone(&self.shown), problem }
    }
}

async fn connect(target: &JoinedTarget, place: &NatsPlace, broken: Broken) -> Result<Client, JoinedProblem> {
    let options = ConnectOptions::new()
        .name("scopeward")
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(LONGEST_STEP))
        // Once around, so that nothing is left over of a connection that was given up.
        .max_reconnects(place.servers.len())
        .ignore_discovered_servers()
        .retain_servers_order()
        .event_callback(move |event| {
            broken.take(&event);
            std::future::ready(())
        });
    let options = match target.tls() {
        Some(tls) => options.require_tls(true).tls_client_config(tls.clone()),
        None => options,
    };
    let secret = match target.file_password().await.map_err(JoinedProblem::Credentials)? {
        Some(secret) => {
            let secret = String::from_utf8(secret);
            Some(
                secret
                    .map_err(|_| JoinedProblem::Credentials("the password file is not UTF-8".to_owned()))?,
            )
        }
        None => place.password.clone(),
    };
    let options = match (&place.user, secret) {
        (Some(user), Some(password)) => options.user_and_password(user.clone(), password),
        (_, Some(secret)) if secret.trim_start().starts_with(CREDENTIALS) => {
            let wrong = |error: std::io::Error| JoinedProblem::Credentials(error.to_string());
            // The library wants a line break after the last line, which a file need not have.
            options.credentials(&format!("{secret}\n")).map_err(wrong)?
        }
        (None, Some(secret)) if is_seed(secret.trim()) => options.nkey(secret.trim().to_owned()),
        (None, Some(token)) => options.token(token),
        (_, None) => options,
    };
    let servers: Vec<String> = place.servers.iter().map(|server| format!("nats://{server}")).collect();
    options.connect(servers).await.map_err(|error| match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            JoinedProblem::Refused(with_causes(&error))
        }
        _ => JoinedProblem::of_connection(&error),
    })
}

/// Whether a text is the seed of the nkey of a user: base32, 58 characters, of which the first two say what it is.
fn is_seed(text: &str) -> bool {
    text.len() == 58
        && text.starts_with("SU")
        && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

fn failed(error: &(dyn Error + 'static)) -> JoinedProblem {
    JoinedProblem::Failed(with_causes(error))
}

/// What of a stream loses records, or keeps them out, and what would be right.
fn unfit(config: &Config, subject: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |is_wrong: bool, words: String| {
        if is_wrong {
            problems.push(words);
        }
    };
    let deletes_old = config.discard == DiscardPolicy::Old;
    let keeps_per_subject = !deletes_old && config.discard_new_per_subject;
    check(
        !config.subjects.iter().any(|pattern| covers(pattern, subject)),
        format!("its subjects do not cover `{subject}.*`"),
    );
    check(
        config.retention != RetentionPolicy::Limits,
        "its retention must be `limits`: others delete what was read".to_owned(),
    );
    check(config.storage != StorageType::File, "its storage must be `file`, and not memory".to_owned());
    check(!config.max_age.is_zero(), format!("its max_age is {} s, and must be 0", config.max_age.as_secs()));
    for (name, limit) in [("max_msgs", config.max_messages), ("max_bytes", config.max_bytes)] {
        check(
            limit > 0 && deletes_old,
            format!(
                "it deletes old messages at {name} {limit}: say `discard: new`, so that records wait instead, or no limit"
            ),
        );
    }
    let limit = config.max_messages_per_subject;
    check(
        limit > 0 && !keeps_per_subject,
        format!("it deletes old messages at max_msgs_per_subject {limit}, which must be -1"),
    );
    check(config.no_ack, "it acknowledges nothing (no_ack)".to_owned());
    check(config.sealed, "it is sealed".to_owned());
    check(config.mirror.is_some(), "it is a mirror, which takes no messages".to_owned());
    check(
        config.subject_transform.is_some(),
        "it gives messages another subject (subject_transform)".to_owned(),
    );
    problems
}

/// Whether a pattern of subjects has every subject `PREFIX.ID` in it.
fn covers(pattern: &str, prefix: &str) -> bool {
    let mut wanted = prefix.split('.').map(Some).chain([None]);
    let mut tokens = pattern.split('.');
    loop {
        match (tokens.next(), wanted.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(token), Some(Some(name))) if token == name => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// A message as it was read: its headers say where it belongs, and the walk finds out whether that is true.
fn read_row(log_id: Uuid, headers: &HeaderMap, payload: &Bytes) -> ReadRow {
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    let found = decode(payload, sha256(payload)).ok();
    let sequence = text(SEQUENCE).and_then(|value| value.parse().ok());
    let hash = text(HASH).and_then(hex::decode).and_then(|bytes| Hash::try_from(bytes).ok());
    let event_time = found.as_ref().map(|record| Columns::of(&record.body).event_time);
    ReadRow {
        log_id,
        prev_hash: found.as_ref().map_or(GENESIS_HASH, |record| record.prev_hash),
        stored: StoredRow {
            sequence: sequence.unwrap_or_default(),
            latest_time: i64::MIN,
            content: payload.clone(),
            hash: hash.unwrap_or_default(),
        },
        event_time: event_time.unwrap_or(from_nanos(0)),
        columns: None,
    }
}

/// A log in the stream, from its oldest message to what was its newest when the reader was made.
pub(super) struct NatsReader<'s> {
    store: &'s NatsStore,
    log_id: Uuid,
    /// `None` at the end.
    messages: Option<Box<Ordered>>,
    last: u64,
}

impl NatsReader<'_> {
    pub(super) async fn page(&mut self) -> Result<Vec<ReadRow>, JoinedError> {
        let mut rows = Vec::new();
        while rows.len() < PAGE_ROWS
            && let Some(row) = self.next().await?
        {
            rows.push(row);
        }
        Ok(rows)
    }

    async fn next(&mut self) -> Result<Option<ReadRow>, JoinedError> {
        let Some(messages) = &mut self.messages else { return Ok(None) };
        let message = self
            .store
            .step(async {
                match messages.next().await {
                    Some(message) => message.map_err(|error| failed(&error)),
                    None => Err(JoinedProblem::Failed("it ended the messages of a log too early".to_owned())),
                }
            })
            .await?;
        let info = message.info().map_err(|error| self.store.error(failed(&*error)))?;
        if info.stream_sequence > self.last {
            // The last one was deleted meanwhile.
            self.messages = None;
            return Ok(None);
        }
        let is_last = info.stream_sequence == self.last;
        let none = HeaderMap::new();
        let row = read_row(self.log_id, message.headers.as_ref().unwrap_or(&none), &message.payload);
        if is_last {
            self.messages = None;
        }
        Ok(Some(row))
    }

    /// The next record after a place, checked.
    async fn next_after(&mut self, after: MergePlace) -> Result<Option<(MergePlace, Record)>, JoinedError> {
        while let Some(row) = self.next().await? {
            let found = row.checked().map_err(|problem| self.store.error(problem))?;
            if found.0.time >= after.time {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// All logs in the stream, merged by time.
pub(super) struct NatsMerge<'s> {
    after: MergePlace,
    /// Each with the record that comes next; those at their end are gone.
    readers: Vec<((MergePlace, Record), NatsReader<'s>)>,
}

impl NatsMerge<'_> {
    pub(super) async fn page(&mut self) -> Result<Vec<(MergePlace, Record)>, JoinedError> {
        let mut records = Vec::new();
        while records.len() < PAGE_ROWS {
            let earliest = self.readers.iter_mut().enumerate().min_by_key(|(_, ((place, _), _))| *place);
            let Some((at, (next, reader))) = earliest else { break };
            let following = reader.next_after(self.after).await?;
            records.push(match following {
                Some(following) => std::mem::replace(next, following),
                None => self.readers.swap_remove(at).0,
            });
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_loses_records_is_unfit_with_each_reason() {
        let good = || Config {
            subjects: vec!["scopeward.audit.*".to_owned()],
            storage: StorageType::File,
            max_messages: -1,
            ..Config::default()
        };
        assert_eq!(unfit(&good(), "scopeward.audit"), Vec::<String>::new());
        let new = DiscardPolicy::New;
        assert_eq!(
            unfit(&Config { max_bytes: 1, discard: new, ..good() }, "scopeward.audit"),
            Vec::<String>::new()
        );
        for (config, words) in [
            (Config { subjects: vec!["scopeward.audit".to_owned()], ..good() }, "do not cover"),
            (Config { retention: RetentionPolicy::Interest, ..good() }, "retention"),
            (Config { retention: RetentionPolicy::WorkQueue, ..good() }, "retention"),
            (Config { storage: StorageType::Memory, ..good() }, "storage"),
            (Config { max_age: Duration::from_secs(60), ..good() }, "max_age is 60 s"),
            (Config { max_messages: 5, ..good() }, "max_msgs 5"),
            (Config { max_bytes: 6, ..good() }, "max_bytes 6"),
            (Config { max_messages_per_subject: 7, ..good() }, "max_msgs_per_subject 7"),
            (Config { max_messages_per_subject: 7, discard: new, ..good() }, "max_msgs_per_subject 7"),
            (Config { no_ack: true, ..good() }, "no_ack"),
            (Config { sealed: true, ..good() }, "sealed"),
        ] {
            let problems = unfit(&config, "scopeward.audit");
            assert!(problems.len() == 1 && problems[0].contains(words), "{words}: {problems:?}");
        }
    }

    #[test]
    fn a_pattern_covers_a_prefix_with_every_log() {
        for (pattern, is_covered) in [
            ("a.b.*", true),
            ("a.b.>", true),
            ("a.>", true),
            (">", true),
            ("*.*.*", true),
            ("a.b", false),
            ("a.b.c", false),
            ("a.*", false),
            ("a.b.*.*", false),
            ("a.c.*", false),
            ("a.b.*.>", false),
        ] {
            assert_eq!(covers(pattern, "a.b"), is_covered, "{pattern}");
        }
    }
}
