//! Every type of condition and every reason that it can have: what the reference shows, and what a condition must be of.

use super::condition::kind;

/// A type of condition.
#[derive(Clone, Copy, Debug)]
pub struct ConditionType {
    /// Its name, in CamelCase.
    pub kind: &'static str,
    /// Whether it is there only while it is True.
    pub is_only_true: bool,
    /// What it says if it is True.
    pub meaning: &'static str,
    /// Its reasons.
    pub reasons: &'static [ConditionReason],
}

/// A reason: the status that a condition has with it, the name, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct ConditionReason(pub &'static str, pub &'static str, pub &'static str);

/// Returns `true` if a condition of type `kind` can have this reason.
#[must_use]
pub fn has_reason(kind: &str, reason: &str) -> bool {
    CONDITION_TYPES.iter().any(|one| one.kind == kind && one.reasons.iter().any(|known| known.1 == reason))
}

/// Every type, in the order in which conditions are shown.
pub const CONDITION_TYPES: &[ConditionType] = &[
    ConditionType {
        kind: kind::READY,
        is_only_true: false,
        meaning: "requests are answered",
        reasons: &[
            ConditionReason("True", "PolicyLoaded", "a policy serves"),
            ConditionReason("False", "PolicyNotLoaded", "no policy is loaded yet"),
            ConditionReason(
                "False",
                "UpstreamUnknown",
                "no discovery document of the upstream was read yet (of a gateway)",
            ),
            ConditionReason("False", "Draining", "the process is shutting down"),
            ConditionReason(
                "False",
                "AudienceNotServed",
                "the audience is not in the policy that serves (of an audience)",
            ),
        ],
    },
    ConditionType {
        kind: kind::POLICY_ACCEPTED,
        is_only_true: false,
        meaning: "the newest policy files are what serves",
        reasons: POLICY_ACCEPTED_REASONS,
    },
    ConditionType {
        kind: kind::BASELINE_SCOPES_VALID,
        is_only_true: false,
        meaning: "every baseline scope is supported and neither privileged nor forbidden",
        reasons: BASELINE_SCOPES_VALID_REASONS,
    },
    ConditionType {
        kind: kind::SERVING_LAST_GOOD,
        is_only_true: true,
        meaning: "an older policy serves because the newest is not accepted",
        reasons: SERVING_LAST_GOOD_REASONS,
    },
    ConditionType {
        kind: kind::AUDIT_DEGRADED,
        is_only_true: true,
        meaning: "audit records cannot be made durable, so expansions are refused",
        reasons: &[
            ConditionReason("True", "AuditAppendFailed", "the newest write failed"),
            ConditionReason(
                "True",
                "AuditStalled",
                "a record waits for more than 5 s: the disk does not answer",
            ),
            ConditionReason("True", "StateDirectoryMissing", "the state directory was removed or replaced"),
            ConditionReason("True", "AuditWriterEnded", "the store is no longer written; the process ends"),
            ConditionReason(
                "True",
                "AuditHealthUnknown",
                "what watches the audit ended and is started again",
            ),
        ],
    },
    ConditionType {
        kind: kind::AUDIT_STORAGE_LOW,
        is_only_true: true,
        meaning: "the volume of the state directory is nearly full",
        reasons: &[ConditionReason("True", "VolumeNearlyFull", "less than a tenth or 1 GiB of it is free")],
    },
    ConditionType {
        kind: kind::AUDIT_CHAIN_BROKEN,
        is_only_true: true,
        meaning: "the stored audit chain does not hold",
        reasons: &[ConditionReason("True", "AuditRecordBad", "the message names the first bad record")],
    },
    ConditionType {
        kind: kind::AUDIT_LINES_STALLED,
        is_only_true: true,
        meaning: "audit records do not get out as JSON lines; the store has them",
        reasons: &[
            ConditionReason("True", "AuditLinesStalled", "a write does not return"),
            ConditionReason("True", "AuditLinesFailing", "a write failed and is tried again"),
            ConditionReason("True", "AuditLinesEnded", "what writes them ended and is started again"),
        ],
    },
    ConditionType {
        kind: kind::AUDIT_FORWARDING_BEHIND,
        is_only_true: true,
        meaning: "the joined store does not have all audit records yet; the store here has them",
        reasons: AUDIT_FORWARDING_BEHIND_REASONS,
    },
    ConditionType {
        kind: kind::POLICY_REMOVAL_WAITING,
        is_only_true: true,
        meaning: "the newest policy files remove something that serves, and are not served yet",
        reasons: &[ConditionReason(
            "True",
            "WaitingForQuiet",
            "nobody may write them for `--removal-quiet`; the message says until when",
        )],
    },
    ConditionType {
        kind: kind::POLICY_SOURCE_STATIC,
        is_only_true: true,
        meaning: "the policy files can never change while the process runs",
        reasons: POLICY_SOURCE_STATIC_REASONS,
    },
    ConditionType {
        kind: kind::POLICY_SOURCE_UNSTABLE,
        is_only_true: true,
        meaning: "the newest policy files can be neither judged nor served for now",
        reasons: POLICY_SOURCE_UNSTABLE_REASONS,
    },
    ConditionType {
        kind: kind::LAST_GOOD_NOT_SAVED,
        is_only_true: true,
        meaning: "a start from the last good policy would serve an older one than what serves",
        reasons: &[ConditionReason(
            "True",
            "WriteFailed",
            "the copy could not be written; it is tried again",
        )],
    },
    ConditionType {
        kind: kind::TLS_MATERIAL_VALID,
        is_only_true: false,
        meaning: "certificate, key and client CA are in use as they are in the files (only with TLS)",
        reasons: &[
            ConditionReason("True", "TlsMaterialLoaded", "they are valid"),
            ConditionReason("False", "TlsFileUnreadable", "a file is not there or cannot be read"),
            ConditionReason(
                "False",
                "TlsCertificateInvalid",
                "the certificate file has none that can be used",
            ),
            ConditionReason(
                "False",
                "TlsPrivateKeyInvalid",
                "the private key file has none that can be used",
            ),
            ConditionReason("False", "TlsClientCaInvalid", "the client CA file has none that can be used"),
            ConditionReason("False", "TlsKeyMismatch", "the private key belongs to another certificate"),
            ConditionReason("False", "TlsChainOutOfOrder", "a certificate is not issued by the next one"),
            ConditionReason(
                "False",
                "TlsCertificateExpired",
                "the new certificate is no longer valid, the one in use is",
            ),
        ],
    },
    ConditionType {
        kind: kind::TLS_CERTIFICATE_EXPIRING,
        is_only_true: true,
        meaning: "a certificate in use ceases to be valid within 7 days",
        reasons: &[
            ConditionReason("True", "CertificateExpiresSoon", "it is still valid"),
            ConditionReason("True", "CertificateExpired", "it is no longer valid"),
        ],
    },
    ConditionType {
        kind: kind::ACCESS_ACCEPTED,
        is_only_true: false,
        meaning: "the access file as it is counts (only with `--access-file`)",
        reasons: &[
            ConditionReason("True", "AccessFileValid", "it is valid"),
            ConditionReason("False", "AccessFileInvalid", "it has errors; the last good one keeps counting"),
            ConditionReason(
                "False",
                "AccessFileUnreadable",
                "it is not there or cannot be read; the last good one keeps counting",
            ),
        ],
    },
    ConditionType {
        kind: kind::ACCESS_UNRESTRICTED,
        is_only_true: true,
        meaning: "everybody who reaches the server, also from other machines, may do everything",
        reasons: &[ConditionReason("True", "NoAccessFile", "there is no `--access-file`")],
    },
    ConditionType {
        kind: kind::UPSTREAM_ACCEPTED,
        is_only_true: false,
        meaning: "the newest discovery documents of the upstream are good and in use (only of a gateway)",
        reasons: &[
            ConditionReason("True", "UpstreamRead", "they were read, and the issuer is the public URL"),
            ConditionReason(
                "False",
                "UpstreamUnreachable",
                "there is no answer; what was good before stays in use",
            ),
            ConditionReason(
                "False",
                "IssuerMismatch",
                "the issuer is not the public URL; what was good before stays in use",
            ),
            ConditionReason(
                "False",
                "DiscoveryInvalid",
                "a document cannot be used, the message says why; what was good before stays in use",
            ),
        ],
    },
    ConditionType {
        kind: kind::UPSTREAM_STALLED,
        is_only_true: true,
        meaning: "the discovery documents of the upstream are not read for now; what was good before stays in use",
        reasons: &[ConditionReason("True", "UpstreamEnded", "what reads them ended and is started again")],
    },
    ConditionType {
        kind: kind::UPSTREAM_ADMIN_FAILING,
        is_only_true: true,
        meaning: "the admin API of the upstream was of no use when it was last asked (only of a gateway with `--upstream-admin`): \
                  logins that need it get `server_error`",
        reasons: &[
            ConditionReason("True", "AdminUnreachable", "there is no answer"),
            ConditionReason(
                "True",
                "AdminCredentialsRefused",
                "the credentials are refused, are not enough, or cannot be read",
            ),
            ConditionReason(
                "True",
                "AdminScopeMissing",
                "a realm of Keycloak has no client scope of a name that was granted",
            ),
            ConditionReason("True", "AdminAnswerInvalid", "an answer is not what it should be"),
        ],
    },
    ConditionType {
        kind: kind::SHADOW_POLICY_ACCEPTED,
        is_only_true: false,
        meaning: "the newest files of the shadow policy are what is compared (only with `--shadow`)",
        reasons: POLICY_ACCEPTED_REASONS,
    },
    ConditionType {
        kind: kind::SHADOW_BASELINE_SCOPES_VALID,
        is_only_true: false,
        meaning: "as `BaselineScopesValid`, of the shadow policy",
        reasons: BASELINE_SCOPES_VALID_REASONS,
    },
    ConditionType {
        kind: kind::SHADOW_SERVING_LAST_GOOD,
        is_only_true: true,
        meaning: "an older shadow policy is compared because the newest is not accepted",
        reasons: SERVING_LAST_GOOD_REASONS,
    },
    ConditionType {
        kind: kind::SHADOW_POLICY_SOURCE_STATIC,
        is_only_true: true,
        meaning: "as `PolicySourceStatic`, of the shadow policy",
        reasons: POLICY_SOURCE_STATIC_REASONS,
    },
    ConditionType {
        kind: kind::SHADOW_POLICY_SOURCE_UNSTABLE,
        is_only_true: true,
        meaning: "as `PolicySourceUnstable`, of the shadow policy",
        reasons: POLICY_SOURCE_UNSTABLE_REASONS,
    },
    ConditionType {
        kind: kind::SHADOW_STALLED,
        is_only_true: true,
        meaning: "the comparison with the shadow policy stands still",
        reasons: &[ConditionReason("True", "ShadowEnded", "what compares ended and is started again")],
    },
    ConditionType {
        kind: kind::TRACES_STALLED,
        is_only_true: true,
        meaning: "no spans are sent to the collector",
        reasons: &[ConditionReason("True", "TracesEnded", "what sends them ended and is started again")],
    },
];

const AUDIT_FORWARDING_BEHIND_REASONS: &[ConditionReason] = &[
    ConditionReason("True", "DestinationUnreachable", "there is no connection, or it broke"),
    ConditionReason("True", "CertificateNotTrusted", "its certificate is not that of who it should be"),
    ConditionReason("True", "DestinationSlow", "an exchange took longer than 30 s"),
    ConditionReason("True", "DestinationRefused", "the role is not let in, or may not write there"),
    ConditionReason("True", "DestinationFailed", "it said something else, which is in the message"),
    ConditionReason("True", "CredentialsNotUsable", "the file with the password cannot be used"),
    ConditionReason("True", "SchemaNotUsable", "its tables are not there, or of another version"),
    ConditionReason("True", "StreamNotUsable", "its stream is not there, or deletes records"),
    ConditionReason(
        "True",
        "RecordsLost",
        "it lost records that it cannot take again in their place, and forwarding goes on",
    ),
    ConditionReason(
        "True",
        "LogForked",
        "it has other records of this log: two servers share a state directory, or one is a copy",
    ),
    ConditionReason("True", "RecordBad", "a record there is not what was written"),
    ConditionReason("True", "AuditLogUnreadable", "the store here cannot be read"),
    ConditionReason(
        "True",
        "CatchingUp",
        "it takes records more slowly than they are made, for more than a minute",
    ),
    ConditionReason("True", "ForwardingEnded", "what forwards ended and is started again"),
];
const POLICY_ACCEPTED_REASONS: &[ConditionReason] = &[
    ConditionReason("True", "PolicyAccepted", "they are valid and serve"),
    ConditionReason("False", "PolicyRejected", "they have errors, which the findings of the attempt name"),
    ConditionReason("False", "PolicySourceMissing", "the policy directory is not there or cannot be read"),
    ConditionReason(
        "Unknown",
        "PolicyNotAccepted",
        "they are not accepted because of something else than this audience (of an audience)",
    ),
];
const BASELINE_SCOPES_VALID_REASONS: &[ConditionReason] = &[
    ConditionReason("True", "BaselineScopesSupported", "they are"),
    ConditionReason("False", "BaselineScopeNotSupported", "one is not supported, or is a pattern"),
    ConditionReason("False", "BaselineScopePrivileged", "one is privileged"),
    ConditionReason("False", "BaselineScopeForbidden", "one is forbidden"),
    ConditionReason("False", "TooManyBaselineScopes", "there are more than the limit"),
    ConditionReason("Unknown", "PolicySourceMissing", "the policy directory is not there or cannot be read"),
    ConditionReason("Unknown", "PolicyNotReadable", "a file cannot be read as far as that needs"),
];
const SERVING_LAST_GOOD_REASONS: &[ConditionReason] =
    &[ConditionReason("True", "PolicyNotAccepted", "see `PolicyAccepted`")];
const POLICY_SOURCE_STATIC_REASONS: &[ConditionReason] = &[ConditionReason(
    "True",
    "SingleFileMount",
    "a file is mounted alone (a `subPath`), which keeps the version of the start",
)];
const POLICY_SOURCE_UNSTABLE_REASONS: &[ConditionReason] = &[
    ConditionReason("True", "FilesKeepChanging", "they have been changing while they were read for 5 s"),
    ConditionReason(
        "True",
        "RemovalNeverQuiet",
        "they remove something and have been written all the time for 30 s (`--removal-quiet`)",
    ),
    ConditionReason("True", "ReadsFail", "the system has had errors for 5 s"),
];
