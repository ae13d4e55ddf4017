//! The reference of policy files and of test files: one page for people, and the schema of test files.

use serde_json::Value;

use super::keys::SUITE;
use crate::policy::format::markdown::markdown;
use crate::policy::format::schema::schema;
use crate::policy::keys::POLICY;

/// The JSON Schema (draft 2020-12) of test files.
#[must_use]
pub fn suite_schema() -> Value {
    schema("Scopeward policy tests", "What a policy must answer, beside the policy.", &SUITE)
}

/// `docs/reference/policy.md`: both formats, for people.
#[must_use]
pub fn page() -> String {
    format!("{INTRO}{}{TESTS}{}", markdown(&POLICY), markdown(&SUITE)).trim_end().to_owned() + "\n"
}

const INTRO: &str = "\
<!-- Generated from the tables in src/policy/keys.rs and src/suite/keys.rs; change it there. -->
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
    use super::super::{Suite, run};
    use super::*;
    use crate::policy::check;
    use crate::policy::document::Document;
    use crate::policy::format::conform::{check_table, conforms, file_is};

    #[test]
    fn the_table_is_sound() {
        check_table(&SUITE);
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
