//! The format of test files: every key and its kind of value.

use super::{Decision, MAX_ROWS};
use crate::decision::{Origin, Reason};
use crate::policy::format::{FileFormat, Key, MappingRule, Section, ValueKind, key, required};
use crate::policy::{Word, word};

word!(Reason);
word!(Origin);
word!(Decision);

const SCOPES: ValueKind = ValueKind::ScopeString;
const TEXT: ValueKind = ValueKind::Text(0, None);
const TOKEN: ValueKind = ValueKind::Text(1, None);

const AUDIENCES: Key = key(
    "audiences",
    ValueKind::Texts(0),
    "",
    "The audiences that the request names; may be left out, as on the wire.",
);
const SCOPE: Key = key(
    "scope",
    SCOPES,
    "",
    "`scope` as received. Left out, empty and blank are three inputs that all mean omitted.",
);
const CLIENT_KEY: Key = key("client", ValueKind::One(&CLIENT), "", "What is known about the client.");

/// The format of test files.
pub static FORMAT: FileFormat = FileFormat {
    root: &SUITE,
    elsewhere: &[
        ("defaultAudience", POLICY_TEXT),
        ("guardrails", POLICY_TEXT),
        ("registrationAudiences", POLICY_TEXT),
        ("audiences", POLICY_TEXT),
    ],
};

const POLICY_TEXT: &str =
    "a policy belongs into a file whose name does not end in `_test.yaml` or `_test.yml`";

/// A test file.
pub static SUITE: Section = Section {
    name: "test file",
    text: "A file whose name ends in `_test.yaml` or `_test.yml`, anywhere in the folder of the policy. It is never part of \
           the policy.",
    rule: MappingRule::Plain,
    keys: &[required(
        "tests",
        ValueKind::List(&CASE, 1),
        "list the cases under `tests`",
        "The cases, in the order in which they are shown.",
    )],
};

/// A test case.
pub static CASE: Section = Section {
    name: "test case",
    text: "One question and what its answer must be; with a `table`, one for each row. Only what `expect` names is compared.",
    rule: MappingRule::OneOfAndAnyOf(&["register", "authorize", "token"], &["expect", "table"]),
    keys: &[
        required(
            "name",
            TOKEN,
            "say in a few words what the case shows",
            "What the case shows. Unique in the file.",
        ),
        key("register", ValueKind::One(&REGISTER), "", "Asks `ExpandRegistrationScopes`.")
            .hint("say what is asked, for example `register: {scope: openid}`"),
        key("authorize", ValueKind::One(&AUTHORIZE), "", "Asks `CheckAuthorizeScopes`."),
        key("token", ValueKind::One(&TOKEN_REQUEST), "", "Asks `CheckTokenScopes`."),
        key("expect", ValueKind::One(&EXPECT), "", "What the answer must be.")
            .hint("say what the answer must be, for example `expect: {decision: ALLOW}`"),
        key(
            "table",
            ValueKind::One(&TABLE),
            "",
            "Many inputs under the shared ones of `register`, `authorize` or `token` and `expect`.",
        ),
    ],
};

/// `register` of a case.
pub static REGISTER: Section = Section {
    name: "register",
    text: "A registration, as on the wire.",
    rule: MappingRule::Plain,
    keys: &[
        AUDIENCES,
        SCOPE,
        key(
            "previousScope",
            SCOPES,
            "",
            "What the client holds so far, where this is an update (RFC 7592). Left out means a new registration.",
        ),
        CLIENT_KEY,
    ],
};

/// `authorize` of a case.
pub static AUTHORIZE: Section = Section {
    name: "authorize",
    text: "An authorize request, as on the wire.",
    rule: MappingRule::Plain,
    keys: &[
        AUDIENCES,
        SCOPE,
        key(
            "registeredScope",
            SCOPES,
            "",
            "What the client registered. Left out means unknown, empty means none.",
        ),
        CLIENT_KEY,
    ],
};

/// `token` of a case.
pub static TOKEN_REQUEST: Section = Section {
    name: "token",
    text: "A request at the token endpoint, as on the wire.",
    rule: MappingRule::Plain,
    keys: &[
        AUDIENCES,
        SCOPE,
        required(
            "grant",
            ValueKind::Choice(GRANTS),
            "say what the client presents, for example `grant: refresh`",
            "What the client presents: a refresh token, its own credentials, a JWT, or another token; as here, or as in the API.",
        ),
        key(
            "grantedScope",
            SCOPES,
            "",
            "What the grant stands for; it alone counts then. Required with `refresh` and `token_exchange`. Empty means no scope.",
        ),
        key(
            "registeredScope",
            SCOPES,
            "",
            "What the client registered; counts without `grantedScope`. Left out means unknown, empty means none.",
        ),
        CLIENT_KEY,
    ],
};

/// The values of `grant`.
const GRANTS: &[&str] = &[
    "refresh",
    "client_credentials",
    "jwt_bearer",
    "token_exchange",
    "REFRESH",
    "CLIENT_CREDENTIALS",
    "JWT_BEARER",
    "TOKEN_EXCHANGE",
];

/// `client` of a question.
pub static CLIENT: Section = Section {
    name: "client",
    text: "The client, as the authorization server sends it.",
    rule: MappingRule::Plain,
    keys: &[
        key("clientId", TEXT, "", "`client_id`."),
        key(
            "source",
            ValueKind::Choice(&["dcr", "cimd", "static", "DCR", "CIMD", "STATIC"]),
            "",
            "Where the server knows the client from; as in policy files, or as in the API.",
        ),
        key("clientName", TEXT, "", "`client_name`."),
        key("softwareId", TEXT, "", "`software_id`."),
        key("softwareVersion", TEXT, "", "`software_version`; no rule looks at it."),
        key("redirectUris", ValueKind::Texts(0), "", "`redirect_uris`."),
        key("grantTypes", ValueKind::Texts(0), "", "`grant_types`."),
        key("applicationType", TEXT, "", "`application_type`."),
    ],
};

/// `expect` of a case.
pub static EXPECT: Section = Section {
    name: "expect",
    text: "What the answer must be, as far as it is written. Scopes are compared as sets, since their order has no meaning \
           (RFC 6749 section 3.3); lists are complete, in any order. What no answer can meet is an error of the file.",
    rule: MappingRule::NotEmpty("say what the answer must be, for example `decision: ALLOW`"),
    keys: &[
        key("decision", ValueKind::Choice(Decision::NAMES), "", "How it ends."),
        key("scope", SCOPES, "", "The granted scopes, separated by spaces."),
        key(
            "added",
            ValueKind::List(&ADDED, 0),
            "",
            "All that the client got without asking; `[]` means nothing.",
        ),
        key("refused", ValueKind::List(&REFUSED, 0), "", "All that was refused; `[]` means nothing."),
        key(
            "error",
            ValueKind::Choice(&["invalid_scope", "invalid_client_metadata", "invalid_target"]),
            "",
            "The OAuth error code.",
        ),
        key("reason", ValueKind::Choice(Reason::NAMES), "", "Why the whole was denied."),
        key(
            "effectiveRegisteredScope",
            SCOPES,
            "",
            "Only at authorize: what may be taken as registered for this request.",
        ),
        key(
            "audienceGrants",
            ValueKind::List(&GRANT, 0),
            "",
            "Only at authorize: which audience grants which scopes.",
        ),
    ],
};

/// An entry of `added`.
pub static ADDED: Section = Section {
    name: "added",
    text: "A scope that the client got without asking.",
    rule: MappingRule::OrText,
    keys: &[
        required("scope", TOKEN, "name the scope", "The scope."),
        key("origin", ValueKind::Choice(Origin::NAMES), "", "Where it comes from."),
        key("rule", TEXT, "", "The client rule that gives it; empty: none does."),
    ],
};

/// An entry of `refused`.
pub static REFUSED: Section = Section {
    name: "refused",
    text: "A scope that was asked for and refused.",
    rule: MappingRule::OrText,
    keys: &[
        required("scope", TOKEN, "name the scope", "The token as sent."),
        key("reason", ValueKind::Choice(Reason::NAMES), "", "Why."),
    ],
};

/// An entry of `audienceGrants`.
pub static GRANT: Section = Section {
    name: "audience grant",
    text: "What one audience grants.",
    rule: MappingRule::Plain,
    keys: &[
        required("audience", TOKEN, "name the audience", "The audience, compared as audiences are."),
        key("scope", SCOPES, "", "Its scopes, separated by spaces."),
    ],
};

/// `table` of a case.
pub static TABLE: Section = Section {
    name: "table",
    text: "Each row is a case of its own: a cell puts its value in the place that its column names, over what is shared; `~` \
           leaves the place out.",
    rule: MappingRule::Plain,
    keys: &[
        required(
            "columns",
            ValueKind::Texts(1),
            "name what the cells are, for example `[scope, expect.decision]`",
            "What the cells are: `name`, a key of `register`, `authorize` or `token`, `client.KEY`, `expect.KEY`.",
        ),
        required(
            "rows",
            ValueKind::Rows(1),
            "list the rows, each a list with one cell for each column",
            "The rows, at most 10000; each a list with one cell for each column.",
        ),
    ],
};

const _: () = assert!(MAX_ROWS == 10_000);
