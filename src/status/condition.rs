//! Conditions: `metav1.Condition` of Kubernetes, with the rules of its `SetStatusCondition`: the transition time moves only
//! when the status does.

use std::time::SystemTime;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// That is not known.
    Unknown,
}

impl ConditionStatus {
    /// `True`, `False` or `Unknown`, as Kubernetes spells them.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One aspect of the state, field for field `metav1.Condition`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// The aspect, in CamelCase.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, a CamelCase constant; never empty.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
    /// The generation that serves when this was found; 0 before the first.
    pub observed_generation: u64,
    /// When `status` changed last.
    pub last_transition_time: SystemTime,
}

/// The types of conditions.
pub mod kind {
    /// Requests are answered.
    pub const READY: &str = "Ready";
    /// The newest policy files are what serves.
    pub const POLICY_ACCEPTED: &str = "PolicyAccepted";
    /// Every baseline scope is supported and neither privileged nor forbidden.
    pub const BASELINE_SCOPES_VALID: &str = "BaselineScopesValid";
    /// The discovery documents of the upstream of a gateway are good. Only there with a gateway.
    pub const UPSTREAM_ACCEPTED: &str = "UpstreamAccepted";
    /// The discovery documents of the upstream are not read for now. Only there when true.
    pub const UPSTREAM_STALLED: &str = "UpstreamStalled";
    /// The admin API of the upstream was of no use when it was last asked. Only there when true.
    pub const UPSTREAM_ADMIN_FAILING: &str = "UpstreamAdminFailing";
    /// An older policy serves because the newest is not valid. Only there when true.
    pub const SERVING_LAST_GOOD: &str = "ServingLastGood";
    /// Audit records cannot be made durable. Only there when true.
    pub const AUDIT_DEGRADED: &str = "AuditDegraded";
    /// The volume of the audit store is nearly full. Only there when true.
    pub const AUDIT_STORAGE_LOW: &str = "AuditStorageLow";
    /// The stored audit chain does not hold. Only there when true.
    pub const AUDIT_CHAIN_BROKEN: &str = "AuditChainBroken";
    /// Audit records do not get out as JSON lines. Only there when true.
    pub const AUDIT_LINES_STALLED: &str = "AuditLinesStalled";
    /// Audit records are not in the joined store yet. Only there when true.
    pub const AUDIT_FORWARDING_BEHIND: &str = "AuditForwardingBehind";
    /// The newest policy files remove something that serves, and wait until nobody writes them. Only there when true.
    pub const POLICY_REMOVAL_WAITING: &str = "PolicyRemovalWaiting";
    /// The policy source can never change while the process runs. Only there when true.
    pub const POLICY_SOURCE_STATIC: &str = "PolicySourceStatic";
    /// The policy source never stands still, or cannot be read for now. Only there when true.
    pub const POLICY_SOURCE_UNSTABLE: &str = "PolicySourceUnstable";
    /// The last good policy could not be written to the state directory. Only there when true.
    pub const LAST_GOOD_NOT_SAVED: &str = "LastGoodNotSaved";
    /// The files of TLS are valid and in use. Only there with TLS.
    pub const TLS_MATERIAL_VALID: &str = "TlsMaterialValid";
    /// A certificate of TLS ceases to be valid within 7 days. Only there when true.
    pub const TLS_CERTIFICATE_EXPIRING: &str = "TlsCertificateExpiring";
    /// As [`POLICY_ACCEPTED`], of the shadow policy.
    pub const SHADOW_POLICY_ACCEPTED: &str = "ShadowPolicyAccepted";
    /// As [`BASELINE_SCOPES_VALID`], of the shadow policy.
    pub const SHADOW_BASELINE_SCOPES_VALID: &str = "ShadowBaselineScopesValid";
    /// An older shadow policy is compared because the newest is not valid. Only there when true.
    pub const SHADOW_SERVING_LAST_GOOD: &str = "ShadowServingLastGood";
    /// As [`POLICY_SOURCE_STATIC`], of the shadow policy.
    pub const SHADOW_POLICY_SOURCE_STATIC: &str = "ShadowPolicySourceStatic";
    /// As [`POLICY_SOURCE_UNSTABLE`], of the shadow policy.
    pub const SHADOW_POLICY_SOURCE_UNSTABLE: &str = "ShadowPolicySourceUnstable";
    /// The comparison with the shadow policy stands still. Only there when true.
    pub const SHADOW_STALLED: &str = "ShadowStalled";
    /// No spans are sent. Only there when true.
    pub const TRACES_STALLED: &str = "TracesStalled";
    /// The access file as it is counts. Only there with an access file.
    pub const ACCESS_ACCEPTED: &str = "AccessAccepted";
    /// Everybody who reaches the server from another machine may do everything. Only there when true.
    pub const ACCESS_UNRESTRICTED: &str = "AccessUnrestricted";
}

/// Sets a condition as Kubernetes' `SetStatusCondition` does: a new type is appended, the transition
/// time moves only if the status changes, everything else is taken over. Returns `true` if anything but
/// the transition time changed.
pub fn set_condition(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    match conditions.iter_mut().find(|known| known.kind == new.kind) {
        None => {
            conditions.push(new);
            true
        }
        Some(known) => {
            let last_transition_time = if known.status == new.status {
                known.last_transition_time
            } else {
                new.last_transition_time
            };
            let new = Condition { last_transition_time, ..new };
            let changed = *known != new;
            *known = new;
            changed
        }
    }
}

/// Removes a condition; returns `true` if it was there.
pub fn remove_condition(conditions: &mut Vec<Condition>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|known| known.kind != kind);
    conditions.len() != before
}
