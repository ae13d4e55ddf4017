//! A request as it was received: the bytes of its message, or the message. Read where they are if they are plain, and decoded if not.

use std::sync::OnceLock;

use bytes::Bytes;
use prost::{Message, Name};

use crate::proto::borrowed::{
    CheckRequestRef, ExpandRequestRef, PlainRequest as _, TokenRequestRef, read_batch,
};
use crate::rpc::codec::malformed;
use crate::rpc::error::RpcError;
use crate::rpc::limits::MAX_BATCH_ITEMS;
use crate::rpc::v1;

/// A request that is `M`.
#[derive(Debug)]
pub(super) struct Received<M> {
    /// Empty if there was a message from the start.
    bytes: Bytes,
    /// The message, once it had to be decoded.
    message: OnceLock<Box<M>>,
}

impl<M> From<Bytes> for Received<M> {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, message: OnceLock::new() }
    }
}

impl<M: Readable> From<M> for Received<M> {
    fn from(message: M) -> Self {
        Self { bytes: Bytes::new(), message: Box::new(message).into() }
    }
}

impl<M: Readable> Received<M> {
    /// What was asked, and how many bytes the message has without fields that are not known.
    ///
    /// # Errors
    ///
    /// If the bytes are no message of this kind.
    pub(super) fn read(&self) -> Result<(M::Borrowed<'_>, usize), RpcError> {
        let message = match self.message.get() {
            Some(message) => message,
            None => match M::read(&self.bytes) {
                // In plain form: as many bytes as they would have if they were encoded again.
                Some(read) => return Ok((read, self.bytes.len())),
                None => {
                    let decoded = M::decode(self.bytes.clone()).map_err(malformed)?;
                    self.message.get_or_init(|| Box::new(decoded))
                }
            },
        };
        Ok((message.borrow(), message.encoded_len()))
    }
}

/// A message that can be read where its bytes are.
pub(super) trait Readable: Message + Name + Default {
    /// What it says, borrowed.
    type Borrowed<'a>;

    /// Reads bytes in plain form; `None` if they are not.
    fn read(bytes: &[u8]) -> Option<Self::Borrowed<'_>>;

    /// Borrows from the message.
    fn borrow(&self) -> Self::Borrowed<'_>;
}

impl Readable for v1::ExpandRegistrationScopesRequest {
    type Borrowed<'a> = ExpandRequestRef<'a>;

    fn read(bytes: &[u8]) -> Option<ExpandRequestRef<'_>> {
        ExpandRequestRef::read(bytes)
    }

    fn borrow(&self) -> ExpandRequestRef<'_> {
        ExpandRequestRef::of(self)
    }
}

impl Readable for v1::CheckAuthorizeScopesRequest {
    type Borrowed<'a> = CheckRequestRef<'a>;

    fn read(bytes: &[u8]) -> Option<CheckRequestRef<'_>> {
        CheckRequestRef::read(bytes)
    }

    fn borrow(&self) -> CheckRequestRef<'_> {
        CheckRequestRef::of(self)
    }
}

impl Readable for v1::CheckTokenScopesRequest {
    type Borrowed<'a> = TokenRequestRef<'a>;

    fn read(bytes: &[u8]) -> Option<TokenRequestRef<'_>> {
        TokenRequestRef::read(bytes)
    }

    fn borrow(&self) -> TokenRequestRef<'_> {
        TokenRequestRef::of(self)
    }
}

impl Readable for v1::BatchCheckAuthorizeScopesRequest {
    /// Each check with its length in bytes, without fields that are not known.
    type Borrowed<'a> = Vec<(CheckRequestRef<'a>, usize)>;

    fn read(bytes: &[u8]) -> Option<Self::Borrowed<'_>> {
        read_batch(bytes, MAX_BATCH_ITEMS)
    }

    fn borrow(&self) -> Self::Borrowed<'_> {
        self.checks.iter().map(|check| (CheckRequestRef::of(check), check.encoded_len())).collect()
    }
}

impl Readable for v1::BatchCheckTokenScopesRequest {
    /// Each check with its length in bytes, without fields that are not known.
    type Borrowed<'a> = Vec<(TokenRequestRef<'a>, usize)>;

    fn read(bytes: &[u8]) -> Option<Self::Borrowed<'_>> {
        read_batch(bytes, MAX_BATCH_ITEMS)
    }

    fn borrow(&self) -> Self::Borrowed<'_> {
        self.checks.iter().map(|check| (TokenRequestRef::of(check), check.encoded_len())).collect()
    }
}
