//! Where records go: lines first, then the cursor. Knows nothing of where they come from.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::audit::Cursor;
use crate::audit::json::gap_line;
use crate::cli::audit::cursor::{CursorError, CursorFile};
use crate::cli::audit::line;
use crate::cli::output::{Format, print_to_reader};
use crate::proto::json::{self, JsonError};
use crate::rpc::v1::stream_audit_events_response::Message;

/// Takes records, prints them, and keeps the cursor behind them.
pub(super) struct TailSink {
    output: Format,
    file: Option<CursorFile>,
    /// Lines that were made and not yet written.
    lines: String,
    /// A gap is among those lines.
    gap_in_lines: bool,
    gap_seen: bool,
    /// The place after `lines`.
    received: Option<Cursor>,
    /// The place up to which everything was written.
    flushed: Option<Cursor>,
    /// The place that the file has.
    saved: Option<Cursor>,
    last_save: Option<Instant>,
}

/// How handing on went.
pub(super) enum Flushed {
    /// Everything was written.
    All,
    /// There is no reader any more.
    NoReader,
    /// A signal came, and the reader took nothing for a while.
    Stopped,
}

impl TailSink {
    /// Starts at a cursor, if there is one.
    pub(super) fn new(output: Format, file: Option<CursorFile>, cursor: Option<Cursor>) -> Self {
        Self {
            output,
            file,
            lines: String::new(),
            gap_in_lines: false,
            gap_seen: false,
            received: cursor.clone(),
            flushed: cursor.clone(),
            saved: cursor,
            last_save: None,
        }
    }

    /// Makes the line of a record; a checkpoint has none.
    pub(super) fn take(&mut self, message: Message) -> Result<(), JsonError> {
        match (&message, self.output) {
            (Message::Checkpoint(_), _) => {}
            (Message::Event(event), Format::Json) => {
                self.lines.push_str(&json::to_string(event)?);
                self.lines.push('\n');
            }
            (Message::Gap(gap), Format::Json) => {
                self.lines.push_str(&gap_line(gap)?);
                self.lines.push('\n');
            }
            (Message::Event(event), Format::Text) => self.lines.push_str(&line::event(event)),
            (Message::Gap(gap), Format::Text) => self.lines.push_str(&line::gap(gap)),
        }
        self.gap_in_lines |= matches!(message, Message::Gap(_));
        self.move_to(place_of(&message));
        Ok(())
    }

    /// Goes on behind a place without printing anything.
    pub(super) fn move_to(&mut self, place: Cursor) {
        self.received = Some(place);
        if self.lines.is_empty() {
            self.flushed.clone_from(&self.received);
        }
    }

    /// The place after the last record that was taken.
    pub(super) const fn received(&self) -> Option<&Cursor> {
        self.received.as_ref()
    }

    /// Whether a gap was handed on.
    pub(super) const fn has_seen_gap(&self) -> bool {
        self.gap_seen
    }

    /// Whether a place is known, and nothing was printed or saved yet.
    pub(super) const fn begins(&self) -> bool {
        self.last_save.is_none() && self.flushed.is_some() && self.lines.is_empty()
    }

    /// Whether lines wait to be written.
    pub(super) const fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether enough lines wait to be written that no more should be taken.
    pub(super) const fn is_full(&self) -> bool {
        self.lines.len() >= FULL_BYTES
    }

    /// Writes the lines.
    ///
    /// # Errors
    ///
    /// If they cannot be written, although there is a reader.
    pub(super) async fn flush(&mut self, stop: &CancellationToken) -> anyhow::Result<Flushed> {
        if self.lines.is_empty() {
            return Ok(Flushed::All);
        }
        let lines = std::mem::take(&mut self.lines);
        // On a thread of its own: a reader that is slow must not keep signals and the connection waiting.
        let mut writing = tokio::task::spawn_blocking(move || print_to_reader(&lines));
        let written = tokio::select! {
            biased;
            written = &mut writing => written,
            () = stop.cancelled() => match timeout(GRACE, writing).await {
                Ok(written) => written,
                Err(_) => return Ok(Flushed::Stopped),
            },
        };
        if !written?? {
            return Ok(Flushed::NoReader);
        }
        self.gap_seen |= std::mem::take(&mut self.gap_in_lines);
        self.flushed.clone_from(&self.received);
        Ok(Flushed::All)
    }

    /// When the cursor is to be saved; `None` if there is nothing to save.
    pub(super) fn save_at(&self) -> Option<Instant> {
        (self.file.is_some() && self.flushed != self.saved)
            .then(|| self.last_save.map_or_else(Instant::now, |last| last + SAVE_PAUSE))
    }

    /// Saves the place up to which everything was written.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(super) fn save(&mut self) -> Result<(), CursorError> {
        if self.flushed == self.saved {
            return Ok(());
        }
        if let (Some(file), Some(cursor)) = (&self.file, &self.flushed) {
            file.write(cursor)?;
        }
        self.saved.clone_from(&self.flushed);
        self.last_save = Some(Instant::now());
        Ok(())
    }
}

/// The place after a message.
pub(super) fn place_of(message: &Message) -> Cursor {
    let (log_id, sequence) = match message {
        Message::Event(event) => (&event.log_id, event.sequence),
        Message::Gap(gap) => (&gap.log_id, gap.sequence),
        Message::Checkpoint(checkpoint) => (&checkpoint.log_id, checkpoint.durable_sequence),
    };
    Cursor { log_id: log_id.clone(), sequence }
}

/// How many bytes of lines are written at once, while more is there to be read.
const FULL_BYTES: usize = 64 * 1024;
/// The least time between two cursors under load: each is synced to disk twice.
const SAVE_PAUSE: Duration = Duration::from_millis(200);
/// How long a write that has begun is waited for after a signal.
const GRACE: Duration = Duration::from_secs(1);
