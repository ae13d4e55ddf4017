//! Bodies of requests and of answers over HTTP/1 and HTTP/2: collected up to a limit, and sent while it is known whether the peer
//! takes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Code;

use crate::rpc::error::Overload;
use crate::server::response::{Chunk, HeldCall};

/// Whether a client takes a response: since when a part waits to be sent.
#[derive(Debug, Default)]
pub(in crate::server) struct ResponseTaking(Mutex<Option<Instant>>);

impl ResponseTaking {
    /// Returns `true` if a part waits for longer than that.
    fn is_stalled(&self, patience: Duration, now: Instant) -> bool {
        let handed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handed.is_some_and(|handed| now.saturating_duration_since(handed) >= patience)
    }

    pub(in crate::server) fn note(&self, handed: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handed;
    }
}

/// The responses of a connection that are on their way.
#[derive(Debug, Default)]
pub(in crate::server) struct OpenResponses(Mutex<Vec<Weak<ResponseTaking>>>);

impl OpenResponses {
    pub(in crate::server) fn open(&self) -> Arc<ResponseTaking> {
        let taking = Arc::<ResponseTaking>::default();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&taking));
        taking
    }

    /// Returns `true` if the client has not taken a part of one of them for so long.
    pub(in crate::server) fn are_stalled(&self, patience: Duration, now: Instant) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).any(|taking| taking.is_stalled(patience, now))
    }
}

/// The body of an answer that is here. What its call holds is given back when the last byte has left or was dropped.
#[derive(Debug)]
pub(in crate::server) struct AnswerBody {
    rest: Bytes,
    /// The call, and how it ends if all bytes leave.
    call: Option<(Box<HeldCall>, Code)>,
    taking: Arc<ResponseTaking>,
}

impl AnswerBody {
    /// An answer of `call`, which holds its bytes, to a connection of these responses.
    pub(in crate::server) fn of_call(
        bytes: Bytes,
        call: Box<HeldCall>,
        code: Code,
        open: &OpenResponses,
    ) -> Self {
        // Without a byte, nothing could take the call with it.
        let call = if bytes.is_empty() {
            call.end(code);
            None
        } else {
            Some((call, code))
        };
        Self { rest: bytes, call, taking: open.open() }
    }

    /// An answer that holds nothing.
    pub(in crate::server) fn alone(bytes: Bytes, open: &OpenResponses) -> Self {
        Self { rest: bytes, call: None, taking: open.open() }
    }
}

impl Body for AnswerBody {
    type Data = AnswerPiece;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerPiece>, Infallible>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        let last = if this.rest.is_empty() { this.call.take() } else { None };
        this.taking.note(Some(Instant::now()));
        let piece = AnswerPiece { chunk: Chunk::new(bytes, last), _taking: Arc::clone(&this.taking) };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A piece of an answer on its way.
#[derive(Debug)]
pub(in crate::server) struct AnswerPiece {
    chunk: Chunk,
    /// The response is on its way as long as this is.
    _taking: Arc<ResponseTaking>,
}

impl Buf for AnswerPiece {
    fn remaining(&self) -> usize {
        self.chunk.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.chunk.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.chunk.advance(count);
    }
}

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum CollectError {
    /// It is larger than the limit.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The most bytes.
        limit: usize,
        /// As many as were announced or are here.
        actual: usize,
    },
    /// There is no room for it now.
    #[error("too many bytes are in flight")]
    NoRoom(Overload),
    /// It did not come in time.
    #[error("the body did not come in time")]
    TooLate,
    /// It ended early.
    #[error("the body broke off")]
    Broken,
}

/// Collects a whole body of at most `limit` bytes, for which `hold` holds room.
///
/// # Errors
/// [`CollectError`].
pub(in crate::server) async fn collect(
    body: &mut Incoming,
    limit: usize,
    mut hold: impl FnMut(usize) -> Result<(), Overload>,
    deadline: Instant,
) -> Result<Bytes, CollectError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(CollectError::TooLarge { limit, actual: announced });
    }
    let mut all = BytesMut::new();
    loop {
        let frame =
            tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| CollectError::TooLate)?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let frame = frame.map_err(|_| CollectError::Broken)?;
        // Trailers say nothing that is passed on.
        if let Ok(part) = frame.into_data() {
            let actual = all.len() + part.len();
            if actual > limit {
                return Err(CollectError::TooLarge { limit, actual });
            }
            hold(actual).map_err(CollectError::NoRoom)?;
            all.extend_from_slice(&part);
        }
    }
}

/// What is handed over at once.
const PIECE_BYTES: usize = 16 * 1024;
