//! The log of the process: lines that are written by a thread of their own, so that whoever logs never
//! waits and never fails.
//!
//! The queue is bounded. A line that does not fit it, or that nobody reads, is dropped and counted, and
//! once lines can be written again one of them says how many are missing. Knows lines as bytes; how
//! they look and which are wanted is up to `tracing-subscriber`.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};
use tracing_subscriber::fmt::MakeWriter;

use crate::backoff::Backoff;
use crate::budget::{Budget, Permit};

/// The most bytes of lines that wait to be written.
const QUEUE_BYTES: usize = 1 << 20;
/// What a line costs besides its bytes, so that short ones are bounded as well.
const LINE_OVERHEAD_BYTES: usize = 64;

/// The log of one process; clones share its queue. The thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct Log {
    jobs: Sender<LogJob>,
    room: Budget,
    dropped: Counter,
}

#[derive(Debug)]
enum LogJob {
    Line(Vec<u8>, Permit),
    Flush(Sender<()>),
}

impl Log {
    /// A log that is written to standard error.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started or there is no descriptor left.
    pub fn to_stderr() -> io::Result<Self> {
        // Not through `std::io::stderr`, whose lock a stalled write would hold against everybody else.
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// A log that is written to `out`.
    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let dropped = Counter::default();
        let mut writer =
            LogThread { out, jobs: receiver, dropped: dropped.clone(), works: true, reported: 0 };
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            // A panic costs one line, which is counted.
            while catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                writer.lose();
            }
        })?;
        Ok(Self { jobs, room: Budget::new(QUEUE_BYTES), dropped })
    }

    /// Writes a text as it is. Never waits.
    pub fn print(&self, text: &str) {
        self.line(text.as_bytes());
    }

    /// Waits until everything that was logged before is written or dropped, but no longer than `most`.
    /// Returns `false` if that was too short.
    pub fn flush(&self, most: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.jobs.send(LogJob::Flush(done)).is_ok() && wait.recv_timeout(most).is_ok()
    }

    /// The lines that were dropped since the process started.
    #[must_use]
    pub fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    fn line(&self, bytes: &[u8]) {
        let queued = self
            .room
            .take(bytes.len().saturating_add(LINE_OVERHEAD_BYTES))
            .is_ok_and(|permit| self.jobs.send(LogJob::Line(bytes.to_vec(), permit)).is_ok());
        if !queued {
            self.dropped.inc();
        }
    }
}

impl<'l> MakeWriter<'l> for Log {
    type Writer = LineWriter<'l>;

    fn make_writer(&'l self) -> Self::Writer {
        LineWriter(self)
    }
}

/// Takes one whole line at each write.
#[derive(Debug)]
pub struct LineWriter<'l>(&'l Log);

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs panics instead of printing them, which could wait for a reader of standard error, and counts them.
pub fn log_panics(count: Counter) {
    std::panic::set_hook(Box::new(move |panic| {
        count.inc();
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or_default();
        error!(thread = thread.name(), location, message, "panic");
    }));
}

/// The state of the thread.
struct LogThread<W> {
    out: W,
    jobs: Receiver<LogJob>,
    dropped: Counter,
    /// Whether the newest line was written.
    works: bool,
    /// The dropped lines that a line told of.
    reported: u64,
}

impl<W: Write> LogThread<W> {
    /// Writes until there is nobody left who could log.
    fn run(&mut self) {
        loop {
            let job = match self.jobs.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.report();
                    match self.jobs.recv() {
                        Ok(job) => job,
                        Err(_) => return,
                    }
                }
            };
            match job {
                LogJob::Line(line, _permit) => {
                    self.works = self.write(&line).is_ok();
                    if !self.works {
                        self.dropped.inc();
                    }
                }
                // Nobody waits any more if it took too long.
                LogJob::Flush(done) => _ = done.send(()),
            }
        }
    }

    fn write(&mut self, mut line: &[u8]) -> io::Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
        while !line.is_empty() {
            match self.out.write(line) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    line = line.get(written..).unwrap_or_default();
                    backoff.reset();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody shares the descriptor and made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(backoff.failed()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says how many lines are missing, once lines can be written.
    fn report(&mut self) {
        let dropped = self.dropped.get();
        if self.works && dropped > self.reported {
            let lines = dropped - self.reported;
            self.reported = dropped;
            warn!(lines, "log lines were dropped: the queue was full, or nobody read them");
        }
    }

    fn lose(&mut self) {
        self.works = false;
        self.dropped.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex};

    const SOON: Duration = Duration::from_secs(30);

    /// What was written; writes wait while it is shut, fail while it is broken, and panic once.
    #[derive(Clone, Default)]
    struct TestOutput(Arc<(Mutex<TestOutputState>, Condvar)>);

    #[derive(Default)]
    struct TestOutputState {
        text: String,
        shut: bool,
        broken: bool,
        panics: bool,
    }

    impl TestOutput {
        fn set(&self, change: impl FnOnce(&mut TestOutputState)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            self.0.0.lock().unwrap().text.clone()
        }
    }

    impl Write for TestOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(state, |state| state.shut).unwrap();
            if std::mem::take(&mut state.panics) {
                drop(state);
                panic!("the write panics");
            }
            if state.broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            // A few bytes at a time, as a pipe may take them.
            let taken = bytes.len().min(3);
            state.text.push_str(std::str::from_utf8(&bytes[..taken]).unwrap());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (Log, TestOutput) {
        let out = TestOutput::default();
        (Log::to(out.clone()).unwrap(), out)
    }

    fn dropped(log: &Log) -> u64 {
        log.dropped().get()
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (log, out) = log();
        for text in ["one\n", "two, longer\n"] {
            log.make_writer().write_all(text.as_bytes()).unwrap();
        }
        assert!(log.flush(SOON));
        assert_eq!(out.text(), "one\ntwo, longer\n");
        assert_eq!(dropped(&log), 0);
    }

    #[test]
    fn without_a_reader_the_queue_stays_bounded_and_nobody_waits() {
        let (log, out) = log();
        out.set(|state| state.shut = true);
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..3000 {
            log.print(&line);
        }
        assert!(!log.flush(Duration::ZERO));
        let kept = QUEUE_BYTES / (1000 + LINE_OVERHEAD_BYTES);
        // The thread holds one line with its permit as well.
        assert_eq!(dropped(&log), 3000 - kept as u64);
        out.set(|state| state.shut = false);
        assert!(log.flush(SOON));
        assert_eq!(out.text().lines().count(), kept);
        log.print("again\n");
        assert!(log.flush(SOON));
        assert!(out.text().ends_with("again\n"));
    }

    #[test]
    fn lines_that_fail_are_counted_and_one_says_so_afterwards() {
        let (log, out) = log();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        // The report comes from the thread, for which a default of this thread does not count.
        let mut writer = LogThread {
            out: out.clone(),
            jobs: mpsc::channel().1,
            dropped: log.dropped(),
            works: true,
            reported: 0,
        };
        out.set(|state| state.broken = true);
        log.print("lost\n");
        log.print("lost as well\n");
        assert!(log.flush(SOON));
        assert_eq!(dropped(&log), 2);
        out.set(|state| state.broken = false);
        tracing::subscriber::with_default(subscriber, || {
            writer.works = false;
            writer.report();
            assert!(log.flush(SOON));
            assert_eq!(out.text(), "");
            writer.works = true;
            writer.report();
            writer.report();
        });
        assert!(log.flush(SOON));
        assert_eq!(out.text().matches("log lines were dropped").count(), 1);
        assert!(out.text().contains("lines=2"), "{}", out.text());
    }

    #[test]
    fn a_panic_of_the_thread_costs_one_line() {
        let (log, out) = log();
        out.set(|state| state.panics = true);
        log.print("lost\n");
        log.print("kept\n");
        assert!(log.flush(SOON));
        assert_eq!(out.text(), "kept\n");
        assert_eq!(dropped(&log), 1);
    }
}
