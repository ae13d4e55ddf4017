//! The format of the access file: every key and its kind of value.

use serde_json::Value;

use crate::policy::format::markdown::markdown;
use crate::policy::format::schema::schema;
use crate::policy::format::{FileFormat, MappingRule, Section, ValueKind, key, required};

/// The most callers of a file.
pub const MAX_CALLERS: usize = 1000;
/// The most calls that a caller can be given.
pub const MAX_CALLS: u32 = 1_000_000;

/// The format of access files.
pub static FORMAT: FileFormat = FileFormat {
    root: &ACCESS,
    elsewhere: &[
        ("audiences", "`audiences` belongs into an entry of `callers`; a policy is named by `--policies`"),
        ("guardrails", "this is a key of policy files, which `--policies` names"),
    ],
};

/// An access file.
pub static ACCESS: Section = Section {
    name: "access file",
    text: "Who may call what. Named by `--access-file`; without one, everybody who reaches the server may call everything.",
    rule: MappingRule::Plain,
    keys: &[required(
        "callers",
        ValueKind::List(&CALLER, 1),
        "list who may call",
        "Who may call, at most 1,000. Who is not listed may only ask for health.",
    )],
};

/// A caller.
pub static CALLER: Section = Section {
    name: "caller",
    text: "Somebody who is known by one of several things, and what they may do.",
    rule: MappingRule::Plain,
    keys: &[
        required(
            "name",
            ValueKind::Text(1, Some(128)),
            "name the caller: audit events, log and metrics do",
            "In audit events, log and metrics: printable ASCII, at most 128 bytes. Unique.",
        ),
        required(
            "match",
            ValueKind::List(&MATCH, 0),
            "say by what the caller is known, for example `match: [{unixUid: 998}]`",
            "By what the caller is known; one of these is enough. Nothing in it may be in another caller's, too.",
        ),
        required(
            "may",
            ValueKind::Texts(0),
            "list what the caller may do: decide, describe, status, audit",
            "What it may do: `decide` (ask for decisions), `describe` (ask what audiences support), `status` (what serves, and what is wrong with the newest files), `audit` (read the audit).",
        ),
        key(
            "audiences",
            ValueKind::Texts(1),
            "",
            "The audiences that it knows, by a name or an alias of the policy; all others are unknown to it, and a request that names none is for these. Left out: all.",
        ),
        key(
            "maxCalls",
            ValueKind::Number(MAX_CALLS),
            "",
            "How many calls and streams it may have in flight at once, at least 1. Left out: as many as the server takes.",
        ),
    ],
};

/// An entry of `match`.
pub static MATCH: Section = Section {
    name: "match",
    text: "One thing that a caller is known by.",
    rule: MappingRule::OneOfAndAnyOf(
        &["spiffeId", "dnsName", "tokenSha256", "unixUid"],
        &["spiffeId", "dnsName", "tokenSha256", "unixUid"],
    ),
    keys: &[
        key(
            "spiffeId",
            ValueKind::Text(1, Some(2048)),
            "",
            "The one URI in the client certificate, such as `spiffe://example.org/ns/auth/sa/keycloak`. Needs `--tls-client-ca-file`.",
        ),
        key(
            "dnsName",
            ValueKind::Text(1, Some(253)),
            "",
            "A DNS name in the client certificate, exactly; lower case, no wildcard. Needs `--tls-client-ca-file`.",
        ),
        key(
            "tokenSha256",
            ValueKind::Text(1, None),
            "",
            "The SHA-256 of a bearer token, 64 hexadecimal digits in lower case. `scopeward access new-token` prints a token with its hash. Two entries let an old and a new token count while callers change over.",
        ),
        key(
            "unixUid",
            ValueKind::Number(u32::MAX),
            "",
            "The user of the process at the other end of a Unix socket.",
        ),
    ],
};

/// The JSON Schema (draft 2020-12) of access files.
#[must_use]
pub fn access_schema() -> Value {
    schema("Scopeward access file", "Who may call what.", &ACCESS)
}

/// `docs/reference/access.md`: the format for people.
#[must_use]
pub fn page() -> String {
    format!("{INTRO}{}", markdown(&ACCESS)).trim_end().to_owned() + "\n"
}

const INTRO: &str = "\
<!-- Generated from the tables in src/access/keys.rs; change it there. -->
# Access file

Every key of the file of `--access-file`. `scopeward check --access-file FILE` checks it, also against the policy;
what can be wrong with it is under [findings](findings/README.md). How to use it is in the guide
[Securing](../guides/securing.md).

```yaml
callers:
  - name: keycloak
    match:
      - spiffeId: spiffe://example.org/ns/auth/sa/keycloak
    may: [decide, describe]
  - name: monitoring
    match:
      - tokenSha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    may: [status, audit]
```

";
