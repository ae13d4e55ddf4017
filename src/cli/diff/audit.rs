//! Recorded calls for a replay, wherever they are: an audit store, or JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::audit::{self, AuditError, Body, Scan, Start};
use crate::escape::shown;
use crate::replay::{Line, RecordError};

/// Hands each record to `each`, in the order of the log.
///
/// # Errors
/// If the records cannot be read, one of them is none, or the chain of a store does not hold.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Line)) -> anyhow::Result<()> {
    let shown_path = shown(&path.to_string_lossy());
    if path.as_os_str() == "-" {
        return lines(io::stdin().lock(), "standard input", each);
    }
    if path.is_dir() {
        let is_store = audit::is_store(path);
        return store(&if is_store { path.to_owned() } else { audit::store_of(path) }, each);
    }
    let mut file = File::open(path).with_context(|| format!("cannot read `{shown_path}`"))?;
    let mut start = Vec::new();
    let magic = u64::try_from(SQLITE.len()).unwrap_or_default();
    file.by_ref()
        .take(magic)
        .read_to_end(&mut start)
        .with_context(|| format!("cannot read `{shown_path}`"))?;
    if start == SQLITE {
        return store(path, each);
    }
    lines(BufReader::new(start.as_slice().chain(file)), &shown_path, each)
}

/// The records of a store.
fn store(path: &Path, each: &mut dyn FnMut(Line)) -> anyhow::Result<()> {
    let mut wrong: Option<(u64, RecordError)> = None;
    for record in Scan::open(path, Start::Earliest, "").map_err(with_remedy)? {
        let record = record?;
        let sequence = record.body.sequence();
        let line = match record.body {
            Body::Event(event) => Line::event(*event),
            Body::Gap(gap) => Ok(Line::gap(&gap)),
        };
        match line {
            Ok(line) => each(line),
            Err(error) => _ = wrong.get_or_insert((sequence, error)),
        }
    }
    match wrong {
        None => Ok(()),
        Some((sequence, error)) => Err(anyhow!("record {sequence} cannot be replayed: {error}")),
    }
}

/// What to do about a store that cannot be read.
fn with_remedy(error: AuditError) -> anyhow::Error {
    match error {
        AuditError::StoreInUse { path } => anyhow!(
            "`{}` is in use by a running server; write its records to a file with `scopeward audit tail --output \
             json` and replay that, or stop the server first",
            shown(&path.to_string_lossy())
        ),
        error => error.into(),
    }
}

fn lines(mut reader: impl BufRead, name: &str, each: &mut dyn FnMut(Line)) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        let cannot = || format!("cannot read `{name}`");
        if reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text).with_context(cannot)? == 0 {
            break;
        }
        let line = std::str::from_utf8(&text).map_err(|_| anyhow!("{name}:{number}: not UTF-8"))?;
        each(Line::read(line).map_err(|error| anyhow!("{name}:{number}: {error}"))?);
    }
    Ok(())
}

/// What every SQLite file begins with (its file format, section 1.3).
const SQLITE: &[u8] = b"SQLite format 3\0";
/// Longer than any record is; what is longer is cut, and so no record.
const MAX_LINE_BYTES: u64 = 16 << 20;
