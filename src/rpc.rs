//! The wire: generated code for `proto/scopeward/v1` and what stands between it and the core.
//!
//! Knows messages, limits and gRPC codes. Does not know where policies come from, how audit records are kept, or how
//! connections are accepted.

pub mod codec;
pub mod convert;
pub mod error;
pub mod json;
pub mod limits;
mod page;
pub mod policy_status;
pub mod record;
pub mod scope_policy;

/// The messages, clients and servers of package `scopeward.v1`, generated from `proto/` with its comments.
#[allow(clippy::all, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/scopeward.v1.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of package `scopeward.v1` and its imports, without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
