//! `audit verify`: walks the whole hash chain, in the store or through a server, and names the first bad
//! record.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use super::source::{ChainSource, JoinedPlace, StoreOrServer};
use crate::audit::joined::{JoinedStore, verify_joined};
use crate::audit::{self, BadRecord, ChainProblem, ChainWalk, Head, VerifyOptions, VerifyReport};
use crate::cli::Exit;
use crate::cli::output::{Format, bad, dim, good, print, print_error};
use crate::cli::remote::{MAX_ANSWER_BYTES, ServerTarget, TimeoutArgs, connect, said, shown};
use crate::escape::{self, clean};
use crate::hex;
use crate::rpc::v1;
use crate::rpc::v1::audit_service_client::AuditServiceClient;
use crate::rpc::v1::stream_audit_events_response::Message;

/// Verify the hash chain of the audit log
///
/// Walks every record that retention kept and names the first one that was changed, removed or reordered:
/// offline in the store of a state directory once its server has stopped, through a running server, or in the joined
/// store (--from), there for every log. The end of
/// a chain can be cut off without a trace in it, so keep the printed head elsewhere, and give it to a later
/// run with --expect-head.
///
/// Exits with 0 if the chain holds, 1 if it does not, 2 if it could not be verified.
#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    source: StoreOrServer,
    #[command(flatten)]
    timeout: TimeoutArgs,
    /// A head that was kept elsewhere, and that the chain must have at its sequence, as an earlier run
    /// printed it. With --from the id of its log goes before it, and it may be given once for each log
    #[arg(long, value_name = "[LOG_ID:]SEQUENCE:HASH", value_parser = expected_head)]
    expect_head: Vec<ExpectedHead>,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// A head that was kept elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
struct ExpectedHead {
    /// `None`: that of the one log that is verified.
    log_id: Option<Uuid>,
    head: Head,
}

/// Runs the verb.
///
/// # Errors
/// If there is no chain to verify, or no way to it.
pub(super) fn run(args: VerifyArgs) -> anyhow::Result<Exit> {
    let VerifyArgs { source: StoreOrServer(source), timeout: limit, expect_head, output } = args;
    let one_head = || match &*expect_head {
        [] => Ok(None),
        [expected] => Ok(Some(expected.head)),
        _ => Err(anyhow!("--expect-head may be given once: without --from there is one log")),
    };
    let report = match &source {
        ChainSource::Joined(place) => return joined(place, &expect_head, output),
        ChainSource::StateDir(state_dir) => {
            audit::verify(&audit::store_of(state_dir), &VerifyOptions { expected: one_head()? })?
        }
        ChainSource::Server(server) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(through(server, limit, one_head()?))?
        }
    };
    for ExpectedHead { log_id, .. } in &expect_head {
        if let Some(log_id) = log_id.filter(|log_id| log_id.to_string() != report.log_id) {
            return Err(anyhow!("--expect-head is of log {log_id}, and this is log {}", report.log_id));
        }
    }
    print(&match output {
        Format::Text => text(&report, &source),
        Format::Json => json(&report, &source)?,
    })?;
    if report.bad.is_some() {
        return Ok(Exit::No);
    }
    // To say yes would be to say that each was found.
    let was_compared = expect_head.iter().all(|expected| can_compare(expected.head, &report));
    Ok(if was_compared { Exit::Yes } else { Exit::CouldNotRun })
}

/// Whether a report says something about an expected head; says so if not.
fn can_compare(expected: Head, report: &VerifyReport) -> bool {
    let Head { sequence, .. } = expected;
    if sequence >= report.base.sequence {
        return true;
    }
    let (log_id, oldest) = (&report.log_id, report.base.sequence + 1);
    print_error(&format!(
        "{}: the expected head of log {log_id} could not be compared: retention deleted record {sequence}, and keeps those from {oldest} \
         on; keep a newer head\n",
        bad("error"),
    ));
    false
}

/// Verifies every log of a joined store, and prints a report for each.
fn joined(place: &JoinedPlace, expected: &[ExpectedHead], output: Format) -> anyhow::Result<Exit> {
    let named: Vec<(Uuid, Head)> = expected
        .iter()
        .map(|ExpectedHead { log_id, head }| Some(((*log_id)?, *head)))
        .collect::<Option<_>>()
        .ok_or_else(|| anyhow!("--expect-head needs the id of its log with --from: LOG_ID:SEQUENCE:HASH"))?;
    if let Some((log_id, _)) = named
        .iter()
        .enumerate()
        .find_map(|(at, (of, _))| named.iter().skip(at + 1).find(|(other, _)| other == of))
    {
        return Err(anyhow!("--expect-head may be given once for each log, and log {log_id} has two"));
    }
    let target = place.credentials.target(&place.url)?;
    let source =
        ChainSource::Joined(JoinedPlace { url: target.to_string(), credentials: place.credentials.clone() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reports = runtime.block_on(async {
        let store = JoinedStore::connect(&target).await?;
        store.check_schema().await?;
        let mut logs = store.logs().await?;
        // A log that is gone altogether does not have its head either.
        logs.extend(named.iter().map(|(log_id, _)| *log_id));
        logs.sort_unstable();
        logs.dedup();
        let mut reports = Vec::new();
        for log_id in logs {
            let expected = named.iter().find(|(of, _)| *of == log_id).map(|(_, head)| *head);
            reports.push(verify_joined(&store, log_id, expected).await?);
        }
        anyhow::Ok(reports)
    })?;
    match output {
        Format::Text => {
            for report in &reports {
                print(&text(report, &source))?;
            }
            let bad = reports.iter().filter(|report| report.bad.is_some()).count();
            let records: u64 = reports.iter().map(|report| report.records).sum();
            print(&format!("{} logs, {bad} broken, {records} good records, in {target}\n", reports.len()))?;
        }
        Format::Json => {
            for report in &reports {
                print(&json(report, &source)?)?;
            }
        }
    }
    if reports.iter().any(|report| report.bad.is_some()) {
        return Ok(Exit::No);
    }
    let report_of = |log_id: &Uuid| reports.iter().find(|report| report.log_id == log_id.to_string());
    let was_compared =
        named.iter().all(|(log_id, head)| report_of(log_id).is_some_and(|report| can_compare(*head, report)));
    Ok(if was_compared { Exit::Yes } else { Exit::CouldNotRun })
}

/// Verifies what a server sends.
async fn through(
    server: &ServerTarget,
    limit: TimeoutArgs,
    expected: Option<Head>,
) -> anyhow::Result<VerifyReport> {
    let opened = limit.run(async {
        let channel = connect(server, limit).await?;
        let mut client = AuditServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let opened = client.stream_audit_events(v1::StreamAuditEventsRequest::default()).await;
        opened.map_err(|status| anyhow!("{}", said(&status)))
    });
    let mut stream = opened.await.unwrap_or_else(|| Err(limit.error()))?.into_inner();
    let mut next = async || {
        let next = timeout(LONGEST_SILENCE, stream.message()).await;
        let next = next.map_err(|_| anyhow!("no message within {}", shown(LONGEST_SILENCE)))?;
        anyhow::Ok(next.map(|response| response.and_then(|response| response.message)))
    };
    // The first checkpoint names the newest record, the next one the place that the stream starts after.
    next().await?.map_err(|status| anyhow!("{}", said(&status)))?;
    let start = next().await?.map_err(|status| anyhow!("{}", said(&status)))?;
    let Some(Message::Checkpoint(checkpoint)) = start else {
        return Err(anyhow!("the server began the audit stream without a checkpoint"));
    };
    let mut walk = ChainWalk::at_checkpoint(&checkpoint).map_err(|bad| anyhow!("{bad}"))?;
    let mut found = walk.expect(expected).err();
    while found.is_none() {
        match next().await? {
            Ok(Some(message)) => found = walk.receive(message).err(),
            Ok(None) => break,
            Err(status) if status.code() == Code::DataLoss => {
                let sequence = status
                    .get_details_error_info()
                    .and_then(|info| info.metadata.get("sequence")?.parse().ok())
                    .ok_or_else(|| anyhow!("{}", said(&status)))?;
                let problem = ChainProblem::Unreadable(SERVER_FOUND_IT.to_owned());
                found = Some(BadRecord { sequence, problem });
            }
            Err(status) => return Err(anyhow!("{}", said(&status))),
        }
    }
    let (report, is_complete) = walk.finish(found);
    if report.bad.is_none() && !is_complete {
        return Err(anyhow!("the server at {server} ended the stream before the end of the log"));
    }
    Ok(report)
}

fn text(report: &VerifyReport, source: &ChainSource) -> String {
    let VerifyReport { log_id, base, head, records, gaps, missing_events, acknowledged, bad: found } = report;
    let log_id = if log_id.is_empty() { "unknown" } else { log_id };
    let mut text = match found {
        None => format!("{} log {log_id}\n", good("VERIFIED")),
        Some(found) => {
            format!("{} log {log_id}\n  bad       {}\n", bad("BROKEN"), clean(&found.to_string()))
        }
    };
    let range = match records {
        0 => String::new(),
        _ => format!(", sequences {} to {}", base.sequence + 1, head.sequence),
    };
    let label = if found.is_none() { "records " } else { "good    " };
    text.push_str(&format!("  {label}  {records}{range}\n"));
    text.push_str(&format!("  gaps      {gaps}, missing events {missing_events}\n"));
    let place = format!("{}:{}", head.sequence, hex::encode(&head.hash));
    text.push_str(&format!("  head      {}\n", dim(&place)));
    if let Some(found) = found {
        if let Some(acknowledged) = acknowledged {
            text.push_str(&format!("  known     record {acknowledged} was the last acknowledged\n"));
        }
        text.push_str(&format!("  next      {}\n", next_step(found, *acknowledged, source)));
    }
    text
}

/// What to do about a broken chain.
fn next_step(found: &BadRecord, acknowledged: Option<u64>, source: &ChainSource) -> String {
    // Only a head that was kept elsewhere knows of these.
    let is_whole_in_itself = match found.problem {
        ChainProblem::UnexpectedHash => true,
        ChainProblem::EndsEarly { newest } => acknowledged.is_none_or(|known| known <= newest),
        _ => false,
    };
    match source {
        ChainSource::StateDir(_) if is_whole_in_itself => {
            "copy the state directory as evidence: somebody who can write it removed or replaced records, and a start \
             cannot notice that"
                .to_owned()
        }
        ChainSource::StateDir(state_dir) => format!(
            "copy {0} as evidence, then start once with `scopeward serve --state-dir {0} --set-aside-broken-audit`, \
             which moves the store to `audit-broken-<time>` there and opens a new log that names it",
            clean(&state_dir.display().to_string())
        ),
        ChainSource::Joined(_) => {
            "copy the rows of this log as evidence; the server that wrote it still proves what its state directory keeps, and a row that is \
             removed there is written again when that server connects"
                .to_owned()
        }
        ChainSource::Server(_) => {
            "stop the server, run `scopeward audit verify --state-dir DIR` on its state directory, and start it once \
             with --set-aside-broken-audit"
                .to_owned()
        }
    }
}

fn json(report: &VerifyReport, source: &ChainSource) -> serde_json::Result<String> {
    let VerifyReport { log_id, base, head, records, gaps, missing_events, acknowledged, bad } = report;
    let has_records = *records > 0;
    let report = VerifyJson {
        verified: bad.is_none(),
        log_id: log_id.clone(),
        records: *records,
        gaps: *gaps,
        missing_events: *missing_events,
        first_sequence: has_records.then_some(base.sequence + 1),
        last_sequence: has_records.then_some(head.sequence),
        head_sequence: head.sequence,
        head_hash: hex::encode(&head.hash),
        acknowledged: *acknowledged,
        bad: bad.as_ref().map(|found| JsonBad {
            sequence: (found.sequence > 0).then_some(found.sequence),
            problem: found.problem.to_string(),
            next_step: next_step(found, *acknowledged, source),
        }),
    };
    Ok(escape::json_pretty(&report)? + "\n")
}

/// What `--output json` prints; the names are a contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifyJson {
    verified: bool,
    log_id: String,
    /// Records that were found good, gaps included.
    records: u64,
    gaps: u64,
    missing_events: u64,
    /// `null` if there are no records.
    first_sequence: Option<u64>,
    /// The last one that was found good; `null` if there are no records.
    last_sequence: Option<u64>,
    /// The sequence for `--expect-head`: the last one, or that of the last record that retention deleted.
    head_sequence: u64,
    head_hash: String,
    /// The last record that the file next to the store knows to have been acknowledged; `null` if that is not
    /// known, as through a server.
    acknowledged: Option<u64>,
    bad: Option<JsonBad>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonBad {
    /// `null` if the store is damaged elsewhere than in a record, or is gone.
    sequence: Option<u64>,
    problem: String,
    next_step: String,
}

/// Reads `--expect-head`.
fn expected_head(text: &str) -> Result<ExpectedHead, String> {
    let hint = "write it as an earlier run printed it: SEQUENCE:HASH, the hash as 64 hexadecimal digits, after LOG_ID: with --from";
    let (rest, digits) = text.rsplit_once(':').ok_or(hint)?;
    let (log_id, sequence) = match rest.rsplit_once(':') {
        Some((log_id, sequence)) => (Some(log_id.parse().map_err(|_| hint)?), sequence),
        None => (None, rest),
    };
    let sequence = sequence.parse().map_err(|_| hint)?;
    let hash =
        hex::decode(&digits.to_ascii_lowercase()).and_then(|bytes| bytes.try_into().ok()).ok_or(hint)?;
    Ok(ExpectedHead { log_id, head: Head { sequence, hash } })
}

/// The server checks what it reads, and sends nothing more after a record that is bad.
const SERVER_FOUND_IT: &str =
    "the server found it broken; its log says why, and so does `audit verify --state-dir` there";
/// A server sends a checkpoint every 15 seconds, and here something all the time.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Hash;

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let mut hash = Hash::default();
        hash[0] = 0xab;
        hash[31] = 0x0f;
        let expected = |log_id| Ok(ExpectedHead { log_id, head: Head { sequence: 12, hash } });
        assert_eq!(expected_head(&format!("12:{}", hex::encode(&hash))), expected(None));
        assert_eq!(expected_head(&format!("12:{}", hex::encode(&hash).to_uppercase())), expected(None));
        let log_id = Uuid::from_u128(7);
        assert_eq!(expected_head(&format!("{log_id}:12:{}", hex::encode(&hash))), expected(Some(log_id)));
        let digits = hex::encode(&hash);
        for text in [
            "",
            "12",
            ":",
            "12:",
            "x:00",
            &digits,
            &format!("12:{digits}0"),
            &format!("-1:{digits}"),
            &format!("x:12:{digits}"),
        ] {
            assert!(expected_head(text).is_err(), "{text}");
        }
        assert!(expected_head(&format!("1:{}", "é".repeat(32))).is_err());
    }
}
