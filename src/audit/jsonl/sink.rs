//! Where lines end up: a file that is rotated by size, or a stream such as standard output or a FIFO.
//!
//! Knows lines as text. What was given and could not be written stays, to the byte, until it can.
//! Everything here blocks.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How much of the end of a file is looked at when it is continued.
const TAIL_BYTES: u64 = 8 << 20;
/// The most bytes of one write, so that a slow reader is told from one that stopped reading.
const WRITE_BYTES: usize = 64 << 10;
/// The device number of Linux' memory devices, `/dev/zero` and `/dev/full` among them.
const MEMORY_DEVICES: u32 = 1;
/// The one of them that says by its name that it keeps nothing: `/dev/null`.
const NULL_DEVICE: u32 = 3;

/// A target, and what is still to be written to it.
#[derive(Debug)]
pub(super) struct TargetSink {
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
    Stream(StreamTarget),
    File(Rotated),
}

impl TargetSink {
    /// Standard output, whatever it is.
    pub(super) fn stdout() -> io::Result<Self> {
        // Not through `std::io::stdout`: a stalled write would hold its lock, and the end of the process
        // would wait for what it has buffered.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        is_stream(&file.metadata()?)?;
        let stream =
            StreamTarget { path: PathBuf::from("standard output"), file: Some(file), reopens: false };
        Ok(Self::new(Target::Stream(stream), Vec::new()))
    }

    /// A FIFO or a character device, opened when the first line is written: a FIFO has to have a reader.
    pub(super) const fn stream(path: PathBuf) -> Self {
        Self::new(Target::Stream(StreamTarget { path, file: None, reopens: true }), Vec::new())
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
            Target::Stream(stream) => stream.path.clone(),
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

    /// Writes all that was given; `before_write` hears of each write. After an error the next call
    /// continues where this one stopped.
    pub(super) fn flush(&mut self, before_write: impl Fn()) -> io::Result<()> {
        loop {
            self.write_chunk(&before_write)?;
            if self.lines.is_empty() {
                return Ok(());
            }
            self.next_chunk()?;
        }
    }

    /// Makes what was written durable, as far as the target can.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &self.target {
            Target::Stream(_) => Ok(()),
            Target::File(file) => file.file.sync_data(),
        }
    }

    fn write_chunk(&mut self, before_write: impl Fn()) -> io::Result<()> {
        while let Some(rest) = self.chunk.get(self.done..).filter(|rest| !rest.is_empty()) {
            before_write();
            let rest = rest.get(..WRITE_BYTES).unwrap_or(rest);
            let written = match &mut self.target {
                Target::Stream(stream) => stream.write(rest),
                Target::File(file) => file.write(rest),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.done += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Target::Stream(stream) = &mut self.target
                        && stream.close()
                    {
                        // Another reader must not begin inside a line.
                        let written = self.chunk.get(..self.done).unwrap_or_default();
                        self.done = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    }
                    return Err(error);
                }
            }
        }
        self.chunk.clear();
        self.done = 0;
        Ok(())
    }

    /// Takes the lines that fit into the file, after rotating it if none does.
    fn next_chunk(&mut self) -> io::Result<()> {
        let first = self.lines.front().map_or(0, String::len) as u64;
        let room = match &mut self.target {
            Target::Stream(_) => u64::MAX,
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

/// Returns `true` if lines can only be passed on through it: nothing can be read back, and there is
/// nothing to rotate.
///
/// # Errors
///
/// It can hold no lines at all; says what it is.
pub(super) fn is_stream(metadata: &Metadata) -> io::Result<bool> {
    let kind = metadata.file_type();
    let refused = |what| Err(io::Error::new(ErrorKind::InvalidInput, what));
    if kind.is_dir() {
        refused("it is a directory")
    } else if kind.is_block_device() {
        refused("it is a block device")
    } else if kind.is_socket() {
        refused("it is a socket")
    } else if kind.is_char_device()
        && libc::major(metadata.rdev()) == MEMORY_DEVICES
        && libc::minor(metadata.rdev()) != NULL_DEVICE
    {
        refused("it is a memory device, which keeps no lines")
    } else {
        Ok(!kind.is_file())
    }
}

/// What is written and never read back.
#[derive(Debug)]
struct StreamTarget {
    path: PathBuf,
    file: Option<File>,
    /// Whether the path is opened again after an error.
    reopens: bool,
}

impl StreamTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Self::open(&self.path)?),
        };
        file.write(bytes)
    }

    fn open(path: &Path) -> io::Result<File> {
        // To open a FIFO waits for a reader, which may never come; without waiting it fails. While that
        // one is held there is a reader, and the second one waits when it writes.
        let options = || {
            let mut options = File::options();
            options.write(true).custom_flags(libc::O_NOCTTY);
            options
        };
        let _reader = options().custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path).map_err(
            |error| match error.raw_os_error() {
                Some(libc::ENXIO) => io::Error::new(error.kind(), "nobody reads it"),
                _ => error,
            },
        )?;
        options().open(path)
    }

    /// Closes it if it can be opened again.
    fn close(&mut self) -> bool {
        if self.reopens {
            self.file = None;
        }
        self.reopens
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
pub(super) struct FileTail {
    /// Its last whole lines, oldest first, without their breaks; as many as were looked at.
    pub(super) lines: Vec<String>,
    /// What follows the last break.
    pub(super) partial: Vec<u8>,
}

/// Reads the end of a file; empty if it is not there.
pub(super) fn read_tail(path: &Path) -> io::Result<FileTail> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(FileTail::default()),
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
    Ok(FileTail { lines, partial })
}
