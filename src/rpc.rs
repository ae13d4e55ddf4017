//! The wire: generated code for `proto/scopeward/v1` and what stands between it and the core.
//!
//! Knows messages, limits and gRPC codes. Does not know where policies come from, how audit records are kept, or how
//! connections are accepted.

pub mod answering;
pub mod audit;
mod batch;
pub mod caller;
pub mod codec;
pub mod connect;
pub mod convert;
pub mod count;
mod deciding;
pub mod decision_line;
mod describe;
pub mod encode;
pub mod error;
pub mod explain;
pub mod limits;
pub mod notes;
mod page;
pub mod policy_status;
mod received;
pub mod record;
pub mod scope_policy;
pub mod shadow;
pub mod trace_parent;
pub mod wire_id;

pub use crate::proto::FILE_DESCRIPTOR_SET;

/// The messages, clients and servers of package `scopeward.v1`.
#[allow(clippy::all, reason = "generated")]
pub mod v1 {
    pub use crate::proto::v1::*;

    include!(concat!(env!("OUT_DIR"), "/services/scopeward.v1.rs"));
}

#[cfg(test)]
mod tests {
    use prost_reflect::{Cardinality, DescriptorPool, Kind};

    use super::*;

    /// Every message and enum of ours, as `Name: field = number type, …`.
    fn contract() -> String {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("descriptors can be read");
        let mut lines = Vec::new();
        for message in pool.all_messages().filter(|message| message.package_name() == "scopeward.v1") {
            let field = |field: prost_reflect::FieldDescriptor| {
                let kind = match field.kind() {
                    Kind::Message(message) => message.name().to_owned(),
                    Kind::Enum(kind) => kind.name().to_owned(),
                    scalar => format!("{scalar:?}").to_lowercase(),
                };
                let label = match (field.cardinality(), field.containing_oneof()) {
                    (Cardinality::Repeated, _) => "repeated ",
                    (_, Some(oneof)) if oneof.is_synthetic() => "optional ",
                    (_, Some(_)) => "oneof ",
                    _ => "",
                };
                format!("{label}{kind} {}={}", field.name(), field.number())
            };
            let fields = message.fields().map(field).collect::<Vec<_>>().join(", ");
            lines.push(format!("{}: {fields}", message.name()));
        }
        for kind in pool.all_enums().filter(|kind| kind.package_name() == "scopeward.v1") {
            let value =
                |value: prost_reflect::EnumValueDescriptor| format!("{}={}", value.name(), value.number());
            let values = kind.values().map(value).collect::<Vec<_>>().join(", ");
            lines.push(format!("{}: {values}", kind.name()));
        }
        for service in pool.services() {
            let method = |method: prost_reflect::MethodDescriptor| {
                let stream = if method.is_server_streaming() { "stream " } else { "" };
                format!("{}({}) {stream}{}", method.name(), method.input().name(), method.output().name())
            };
            let methods = service.methods().map(method).collect::<Vec<_>>().join(", ");
            lines.push(format!("{}: {methods}", service.full_name()));
        }
        lines.sort();
        lines.join("\n")
    }

    // Clients are written against these names and numbers: a change here breaks them.
    #[test]
    fn names_and_numbers_stay_as_clients_know_them() {
        insta::assert_snapshot!(contract());
    }
}
