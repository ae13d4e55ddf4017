//! The codec of our messages: protobuf with a size limit for each request type.
//!
//! tonic has one decoder limit for each service and answers OUT_OF_RANGE before any handler runs; ours is a limit for each
//! message and the answer is INVALID_ARGUMENT. The codec is the one place that sees the bytes as they were received: the
//! encoded length of a decoded message leaves out unknown fields, so a handler that measured it would accept a request of
//! 1 MiB of fields that it has never heard of. Encoding is left to `tonic_prost`.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::rpc::error::RpcError;
use crate::rpc::limits::WireLimit;

/// Encodes `T` and decodes `U`, which may have as many bytes as its [`WireLimit`] says.
#[derive(Clone, Debug)]
pub struct LimitedCodec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for LimitedCodec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> Codec for LimitedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Default + Message + Send + WireLimit + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = LimitedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        LimitedDecoder { message: PhantomData }
    }
}

/// Decodes `U` if it is within its [`WireLimit`].
#[derive(Clone, Debug)]
pub struct LimitedDecoder<U> {
    message: PhantomData<U>,
}

impl<U> Decoder for LimitedDecoder<U>
where
    U: Default + Message + WireLimit,
{
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let Some(limit) = U::MAX_REQUEST_BYTES else {
            // A response that cannot be read is the fault of neither the caller nor its request.
            return U::decode(buf).map(Some).map_err(|error| Status::internal(error.to_string()));
        };
        let actual = buf.remaining();
        if actual > limit {
            return Err(RpcError::MessageTooLarge { limit, actual: Some(actual) }.into());
        }
        U::decode(buf)
            .map(Some)
            .map_err(|error| RpcError::MalformedMessage { cause: error.to_string() }.into())
    }
}
