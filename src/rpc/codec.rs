//! The codec of our messages: protobuf, where a request that cannot be decoded is an INVALID_ARGUMENT of ours.
//!
//! How large a message may be is checked before it gets here, from its length prefix. Generated services leave encoding to
//! `tonic_prost`; [`framed`] is for calls that are answered without one.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::rpc::error::RpcError;

/// Encodes `T` and decodes `U`.
#[derive(Clone, Debug)]
pub struct MessageCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Default + Message + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder { message: PhantomData }
    }
}

/// Decodes `U`.
#[derive(Clone, Debug)]
pub struct MessageDecoder<U> {
    message: PhantomData<U>,
}

impl<U> Decoder for MessageDecoder<U>
where
    U: Default + Message + Name,
{
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(buf).map(Some)
    }
}

/// Decodes the bytes of a message.
pub(super) fn decode<U: Default + Message + Name>(bytes: impl Buf) -> Result<U, Status> {
    U::decode(bytes).map_err(|error| {
        let cause = error.to_string();
        if U::NAME.ends_with("Request") {
            RpcError::MalformedMessage { cause }.into()
        } else {
            // A response that cannot be read is the fault of neither the caller nor its request.
            Status::internal(cause)
        }
    })
}

/// A message with its length prefix: no compression, and its length in bytes (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    // No answer has more than a few megabytes.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.into()
}

/// A compression flag and four bytes of length.
pub const PREFIX_BYTES: usize = 5;
