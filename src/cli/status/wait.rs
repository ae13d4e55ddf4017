//! `status --wait --digest D`: the gate of a rollout.

use std::time::Duration;

use anyhow::anyhow;

use super::{StreamEnd, open, table};
use crate::backoff::Backoff;
use crate::cli::Exit;
use crate::cli::output::{Format, bad, print, print_error};
use crate::cli::remote::ServerTarget;
use crate::cli::remote::TimeoutArgs;
use crate::escape::clean;
use crate::hex;
use crate::proto::json;
use crate::rpc::v1;
use crate::status::kind;

/// Reads `--digest`.
pub(in crate::cli) fn digest(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let bytes = lower.strip_prefix("sha256:").and_then(hex::decode);
    match bytes {
        Some(bytes) if bytes.len() == 32 => Ok(lower),
        _ => Err("write it as `scopeward check` prints it: sha256: and 64 hexadecimal digits".to_owned()),
    }
}

/// Returns `true` if requests are answered by the policy with this digest.
pub(super) fn is_served(status: &v1::PolicyStatus, digest: &str) -> bool {
    let is_ready = status.conditions.iter().any(|one| one.r#type == kind::READY && one.status == "True");
    is_ready && status.active.as_ref().is_some_and(|active| active.digest == digest)
}

/// Waits until the policy with this digest serves; a server that cannot be reached yet is waited for, too.
///
/// # Errors
/// If no server answered in time, or one answered with an error that does not pass.
pub(super) fn run(
    server: &ServerTarget,
    limit: TimeoutArgs,
    digest: &str,
    output: Format,
) -> anyhow::Result<Exit> {
    let mut seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Passing the limit is told by what was seen until then.
    _ = runtime.block_on(limit.run(seek(server, limit, digest, &mut seen))).transpose()?;
    let Some(status) = seen.status else { return Err(seen.error.unwrap_or_else(|| limit.error())) };
    print_status(&status, output)?;
    if is_served(&status, digest) {
        return Ok(Exit::Yes);
    }
    let mut message = format!("{} within {}", not_served(&status, digest), limit.shown());
    if let Some(error) = seen.error {
        message.push_str(&format!("; last: {error}"));
    }
    print_error(&format!("{}: {}\n", bad("error"), clean(&message)));
    Ok(Exit::No)
}

/// What serves instead, and what became of the newest files.
pub(super) fn not_served(status: &v1::PolicyStatus, digest: &str) -> String {
    let mut text = match &status.active {
        Some(active) if active.digest == digest => format!("{digest} is loaded, and the server is not ready"),
        Some(active) => format!("the server serves {} and not {digest}", active.digest),
        None => format!("the server serves nothing and not {digest}"),
    };
    if let Some(attempt) = status.last_attempt.as_ref().filter(|attempt| !attempt.accepted) {
        text.push_str(&format!(
            "; its newest policy files were not accepted, {} findings",
            attempt.finding_count
        ));
    }
    text
}

pub(super) fn print_status(status: &v1::PolicyStatus, output: Format) -> anyhow::Result<()> {
    print(&match output {
        Format::Text => table::text(status),
        Format::Json => json::to_string_pretty(status)? + "\n",
    })?;
    Ok(())
}

/// The newest that was seen.
#[derive(Default)]
struct Seen {
    status: Option<v1::PolicyStatus>,
    /// Why nothing newer is, if that is so.
    error: Option<anyhow::Error>,
}

async fn seek(
    server: &ServerTarget,
    limit: TimeoutArgs,
    digest: &str,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    loop {
        let lost = match open(server, limit).await {
            Ok(mut stream) => loop {
                let message = match stream.message().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break StreamEnd::Lost(anyhow!("the server at {server} ended the stream")),
                    Err(status) => break status.into(),
                };
                let Some(status) = message.status else { continue };
                let is_there = is_served(&status, digest);
                *seen = Seen { status: Some(status), error: None };
                if is_there {
                    return Ok(());
                }
                backoff.reset();
            },
            Err(end) => end,
        };
        match lost {
            StreamEnd::Failed(error) => return Err(error),
            StreamEnd::Lost(error) => seen.error = Some(error),
            StreamEnd::NoReader => {}
        }
        tokio::time::sleep(backoff.failed()).await;
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_check_prints_it() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(digest(&good).as_ref(), Ok(&good));
        assert_eq!(digest(&good.to_uppercase()).as_ref(), Ok(&good));
        for text in ["", "sha256:", &good[7..], &good[..70], &format!("{good}00"), "sha256:zz"] {
            assert!(digest(text).is_err(), "{text}");
        }
    }
}
