//! How large a question may be, and the layer that gives the one size error that is tonic's the code and the details of ours.
//!
//! Here is what counts bytes of messages and items of lists; how many scopes and audiences a question may have is the
//! core's to say ([`decision::check_limits`](crate::decision::check_limits)). What is over a limit is INVALID_ARGUMENT
//! and names the field. A single scope that is too long is none of that: clients choose it, so it is an answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::rpc::error::RpcError;
use crate::rpc::v1;

/// The most bytes of a request message but a batch.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The most bytes of a batch request message.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// What tonic's decoder lets through. The slack above [`MAX_BATCH_BYTES`] is for a message that is a little too large to be
/// told its exact size by [`codec`](crate::rpc::codec); one that is far too large is refused before it is buffered.
pub const MAX_DECODING_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;
/// The most checks of one batch.
pub const MAX_BATCH_ITEMS: usize = 100;
/// The most audiences of one page of `DescribeAudience`; more are not an error but are not sent.
pub const MAX_PAGE_SIZE: usize = 1000;
/// The audiences of one page if the request does not say.
pub const DEFAULT_PAGE_SIZE: usize = 100;
/// A page ends once its descriptions have this many bytes, so that it fits what clients accept by default (4 MiB).
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// How many bytes a message may have when it is received.
pub trait WireLimit {
    /// The most bytes of a request. `None` for a response: what it may have is up to the client that receives it.
    const MAX_REQUEST_BYTES: Option<usize>;
}

macro_rules! wire_limits {
    ($($message:ident => $limit:expr,)*) => {
        $(impl WireLimit for v1::$message {
            const MAX_REQUEST_BYTES: Option<usize> = $limit;
        })*
    };
}

wire_limits! {
    ExpandRegistrationScopesRequest => Some(MAX_MESSAGE_BYTES),
    ExpandRegistrationScopesResponse => None,
    CheckAuthorizeScopesRequest => Some(MAX_MESSAGE_BYTES),
    CheckAuthorizeScopesResponse => None,
    BatchCheckAuthorizeScopesRequest => Some(MAX_BATCH_BYTES),
    BatchCheckAuthorizeScopesResponse => None,
    DescribeAudienceRequest => Some(MAX_MESSAGE_BYTES),
    DescribeAudienceResponse => None,
    StreamAuditEventsRequest => Some(MAX_MESSAGE_BYTES),
    StreamAuditEventsResponse => None,
    GetPolicyStatusRequest => Some(MAX_MESSAGE_BYTES),
    GetPolicyStatusResponse => None,
    WatchPolicyStatusRequest => Some(MAX_MESSAGE_BYTES),
    WatchPolicyStatusResponse => None,
}

/// Turns the OUT_OF_RANGE of tonic's decoder limit into our [`RpcError::MessageTooLarge`].
///
/// Looks at one header of each answer and at nothing else unless that one says OUT_OF_RANGE.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecoderLimitLayer;

impl<S> Layer<S> for DecoderLimitLayer {
    type Service = DecoderLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DecoderLimit { inner }
    }
}

/// The service of [`DecoderLimitLayer`].
#[derive(Clone, Debug)]
pub struct DecoderLimit<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for DecoderLimit<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Unpin,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = DecoderLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        DecoderLimitFuture { inner: self.inner.call(request) }
    }
}

/// The answer of [`DecoderLimit`] to be.
#[derive(Debug)]
pub struct DecoderLimitFuture<F> {
    inner: F,
}

impl<F, B, E> Future for DecoderLimitFuture<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.inner).poll(cx))?;
        Poll::Ready(Ok(match refused_size(&response) {
            None => response,
            Some(actual) => {
                let error = RpcError::MessageTooLarge { limit: MAX_BATCH_BYTES, actual };
                Status::from(error).into_http()
            }
        }))
    }
}

/// `Some` with the size, if it is known, when the answer is the refusal of tonic's decoder.
fn refused_size<B>(response: &Response<B>) -> Option<Option<usize>> {
    const OUT_OF_RANGE: &[u8] = b"11";
    // An error that ends a call before its first message is in the headers; an answer has no status there.
    let code = response.headers().get("grpc-status")?;
    if code.as_bytes() != OUT_OF_RANGE {
        return None;
    }
    let status = Status::from_header_map(response.headers())?;
    // Our own OUT_OF_RANGE, an audit position that is not kept, has details; tonic's has none.
    if status.code() != Code::OutOfRange || !status.details().is_empty() {
        return None;
    }
    let size = status
        .message()
        .strip_prefix("Error, decoded message length too large: found ")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|size| size.parse().ok());
    Some(size)
}
