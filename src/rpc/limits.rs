//! How large a question may be.
//!
//! Here is what counts bytes of messages and items of lists; how many scopes and audiences a question may have is the
//! core's to say ([`decision::check_limits`](crate::decision::check_limits)). What is over a limit is INVALID_ARGUMENT
//! and names the field. A single scope that is too long is none of that: clients choose it, so it is an answer.

/// The most bytes of a request message but a batch.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The most bytes of a batch request message.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// How many times as large as a message its JSON may be: names, quotes and escapes.
pub const JSON_FACTOR: usize = 2;
/// The most bytes of an answer: what clients take by default.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The most checks of one batch.
pub const MAX_BATCH_ITEMS: usize = 100;
/// The most look-ups that a question or a part of a batch may take on a serving thread: a few milliseconds.
pub const MAX_LOOKUPS: usize = 50_000;
/// The most questions beyond that which are decided at the same time.
pub const MAX_LARGE_QUESTIONS: usize = 8;
/// The most audiences of one page of `DescribeAudience`; more are not an error but are not sent.
pub const MAX_PAGE_SIZE: usize = 1000;
/// The audiences of one page if the request does not say.
pub const DEFAULT_PAGE_SIZE: usize = 100;
/// A page ends once its descriptions have this many bytes, so that it fits what clients accept by default (4 MiB).
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
