//! The codec of our messages: protobuf, where a request that cannot be decoded is an INVALID_ARGUMENT of ours.
//!
//! How large a message may be is checked before it gets here, from its length prefix. Generated services leave encoding to
//! `tonic_prost`; `frame` is for calls that are answered without one.

use std::marker::PhantomData;

use bytes::Bytes;
use prost::{DecodeError, Message, Name};
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
        U::decode(buf).map(Some).map_err(|error| {
            if U::NAME.ends_with("Request") {
                malformed(error).into()
            } else {
                // A response that cannot be read is the fault of neither the caller nor its request.
                Status::internal(error.to_string())
            }
        })
    }
}

/// A request that cannot be decoded.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn malformed(error: DecodeError) -> RpcError {
    RpcError::MalformedMessage { cause: error.to_string() }
}

/// Puts the prefix of a message before `bytes`, which are such a message behind room for the prefix: no compression, and the length in
/// bytes (gRPC over HTTP/2, "Length-Prefixed-Message").
#[must_use]
pub fn frame(mut bytes: Vec<u8>) -> Bytes {
    // No answer has more than a few megabytes.
    let length = u32::try_from(bytes.len().saturating_sub(PREFIX_BYTES)).unwrap_or(u32::MAX);
    if let Some((prefix, _)) = bytes.split_first_chunk_mut::<PREFIX_BYTES>() {
        let [high, upper, lower, low] = length.to_be_bytes();
        *prefix = [0, high, upper, lower, low];
    }
    // What an answer holds is counted by its length.
    if bytes.capacity() - bytes.len() > MAX_SPARE_BYTES {
        bytes.shrink_to_fit();
    }
    bytes.into()
}

/// Room for the prefix, which is there as zeros, and for so many bytes of a message.
#[must_use]
pub fn frame_with_capacity(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.extend_from_slice(&[0; PREFIX_BYTES]);
    bytes
}

/// Room behind an answer that is not given back.
const MAX_SPARE_BYTES: usize = 16 * 1024;
/// A compression flag and four bytes of length.
pub const PREFIX_BYTES: usize = 5;
