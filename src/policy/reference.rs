//! The format of policy files as one table: keys, types, defaults and what they mean.
//!
//! From it come the JSON Schema for editors and `docs/reference/policy.md`. The reader does not use
//! it; a test holds the two together. The table of test files stands beside their reader.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{
    ClientSource, MAX_ALIASES, MAX_BASELINE_CLIENT_SCOPES, MAX_DESCRIPTION_CHARS, MAX_REGISTRATION_AUDIENCES,
    MAX_SCOPE_DESCRIPTION_CHARS, NothingLeft, OmittedScope, Treatment, UnknownRegistration,
};
use crate::scope::MAX_TOKEN_BYTES;
use crate::scope::matching::ScopeMatching;

#[cfg(test)]
pub(crate) mod conform;

/// A mapping of the format.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name in the schema and its heading in the reference.
    pub name: &'static str,
    /// What it is for; Markdown, one paragraph.
    pub text: &'static str,
    /// What holds beyond its keys.
    pub rule: Rule,
    /// Its keys, in the order of the format.
    pub keys: &'static [Key],
}

/// What holds for a mapping beyond its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// Nothing.
    Plain,
    /// At least one member is there.
    NotEmpty,
    /// Exactly one of the first keys is there, and at least one of the second.
    OneOfAndAnyOf(&'static [&'static str], &'static [&'static str]),
    /// A text may stand in its place: the value of its first key.
    OrText,
}

/// A key of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key as written.
    pub name: &'static str,
    /// What stands behind it.
    pub kind: Kind,
    /// Whether it has to be there.
    pub required: bool,
    /// The default as JSON; `""` if there is none that can be written down.
    pub default: &'static str,
    /// What it means; Markdown, one line.
    pub text: &'static str,
}

/// What stands behind a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A list of different scopes, with the least and the most entries.
    Scopes(u64, Option<u64>),
    /// One of these.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number from 0 to this.
    Number(u64),
    /// Any string, with the least length.
    Text(u64),
    /// A list of strings, with the least entries.
    Texts(u64),
    /// A mapping.
    One(&'static str),
    /// A list of mappings, with the least entries.
    List(&'static str, u64),
    /// A mapping from any string to a mapping.
    Each(&'static str),
    /// One of these, or a mapping.
    ChoiceOrOne(&'static [&'static str], &'static str),
    /// A list of different audiences, with the least and the most entries.
    Audiences(u64, u64),
    /// A text for people, with the most characters.
    Prose(u64),
    /// A mapping from scopes to texts for people, with the most characters.
    ScopeTexts(u64),
    /// A list of lists of anything, with the least entries.
    Rows(u64),
}

const fn key(name: &'static str, kind: Kind, default: &'static str, text: &'static str) -> Key {
    Key { name, kind, required: false, default, text }
}

const fn required(name: &'static str, kind: Kind, text: &'static str) -> Key {
    Key { name, kind, required: true, default: "", text }
}

const TREATMENTS: &[&str] = &[Treatment::Reject.as_str(), Treatment::Drop.as_str()];
const NOTHING_LEFT: &[&str] = &[NothingLeft::Reject.as_str(), NothingLeft::Default.as_str()];
const UNKNOWN_REGISTRATIONS: &[&str] = &[
    UnknownRegistration::Omitted.as_str(),
    UnknownRegistration::None.as_str(),
    UnknownRegistration::Supported.as_str(),
];
const ANY_SCOPES: Kind = Kind::Scopes(0, None);
const BASELINE: Kind = Kind::Scopes(0, Some(MAX_BASELINE_CLIENT_SCOPES as u64));

const NOTHING_LEFT_TEXT: &str = "Every scope that was asked for was dropped: `reject` the request, or decide it as if the scope had been omitted (`default`).";

/// The format of policy files; the first section is the file.
pub const POLICY: &[Section] = &[
    Section {
        name: "policy file",
        text: "A policy is a folder: every `*.yaml` and `*.yml` in it, except `*_test.yaml`, `*_test.yml` and names that \
               start with a dot. All files together are one policy set. A key that is not in this reference is an error.",
        rule: Rule::Plain,
        keys: &[
            key(
                "audiences",
                Kind::Each("audience"),
                "",
                "What each audience allows. The key is the audience: the URL of the resource that tokens are for (RFC 8707), or a plain name. One audience stands in one file, once.",
            ),
            key(
                "defaultAudience",
                Kind::Text(1),
                "",
                "The audience of a request that names none. Set in at most one file; a declared audience.",
            ),
            key(
                "registrationAudiences",
                Kind::Audiences(1, MAX_REGISTRATION_AUDIENCES as u64),
                "",
                "The audiences of a registration that names none (RFC 7591 knows no `resource`). Set in at most one file; declared audiences. Default: all of them up to 256, else `defaultAudience`; with neither, such a registration is denied, and the set has a warning.",
            ),
            key(
                "guardrails",
                Kind::One("guardrails"),
                "",
                "What holds for every audience of the folder. In at most one file.",
            ),
        ],
    },
    Section {
        name: "audience",
        text: "The policy of one audience. Audiences with `scheme://host` compare by scheme and host without case, the default \
               port and the path `/` make no difference; any other path and the query compare exactly. A fragment is an error. \
               Anything else compares byte for byte.",
        rule: Rule::Plain,
        keys: &[
            required(
                "scopesSupported",
                Kind::Scopes(1, None),
                "The ceiling: every scope that the audience knows.",
            ),
            key("baselineClientScopes", BASELINE, "[]", "In every client's set, asked or not."),
            key(
                "defaultClientScopes",
                ANY_SCOPES,
                "",
                "Stands in for an omitted scope at registration. Default: those of `openid profile email offline_access` that are supported and neither privileged nor forbidden.",
            ),
            key("privilegedScopes", ANY_SCOPES, "[]", "May be asked for, never given unasked."),
            key("forbiddenScopes", ANY_SCOPES, "[]", "Never in any answer; beats everything else."),
            key(
                "scopeMatching",
                Kind::Choice(&[
                    ScopeMatching::Exact.as_str(),
                    ScopeMatching::Hierarchic.as_str(),
                    ScopeMatching::Wildcard.as_str(),
                ]),
                "\"exact\"",
                "How the entries of these lists match a requested scope. `exact`: equal bytes. `hierarchic`: `mcp` stands for `mcp.read` too. `wildcard`: in `mcp.*` the `*` stands for one segment, and as the last segment for one or more.",
            ),
            key("registration", Kind::One("registration"), "", "How registrations are treated."),
            key("authorization", Kind::One("authorization"), "", "How authorize requests are treated."),
            key(
                "clientRules",
                Kind::List("client rule", 0),
                "[]",
                "More baseline for the clients that match.",
            ),
            key(
                "scopeDescriptions",
                Kind::ScopeTexts(MAX_SCOPE_DESCRIPTION_CHARS as u64),
                "{}",
                "Texts for consent pages, by supported scope. Shown by `DescribeAudience`; not in the digest.",
            ),
            key(
                "aliases",
                Kind::Audiences(0, MAX_ALIASES as u64),
                "[]",
                "Other spellings that mean this audience, such as the path with `/` or an `api://` name. They follow the rules of an audience and are unique in the folder. Answers and audit use the main spelling.",
            ),
            key(
                "ignoreQuery",
                Kind::Flag,
                "false",
                "Whether the query of a named audience is not compared. Only for audiences with `scheme://host`.",
            ),
            key(
                "description",
                Kind::Prose(MAX_DESCRIPTION_CHARS as u64),
                "",
                "What the audience is, for people. Shown by `DescribeAudience`; not in the digest.",
            ),
        ],
    },
    Section {
        name: "registration",
        text: "Settings for `ExpandRegistrationScopes`.",
        rule: Rule::Plain,
        keys: &[
            key(
                "unsupportedScopes",
                Kind::Choice(TREATMENTS),
                "\"reject\"",
                "A scope that is not supported, or is forbidden: `reject` the request or `drop` the scope.",
            ),
            key("nothingLeft", Kind::Choice(NOTHING_LEFT), "\"reject\"", NOTHING_LEFT_TEXT),
        ],
    },
    Section {
        name: "authorization",
        text: "Settings for `CheckAuthorizeScopes`.",
        rule: Rule::Plain,
        keys: &[
            key(
                "unsupportedScopes",
                Kind::Choice(TREATMENTS),
                "\"reject\"",
                "A scope that is not supported, or is forbidden: `reject` the request or `drop` the scope.",
            ),
            key(
                "unregisteredScopes",
                Kind::Choice(TREATMENTS),
                "\"reject\"",
                "A scope that is supported but that the client does not hold: `reject` the request or `drop` the scope.",
            ),
            key(
                "omittedScope",
                Kind::Choice(&[
                    OmittedScope::Registered.as_str(),
                    OmittedScope::Default.as_str(),
                    OmittedScope::Reject.as_str(),
                ]),
                "\"registered\"",
                "What a request without scope gets. `registered`: what the client holds. `default`: those of `defaultClientScopes` that it holds. `reject`: a denial.",
            ),
            key(
                "baselineForExistingClients",
                Kind::Flag,
                "true",
                "Whether the baseline and the client rules also cover clients that were registered before they were declared.",
            ),
            key(
                "stepUpScopes",
                ANY_SCOPES,
                "[]",
                "May be authorized though never registered. Only for a request that names the scope.",
            ),
            key(
                "unknownRegistration",
                Kind::ChoiceOrOne(UNKNOWN_REGISTRATIONS, "unknown registration"),
                "\"omitted\"",
                "What a client holds if the caller does not know what it registered. `omitted`: as if it had registered just now without scope. `none`: nothing, not even the baseline. `supported`: any supported scope. One word, or one for each source of clients.",
            ),
            key("nothingLeft", Kind::Choice(NOTHING_LEFT), "\"reject\"", NOTHING_LEFT_TEXT),
            key(
                "alwaysGrantScopes",
                ANY_SCOPES,
                "[]",
                "Granted to every client that holds them, asked or not (RFC 6749 section 3.3). Supported, and neither privileged nor forbidden nor step-up scopes.",
            ),
        ],
    },
    Section {
        name: "unknown registration",
        text: "What an unknown registration counts as, by the source of the client. A source that is left out, or that the \
               caller does not tell, counts as `omitted`.",
        rule: Rule::Plain,
        keys: &[
            key(
                "cimd",
                Kind::Choice(UNKNOWN_REGISTRATIONS),
                "\"omitted\"",
                "Clients with a client id metadata document.",
            ),
            key(
                "dcr",
                Kind::Choice(UNKNOWN_REGISTRATIONS),
                "\"omitted\"",
                "Clients that registered dynamically.",
            ),
            key("static", Kind::Choice(UNKNOWN_REGISTRATIONS), "\"omitted\"", "Clients configured by hand."),
        ],
    },
    Section {
        name: "client rule",
        text: "More baseline for some clients. Every rule that matches counts.",
        rule: Rule::Plain,
        keys: &[
            required(
                "name",
                Kind::Text(1),
                "Unique in the audience; answers and audit records name it. At most 256 bytes.",
            ),
            required("when", Kind::One("when"), "For which clients."),
            required(
                "baselineClientScopes",
                Kind::Scopes(1, Some(MAX_BASELINE_CLIENT_SCOPES as u64)),
                "What they are given.",
            ),
        ],
    },
    Section {
        name: "when",
        text: "Holds if every member holds. A member about which the request says nothing does not hold. All but `clientIdHost` is \
               the client's own word.",
        rule: Rule::NotEmpty,
        keys: &[
            key(
                "source",
                Kind::Choice(&[
                    ClientSource::Dcr.as_str(),
                    ClientSource::Cimd.as_str(),
                    ClientSource::Static.as_str(),
                ]),
                "",
                "Where the authorization server knows the client from: dynamic registration, a client id metadata document, or configuration by hand.",
            ),
            key(
                "clientIdHost",
                Kind::Text(1),
                "",
                "Host of the https client id. Only for `cimd` clients; exact, without case, default port, no user information.",
            ),
            key("softwareId", Kind::Text(1), "", "Equal `software_id`."),
            key(
                "clientName",
                Kind::Text(1),
                "",
                "Pattern for `client_name`: case-sensitive, `*` stands for any text. No name over 256 bytes matches.",
            ),
            key(
                "redirectUri",
                Kind::Text(1),
                "",
                "One of the redirect URIs, byte for byte; or `loopback`: all of them are plain `http` on `localhost`, `[::1]` or 127.x.y.z, any port.",
            ),
            key(
                "grantTypes",
                Kind::Texts(1),
                "",
                "The client has all of these grant types. A client that names none has `authorization_code` (RFC 7591 section 2).",
            ),
            key("applicationType", Kind::Text(1), "", "Equal `application_type`."),
        ],
    },
    Section {
        name: "guardrails",
        text: "What holds for every audience of the folder, so that one team can own this file and others theirs.",
        rule: Rule::Plain,
        keys: &[
            key("forbiddenScopes", ANY_SCOPES, "[]", "Forbidden at every audience, beside its own."),
            key("privilegedScopes", ANY_SCOPES, "[]", "Privileged at every audience, beside its own."),
            key(
                "maxBaselineClientScopes",
                Kind::Number(MAX_BASELINE_CLIENT_SCOPES as u64),
                "10",
                "Most entries of a baseline, of an audience or of a client rule. May only lower the 10.",
            ),
        ],
    },
];

/// The JSON Schema (draft 2020-12) of policy files.
#[must_use]
pub fn policy_schema() -> Value {
    schema(
        "Scopeward policy file",
        "Which OAuth scopes the clients of an authorization server may hold and get.",
        POLICY,
    )
}

/// The JSON Schema of a format.
#[must_use]
pub fn schema(title: &str, description: &str, sections: &[Section]) -> Value {
    let mut definitions: Map<String, Value> =
        sections.iter().skip(1).map(|section| (definition(section.name), section_schema(section))).collect();
    let scope = json!({
        "type": "string",
        "description": "A scope token (RFC 6749 section 3.3).",
        "minLength": 1,
        "maxLength": MAX_TOKEN_BYTES,
        "pattern": SCOPE_PATTERN,
    });
    definitions.insert("scope".to_owned(), scope);
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
    });
    if let (Some(root), Some(Value::Object(first))) =
        (root.as_object_mut(), sections.first().map(section_schema))
    {
        root.extend(first.into_iter().filter(|(name, _)| name != "description"));
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// RFC 6749 appendix A.4.
const SCOPE_PATTERN: &str = r"^[\x21\x23-\x5B\x5D-\x7E]+$";

/// `client rule` is `clientRule` in the schema.
fn definition(name: &str) -> String {
    let mut words = name.split(' ');
    let mut made = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        made.push_str(&first.to_ascii_uppercase());
        made.push_str(rest);
    }
    made
}

fn section_schema(section: &Section) -> Value {
    let Section { name: _, text, rule, keys } = section;
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let mut made = Map::new();
    made.insert("description".to_owned(), plain(text).into());
    made.insert("type".to_owned(), "object".into());
    made.insert("properties".to_owned(), Value::Object(properties));
    let needed: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !needed.is_empty() {
        made.insert("required".to_owned(), json!(needed));
    }
    made.insert("additionalProperties".to_owned(), false.into());
    let each = |names: &[&str]| {
        Value::from(names.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>())
    };
    match rule {
        Rule::Plain => {}
        Rule::NotEmpty => _ = made.insert("minProperties".to_owned(), 1.into()),
        Rule::OneOfAndAnyOf(one, any) => {
            made.insert("oneOf".to_owned(), each(one));
            made.insert("anyOf".to_owned(), each(any));
        }
        Rule::OrText => {
            let description = made.remove("description");
            return json!({ "description": description, "anyOf": [{ "type": "string" }, made] });
        }
    }
    Value::Object(made)
}

fn key_schema(key: &Key) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{}", definition(name)) });
    let mut made = match key.kind {
        Kind::Scopes(least, most) => {
            let mut list = json!({ "type": "array", "items": reference("scope"), "uniqueItems": true });
            if let (Some(list), Some(most)) = (list.as_object_mut(), most) {
                list.insert("maxItems".to_owned(), most.into());
            }
            at_least(list, "minItems", least)
        }
        Kind::Choice(names) => json!({ "enum": names }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
        Kind::Text(least) => at_least(json!({ "type": "string" }), "minLength", least),
        Kind::Texts(least) => {
            at_least(json!({ "type": "array", "items": { "type": "string" } }), "minItems", least)
        }
        Kind::One(name) => reference(name),
        Kind::List(name, least) => {
            at_least(json!({ "type": "array", "items": reference(name) }), "minItems", least)
        }
        Kind::ChoiceOrOne(names, name) => json!({ "anyOf": [{ "enum": names }, reference(name)] }),
        Kind::Audiences(least, most) => {
            let audience = json!({ "type": "string", "minLength": 1 });
            let list = json!({ "type": "array", "items": audience, "uniqueItems": true, "maxItems": most });
            at_least(list, "minItems", least)
        }
        Kind::Prose(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
        Kind::ScopeTexts(most) => json!({
            "type": "object",
            "additionalProperties": { "type": "string", "minLength": 1, "maxLength": most },
        }),
        Kind::Each(name) => json!({ "type": "object", "additionalProperties": reference(name) }),
        Kind::Rows(least) => {
            at_least(json!({ "type": "array", "items": { "type": "array" } }), "minItems", least)
        }
    };
    if let Some(made) = made.as_object_mut() {
        made.insert("description".to_owned(), plain(key.text).into());
        if let Ok(default) = serde_json::from_str::<Value>(key.default) {
            made.insert("default".to_owned(), default);
        }
    }
    made
}

fn at_least(mut schema: Value, name: &str, least: u64) -> Value {
    if least > 0
        && let Some(schema) = schema.as_object_mut()
    {
        schema.insert(name.to_owned(), least.into());
    }
    schema
}

/// Editors show descriptions as plain text.
fn plain(markdown: &str) -> String {
    markdown.replace('`', "")
}

/// The sections of a format as Markdown: a heading and a table of keys for each.
#[must_use]
pub fn markdown(sections: &[Section]) -> String {
    let mut out = String::new();
    for Section { name, text, rule, keys } in sections {
        let (first, rest) = name.split_at(name.len().min(1));
        // Writing to a String does not fail.
        _ = write!(out, "## {}{rest}\n\n{text}", first.to_uppercase());
        match rule {
            Rule::Plain => {}
            Rule::NotEmpty => out.push_str(" At least one member is there."),
            Rule::OneOfAndAnyOf(one, any) => {
                let quoted =
                    |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let (one, any) = (quoted(one).join(" or "), quoted(any).join(" or "));
                _ = write!(out, " It has either {one}, and {any}.");
            }
            Rule::OrText => {
                let first = keys.first().map_or("", |key| key.name);
                _ = write!(out, " A string alone stands for an entry with nothing but `{first}`.");
            }
        }
        out.push_str("\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in *keys {
            let default = match (key.required, key.default) {
                (true, _) => "required".to_owned(),
                (false, "") => String::new(),
                (false, default) => format!("`{}`", default.trim_matches('"')),
            };
            let text = key.text.replace('|', "\\|");
            _ = writeln!(out, "| `{}` | {} | {default} | {text} |", key.name, kind_text(&key.kind));
        }
        out.push('\n');
    }
    out
}

fn kind_text(kind: &Kind) -> String {
    let link = |name: &str| format!("[{name}](#{})", name.replace(' ', "-"));
    match kind {
        Kind::Scopes(0, None) => "list of scopes".to_owned(),
        Kind::Scopes(0, Some(most)) => format!("list of at most {most} scopes"),
        Kind::Scopes(_, None) => "list of scopes, not empty".to_owned(),
        Kind::Scopes(least, Some(most)) => format!("list of {least} to {most} scopes"),
        Kind::Choice(names) => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Number(most) => format!("0 to {most}"),
        Kind::Text(_) => "string".to_owned(),
        Kind::Texts(_) => "list of strings".to_owned(),
        Kind::One(name) => link(name),
        Kind::List(name, _) => format!("list of [{name}](#{})", name.replace(' ', "-")),
        Kind::ChoiceOrOne(names, name) => {
            format!("{}, or {}", kind_text(&Kind::Choice(names)), link(name))
        }
        Kind::Audiences(0, most) => format!("list of at most {most} audiences"),
        Kind::Audiences(least, most) => format!("list of {least} to {most} audiences"),
        Kind::Prose(most) => format!("string of at most {most} characters"),
        Kind::ScopeTexts(most) => format!("mapping from scopes to strings of at most {most} characters"),
        Kind::Each(name) => format!("mapping to {}", link(name)),
        Kind::Rows(_) => "list of rows, each a list of cells".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::conform::{check_table, conforms, file_is};
    use super::*;
    use crate::policy::document::{self, Document};

    #[test]
    fn the_table_and_the_reader_know_the_same_keys() {
        check_table(
            POLICY,
            &[
                ("policy file", document::TOP_KEYS),
                ("audience", document::AUDIENCE_KEYS),
                ("registration", document::REGISTRATION_KEYS),
                ("authorization", document::AUTHORIZATION_KEYS),
                ("unknown registration", document::UNKNOWN_REGISTRATION_KEYS),
                ("client rule", document::RULE_KEYS),
                ("when", document::WHEN_KEYS),
                ("guardrails", document::GUARDRAILS_KEYS),
            ],
        );
    }

    #[test]
    fn the_table_and_the_reader_know_the_same_spellings() {
        #[track_caller]
        fn check<T>(section: &str, name: &str, spellings: &[(&str, T)]) {
            let section = POLICY.iter().find(|known| known.name == section).unwrap();
            let key = section.keys.iter().find(|key| key.name == name).unwrap();
            let Kind::Choice(names) = key.kind else { panic!("{name} is a choice") };
            assert_eq!(names, spellings.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
        check("audience", "scopeMatching", document::MATCHINGS);
        check("registration", "unsupportedScopes", document::TREATMENTS);
        check("authorization", "unsupportedScopes", document::TREATMENTS);
        check("authorization", "unregisteredScopes", document::TREATMENTS);
        check("authorization", "omittedScope", document::OMITTED_SCOPES);
        check("registration", "nothingLeft", document::NOTHING_LEFT);
        check("authorization", "nothingLeft", document::NOTHING_LEFT);
        for source in document::UNKNOWN_REGISTRATION_KEYS {
            check("unknown registration", source, document::UNKNOWN_REGISTRATIONS);
        }
        check("when", "source", document::SOURCES);
    }

    /// Each default of the table, written out, means the same as leaving the key out.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_policy() {
        use crate::policy::sample::set;
        let written = |name: &str| -> String {
            let section = POLICY.iter().find(|section| section.name == name).unwrap();
            let with_default = section.keys.iter().filter(|key| !key.default.is_empty());
            with_default.map(|key| format!("{}: {}", key.name, key.default)).collect::<Vec<_>>().join(", ")
        };
        let spelled_out = format!(
            "audiences: {{api: {{scopesSupported: [openid], {}, registration: {{{}}}, authorization: {{{}}}}}}}\nguardrails: {{{}}}",
            written("audience"),
            written("registration"),
            written("authorization"),
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
