//! The messages of package `scopeward.v1`, generated from `proto/` with its comments, and their descriptors.
//!
//! They lie at the bottom because the audit log stores them as they are sent. The services are the `rpc` module's.

pub mod borrowed;
pub mod json;

/// The messages and enums of package `scopeward.v1`.
#[allow(clippy::all, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/scopeward.v1.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of package `scopeward.v1` and its imports, without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
