//! Reading the message of a call: gRPC's length prefix, checked before anything is buffered.
//!
//! A message that is too large is refused as soon as its prefix is here, and a body that is no message is an INVALID_ARGUMENT of
//! ours; the generated services behind get whole messages only. (gRPC over HTTP/2, "Length-Prefixed-Message".)

use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http_body::Frame;
use tonic::Status;

use super::method::{Method, Service, Streaming};
use super::response::{Held, hold};
use crate::rpc::codec::PREFIX_BYTES;
use crate::rpc::error::RpcError;

/// Why there is no message.
#[derive(Debug)]
pub(super) enum NoMessage {
    /// The caller is told.
    Refused(RpcError),
    /// The caller reset the call, or its connection is gone.
    Gone,
}

impl From<RpcError> for NoMessage {
    fn from(error: RpcError) -> Self {
        Self::Refused(error)
    }
}

/// Reads the one message of a call, with its prefix, to the end of the body. Holds as many `bytes` as were announced.
pub(super) async fn receive(
    body: &mut RecvStream,
    method: &Method,
    names_encoding: bool,
    held: &mut Held,
) -> Result<Bytes, NoMessage> {
    let mut framing = Framing::new(method, names_encoding);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|_| NoMessage::Gone)?;
        framing.read(&chunk)?;
        // Health is never refused for want of room, and its messages are short.
        if method.service != Service::Health || framing.announced > MAX_FREE_BYTES {
            hold(held, framing.announced).map_err(|cause| RpcError::Overloaded { cause })?;
        }
        // Only now may the peer send more. The stream may be closed by now, which is no error.
        _ = body.flow_control().release_capacity(chunk.len());
        // Nearly every message comes in one piece, which is not copied.
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    framing.finish()?;
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// Follows the length prefixes of a body.
#[derive(Debug)]
struct Framing<M> {
    method: M,
    names_encoding: bool,
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    /// Bytes of the message that are still to come.
    missing: usize,
    /// Bytes of all messages so far, prefixes included.
    announced: usize,
    messages: u64,
}

impl<M: Deref<Target = Method>> Framing<M> {
    const fn new(method: M, names_encoding: bool) -> Self {
        Self {
            method,
            names_encoding,
            prefix: [0; PREFIX_BYTES],
            prefix_read: 0,
            missing: 0,
            announced: 0,
            messages: 0,
        }
    }

    /// Looks at the next bytes of the body.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), RpcError> {
        while !bytes.is_empty() {
            if self.missing > 0 {
                let read = self.missing.min(bytes.len());
                self.missing -= read;
                bytes = bytes.get(read..).unwrap_or_default();
                continue;
            }
            if self.messages > 0 && self.method.kind != Streaming::BidiStream {
                return Err(malformed("the body has more than one message"));
            }
            for (to, from) in self.prefix.iter_mut().skip(self.prefix_read).zip(bytes) {
                *to = *from;
            }
            let read = bytes.len().min(PREFIX_BYTES - self.prefix_read);
            self.prefix_read += read;
            bytes = bytes.get(read..).unwrap_or_default();
            if self.prefix_read == PREFIX_BYTES {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// Begins a message whose prefix is here.
    fn begin(&mut self) -> Result<(), RpcError> {
        let [compressed, length @ ..] = self.prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        match compressed {
            0 => {}
            // What the encoding is worth is for the service to say.
            1 if self.names_encoding => {}
            1 => return Err(malformed("the message is compressed, but no `grpc-encoding` names how")),
            _ => return Err(malformed("the first byte of a message must be 0 or 1")),
        }
        let limit = self.method.max_message_bytes;
        if length > limit {
            return Err(RpcError::MessageTooLarge {
                message: self.method.message().to_owned(),
                limit,
                actual: length,
            });
        }
        self.prefix_read = 0;
        self.missing = length;
        self.messages += 1;
        self.announced = self.announced.saturating_add(PREFIX_BYTES + length);
        Ok(())
    }

    /// Looks at the end of the body.
    fn finish(&self) -> Result<(), RpcError> {
        if self.missing > 0 || self.prefix_read > 0 {
            return Err(malformed("the body ends within a message"));
        }
        if self.messages == 0 && self.method.kind != Streaming::BidiStream {
            return Err(malformed("the body is empty"));
        }
        Ok(())
    }
}

fn malformed(cause: &str) -> RpcError {
    RpcError::MalformedMessage { cause: cause.to_owned() }
}

/// The body of a call that sends any number of messages, passed on as it comes. What is wrong with it ends it and is kept, so that
/// the call can end with it too.
#[derive(Debug)]
pub(super) struct Messages {
    body: RecvStream,
    framing: Framing<Arc<Method>>,
    fault: Arc<OnceLock<RpcError>>,
}

impl Messages {
    pub(super) fn new(body: RecvStream, method: Arc<Method>, names_encoding: bool) -> Self {
        Self { body, framing: Framing::new(method, names_encoding), fault: Arc::default() }
    }

    /// Where to look for what is wrong with the body.
    pub(super) fn fault(&self) -> Arc<OnceLock<RpcError>> {
        Arc::clone(&self.fault)
    }

    fn fail(&self, error: RpcError) -> Status {
        let status = Status::from(error.clone());
        // Only the first one counts.
        _ = self.fault.set(error);
        status
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(chunk) = ready!(self.body.poll_data(cx)) else {
            return Poll::Ready(self.framing.finish().err().map(|error| Err(self.fail(error))));
        };
        let Ok(chunk) = chunk else {
            return Poll::Ready(Some(Err(Status::cancelled("the call was reset"))));
        };
        if let Err(error) = self.framing.read(&chunk) {
            return Poll::Ready(Some(Err(self.fail(error))));
        }
        _ = self.body.flow_control().release_capacity(chunk.len());
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

/// What a message of health may have without being counted.
const MAX_FREE_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    const LIMIT: usize = 10;

    fn framing(kind: Streaming, names_encoding: bool) -> Framing<Box<Method>> {
        let pool = DescriptorPool::decode(crate::rpc::FILE_DESCRIPTOR_SET).expect("descriptors");
        let message = |name| pool.get_message_by_name(name).expect("it is described");
        let method = Method {
            path: "/s/m".to_owned(),
            decides: None,
            kind,
            service: Service::Audit,
            needs: super::super::access::Needs::Nothing,
            messages: Some((
                message("scopeward.v1.DescribeAudienceRequest"),
                message("scopeward.v1.DescribeAudienceResponse"),
            )),
            max_message_bytes: LIMIT,
            in_flight: Default::default(),
            counts: crate::server::observe::CallCounts::default().of(kind, "s", "m"),
        };
        Framing::new(Box::new(method), names_encoding)
    }

    /// Reads `body` in pieces of each size; says what is wrong with it.
    #[track_caller]
    fn check(kind: Streaming, names_encoding: bool, body: &[u8], expected: Option<&str>) {
        for size in 1..=body.len().max(1) {
            let mut framing = framing(kind, names_encoding);
            let read = body.chunks(size).try_for_each(|chunk| framing.read(chunk));
            let result = read.and_then(|()| framing.finish()).map_err(|error| error.to_string());
            match (expected, result) {
                (None, Ok(())) => {}
                (Some(expected), Err(error)) if error.contains(expected) => {}
                (_, result) => panic!("{body:?} in pieces of {size}: {result:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_body_is_one_whole_message_within_the_limit() {
        for kind in [Streaming::Unary, Streaming::ServerStream] {
            check(kind, false, &[0, 0, 0, 0, 0], None);
            check(kind, false, &[0, 0, 0, 0, 2, 7, 7], None);
            check(kind, false, &[&[0, 0, 0, 0, 10][..], &[7; 10]].concat(), None);
            check(kind, false, &[], Some("empty"));
            check(kind, false, &[0, 0, 0], Some("ends within"));
            check(kind, false, &[0, 0, 0, 0, 2, 7], Some("ends within"));
            check(kind, false, &[0, 0, 0, 0, 1, 7, 0], Some("more than one"));
            check(kind, false, &[1, 0, 0, 0, 1, 7], Some("grpc-encoding"));
            check(kind, true, &[1, 0, 0, 0, 1, 7], None);
            check(kind, true, &[2, 0, 0, 0, 1, 7], Some("must be 0 or 1"));
            check(
                kind,
                false,
                &[0, 0, 0, 0, 11],
                Some("`DescribeAudienceRequest` has 11 bytes, the limit is 10"),
            );
            check(
                kind,
                false,
                &[0, 255, 255, 255, 255],
                Some("`DescribeAudienceRequest` has 4294967295 bytes"),
            );
        }
    }

    #[test]
    fn a_stream_of_messages_is_checked_one_by_one() {
        check(Streaming::BidiStream, false, &[], None);
        check(Streaming::BidiStream, false, &[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 7, 7], None);
        check(Streaming::BidiStream, false, &[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 11], Some("11 bytes"));
        check(Streaming::BidiStream, false, &[0, 0, 0, 0, 1, 7, 0], Some("ends within"));
    }
}
