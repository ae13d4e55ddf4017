//! `audit tail`: prints the audit stream, and remembers how far it came.
//!
//! The order that makes "at least once" true: lines are handed to the reader, then the cursor moves.
//! A connection that breaks is made again, from the last record that was received.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use prost_types::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use self::refusal::{CursorOrigin, explain};
use self::selection::{Choice, Selection};
use self::sink::{Flushed, TailSink, place_of};
use super::cursor::CursorFile;
use super::source::{ChainSource, ServerOrStore};
use crate::audit::joined::JoinedTarget;
use crate::audit::{Cursor, Filter};
use crate::cli::Exit;
use crate::cli::joined::JoinedCredentials;
use crate::cli::output::{Format, bad, notable, print_error};
use crate::cli::remote::retry::{MOST_TRIES, Retries, may_pass};
use crate::cli::remote::{MAX_ANSWER_BYTES, Remote, ServerTarget, TimeoutArgs, connect, said};
use crate::escape::clean;
use crate::rpc::v1;
use crate::rpc::v1::audit_service_client::AuditServiceClient;
use crate::rpc::v1::stream_audit_events_request::Start;
use crate::rpc::v1::stream_audit_events_response::Message;
use crate::rpc::v1::{AuditEventKind, AuditStart};
use crate::server::shutdown_signal;

mod merged;
mod refusal;
mod selection;
mod sink;
mod store;

/// Print the audit log: what clients got without asking, denials, policy changes
///
/// Prints the records from the cursor on, or from the start that is given, to the newest durable one, and
/// with --follow goes on until SIGINT or SIGTERM. Asks a server, or reads the store of one that has stopped
/// (--state-dir), or the logs of many servers, merged by time, in a joined store (--from postgres://...). Every record is printed at least once: the cursor moves
/// after the lines before it were written. Client names and ids are claims of the client.
///
/// Exits with 0 if everything was printed, 5 if it was and a gap was among it (events are missing), 6 if it
/// is worth trying again later (no server, or it disconnected), 2 on any other error, such as a cursor outside
/// what is kept.
#[derive(Args, Debug)]
pub(in crate::cli) struct TailArgs {
    /// Go on with new records; connect again if the server goes away
    #[arg(long)]
    follow: bool,
    /// Keep the place in this file and start from it; written when it is not there
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
    /// Where to start if there is no cursor yet: earliest, latest, or a time such as 2026-07-01T00:00:00Z. Or the joined store to read,
    /// such as postgres://USER@HOST:PORT/DATABASE; may be given twice, once for each
    #[arg(long, value_name = "PLACE", default_value = "earliest", value_parser = from)]
    from: Vec<FromValue>,
    /// Start after the record of this sequence if there is no cursor yet; goes before --from
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// The log that the sequence of --after counts in; that of the server if left out
    #[arg(long, value_name = "ID", requires = "after")]
    log_id: Option<String>,
    /// Print events of this kind only; may be repeated. Gaps are always printed
    #[arg(long, value_name = "KIND", value_enum)]
    kind: Vec<KindFlag>,
    /// Print events that name this audience only, compared as a policy does; may be repeated
    #[arg(long, value_name = "URI")]
    audience: Vec<String>,
    /// Print events of the client with this id only; may be repeated. Gaps are always printed
    #[arg(long, value_name = "ID")]
    client: Vec<String>,
    /// End before the first record from this time or later, such as 2026-07-02T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = until, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// End once so many records are printed
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// With --follow: how often to try to connect again before giving up
    #[arg(long, value_name = "COUNT", default_value_t = MOST_TRIES)]
    retries: u32,
    #[command(flatten)]
    source: ServerOrStore,
    #[command(flatten)]
    joined: JoinedCredentials,
    #[command(flatten)]
    timeout: TimeoutArgs,
    /// How to print the records
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum KindFlag {
    /// A client got a scope without asking
    Expansion,
    /// A request was denied
    Denial,
    /// A policy was accepted or rejected
    PolicyChange,
    /// A log was opened in the place of a damaged or missing one
    LogOpened,
    /// Rules about who may call were accepted or rejected
    AccessChange,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum StartPlace {
    Position(AuditStart),
    Time(Timestamp),
}

/// What `--from` names.
#[derive(Clone, Debug, Eq, PartialEq)]
enum FromValue {
    Start(StartPlace),
    /// The URL of a joined store.
    Store(String),
}

/// Reads `--from`.
fn from(text: &str) -> Result<FromValue, String> {
    Ok(FromValue::Start(match text {
        "earliest" => StartPlace::Position(AuditStart::Earliest),
        "latest" => StartPlace::Position(AuditStart::Latest),
        url if JoinedTarget::is_meant(url) => return Ok(FromValue::Store(url.to_owned())),
        time => exact(time).map(StartPlace::Time).ok_or_else(|| FROM_HINT.to_owned())?,
    }))
}

/// The start and the store among what was given: at most one of each.
fn both(values: Vec<FromValue>) -> anyhow::Result<(StartPlace, Option<String>)> {
    let (mut start, mut store) = (None, None);
    for value in values {
        let is_second = match value {
            FromValue::Start(place) => start.replace(place).is_some(),
            FromValue::Store(url) => store.replace(url).is_some(),
        };
        if is_second {
            return Err(anyhow!("--from may name one start and one joined store"));
        }
    }
    Ok((start.unwrap_or(StartPlace::Position(AuditStart::Earliest)), store))
}

/// Reads `--until`.
fn until(text: &str) -> Result<Timestamp, String> {
    exact(text).ok_or_else(|| UNTIL_HINT.to_owned())
}

fn exact(time: &str) -> Option<Timestamp> {
    Some(time).filter(|time| is_exact(time))?.parse().ok()
}

/// Whether a time has a time of day and an offset, as RFC 3339 section 5.6 demands: which moment is meant
/// must not be left to a guess.
fn is_exact(time: &str) -> bool {
    let offset = time.len().checked_sub("+00:00".len()).and_then(|at| time.get(at..));
    let has_offset =
        time.ends_with(['Z', 'z']) || offset.is_some_and(|offset| offset.starts_with(['+', '-']));
    time.contains(['T', 't']) && has_offset
}

/// Runs the verb.
///
/// # Errors
/// If the log cannot be read from where it should be, or what is read not handed on.
pub(super) fn run(args: TailArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(tail(args));
    // A reader that takes nothing more may hold up a write forever. The end does not wait for it.
    runtime.shutdown_background();
    done
}

async fn tail(args: TailArgs) -> anyhow::Result<Exit> {
    let TailArgs { follow, cursor_file, from, after, log_id, kind, audience, client, until, limit, .. } =
        args;
    let TailArgs { retries, source: ServerOrStore(source), joined, timeout, output, .. } = args;
    let (from, store) = both(from)?;
    let is_log_named = follow || cursor_file.is_some() || after.is_some();
    let target = store.map(|url| joined.target(&url)).transpose()?;
    if target.is_some() && is_log_named {
        return Err(anyhow!(
            "--follow, --cursor-file and --after need one log: of a server, or of a state directory; a joined store has many"
        ));
    }
    if follow && matches!(source, ChainSource::StateDir(_)) {
        return Err(anyhow!(
            "--follow needs a server: nothing is added to the store of one that has stopped"
        ));
    }
    let kinds: Vec<AuditEventKind> = kind.into_iter().map(AuditEventKind::from).collect();
    let stop = CancellationToken::new();
    let signal = shutdown_signal().context("could not catch signals")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        signal.await;
        stopping.cancel();
    });
    let file = cursor_file.map(CursorFile::new);
    let cursor = file.as_ref().map(CursorFile::read).transpose()?.flatten();
    let origin = match (&file, &cursor, after) {
        (Some(file), Some(_), _) => CursorOrigin::File(file.path().to_owned()),
        (_, _, Some(_)) => CursorOrigin::Flag,
        _ => CursorOrigin::Stream,
    };
    let first = match (from, after) {
        (_, Some(sequence)) => Start::AfterSequence(sequence),
        (StartPlace::Position(position), None) => Start::Position(position.into()),
        (StartPlace::Time(time), None) => Start::StartTime(time),
    };
    let mut tail = TailRun {
        request: v1::StreamAuditEventsRequest {
            start: Some(first),
            log_id: log_id.unwrap_or_default(),
            kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
            audiences: audience.clone(),
            follow,
        },
        selection: Selection { filter: Filter::new(kinds, &audience), clients: client, until, left: limit },
        origin,
        sink: TailSink::new(output, file, cursor),
        stop,
        timeout,
        retries: Retries::new(retries),
    };
    let end = match &source {
        _ if let Some(target) = &target => tail.run_joined(target).await,
        ChainSource::Joined(_) => return Err(anyhow!("write the joined store with --from")),
        ChainSource::Server(server) => tail.run(server).await,
        ChainSource::StateDir(state_dir) => tail.run_store(state_dir).await,
    };
    // Whatever the end was, what was handed on is remembered.
    tail.sink.save()?;
    let exit = match end {
        ReadingEnd::Failed(error) => return Err(error),
        ReadingEnd::Done | ReadingEnd::NoReader => Exit::Yes,
        ReadingEnd::Stopped if follow => Exit::Yes,
        // It was stopped before it reached the end.
        ReadingEnd::Stopped => Exit::RetryLater,
        ReadingEnd::Lost(error) => {
            print_error(&format!("{}: {}\n", bad("error"), clean(&error.to_string())));
            Exit::RetryLater
        }
    };
    // Goes first: a caller that tries again later starts after the gap and would not hear of it.
    Ok(if tail.sink.has_seen_gap() { Exit::GapSeen } else { exit })
}

/// Why the reading ended.
enum ReadingEnd {
    /// Everything up to the newest durable record was printed.
    Done,
    /// Nobody reads what is printed.
    NoReader,
    /// A signal said so.
    Stopped,
    /// The connection is gone or was never there. It may come back.
    Lost(anyhow::Error),
    /// Trying again would not help.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for ReadingEnd {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct TailRun {
    /// What is asked while there is no cursor.
    request: v1::StreamAuditEventsRequest,
    origin: CursorOrigin,
    selection: Selection,
    sink: TailSink,
    stop: CancellationToken,
    timeout: TimeoutArgs,
    retries: Retries,
}

impl TailRun {
    /// Reads what a server sends.
    async fn run(&mut self, server: &ServerTarget) -> ReadingEnd {
        loop {
            let end = self.read(server).await;
            let end = self.handed_on(end).await;
            let error = match end {
                ReadingEnd::Lost(error) if self.request.follow => error,
                end => return end,
            };
            let Some(delay) = self.retries.next() else { return ReadingEnd::Lost(error) };
            if self.retries.is_first() {
                let error = error.to_string();
                print_error(&format!("{}: {}; trying again\n", notable("warning"), clean(&error)));
            }
            tokio::select! {
                () = self.stop.cancelled() => return ReadingEnd::Stopped,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Reads a joined store.
    async fn run_joined(&mut self, target: &JoinedTarget) -> ReadingEnd {
        let end = self.read_joined(target).await;
        self.handed_on(end).await
    }

    /// Reads the store of a state directory.
    async fn run_store(&mut self, state_dir: &Path) -> ReadingEnd {
        let end = self.read_store(state_dir).await;
        self.handed_on(end).await
    }

    /// What was received before an error is handed on as well.
    async fn handed_on(&mut self, end: Result<ReadingEnd, ReadingEnd>) -> ReadingEnd {
        let (Ok(end) | Err(end)) = end;
        if matches!(end, ReadingEnd::Lost(_) | ReadingEnd::Failed(_))
            && let Err(end) = self.flush().await
        {
            return end;
        }
        end
    }

    /// Reads one stream to its end.
    async fn read(&mut self, server: &ServerTarget) -> Result<ReadingEnd, ReadingEnd> {
        let (stop, limit) = (self.stop.clone(), self.timeout);
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(ReadingEnd::Stopped),
            opened = limit.run(self.open(server)) => opened,
        };
        let mut stream = opened.unwrap_or_else(|| Err(ReadingEnd::Lost(limit.error())))?;
        let (mut is_complete, mut break_off) = (false, false);
        // The first checkpoint says where the log ends. It is no place to continue from: nothing was sent yet.
        let mut is_first = true;
        loop {
            if self.sink.is_full() {
                self.flush().await?;
            }
            let (has_lines, save_at) = (self.sink.has_lines(), self.sink.save_at());
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(ReadingEnd::Stopped),
                next = timeout(LONGEST_SILENCE, stream.message()) => next,
                // Nothing more is there at once, not even after the connection had its turn.
                () = tokio::task::yield_now(), if has_lines => {
                    self.flush().await?;
                    continue;
                }
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if !has_lines && save_at.is_some() => {
                    self.sink.save()?;
                    continue;
                }
            };
            let response = match next {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => break,
                Ok(Err(status)) => return Err(self.refused(server, None, &status).await),
                Err(_) => return Err(ReadingEnd::Lost(silent("no message", LONGEST_SILENCE))),
            };
            self.retries.reset();
            if std::mem::take(&mut is_first) && matches!(response.message, Some(Message::Checkpoint(_))) {
                continue;
            }
            let Some(message) = response.message else { continue };
            is_complete = matches!(message, Message::Checkpoint(_));
            match self.selection.choose(&message) {
                Choice::End => break_off = true,
                Choice::Print => self.sink.take(message)?,
                Choice::Pass => self.sink.move_to(place_of(&message)),
            }
            if break_off || self.selection.is_done() {
                self.flush().await?;
                return Ok(ReadingEnd::Done);
            }
            if self.sink.begins() {
                // A file that cannot be written is found out before anything is printed.
                self.sink.save()?;
            }
        }
        self.flush().await?;
        if self.request.follow || !is_complete {
            return Err(ReadingEnd::Lost(anyhow!("the server at {server} ended the stream")));
        }
        Ok(ReadingEnd::Done)
    }

    /// Opens a stream after the last record that was received, or from the start that was asked for.
    async fn open(
        &mut self,
        server: &ServerTarget,
    ) -> Result<Streaming<v1::StreamAuditEventsResponse>, ReadingEnd> {
        let channel = connect(server, self.timeout).await.map_err(ReadingEnd::Lost)?;
        let mut client = AuditServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        if matches!(self.request.start, Some(Start::AfterSequence(_))) && self.request.log_id.is_empty() {
            let newest = end_of(&mut client, AuditStart::Latest).await;
            self.request.log_id = newest.map_err(|status| plain(&status))?.log_id;
        }
        let mut request = self.request.clone();
        if let Some(Cursor { log_id, sequence }) = self.sink.received() {
            request.start = Some(Start::AfterSequence(*sequence));
            request.log_id.clone_from(log_id);
        }
        match client.stream_audit_events(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.refused(server, Some(client), &status).await),
        }
    }

    async fn flush(&mut self) -> Result<(), ReadingEnd> {
        match self.sink.flush(&self.stop).await? {
            Flushed::All => Ok(()),
            Flushed::NoReader => Err(ReadingEnd::NoReader),
            Flushed::Stopped => Err(ReadingEnd::Stopped),
        }
    }

    /// What an error of the stream means for this reader.
    async fn refused(
        &self,
        server: &ServerTarget,
        client: Option<AuditClient>,
        status: &Status,
    ) -> ReadingEnd {
        let place = match (self.sink.received(), &self.request) {
            (Some(cursor), _) => cursor.clone(),
            (
                None,
                v1::StreamAuditEventsRequest { start: Some(Start::AfterSequence(sequence)), log_id, .. },
            ) => Cursor { log_id: log_id.clone(), sequence: *sequence },
            _ => return plain(status),
        };
        match explain(status, &place, &self.origin, server, client).await {
            Some(words) => ReadingEnd::Failed(anyhow!(words)),
            None => plain(status),
        }
    }
}

type AuditClient = AuditServiceClient<Remote>;

/// Asks for one end of what a server keeps: the place that a stream from there starts after.
async fn end_of(client: &mut AuditClient, position: AuditStart) -> Result<v1::Checkpoint, Status> {
    let request =
        v1::StreamAuditEventsRequest { start: Some(Start::Position(position.into())), ..Default::default() };
    let mut stream = client.stream_audit_events(request).await?.into_inner();
    // The first checkpoint names the newest record, the next one the place that the stream starts after.
    stream.message().await?;
    match stream.message().await?.and_then(|response| response.message) {
        Some(Message::Checkpoint(checkpoint)) => Ok(checkpoint),
        _ => Err(Status::internal("the server began the audit stream without a checkpoint")),
    }
}

fn plain(status: &Status) -> ReadingEnd {
    let error = anyhow!("{}", said(status));
    if may_pass(status.code()) { ReadingEnd::Lost(error) } else { ReadingEnd::Failed(error) }
}

fn silent(what: &str, limit: Duration) -> anyhow::Error {
    anyhow!("{what} within {} s", limit.as_secs())
}

impl From<KindFlag> for AuditEventKind {
    fn from(kind: KindFlag) -> Self {
        match kind {
            KindFlag::Expansion => Self::Expansion,
            KindFlag::Denial => Self::Denial,
            KindFlag::PolicyChange => Self::PolicyChange,
            KindFlag::LogOpened => Self::LogOpened,
            KindFlag::AccessChange => Self::AccessChange,
        }
    }
}

/// A server sends a checkpoint every 15 seconds; one that leaves out three in a row is gone.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
const UNTIL_HINT: &str = "write a time as in 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00";
const FROM_HINT: &str =
    "write `earliest`, `latest`, or a time as in 2026-07-01T00:00:00Z or 2026-07-01T02:00:00+02:00";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_an_end_of_the_log_or_an_exact_time() {
        let position = |start| Ok(FromValue::Start(StartPlace::Position(start)));
        assert_eq!(from("earliest"), position(AuditStart::Earliest));
        assert_eq!(from("latest"), position(AuditStart::Latest));
        assert_eq!(from("postgres://r@db/audit"), Ok(FromValue::Store("postgres://r@db/audit".to_owned())));
        let time = |seconds, nanos| Ok(FromValue::Start(StartPlace::Time(Timestamp { seconds, nanos })));
        assert_eq!(from("1970-01-02T00:00:00Z"), time(86_400, 0));
        assert_eq!(from("1970-01-01T02:00:00.5+02:00"), time(0, 500_000_000));
        for text in ["", "now", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "T+00:00"] {
            assert!(from(text).is_err(), "{text}");
        }
    }
}
