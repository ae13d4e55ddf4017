//! What there is to call: each RPC with its kind, the service it belongs to, and how large its message may be. Read from the
//! descriptors, so that a new RPC needs no line here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::access::Needs;
use super::observe::{CallCounts, MethodCounts};
use crate::access::Right;
use crate::authzen::response::{EVALUATION_PATH, EVALUATIONS_PATH, METADATA_PATH};
use crate::rpc::FILE_DESCRIPTOR_SET;
use crate::rpc::count::DecidingMethod;
use crate::rpc::limits::{MAX_BATCH_BYTES, MAX_MESSAGE_BYTES};

/// An RPC.
#[derive(Debug)]
pub(super) struct Method {
    /// Its path, such as `/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes`.
    pub(super) path: String,
    /// Who sends how many messages.
    pub(super) kind: Streaming,
    /// The service that it belongs to.
    pub(super) service: Service,
    /// If it decides.
    pub(super) decides: Option<DecidingMethod>,
    /// Who may call it.
    pub(super) needs: Needs,
    /// The message that it takes and the one that it answers with; `None` of an endpoint over HTTP that is no RPC.
    pub(super) messages: Option<(MessageDescriptor, MessageDescriptor)>,
    /// The most bytes of that message.
    pub(super) max_message_bytes: usize,
    /// How many of its calls are in flight.
    pub(super) in_flight: AtomicUsize,
    /// What is counted of its calls.
    pub(super) counts: Arc<MethodCounts>,
}

impl Method {
    /// The name of the message that it takes, without its package.
    pub(super) fn message(&self) -> &str {
        self.messages.as_ref().map_or("", |(input, _)| input.name())
    }
}

/// Counts as a call of its method until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Method>);

impl InFlight {
    pub(super) fn new(method: &Arc<Method>) -> Self {
        method.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(method))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who sends how many messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Streaming {
    /// One message and one answer.
    Unary,
    /// One message and any number of answers.
    ServerStream,
    /// Any number of messages and of answers.
    BidiStream,
}

impl Streaming {
    /// The value of a metric's label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// The services that metrics tell apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// `ScopePolicyService`.
    ScopePolicy,
    /// `AuditService`.
    Audit,
    /// `PolicyStatusService`.
    PolicyStatus,
    /// `grpc.health.v1.Health`.
    Health,
    /// Reflection, in both versions.
    Reflection,
}

impl Service {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::ScopePolicy, Self::Audit, Self::PolicyStatus, Self::Health, Self::Reflection];

    /// The value of a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScopePolicy => "scope_policy",
            Self::Audit => "audit",
            Self::PolicyStatus => "policy_status",
            Self::Health => "health",
            Self::Reflection => "reflection",
        }
    }

    /// Whether it has streams that hold places.
    pub(super) const fn has_streams(self) -> bool {
        matches!(self, Self::Audit | Self::PolicyStatus | Self::Reflection)
    }

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "scopeward.v1.ScopePolicyService" => Self::ScopePolicy,
            "scopeward.v1.AuditService" => Self::Audit,
            "scopeward.v1.PolicyStatusService" => Self::PolicyStatus,
            "grpc.health.v1.Health" => Self::Health,
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
                Self::Reflection
            }
            _ => return None,
        })
    }
}

/// What a caller needs for a method. Whatever decides needs the right to, so that a new RPC is not open to all.
fn needs(service: Service, method: &str) -> Needs {
    match (service, method) {
        (Service::Health, _) => Needs::Nothing,
        (Service::Reflection, _) => Needs::Listing,
        (Service::PolicyStatus, _) => Needs::Right(Right::Status),
        (Service::Audit, _) => Needs::Right(Right::Audit),
        (Service::ScopePolicy, "DescribeAudience") => Needs::Right(Right::Describe),
        (Service::ScopePolicy, _) => Needs::Right(Right::Decide),
    }
}

/// Every RPC by its path, such as `/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes`.
#[derive(Clone, Debug)]
pub(super) struct Methods {
    by_path: Arc<HashMap<String, Arc<Method>>>,
    /// Those over HTTP that are no RPCs.
    endpoints: Arc<[Arc<Method>]>,
    /// What is counted of calls of nothing that is there.
    unknown: Arc<MethodCounts>,
}

impl Methods {
    /// The RPCs of the services that are named in `served`, whose calls are counted in `counts`.
    ///
    /// # Errors
    ///
    /// If descriptors that were compiled in cannot be read.
    pub(super) fn of(served: &[&str], counts: &CallCounts) -> Result<Self, prost_reflect::DescriptorError> {
        let mut by_path = HashMap::new();
        for set in [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for service in DescriptorPool::decode(set)?.services() {
                let Some(known) = Service::of(service.full_name()) else { continue };
                if !served.contains(&service.full_name()) {
                    continue;
                }
                for method in service.methods() {
                    let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
                        (false, false) => Streaming::Unary,
                        (false, true) => Streaming::ServerStream,
                        (true, _) => Streaming::BidiStream,
                    };
                    let (input, output) = (method.input(), method.output());
                    let max_message_bytes =
                        if input.name().starts_with("Batch") { MAX_BATCH_BYTES } else { MAX_MESSAGE_BYTES };
                    let needs = needs(known, method.name());
                    let path = format!("/{}/{}", service.full_name(), method.name());
                    let method = Method {
                        path: path.clone(),
                        decides: DecidingMethod::of(&path),
                        kind,
                        service: known,
                        needs,
                        messages: Some((input, output)),
                        max_message_bytes,
                        in_flight: AtomicUsize::new(0),
                        counts: counts.of(kind, service.full_name(), method.name()),
                    };
                    by_path.insert(path, Arc::new(method));
                }
            }
        }
        // No part of a path that the caller made up is the value of a label.
        let unknown = counts.of(Streaming::Unary, UNKNOWN, UNKNOWN);
        let endpoints = ENDPOINTS.map(|(path, name, needs)| {
            Arc::new(Method {
                path: path.to_owned(),
                decides: None,
                kind: Streaming::Unary,
                service: Service::ScopePolicy,
                needs,
                messages: None,
                max_message_bytes: MAX_BATCH_BYTES,
                in_flight: AtomicUsize::new(0),
                counts: counts.of(Streaming::Unary, AUTHZEN, name),
            })
        });
        Ok(Self { by_path: Arc::new(by_path), endpoints: Arc::new(endpoints), unknown })
    }

    /// `None` for a path that nobody answers.
    pub(super) fn get(&self, path: &str) -> Option<&Arc<Method>> {
        self.by_path.get(path)
    }

    /// As [`Methods::get`], of what is served without gRPC: the RPCs of one message and one answer that are about the policy.
    pub(super) fn over_http(&self, path: &str) -> Option<&Arc<Method>> {
        self.get(path).filter(|method| {
            method.kind == Streaming::Unary
                && matches!(method.service, Service::ScopePolicy | Service::PolicyStatus)
        })
    }

    /// An endpoint over HTTP that is no RPC.
    pub(super) fn endpoint(&self, path: &str) -> Option<&Arc<Method>> {
        self.endpoints.iter().find(|endpoint| endpoint.path == path)
    }

    /// What is counted of calls of `method`, or of a path that nobody answers.
    pub(super) fn counts<'m>(&'m self, method: Option<&'m Arc<Method>>) -> &'m Arc<MethodCounts> {
        method.map_or(&self.unknown, |method| &method.counts)
    }

    /// How many calls are in flight, by path and sorted; RPCs without any and health, which has no answer that its caller
    /// could miss, are left out.
    pub(super) fn in_flight(&self) -> Vec<(String, usize)> {
        let mut found: Vec<_> = self
            .by_path
            .values()
            .chain(&*self.endpoints)
            .filter(|method| method.service != Service::Health)
            .map(|method| (method.path.clone(), method.in_flight.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        found.sort();
        found
    }
}

/// The endpoints of AuthZEN, with their names in metrics and who may call them: the metadata say nothing of the policy.
const ENDPOINTS: [(&str, &str, Needs); 3] = [
    (EVALUATION_PATH, "AccessEvaluation", Needs::Right(Right::Decide)),
    (EVALUATIONS_PATH, "AccessEvaluations", Needs::Right(Right::Decide)),
    (METADATA_PATH, "Metadata", Needs::Nothing),
];
/// The service of those endpoints, in metrics.
const AUTHZEN: &str = "openid.authzen";
/// Service and method of a path that nobody answers, in metrics.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rpc_has_its_kind_and_its_limit() {
        let served = [
            "scopeward.v1.ScopePolicyService",
            "scopeward.v1.AuditService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ];
        let methods = Methods::of(&served, &CallCounts::default()).expect("descriptors");
        let check = |path: &str, kind, service, limit| {
            let method = methods.get(path).expect("it is served");
            assert_eq!(
                (method.kind, method.service, method.max_message_bytes),
                (kind, service, limit),
                "{path}"
            );
        };
        let scopes = "/scopeward.v1.ScopePolicyService";
        check(&format!("{scopes}/CheckAuthorizeScopes"), Streaming::Unary, Service::ScopePolicy, 262_144);
        check(
            &format!("{scopes}/BatchCheckAuthorizeScopes"),
            Streaming::Unary,
            Service::ScopePolicy,
            1 << 20,
        );
        check(
            "/scopeward.v1.AuditService/StreamAuditEvents",
            Streaming::ServerStream,
            Service::Audit,
            262_144,
        );
        check("/grpc.health.v1.Health/Watch", Streaming::ServerStream, Service::Health, 262_144);
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        check(reflection, Streaming::BidiStream, Service::Reflection, 262_144);
        for unknown in ["/scopeward.v1.PolicyStatusService/GetPolicyStatus", "/", "", "/x/y"] {
            assert!(methods.get(unknown).is_none(), "{unknown}");
        }
    }
}
