//! The codec of our messages: protobuf, where a request that cannot be decoded is an INVALID_ARGUMENT of ours.
//!
//! How large a message may be is checked before it gets here, from its length prefix. Encoding is left to `tonic_prost`.

use std::marker::PhantomData;

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
        U::decode(buf).map(Some).map_err(|error| {
            let cause = error.to_string();
            if U::NAME.ends_with("Request") {
                RpcError::MalformedMessage { cause }.into()
            } else {
                // A response that cannot be read is the fault of neither the caller nor its request.
                Status::internal(cause)
            }
        })
    }
}
