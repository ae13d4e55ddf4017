//! The heads of HTTP/1 requests as they arrive: what hyper corrects silently is noticed here and refused.
//!
//! hyper takes a request with `Content-Length` and `Transfer-Encoding` and forgets the former, so the service that it calls cannot
//! tell (RFC 9112 section 6.1). Heads are found by the same parser, and the bytes pass as they are. Also here, since it is about
//! the same bytes: a head must be there in time.

use std::future::Future as _;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use httparse::{Request, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What is wrong with a head of a connection; nothing after it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::server) enum HeadFault {
    /// The length of the body is said twice (RFC 9112 section 6.3).
    #[error("the length of the body is said in two ways")]
    Length,
    /// There is no `Host`, or more than one (RFC 9112 section 3.2).
    #[error("there must be exactly one Host header")]
    Host,
    /// The target has a fragment, which hyper cuts off.
    #[error("the request target has a fragment")]
    Fragment,
}

/// What was found on a connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct HeadFaults(Arc<AtomicU8>);

impl HeadFaults {
    /// The first fault.
    pub(in crate::server) fn first(&self) -> Option<HeadFault> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(HeadFault::Length),
            2 => Some(HeadFault::Host),
            3 => Some(HeadFault::Fragment),
            _ => None,
        }
    }

    fn note(&self, fault: HeadFault) {
        let number = match fault {
            HeadFault::Length => 1,
            HeadFault::Host => 2,
            HeadFault::Fragment => 3,
        };
        // The first one counts.
        _ = self.0.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A connection whose heads are looked at.
#[derive(Debug)]
pub(super) struct HeadWatch<I> {
    io: I,
    state: HeadState,
    faults: HeadFaults,
    /// How long a head may take, from its first byte.
    patience: Duration,
    /// When the head that has begun must be whole.
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum HeadState {
    /// So much of a head is here.
    Head(Vec<u8>),
    /// So many bytes are left of a body.
    Body(u64),
    /// What follows has no heads that are looked at: HTTP/2, a body without a length, which the connection ends after, what is
    /// spoken after an upgrade, or what hyper refuses.
    Opaque,
}

impl<I> HeadWatch<I> {
    pub(super) fn new(io: I, faults: HeadFaults, patience: Duration) -> Self {
        Self { io, state: HeadState::Head(Vec::new()), faults, patience, deadline: None }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        loop {
            match &mut self.state {
                HeadState::Opaque => return,
                HeadState::Body(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= skipped as u64;
                    bytes = bytes.get(skipped..).unwrap_or_default();
                    if *left > 0 {
                        return;
                    }
                    self.state = HeadState::Head(Vec::new());
                }
                HeadState::Head(begun) => {
                    if bytes.is_empty() {
                        return;
                    }
                    let joined = (!begun.is_empty()).then(|| {
                        begun.extend_from_slice(bytes);
                        std::mem::take(begun)
                    });
                    let all = joined.as_deref().unwrap_or(bytes);
                    match look(all, &self.faults) {
                        HeadLook::Partial => {
                            self.state = HeadState::Head(joined.unwrap_or_else(|| bytes.to_vec()));
                            return;
                        }
                        HeadLook::Opaque => self.state = HeadState::Opaque,
                        HeadLook::Whole { head, body } => {
                            let rest = all.len().saturating_sub(head).min(bytes.len());
                            bytes = bytes.get(bytes.len() - rest..).unwrap_or_default();
                            self.state = HeadState::Body(body);
                        }
                    }
                }
            }
        }
    }

    /// An error if a head takes too long.
    fn check_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !matches!(&self.state, HeadState::Head(begun) if !begun.is_empty()) {
            self.deadline = None;
            return Ok(());
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request took too long"));
        }
        Ok(())
    }
}

/// What begins with some bytes.
enum HeadLook {
    Partial,
    Opaque,
    Whole { head: usize, body: u64 },
}

fn look(bytes: &[u8], faults: &HeadFaults) -> HeadLook {
    if bytes.starts_with(HTTP2_PREFACE)
        || (bytes.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(bytes))
    {
        return if bytes.len() < HTTP2_PREFACE.len() { HeadLook::Partial } else { HeadLook::Opaque };
    }
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return HeadLook::Partial,
        // hyper refuses it too.
        Ok(Status::Partial) | Err(_) => return HeadLook::Opaque,
    };
    let (mut lengths, mut encodings, mut hosts, mut body, mut upgrades) = (0, 0, 0, 0, false);
    for header in &*request.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            lengths += 1;
            body = std::str::from_utf8(header.value)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or_default();
        } else if is("transfer-encoding") {
            encodings += 1;
        } else if is("host") {
            hosts += 1;
        } else if is("upgrade") {
            upgrades = true;
        }
    }
    if lengths + encodings > 1 {
        faults.note(HeadFault::Length);
    } else if hosts > 1 || (hosts == 0 && request.version == Some(1)) {
        faults.note(HeadFault::Host);
    } else if request.path.is_some_and(|path| path.contains('#')) {
        faults.note(HeadFault::Fragment);
    }
    if encodings > 0 || upgrades || request.method == Some("CONNECT") {
        return HeadLook::Opaque;
    }
    HeadLook::Whole { head, body }
}

impl<I: AsyncRead + Unpin> AsyncRead for HeadWatch<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        this.received(buf.filled().get(before..).unwrap_or_default());
        this.check_head(cx)?;
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for HeadWatch<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// RFC 9113 section 3.4; the rest of it has no second reading.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// As many as hyper takes.
const MAX_HEADERS: usize = 100;
/// The request line and all headers.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in the bytes, in whatever pieces they come.
    #[track_caller]
    fn check(text: &str, expected: Option<HeadFault>) {
        for piece in [1, 7, text.len().max(1)] {
            let faults = HeadFaults::default();
            let mut watch = HeadWatch::new((), faults.clone(), Duration::from_secs(1));
            text.as_bytes().chunks(piece).for_each(|bytes| watch.received(bytes));
            assert_eq!(faults.first(), expected, "{text:?} in pieces of {piece}");
        }
    }

    #[test]
    fn second_reading_of_a_head_is_noticed_wherever_it_is() {
        const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        check(GET, None);
        check("GET / HTTP/1.0\r\n\r\n", None);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nHost: a\r\nHost: b\r\n\r\n", None);
        let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(twice, Some(HeadFault::Length));
        check(&twice.to_uppercase(), Some(HeadFault::Length));
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            Some(HeadFault::Length),
        );
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            Some(HeadFault::Length),
        );
        check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Some(HeadFault::Host));
        check("GET / HTTP/1.1\r\n\r\n", Some(HeadFault::Host));
        check("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Some(HeadFault::Fragment));
        // Behind others, with bodies between.
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\nx";
        check(&format!("{GET}{post}{GET}{twice}"), Some(HeadFault::Length));
        check(&format!("{post}{post}"), None);
        // What hyper refuses is none of ours.
        check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", None);
    }
}
