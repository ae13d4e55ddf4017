//! What is printed: the one place that writes to the standard streams.
//!
//! Colour is written always and taken out again where it does not belong: no terminal, `NO_COLOR`,
//! `TERM=dumb`. Knows nothing about what is printed.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

/// The form of what a verb prints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes to standard output.
///
/// A reader that disconnected is no failure: it has seen what it wanted.
pub(super) fn print(text: &str) -> io::Result<()> {
    print_to_reader(text).map(drop)
}

/// Writes to standard output, and returns `true` if somebody still reads it: whoever prints again and
/// again ends when nobody does.
pub(super) fn print_to_reader(text: &str) -> io::Result<bool> {
    written(anstream::stdout().lock(), text)
        .map_err(|error| io::Error::new(error.kind(), format!("could not write to standard output: {error}")))
}

/// Returns `true` if standard output is a screen that can be drawn again.
pub(super) fn is_screen() -> bool {
    let stdout = io::stdout();
    stdout.is_terminal() && anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never
}

/// Writes to standard error. There is nowhere to report a failure to, so there is none.
pub(super) fn print_error(text: &str) {
    _ = written(anstream::stderr().lock(), text);
}

/// Tells whether there was a reader.
fn written(mut stream: impl Write, text: &str) -> io::Result<bool> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// A text in a style.
pub(super) struct Painted<'t>(&'t str, Style);

impl fmt::Display for Painted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, style) = self;
        write!(formatter, "{style}{text}{style:#}")
    }
}

/// A heading.
pub(super) fn bold(text: &str) -> Painted<'_> {
    Painted(text, Style::new().bold())
}

/// Less important: places, digests.
pub(super) fn dim(text: &str) -> Painted<'_> {
    Painted(text, Style::new().dimmed())
}

/// Granted, valid.
pub(super) fn good(text: &str) -> Painted<'_> {
    Painted(text, Style::new().bold().fg_color(Some(AnsiColor::Green.into())))
}

/// Refused, invalid.
pub(super) fn bad(text: &str) -> Painted<'_> {
    Painted(text, Style::new().bold().fg_color(Some(AnsiColor::Red.into())))
}

/// Given unasked, or to be looked at.
pub(super) fn notable(text: &str) -> Painted<'_> {
    Painted(text, Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())))
}
