//! The format of test files as a table, and the reference of both formats.

use serde_json::Value;

use super::MAX_ROWS;
use crate::decision::{Origin, Reason};
use crate::policy::reference::{Key, Kind, POLICY, Rule, Section, markdown, schema};

const fn key(name: &'static str, kind: Kind, text: &'static str) -> Key {
    Key { name, kind, required: false, default: "", text }
}

const fn required(name: &'static str, kind: Kind, text: &'static str) -> Key {
    Key { name, kind, required: true, default: "", text }
}

const REASONS: &[&str] = &[
    Reason::Malformed.as_str(),
    Reason::Forbidden.as_str(),
    Reason::Unsupported.as_str(),
    Reason::Unregistered.as_str(),
    Reason::ScopeRequired.as_str(),
    Reason::NothingGranted.as_str(),
    Reason::AudienceUnknown.as_str(),
    Reason::AudienceMalformed.as_str(),
    Reason::AudienceRequired.as_str(),
    Reason::TooManyScopes.as_str(),
    Reason::ClientTooLarge.as_str(),
];

const AUDIENCES: Key = key(
    "audiences",
    Kind::Texts(0),
    "The audiences that the request names; may be left out, as on the wire.",
);
const SCOPE: Key = key(
    "scope",
    Kind::Text(0),
    "`scope` as received. Left out, empty and blank are three inputs that all mean omitted.",
);
const CLIENT: Key = key("client", Kind::One("client"), "What is known about the client.");

/// The format of test files; the first section is the file.
pub const SUITE: &[Section] = &[
    Section {
        name: "test file",
        text: "A file whose name ends in `_test.yaml` or `_test.yml`, anywhere in the folder of the policy. It is never part of \
               the policy.",
        rule: Rule::Plain,
        keys: &[required(
            "tests",
            Kind::List("test case", 1),
            "The cases, in the order in which they are shown.",
        )],
    },
    Section {
        name: "test case",
        text: "One question and what its answer must be; with a `table`, one for each row. Only what `expect` names is compared.",
        rule: Rule::OneOfAndAnyOf(&["register", "authorize"], &["expect", "table"]),
        keys: &[
            required("name", Kind::Text(1), "What the case shows. Unique in the file."),
            key("register", Kind::One("register"), "Asks `ExpandRegistrationScopes`."),
            key("authorize", Kind::One("authorize"), "Asks `CheckAuthorizeScopes`."),
            key("expect", Kind::One("expect"), "What the answer must be."),
            key(
                "table",
                Kind::One("table"),
                "Many inputs under the shared ones of `register` or `authorize` and `expect`.",
            ),
        ],
    },
    Section {
        name: "register",
        text: "A registration, as on the wire.",
        rule: Rule::Plain,
        keys: &[
            AUDIENCES,
            SCOPE,
            key(
                "previousScope",
                Kind::Text(0),
                "What the client holds so far, where this is an update (RFC 7592). Left out means a new registration.",
            ),
            CLIENT,
        ],
    },
    Section {
        name: "authorize",
        text: "An authorize request, as on the wire.",
        rule: Rule::Plain,
        keys: &[
            AUDIENCES,
            SCOPE,
            key(
                "registeredScope",
                Kind::Text(0),
                "What the client registered. Left out means unknown, empty means none.",
            ),
            CLIENT,
        ],
    },
    Section {
        name: "client",
        text: "The client, as the authorization server sends it.",
        rule: Rule::Plain,
        keys: &[
            key("clientId", Kind::Text(0), "`client_id`."),
            key(
                "source",
                Kind::Choice(&["dcr", "cimd", "static", "DCR", "CIMD", "STATIC"]),
                "Where the server knows the client from; as in policy files, or as in the API.",
            ),
            key("clientName", Kind::Text(0), "`client_name`."),
            key("softwareId", Kind::Text(0), "`software_id`."),
            key("softwareVersion", Kind::Text(0), "`software_version`; no rule looks at it."),
            key("redirectUris", Kind::Texts(0), "`redirect_uris`."),
            key("grantTypes", Kind::Texts(0), "`grant_types`."),
            key("applicationType", Kind::Text(0), "`application_type`."),
        ],
    },
    Section {
        name: "expect",
        text: "What the answer must be, as far as it is written. Scopes are compared as sets, since their order has no meaning \
               (RFC 6749 section 3.3); lists are complete, in any order. What no answer can meet is an error of the file.",
        rule: Rule::NotEmpty,
        keys: &[
            key("decision", Kind::Choice(&["ALLOW", "DENY"]), "How it ends."),
            key("scope", Kind::Text(0), "The granted scopes, separated by spaces."),
            key(
                "added",
                Kind::List("added", 0),
                "All that the client got without asking; `[]` says nothing.",
            ),
            key("refused", Kind::List("refused", 0), "All that was refused; `[]` says nothing."),
            key(
                "error",
                Kind::Choice(&["invalid_scope", "invalid_client_metadata", "invalid_target"]),
                "The OAuth error code.",
            ),
            key("reason", Kind::Choice(REASONS), "Why the whole was denied."),
            key(
                "registeredScope",
                Kind::Text(0),
                "Only at authorize: what may be taken as registered for this request.",
            ),
            key(
                "audienceGrants",
                Kind::List("audience grant", 0),
                "Only at authorize: which audience grants which scopes.",
            ),
        ],
    },
    Section {
        name: "added",
        text: "A scope that the client got without asking.",
        rule: Rule::OrText,
        keys: &[
            required("scope", Kind::Text(1), "The scope."),
            key(
                "origin",
                Kind::Choice(&[
                    Origin::Baseline.as_str(),
                    Origin::Default.as_str(),
                    Origin::Registered.as_str(),
                    Origin::StepUp.as_str(),
                    Origin::Always.as_str(),
                ]),
                "Where it comes from.",
            ),
            key("rule", Kind::Text(0), "The client rule that gives it; empty: none does."),
        ],
    },
    Section {
        name: "refused",
        text: "A scope that was asked for and refused.",
        rule: Rule::OrText,
        keys: &[
            required("scope", Kind::Text(1), "The token as sent."),
            key("reason", Kind::Choice(REASONS), "Why."),
        ],
    },
    Section {
        name: "audience grant",
        text: "What one audience grants.",
        rule: Rule::Plain,
        keys: &[
            required("audience", Kind::Text(1), "The audience, compared as audiences are."),
            key("scope", Kind::Text(0), "Its scopes, separated by spaces."),
        ],
    },
    Section {
        name: "table",
        text: "Each row is a case of its own: a cell puts its value in the place that its column names, over what is shared; `~` \
               leaves the place out.",
        rule: Rule::Plain,
        keys: &[
            required(
                "columns",
                Kind::Texts(1),
                "What the cells are: `name`, a key of `register` or `authorize`, `client.KEY`, `expect.KEY`.",
            ),
            required(
                "rows",
                Kind::Rows(1),
                "The rows, at most 10000; each a list with one cell for each column.",
            ),
        ],
    },
];

const _: () = assert!(MAX_ROWS == 10_000);

/// The JSON Schema (draft 2020-12) of test files.
#[must_use]
pub fn suite_schema() -> Value {
    schema("Scopeward policy tests", "What a policy must answer, beside the policy.", SUITE)
}

/// `docs/reference/policy.md`: both formats, for people.
#[must_use]
pub fn page() -> String {
    format!("{INTRO}{}{TESTS}{}", markdown(POLICY), markdown(SUITE)).trim_end().to_owned() + "\n"
}

const INTRO: &str = "\
<!-- Generated from the tables in src/policy/reference.rs and src/suite/reference.rs; change it there. -->
# Policy reference

Every key of policy files and of test files. `scopeward schema` prints the same as JSON Schema for editors
([policy](policy.schema.json), [tests](test.schema.json)); what can be wrong with a file is under
[findings](findings/README.md). The smallest useful policy:

```yaml
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\", \"mcp:write\"]
    baselineClientScopes: [offline_access]
```

A scope is one token of RFC 6749 section 3.3: printable ASCII without space, `\"` and `\\`, at most 512 bytes. YAML reads
`mcp:read` as a string, but quote what looks like a number or a boolean. Anchors and aliases work; merge keys (`<<`),
tags and second documents are errors.

A set is valid only if for every audience

- the baseline, the defaults, the step-up scopes and what client rules give are supported;
- none of them is forbidden, and none but a step-up scope is privileged. Forbidden and privileged entries stop what
  they match, and what matches them: under `hierarchic` a forbidden `mcp.admin` stops `mcp` in a baseline, too;
- no list holds an entry twice, and baselines are within their size;
- under `wildcard` no baseline, default or rule scope has a `*` segment.

";

const TESTS: &str = "\
# Policy tests

`scopeward test` runs the cases of every test file in the folder. A case asks what a server would ask and says what the
answer must be:

```yaml
tests:
  - name: a client that registers without a scope can refresh
    register:
      audiences: [https://mcp.example.com]
      client: { clientName: Claude Code }
    expect:
      decision: ALLOW
      added: [{ scope: offline_access, origin: DEFAULT }, openid]
  - name: what a client that registered openid is granted
    authorize: { audiences: [https://mcp.example.com], registeredScope: openid }
    table:
      columns: [scope, expect.decision, expect.refused]
      rows:
        - [openid offline_access, ALLOW, []]
        - [openid admin, DENY, [{ scope: admin, reason: UNSUPPORTED }]]
```

A mistake in a test file (an unknown key, an audience that the policy does not declare, an expectation that no answer can
meet) is reported with its place, nothing is run, and the exit code is 2. A case that fails makes it 4.

";

#[cfg(test)]
mod tests {
    use super::super::{self as suite, Suite, run};
    use super::*;
    use crate::policy::check;
    use crate::policy::document::Document;
    use crate::policy::reference::conform::{check_table, conforms, file_is};

    #[test]
    fn the_table_and_the_reader_know_the_same_keys() {
        check_table(
            SUITE,
            &[
                ("test file", suite::TOP_KEYS),
                ("test case", suite::CASE_KEYS),
                ("register", suite::REGISTER_KEYS),
                ("authorize", suite::CALL_KEYS),
                ("client", suite::CLIENT_KEYS),
                ("expect", suite::EXPECT_KEYS),
                ("added", suite::ADDED_KEYS),
                ("refused", suite::REFUSED_KEYS),
                ("audience grant", suite::GRANT_KEYS),
                ("table", suite::TABLE_KEYS),
            ],
        );
    }

    #[test]
    fn the_table_and_the_reader_know_the_same_spellings() {
        use super::super::read::{DECISIONS, ERRORS, ORIGINS, REASONS};
        #[track_caller]
        fn check<T>(section: &str, name: &str, spellings: &[(&str, T)]) {
            let section = SUITE.iter().find(|known| known.name == section).unwrap();
            let key = section.keys.iter().find(|key| key.name == name).unwrap();
            let Kind::Choice(names) = key.kind else { panic!("{name} is a choice") };
            assert_eq!(names, spellings.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
        check("expect", "decision", DECISIONS);
        check("expect", "error", ERRORS);
        check("expect", "reason", REASONS);
        check("refused", "reason", REASONS);
        check("added", "origin", ORIGINS);
    }

    #[test]
    fn generated_files_are_up_to_date() {
        file_is("docs/reference/policy.md", &page());
        file_is(
            "docs/reference/test.schema.json",
            &(serde_json::to_string_pretty(&suite_schema()).unwrap() + "\n"),
        );
    }

    /// The YAML of the page is what it says: a valid policy, and tests that pass under it.
    #[test]
    fn the_examples_of_the_page_work() {
        let page = page();
        let blocks: Vec<&str> =
            page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
        let [policy, tests] = blocks[..] else { panic!("two examples") };
        let file: std::sync::Arc<str> = "policy.yaml".into();
        let set = check::check(&file, &[Document::read(&file, policy)]).unwrap().set;
        let suite = Suite::read(&file, tests);
        assert_eq!(suite.check(&set), []);
        assert_eq!(conforms(&suite_schema(), tests), Ok(()));
        let report = run(&set, &[suite], None);
        assert_eq!((report.passed(), report.failed()), (3, 0), "{:#?}", report.results);
    }

    #[test]
    fn the_schema_and_the_reader_refuse_the_same_shapes() {
        let case = |rest: &str| format!("tests: [{{name: x, {rest}}}]");
        for text in [
            "tests: []".to_owned(),
            "{}".to_owned(),
            case("expect: {decision: ALLOW}"),
            case("register: {}"),
            case("register: {}, authorize: {}, expect: {decision: ALLOW}"),
            case("register: {registeredScope: a}, expect: {decision: ALLOW}"),
            case("register: {client: {source: web}}, expect: {decision: ALLOW}"),
            case("register: {}, expect: {}"),
            case("register: {}, expect: {decision: MAYBE}"),
            case("register: {}, expect: {added: [{origin: BASELINE}]}"),
            case("register: {}, expect: {refused: [{scope: a, reason: NO}]}"),
            case("authorize: {}, expect: {audienceGrants: [a]}"),
            case("register: {}, table: {columns: [scope]}"),
            case("register: {}, table: {columns: [], rows: [[]]}"),
        ] {
            assert!(conforms(&suite_schema(), &text).is_err(), "the schema takes {text}");
            assert!(
                !Suite::read(&"a_test.yaml".into(), &text).findings.is_empty(),
                "the reader takes {text}"
            );
        }
        for text in [
            case("register: {client: {source: DCR, redirectUris: []}}, expect: {added: [a, {scope: b}]}"),
            case("authorize: {registeredScope: '', scope: a}, expect: {refused: [a]}"),
            case("authorize: {}, table: {columns: [scope, expect.decision], rows: [[a, DENY], [~, ALLOW]]}"),
        ] {
            assert_eq!(conforms(&suite_schema(), &text), Ok(()));
            assert_eq!(Suite::read(&"a_test.yaml".into(), &text).findings, []);
        }
    }
}
