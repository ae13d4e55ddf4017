//! Where lines end up: standard output, or a file that is rotated by size.
//!
//! Knows lines as text. What was given and could not be written stays, to the byte, until it can.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How much of the end of a file is looked at when it is continued.
const TAIL_BYTES: u64 = 8 << 20;

/// A target, and what is still to be written to it.
#[derive(Debug)]
pub(super) struct Sink {
    target: Target,
    /// Lines with their line breaks.
    lines: VecDeque<String>,
    /// What belongs into the file that is open now, and how much of it is there.
    chunk: Vec<u8>,
    done: usize,
    /// What the file has of a last line without its break.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum Target {
    Stdout,
    File(Rotated),
}

impl Sink {
    pub(super) const fn stdout() -> Self {
        Self::new(Target::Stdout, Vec::new())
    }

    /// Continues a file, or makes it. `partial` is what it has of a last line without a break.
    pub(super) fn file(path: PathBuf, max_bytes: u64, keep: u32, partial: Vec<u8>) -> io::Result<Self> {
        Ok(Self::new(Target::File(Rotated::open(path, max_bytes, keep)?), partial))
    }

    const fn new(target: Target, partial: Vec<u8>) -> Self {
        Self { target, lines: VecDeque::new(), chunk: Vec::new(), done: 0, partial }
    }

    /// The target, for messages.
    pub(super) fn path(&self) -> PathBuf {
        match &self.target {
            Target::Stdout => PathBuf::from("standard output"),
            Target::File(file) => file.path.clone(),
        }
    }

    /// Takes lines, to be written by `flush`.
    pub(super) fn give(&mut self, lines: Vec<String>) {
        self.lines.extend(lines.into_iter().map(|mut line| {
            line.push('\n');
            line
        }));
    }

    /// Writes all that was given. After an error the next call goes on where this one stopped.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            self.write_chunk()?;
            if self.lines.is_empty() {
                return Ok(());
            }
            self.next_chunk()?;
        }
    }

    /// Makes what was written durable, as far as the target can.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &self.target {
            Target::Stdout => Ok(()),
            Target::File(file) => file.file.sync_data(),
        }
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        while let Some(rest) = self.chunk.get(self.done..).filter(|rest| !rest.is_empty()) {
            let written = match &mut self.target {
                Target::Stdout => io::stdout().write(rest),
                Target::File(file) => file.write(rest),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.done += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.chunk.clear();
        self.done = 0;
        match &self.target {
            Target::Stdout => io::stdout().flush(),
            Target::File(_) => Ok(()),
        }
    }

    /// Takes the lines that fit into the file, after rotating it if none does.
    fn next_chunk(&mut self) -> io::Result<()> {
        let first = self.lines.front().map_or(0, String::len) as u64;
        let room = match &mut self.target {
            Target::Stdout => u64::MAX,
            Target::File(file) => file.room_for(first, self.partial.is_empty())?,
        };
        let partial = std::mem::take(&mut self.partial);
        let continues = self.lines.front().is_some_and(|line| line.as_bytes().starts_with(&partial));
        if !partial.is_empty() && !continues {
            // Whatever it was to become, it ends here.
            self.chunk.push(b'\n');
        } else {
            // The rest of the line that a crash cut in two.
            self.done = partial.len();
        }
        while let Some(line) = self.lines.front()
            && (self.chunk.is_empty() || (self.chunk.len() + line.len()) as u64 <= room)
        {
            self.chunk.extend_from_slice(line.as_bytes());
            self.lines.pop_front();
        }
        Ok(())
    }
}

/// A file that is renamed away when it is full.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    max_bytes: u64,
    keep: u32,
}

impl Rotated {
    fn open(path: PathBuf, max_bytes: u64, keep: u32) -> io::Result<Self> {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, max_bytes, keep })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    /// How many bytes the file can take; makes a new one if a line of this length does not fit, or
    /// if somebody else has moved the file away. `whole` is false if the file ends inside a line.
    fn room_for(&mut self, line: u64, whole: bool) -> io::Result<u64> {
        if whole && !self.is_in_place() {
            self.file.sync_data()?;
            self.file = open(&self.path)?;
            self.size = self.file.metadata()?.len();
        }
        if whole && self.size > 0 && self.size + line > self.max_bytes {
            self.rotate()?;
        }
        Ok(self.max_bytes.saturating_sub(self.size))
    }

    fn is_in_place(&self) -> bool {
        let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(open)) => identity(there) == identity(open),
            (Err(error), _) => error.kind() != ErrorKind::NotFound,
            (_, Err(_)) => true,
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        // From the oldest on, so that a crash in between overwrites nothing.
        for number in (1..self.keep).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        if self.keep == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            rename(&self.path, &self.numbered(1))?;
        }
        self.file = open(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        self.path.with_added_extension(number.to_string())
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Readable for the group, to which the log shipper may belong.
    File::options().append(true).create(true).mode(0o640).open(path)
}

/// Renames a file if it is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The end of a file.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Its last whole lines, oldest first, without their breaks; as many as were looked at.
    pub(super) lines: Vec<String>,
    /// What follows the last break.
    pub(super) partial: Vec<u8>,
}

/// Reads the end of a file; empty if it is not there.
pub(super) fn read_tail(path: &Path) -> io::Result<Tail> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Tail::default()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut pieces: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let partial = pieces.pop().unwrap_or_default().to_vec();
    // The first line may have its beginning before what was read.
    let cut = usize::from(from > 0).min(pieces.len());
    let lines = pieces.iter().skip(cut).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    Ok(Tail { lines, partial })
}
