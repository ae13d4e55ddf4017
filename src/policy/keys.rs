//! The format of policy files: every key, its kind of value, and what it means.
//!
//! A new key is a row here and its part in [`super::check`], which compiles it.

use serde_json::Value;

use super::format::schema::schema;
use super::format::{
    Compiled, Effect, FileFormat, Key, MappingRule, Section, ValueKind, flag, key, required,
};
use super::{
    ClientSource, MAX_ALIASES, MAX_BASELINE_CLIENT_SCOPES, MAX_DESCRIPTION_CHARS, MAX_NAME_BYTES,
    MAX_REGISTRATION_AUDIENCES, MAX_SCOPE_DESCRIPTION_CHARS, NothingLeft, OmittedScope, Treatment,
    UnknownRegistration, Word,
};
use crate::scope::matching::ScopeMatching;

const ANY_SCOPES: ValueKind = ValueKind::Scopes(0, None);
const BASELINE: ValueKind = ValueKind::Scopes(0, Some(MAX_BASELINE_CLIENT_SCOPES));
const NAME: ValueKind = ValueKind::Text(1, Some(MAX_NAME_BYTES));
const UNKNOWN_REGISTRATIONS: &[&str] = UnknownRegistration::NAMES;

const UNSUPPORTED_TEXT: &str =
    "A scope that is not supported, or is forbidden: `reject` the request or `drop` the scope.";
const NOTHING_LEFT_TEXT: &str = "Every scope that was asked for was dropped: `reject` the request, or decide it as if the scope had been omitted (`default`).";

/// The format of policy files.
pub static FORMAT: FileFormat = FileFormat {
    root: &POLICY,
    elsewhere: &[
        ("tests", "test cases belong into a file whose name ends in `_test.yaml` or `_test.yml`"),
        (
            "kind",
            "a folder holds policy files; name a ConfigMap manifest as a file, as in `scopeward check FILE`",
        ),
        (
            "apiVersion",
            "a folder holds policy files; name a ConfigMap manifest as a file, as in `scopeward check FILE`",
        ),
    ],
};

/// A policy file.
pub static POLICY: Section = Section {
    name: "policy file",
    text: "A policy is a folder: every `*.yaml` and `*.yml` in it, except `*_test.yaml`, `*_test.yml` and names that \
           start with a dot. All files together are one policy set. A key that is not in this reference is an error.",
    rule: MappingRule::Plain,
    keys: &[
        key(
            "audiences",
            ValueKind::Each(&AUDIENCE),
            "",
            "What each audience allows. The key is the audience: the URL of the resource that tokens are for (RFC 8707), or a plain name. An audience is declared once, in one file.",
        ),
        key(
            "defaultAudience",
            ValueKind::Audience,
            "",
            "The audience of a request that names none. Set in at most one file; a declared audience.",
        ),
        key(
            "registrationAudiences",
            ValueKind::Audiences(1, MAX_REGISTRATION_AUDIENCES),
            "",
            "The audiences of a registration that names none (RFC 7591 knows no `resource`). Set in at most one file; declared audiences. Default: all of them up to 256, else `defaultAudience`; with neither, such a registration is denied, and the set has a warning.",
        )
        .hint("list an audience or leave the key out"),
        key(
            "guardrails",
            ValueKind::One(&GUARDRAILS),
            "",
            "What holds for every audience of the folder. In at most one file.",
        ),
        key(
            "acceptWarnings",
            ValueKind::WarningCodes,
            "[]",
            "Warnings about this file that are meant to be so, by their codes: neither `check` nor a server lists or counts them. One about the folder, or about a file that is not read, may be accepted in any file.",
        ),
    ],
};

/// An entry of `audiences`.
pub static AUDIENCE: Section = Section {
    name: "audience",
    text: "The policy of one audience. Audiences with `scheme://host` compare by scheme and host without case, the default \
           port and the path `/` make no difference; any other path and the query compare exactly. A fragment is an error. \
           Anything else compares byte for byte.",
    rule: MappingRule::Plain,
    keys: &[
        required(
            "scopesSupported",
            ValueKind::Scopes(1, None),
            "list every scope that the audience knows",
            "The ceiling: every scope that the audience knows.",
        )
        .means(Effect::Gives, Compiled::Scopes(|policy| &policy.scopes_supported)),
        key("baselineClientScopes", BASELINE, "[]", "In every client's set, asked or not.")
            .means(Effect::Gives, Compiled::Scopes(|policy| &policy.baseline_client_scopes)),
        key(
            "defaultClientScopes",
            ANY_SCOPES,
            "",
            "Stands in for an omitted scope at registration. Default: those of `openid profile email offline_access` that are supported and neither privileged nor forbidden.",
        )
        .means(Effect::Gives, Compiled::Scopes(|policy| &policy.default_client_scopes)),
        key("privilegedScopes", ANY_SCOPES, "[]", "May be asked for, never given unasked.")
            .means(Effect::Protects, Compiled::Scopes(|policy| &policy.privileged_scopes)),
        key("forbiddenScopes", ANY_SCOPES, "[]", "Never in any answer; beats everything else.")
            .means(Effect::Protects, Compiled::Scopes(|policy| &policy.forbidden_scopes)),
        key(
            "scopeMatching",
            ValueKind::Choice(ScopeMatching::NAMES),
            "\"exact\"",
            "How the entries of these lists match a scope, whose segments are separated by `.` and nothing else (`mcp:read` is one segment). `exact`: equal bytes. `hierarchic`: `mcp` stands for `mcp.read` too. `wildcard`: in `mcp.*` the `*` stands for one segment, and as the last segment for one or more.",
        )
        .means(Effect::Any, Compiled::Word(|policy| policy.scope_matching.as_str())),
        key("registration", ValueKind::One(&REGISTRATION), "", "How registrations are treated."),
        key("authorization", ValueKind::One(&AUTHORIZATION), "", "How authorize requests are treated."),
        key("token", ValueKind::One(&TOKEN), "", "How requests at the token endpoint are treated."),
        key(
            "clientRules",
            ValueKind::List(&CLIENT_RULE, 0),
            "[]",
            "More baseline for the clients that match.",
        )
        .means(Effect::Gives, Compiled::Rules(|policy| &policy.client_rules)),
        key(
            "scopeDescriptions",
            ValueKind::ScopeTexts(MAX_SCOPE_DESCRIPTION_CHARS),
            "{}",
            "Texts for consent pages, by supported scope. Shown by `DescribeAudience`; not in the digest.",
        ),
        key(
            "aliases",
            ValueKind::Audiences(0, MAX_ALIASES),
            "[]",
            "Other spellings that mean this audience, such as the path with `/` or an `api://` name. They follow the rules of an audience and are unique in the folder. Answers and audit use the main spelling.",
        )
        .means(Effect::Gives, Compiled::Aliases(|policy| &policy.aliases)),
        key(
            "ignoreQuery",
            ValueKind::Flag,
            "false",
            "Whether the query of a named audience is not compared. Only for audiences with `scheme://host`.",
        )
        .means(Effect::Rises(&["false", "true"]), Compiled::Word(|policy| flag(policy.ignore_query))),
        key(
            "description",
            ValueKind::Prose(MAX_DESCRIPTION_CHARS),
            "",
            "What the audience is, for people. Shown by `DescribeAudience`; not in the digest.",
        ),
    ],
};

/// `registration` of an audience.
pub static REGISTRATION: Section = Section {
    name: "registration",
    text: "Settings for `ExpandRegistrationScopes`.",
    rule: MappingRule::Plain,
    keys: &[
        key("unsupportedScopes", ValueKind::Choice(Treatment::NAMES), "\"reject\"", UNSUPPORTED_TEXT).means(
            Effect::Rises(&["reject", "drop"]),
            Compiled::Word(|policy| policy.registration_unsupported_scopes.as_str()),
        ),
        key("nothingLeft", ValueKind::Choice(NothingLeft::NAMES), "\"reject\"", NOTHING_LEFT_TEXT).means(
            Effect::Rises(&["reject", "default"]),
            Compiled::Word(|policy| policy.registration_nothing_left.as_str()),
        ),
    ],
};

/// `authorization` of an audience.
pub static AUTHORIZATION: Section = Section {
    name: "authorization",
    text: "Settings for `CheckAuthorizeScopes`.",
    rule: MappingRule::Plain,
    keys: &[
        key("unsupportedScopes", ValueKind::Choice(Treatment::NAMES), "\"reject\"", UNSUPPORTED_TEXT).means(
            Effect::Rises(&["reject", "drop"]),
            Compiled::Word(|policy| policy.unsupported_scopes.as_str()),
        ),
        key(
            "unregisteredScopes",
            ValueKind::Choice(Treatment::NAMES),
            "\"reject\"",
            "A scope that is supported but that the client does not hold: `reject` the request or `drop` the scope.",
        )
        .means(
            Effect::Rises(&["reject", "drop"]),
            Compiled::Word(|policy| policy.unregistered_scopes.as_str()),
        ),
        key(
            "omittedScope",
            ValueKind::Choice(OmittedScope::NAMES),
            "\"registered\"",
            "What a request without scope gets. `registered`: what the client holds. `default`: those of `defaultClientScopes` that it holds. `reject`: a denial.",
        )
        .means(
            Effect::Rises(&["reject", "default", "registered"]),
            Compiled::Word(|policy| policy.omitted_scope.as_str()),
        ),
        key(
            "baselineForExistingClients",
            ValueKind::Flag,
            "true",
            "Whether the baseline and the client rules also cover clients that were registered before they were declared.",
        )
        .means(
            Effect::Rises(&["false", "true"]),
            Compiled::Word(|policy| flag(policy.baseline_for_existing_clients)),
        ),
        key(
            "stepUpScopes",
            ANY_SCOPES,
            "[]",
            "May be authorized though never registered. Only for a request that names the scope.",
        )
        .means(Effect::Gives, Compiled::Scopes(|policy| &policy.step_up_scopes)),
        key(
            "unknownRegistration",
            ValueKind::ChoiceOrOne(UNKNOWN_REGISTRATIONS, &UNKNOWN_REGISTRATION),
            "\"omitted\"",
            "What a client holds if the caller does not know what it registered. `omitted`: as if it had registered just now without scope. `none`: nothing, not even the baseline. `supported`: any supported scope. One word, or one for each source of clients.",
        )
        .means(
            Effect::Rises(&["none", "omitted", "supported"]),
            Compiled::BySource(|policy| policy.unknown_registration),
        ),
        key("nothingLeft", ValueKind::Choice(NothingLeft::NAMES), "\"reject\"", NOTHING_LEFT_TEXT).means(
            Effect::Rises(&["reject", "default"]),
            Compiled::Word(|policy| policy.nothing_left.as_str()),
        ),
        key(
            "alwaysGrantScopes",
            ANY_SCOPES,
            "[]",
            "Granted to every client that holds them, asked or not (RFC 6749 section 3.3). Supported, and neither privileged nor forbidden nor step-up scopes.",
        )
        .means(Effect::Gives, Compiled::Scopes(|policy| &policy.always_grant_scopes)),
    ],
};

/// `token` of an audience.
pub static TOKEN: Section = Section {
    name: "token",
    text: "Settings for `CheckTokenScopes`.",
    rule: MappingRule::Plain,
    keys: &[
        key(
            "unsupportedScopes",
            ValueKind::Choice(Treatment::NAMES),
            "\"drop\"",
            "A scope that is forbidden or not supported (any more): `reject` the request or `drop` the scope.",
        )
        .means(
            Effect::Rises(&["reject", "drop"]),
            Compiled::Word(|policy| policy.token_unsupported_scopes.as_str()),
        ),
        key(
            "exceedingScopes",
            ValueKind::Choice(Treatment::NAMES),
            "\"reject\"",
            "A scope that is supported but not part of the grant, or without one not held by the client: `reject` the request or `drop` the scope.",
        )
        .means(
            Effect::Rises(&["reject", "drop"]),
            Compiled::Word(|policy| policy.token_exceeding_scopes.as_str()),
        ),
    ],
};

/// `unknownRegistration` as a mapping.
pub static UNKNOWN_REGISTRATION: Section = Section {
    name: "unknown registration",
    text: "What an unknown registration counts as, by the source of the client. A source that is left out, or that the \
           caller does not tell, counts as `omitted`.",
    rule: MappingRule::Plain,
    keys: &[
        key(
            ClientSource::Cimd.as_str(),
            ValueKind::Choice(UNKNOWN_REGISTRATIONS),
            "\"omitted\"",
            "Clients with a client id metadata document.",
        ),
        key(
            ClientSource::Dcr.as_str(),
            ValueKind::Choice(UNKNOWN_REGISTRATIONS),
            "\"omitted\"",
            "Clients that registered dynamically.",
        ),
        key(
            ClientSource::Static.as_str(),
            ValueKind::Choice(UNKNOWN_REGISTRATIONS),
            "\"omitted\"",
            "Clients configured by hand.",
        ),
    ],
};

/// An entry of `clientRules`.
pub static CLIENT_RULE: Section = Section {
    name: "client rule",
    text: "More baseline for some clients. Every rule that matches counts.",
    rule: MappingRule::Plain,
    keys: &[
        required(
            "name",
            NAME,
            "name the rule: the audit record says which rule gave a scope",
            "Unique in the audience; answers and audit records name it. At most 256 bytes.",
        ),
        required(
            "when",
            ValueKind::One(&WHEN),
            "say for which clients, for example `when: {source: cimd}`",
            "For which clients.",
        ),
        required(
            "baselineClientScopes",
            ValueKind::Scopes(1, Some(MAX_BASELINE_CLIENT_SCOPES)),
            "list the scopes that the rule gives",
            "What they are given.",
        ),
    ],
};

/// `when` of a client rule.
pub static WHEN: Section = Section {
    name: "when",
    text: "Holds if every member holds. A member about which the request says nothing does not hold. All but `clientIdHost` is \
           the client's own word. A client id or redirect URI that parsers read differently (a backslash, blank, control or \
           non-ASCII byte, `@` in the authority, a fragment, a client id without path) holds no rule.",
    rule: MappingRule::NotEmpty("add a member, or move the scopes to the audience's own `baselineClientScopes`"),
    keys: &[
        key(
            "source",
            ValueKind::Choice(ClientSource::NAMES),
            "",
            "Where the authorization server knows the client from: dynamic registration, a client id metadata document, or configuration by hand.",
        ),
        key(
            "clientIdHost",
            ValueKind::Host,
            "",
            "Host of the https client id. Only for `cimd` clients; exact, without case, default port, no user information.",
        ),
        key("softwareId", ValueKind::Text(1, None), "", "Equal `software_id`."),
        key(
            "clientName",
            NAME,
            "",
            "Pattern for `client_name`: case-sensitive, `*` stands for any text. No name over 256 bytes matches.",
        ),
        key(
            "redirectUri",
            ValueKind::Text(1, None),
            "",
            "One of the redirect URIs: scheme and host without case, the default port removed, the rest byte for byte. Or `loopback`: all of them, at least one, are plain `http` on `localhost`, `[::1]` or 127.x.y.z, any port.",
        ),
        key(
            "grantTypes",
            ValueKind::Texts(1),
            "",
            "The client has all of these grant types. A client that names none has `authorization_code` (RFC 7591 section 2).",
        )
        .hint("list a grant type or leave the key out"),
        key("applicationType", ValueKind::Text(1, None), "", "Equal `application_type`."),
    ],
};

/// `guardrails` of a policy set.
pub static GUARDRAILS: Section = Section {
    name: "guardrails",
    text: "What holds for every audience of the folder, so that one team can own this file and others theirs.",
    rule: MappingRule::Plain,
    keys: &[
        key("forbiddenScopes", ANY_SCOPES, "[]", "Forbidden at every audience, in addition to its own."),
        key("privilegedScopes", ANY_SCOPES, "[]", "Privileged at every audience, in addition to its own."),
        key(
            "maxBaselineClientScopes",
            ValueKind::Number(MAX_BASELINE_CLIENT_SCOPES as u32),
            "10",
            "Most entries of a baseline, of an audience or of a client rule. May only lower the 10.",
        ),
    ],
};

/// The JSON Schema (draft 2020-12) of policy files.
#[must_use]
pub fn policy_schema() -> Value {
    schema(
        "Scopeward policy file",
        "Which OAuth scopes the clients of an authorization server may hold and get.",
        &POLICY,
    )
}

/// A key that is part of what an audience means.
#[derive(Debug)]
pub struct AudienceKey {
    /// Its path, as in `authorization.stepUpScopes`.
    pub path: String,
    /// Which change lets clients have more.
    pub effect: Effect,
    /// Reads the compiled value.
    pub read: Compiled,
}

/// The keys that make up what an audience means, in the order of the format: what the digest covers.
pub fn meanings() -> &'static [AudienceKey] {
    fn walk(prefix: &str, keys: &'static [Key], found: &mut Vec<AudienceKey>) {
        for key in keys {
            let path = format!("{prefix}{}", key.name);
            if let Some(meaning) = key.meaning {
                found.push(AudienceKey { path, effect: meaning.effect, read: meaning.read });
            } else if let ValueKind::One(section) = key.kind {
                walk(&format!("{path}."), section.keys, found);
            }
        }
    }
    static MEANINGS: std::sync::LazyLock<Vec<AudienceKey>> = std::sync::LazyLock::new(|| {
        let mut found = Vec::new();
        walk("", AUDIENCE.keys, &mut found);
        found
    });
    &MEANINGS
}

#[cfg(test)]
mod tests {
    use super::super::document::Document;
    use super::super::format::conform::{check_table, conforms, file_is};
    use super::*;

    #[test]
    fn the_table_is_sound() {
        check_table(&POLICY);
    }

    /// A key of an audience is part of its meaning, or a text for people.
    #[test]
    fn every_key_of_an_audience_has_a_meaning_or_is_for_people() {
        let paths: Vec<&str> = meanings().iter().map(|key| &*key.path).collect();
        let leaves = |prefix: &str, section: &Section| -> Vec<String> {
            let keys = section.keys.iter().filter(|key| !matches!(key.kind, ValueKind::One(_)));
            keys.map(|key| format!("{prefix}{}", key.name)).collect()
        };
        let mut all = leaves("", &AUDIENCE);
        all.extend(leaves("registration.", &REGISTRATION));
        all.extend(leaves("authorization.", &AUTHORIZATION));
        all.extend(leaves("token.", &TOKEN));
        all.retain(|path| !["description", "scopeDescriptions"].contains(&&**path));
        all.sort();
        let mut sorted = paths.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, all);
    }

    /// Each default of the table, written out, means the same as leaving the key out.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_policy() {
        use crate::policy::sample::set;
        let written = |name: &str| -> String {
            let section = POLICY.all().into_iter().find(|section| section.name == name).unwrap();
            let with_default = section.keys.iter().filter(|key| !key.default.is_empty());
            with_default.map(|key| format!("{}: {}", key.name, key.default)).collect::<Vec<_>>().join(", ")
        };
        let spelled_out = format!(
            "audiences: {{api: {{scopesSupported: [openid], {}, registration: {{{}}}, authorization: {{{}}}, token: {{{}}}}}}}\nguardrails: {{{}}}",
            written("audience"),
            written("registration"),
            written("authorization"),
            written("token"),
            written("guardrails"),
        );
        let short = "audiences: {api: {scopesSupported: [openid]}}";
        assert_eq!(set(&spelled_out).digest(), set(short).digest(), "{spelled_out}");
    }

    #[test]
    fn shipped_policies_conform_to_the_schema() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "yaml") && !name.ends_with("_test.yaml")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(conforms(&policy_schema(), &text), Ok(()), "{name}");
                count += 1;
            }
        }
        assert!(count > 0);
    }

    #[test]
    fn the_schema_and_the_reader_refuse_the_same_shapes() {
        for text in [
            "audience: {}",
            "audiences: {api: {}}",
            "audiences: {api: {scopesSupported: []}}",
            "audiences: {api: {scopesSupported: openid}}",
            "audiences: {api: {scopesSupported: [openid, openid]}}",
            "audiences: {api: {scopesSupported: ['a b']}}",
            "audiences: {api: {scopesSupported: [1]}}",
            "audiences: {api: {scopesSupported: [a], baselineClientScopes: [a, b, c, d, e, f, g, h, i, j, k]}}",
            "audiences: {api: {scopesSupported: [a], scopeMatching: fuzzy}}",
            "audiences: {api: {scopesSupported: [a], registration: {unsupportedScopes: ignore}}}",
            "audiences: {api: {scopesSupported: [a], authorization: {baselineForExistingClients: yes}}}",
            "audiences: {api: {scopesSupported: [a], clientRules: [{name: r, when: {}, baselineClientScopes: [a]}]}}",
            "audiences: {api: {scopesSupported: [a], clientRules: [{when: {source: dcr}, baselineClientScopes: [a]}]}}",
            "audiences: {api: {scopesSupported: [a], clientRules: [{name: r, when: {source: dcr}, baselineClientScopes: []}]}}",
            "audiences: {api: {scopesSupported: [a]}}\nguardrails: {maxBaselineClientScopes: 11}",
            "audiences: {api: {scopesSupported: [a]}}\nguardrails: {maxBaselineClientScopes: '1'}",
            "[]",
        ] {
            assert!(conforms(&policy_schema(), text).is_err(), "the schema takes {text}");
            let file: std::sync::Arc<str> = "policy.yaml".into();
            let outcome = crate::policy::check::check(&file, &[Document::read(&file, text)]);
            assert!(outcome.is_err(), "the reader takes {text}");
        }
    }

    #[test]
    fn the_schema_file_is_up_to_date() {
        let text = serde_json::to_string_pretty(&policy_schema()).unwrap() + "\n";
        file_is("docs/reference/policy.schema.json", &text);
    }
}
