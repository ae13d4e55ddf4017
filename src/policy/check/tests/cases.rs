//! Every code of a finding, provoked by a policy, with its exact place, value and suggestion.

use std::collections::HashSet;

use super::{check_files, findings, sound};
use crate::policy::finding::{Code, Severity};

/// A code, the files (path, text), and the findings that they must give.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

/// A policy file for each code, or two; the name of the file is the code. What the store reports
/// about files that it cannot read is not here.
const CASES: &[Case] = &[
    (
        "YamlSyntax",
        &[("a.yaml", "audiences:\n  api:\n    scopesSupported: [a\n")],
        &[r#"a.yaml:3:22 YamlSyntax "" -> close the `[` with `]`"#],
    ),
    (
        "YamlSyntax",
        &[("a.yaml", "audiences:\n\tapi: {}\n")],
        &[r#"a.yaml:2:2 YamlSyntax "" -> indent with spaces"#],
    ),
    (
        "YamlTooDeep",
        &[("a.yaml", "audiences: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n")],
        &[r#"a.yaml:1:43 YamlTooDeep "" -> a policy needs no more than 6 levels"#],
    ),
    (
        "YamlTag",
        &[("a.yaml", "audiences:\n  api: {scopesSupported: [!!binary YQ==]}\n")],
        &[r#"a.yaml:2:36 YamlTag "" -> remove the tag; quote the value if it is a string"#],
    ),
    (
        "MultipleDocuments",
        &[("a.yaml", "audiences: {api: {scopesSupported: [a]}}\n---\naudiences: {}\n")],
        &[r#"a.yaml:2:1 MultipleDocuments "" -> put it into a file of its own"#],
    ),
    (
        "UnknownKey",
        &[(
            "a.yaml",
            "audience: {}\naudiences:\n  api:\n    scopesSupported: [a]\n    baselineClientScope: [a]\n    colour: red\n    registration: {unsupportedScope: drop}\n    authorization: {omitted: reject}\n    clientRules:\n      - name: r\n        when: {clientID: x, source: dcr}\n        baselineClientScopes: [a]\n        <<: {}\nguardrails: {forbidenScopes: [x]}\n",
        )],
        &[
            r#"a.yaml:1:1 UnknownKey "audience" -> did you mean `audiences`?"#,
            r#"a.yaml:5:5 UnknownKey "baselineClientScope" -> did you mean `baselineClientScopes`?"#,
            r#"a.yaml:6:5 UnknownKey "colour" -> one of: scopesSupported, baselineClientScopes, defaultClientScopes, privilegedScopes, forbiddenScopes, scopeMatching, registration, authorization, token, clientRules, scopeDescriptions, aliases, ignoreQuery, description"#,
            r#"a.yaml:7:20 UnknownKey "unsupportedScope" -> did you mean `unsupportedScopes`?"#,
            r#"a.yaml:8:21 UnknownKey "omitted" -> did you mean `omittedScope`?"#,
            r#"a.yaml:11:16 UnknownKey "clientID" -> did you mean `clientIdHost`?"#,
            r#"a.yaml:13:9 UnknownKey "<<" -> write the keys out; an alias may stand for one value, as in `scopesSupported: *scopes`"#,
            r#"a.yaml:14:14 UnknownKey "forbidenScopes" -> did you mean `forbiddenScopes`?"#,
        ],
    ),
    (
        "DuplicateKey",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    scopeMatching: exact\n    scopesSupported: [b]\n",
        )],
        &[r#"a.yaml:5:5 DuplicateKey "scopesSupported" -> keep one of them"#],
    ),
    (
        "WrongType",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid, 404, ~, [x], true]\n    baselineClientScopes: openid\n    defaultClientScopes:\n    authorization: {baselineForExistingClients: yes, stepUpScopes: {a: b}}\n    registration: drop\n    clientRules: {name: r}\nguardrails: {maxBaselineClientScopes: -1}\n",
        )],
        &[
            r#"a.yaml:3:31 WrongType "404" -> quote it: "404""#,
            r#"a.yaml:3:36 WrongType "~" -> quote it: "~""#,
            r#"a.yaml:3:39 WrongType "" -> write one list, without a list inside"#,
            r#"a.yaml:3:44 WrongType "true" -> quote it: "true""#,
            r#"a.yaml:4:27 WrongType "openid" -> write a list: [openid]"#,
            r#"a.yaml:5:24 WrongType "" -> write a list of strings, or leave the key out"#,
            r#"a.yaml:6:49 WrongType "yes" -> write `true`, without quotes"#,
            r#"a.yaml:6:68 WrongType "" -> write a list: [a:b]"#,
            r#"a.yaml:7:19 WrongType "drop" -> write `registration: {unsupportedScopes: drop}`"#,
            r#"a.yaml:8:18 WrongType "" -> write a list: start each entry with `- name: ...`"#,
            r#"a.yaml:9:39 WrongType "-1" -> write a whole number from 0 to 10"#,
        ],
    ),
    (
        "WrongType",
        &[("a.yaml", "- audiences\n")],
        &[r#"a.yaml:1:1 WrongType "" -> write the keys without `- ` in front of them"#],
    ),
    (
        "WrongType",
        &[("a.yaml", "defaultAudience: 7\naudiences:\n  7: {}\n  ? [x]\n  : {}\n  api: x\n")],
        &[
            r#"a.yaml:1:18 WrongType "7" -> quote it: "7""#,
            r#"a.yaml:3:3 WrongType "7" -> quote it: "7""#,
            r#"a.yaml:4:5 WrongType "" -> write it without brackets: x"#,
            r#"a.yaml:6:8 WrongType "x" -> write a mapping with keys such as `scopesSupported`, `baselineClientScopes`, `defaultClientScopes`"#,
        ],
    ),
    (
        "UnknownValue",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    scopeMatching: hierarchical\n    registration: {unsupportedScopes: Reject}\n    authorization: {omittedScope: allow, unknownRegistration: nothing}\n",
        )],
        &[
            r#"a.yaml:4:20 UnknownValue "hierarchical" -> did you mean `hierarchic`?"#,
            r#"a.yaml:5:39 UnknownValue "Reject" -> did you mean `reject`?"#,
            r#"a.yaml:6:35 UnknownValue "allow" -> one of: registered, default, reject"#,
            r#"a.yaml:6:63 UnknownValue "nothing" -> one of: omitted, none, supported"#,
        ],
    ),
    (
        "MissingKey",
        &[("a.yaml", "audiences:\n  api:\n    clientRules:\n      - {}\n")],
        &[
            r#"a.yaml:2:3 MissingKey "api" -> list every scope that the audience knows"#,
            r#"a.yaml:4:9 MissingKey "" -> name the rule: the audit record says which rule gave a scope"#,
            r#"a.yaml:4:9 MissingKey "" -> say for which clients, for example `when: {source: cimd}`"#,
            r#"a.yaml:4:9 MissingKey "" -> list the scopes that the rule gives"#,
        ],
    ),
    (
        "EmptyValue",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: []\n    clientRules:\n      - name: \"\"\n        when: {}\n        baselineClientScopes: []\n      - name: r\n        when: {clientName: \"\", softwareId: '', grantTypes: [], applicationType: \"\", redirectUri: \"\"}\n        baselineClientScopes: []\n      - name: s\n        when: {grantTypes: [\"\"]}\n        baselineClientScopes: []\n",
        )],
        &[
            r#"a.yaml:3:22 EmptyValue "" -> list every scope that the audience knows"#,
            r#"a.yaml:5:15 EmptyValue "" -> name the rule: the audit record says which rule gave a scope"#,
            r#"a.yaml:6:15 EmptyValue "" -> add a member, or move the scopes to the audience's own `baselineClientScopes`"#,
            r#"a.yaml:7:31 EmptyValue "" -> list the scopes that the rule gives"#,
            r#"a.yaml:9:28 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:9:44 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:9:60 EmptyValue "" -> list a grant type or leave the key out"#,
            r#"a.yaml:9:81 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:9:98 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:10:31 EmptyValue "" -> list the scopes that the rule gives"#,
            r#"a.yaml:12:29 EmptyValue "" -> remove it"#,
            r#"a.yaml:13:31 EmptyValue "" -> list the scopes that the rule gives"#,
        ],
    ),
    (
        "ValueTooLarge",
        &[(
            "a.yaml",
            "audiences: {api: {scopesSupported: [a]}}\nguardrails:\n  maxBaselineClientScopes: 11\n",
        )],
        &[r#"a.yaml:3:28 ValueTooLarge "11" -> a number from 0 to 10"#],
    ),
    (
        "ScopeMalformed",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a, \"mcp:read mcp:write\", \" b\", \"\", \"a\\\\b\", größe, \"x\\ty\"]\n",
        )],
        &[
            r#"a.yaml:3:26 ScopeMalformed "mcp:read mcp:write" -> one list entry is one scope; split it: [mcp:read, mcp:write]"#,
            r#"a.yaml:3:48 ScopeMalformed " b" -> remove the white space: `b`"#,
            r#"a.yaml:3:54 ScopeMalformed "" -> printable ASCII without space, `"` and `\` (RFC 6749 section 3.3)"#,
            r#"a.yaml:3:58 ScopeMalformed "a\\b" -> printable ASCII without space, `"` and `\` (RFC 6749 section 3.3)"#,
            r#"a.yaml:3:66 ScopeMalformed "größe" -> printable ASCII without space, `"` and `\` (RFC 6749 section 3.3)"#,
            r#"a.yaml:3:73 ScopeMalformed "x\ty" -> printable ASCII without space, `"` and `\` (RFC 6749 section 3.3)"#,
        ],
    ),
    (
        "DuplicateEntry",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a, b, a]\n    clientRules:\n      - name: r\n        when: {grantTypes: [x, x]}\n        baselineClientScopes: [b, b]\nguardrails: {forbiddenScopes: [z, z], privilegedScopes: [y, y]}\n",
        )],
        &[
            r#"a.yaml:3:29 DuplicateEntry "a" -> remove it"#,
            r#"a.yaml:6:32 DuplicateEntry "x" -> remove it"#,
            r#"a.yaml:7:35 DuplicateEntry "b" -> remove it"#,
            r#"a.yaml:8:35 DuplicateEntry "z" -> remove it"#,
            r#"a.yaml:8:61 DuplicateEntry "y" -> remove it"#,
        ],
    ),
    (
        "BaselineScopeNotSupported",
        &[(
            "mcp.yaml",
            "audiences:\n  https://mcp.example.com:\n    scopesSupported: [openid]\n    baselineClientScopes: [offline_access]\n",
        )],
        &[
            r#"mcp.yaml:4:28 BaselineScopeNotSupported "offline_access" -> add `offline_access` to `scopesSupported` or remove it here"#,
        ],
    ),
    (
        "BaselineScopeNotSupported",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [\"mcp:read\"]\n    baselineClientScopes: [\"mcp:raed\"]\n    clientRules:\n      - {name: r, when: {source: cimd}, baselineClientScopes: [other]}\n",
        )],
        &[
            r#"a.yaml:4:28 BaselineScopeNotSupported "mcp:raed" -> did you mean `mcp:read`? otherwise add `mcp:raed` to `scopesSupported`"#,
            r#"a.yaml:6:64 BaselineScopeNotSupported "other" -> add `other` to `scopesSupported` or remove it here"#,
        ],
    ),
    (
        "BaselineScopePrivileged",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [mcp, admin]\n    scopeMatching: hierarchic\n    privilegedScopes: [mcp.admin]\n    baselineClientScopes: [mcp]\n    clientRules:\n      - {name: r, when: {source: dcr}, baselineClientScopes: [admin]}\nguardrails: {privilegedScopes: [admin]}\n",
        )],
        &[
            r#"a.yaml:6:28 BaselineScopePrivileged "mcp" -> a privileged scope is never given unasked; remove it here"#,
            r#"a.yaml:8:63 BaselineScopePrivileged "admin" -> a privileged scope is never given unasked; remove it here"#,
        ],
    ),
    (
        "BaselineScopeForbidden",
        &[(
            "a.yaml",
            "guardrails: {forbiddenScopes: [\"*.admin\"]}\naudiences:\n  api:\n    scopesSupported: [\"mcp.*\"]\n    scopeMatching: wildcard\n    baselineClientScopes: [mcp.admin]\n    clientRules:\n      - {name: r, when: {source: dcr}, baselineClientScopes: [mcp.admin]}\n",
        )],
        &[
            r#"a.yaml:6:28 BaselineScopeForbidden "mcp.admin" -> remove it here"#,
            r#"a.yaml:8:63 BaselineScopeForbidden "mcp.admin" -> remove it here"#,
        ],
    ),
    (
        "TooManyBaselineScopes",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a, b, c]\n    baselineClientScopes: [a, b, c]\n    clientRules:\n      - {name: r, when: {source: dcr}, baselineClientScopes: [c, b, a]}\nguardrails: {maxBaselineClientScopes: 2}\n",
        )],
        &[
            r#"a.yaml:4:34 TooManyBaselineScopes "c" -> keep what nearly every client needs; more can come from `clientRules`"#,
            r#"a.yaml:6:69 TooManyBaselineScopes "a" -> keep what nearly every client needs; more can come from `clientRules`"#,
        ],
    ),
    (
        "BaselineScopeWildcard",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [\"mcp.*\"]\n    scopeMatching: wildcard\n    baselineClientScopes: [\"mcp.*\"]\n    clientRules:\n      - {name: r, when: {source: dcr}, baselineClientScopes: [\"mcp.*.x\"]}\n",
        )],
        &[
            r#"a.yaml:5:28 BaselineScopeWildcard "mcp.*" -> list the scopes that it stands for"#,
            r#"a.yaml:7:63 BaselineScopeWildcard "mcp.*.x" -> list the scopes that it stands for"#,
        ],
    ),
    (
        "DefaultScopeNotSupported",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid]\n    defaultClientScopes: [open_id, x]\n",
        )],
        &[
            r#"a.yaml:4:27 DefaultScopeNotSupported "open_id" -> did you mean `openid`? otherwise add `open_id` to `scopesSupported`"#,
            r#"a.yaml:4:36 DefaultScopeNotSupported "x" -> add `x` to `scopesSupported` or remove it here"#,
        ],
    ),
    (
        "DefaultScopePrivileged",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid]\n    defaultClientScopes: [openid]\n    privilegedScopes: [openid]\n",
        )],
        &[
            r#"a.yaml:4:27 DefaultScopePrivileged "openid" -> a privileged scope is never given unasked; remove it here"#,
        ],
    ),
    (
        "DefaultScopeForbidden",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid]\n    defaultClientScopes: [openid]\n    forbiddenScopes: [openid]\n",
        )],
        &[r#"a.yaml:4:27 DefaultScopeForbidden "openid" -> remove it here"#],
    ),
    (
        "DefaultScopeWildcard",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [\"*\"]\n    scopeMatching: wildcard\n    defaultClientScopes: [\"*\"]\n",
        )],
        &[r#"a.yaml:5:27 DefaultScopeWildcard "*" -> list the scopes that it stands for"#],
    ),
    (
        "StepUpScopeNotSupported",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    authorization: {stepUpScopes: [b]}\n",
        )],
        &[r#"a.yaml:4:36 StepUpScopeNotSupported "b" -> add `b` to `scopesSupported` or remove it here"#],
    ),
    (
        "StepUpScopeForbidden",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    forbiddenScopes: [a]\n    authorization: {stepUpScopes: [a]}\n",
        )],
        &[r#"a.yaml:5:36 StepUpScopeForbidden "a" -> remove it here"#],
    ),
    (
        "AudienceMalformed",
        &[(
            "a.yaml",
            "audiences:\n  https://mcp.example.com/#x: {scopesSupported: [a]}\n  https://mcp.example.com:x: {scopesSupported: [a]}\n  \"\": {scopesSupported: [a]}\n  \"a\\tb\": {scopesSupported: [a]}\ndefaultAudience: https://mcp.example.com/#y\n",
        )],
        &[
            r#"a.yaml:2:3 AudienceMalformed "https://mcp.example.com/#x" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:3:3 AudienceMalformed "https://mcp.example.com:x" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:4:3 AudienceMalformed "" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:5:3 AudienceMalformed "a\tb" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:6:18 AudienceMalformed "https://mcp.example.com/#y" -> name a declared audience"#,
        ],
    ),
    (
        "DuplicateAudience",
        &[
            (
                "a.yaml",
                "audiences:\n  https://mcp.example.com: {scopesSupported: [a]}\n  HTTPS://MCP.example.com:443/: {scopesSupported: [b]}\n",
            ),
            ("b.yaml", "audiences:\n  https://mcp.example.com: {scopesSupported: [c]}\n"),
        ],
        &[
            r#"a.yaml:3:3 DuplicateAudience "HTTPS://MCP.example.com:443/" -> declare an audience once; merge the two entries"#,
            r#"b.yaml:2:3 DuplicateAudience "https://mcp.example.com" -> declare an audience once; merge the two entries"#,
        ],
    ),
    (
        "DuplicateAudience",
        &[
            (
                "a.yaml",
                "audiences:\n  https://a.example: {scopesSupported: [a], aliases: [api, \"https://b.example/\"]}\n  https://b.example: {scopesSupported: [b], aliases: [api]}\n",
            ),
            ("b.yaml", "audiences:\n  api: {scopesSupported: [c], aliases: [HTTPS://A.example]}\n"),
        ],
        &[
            r#"a.yaml:3:3 DuplicateAudience "https://b.example" -> one name means one audience; remove it from one of them"#,
            r#"a.yaml:3:55 DuplicateAudience "api" -> one name means one audience; remove it from one of them"#,
            r#"b.yaml:2:3 DuplicateAudience "api" -> one name means one audience; remove it from one of them"#,
            r#"b.yaml:2:41 DuplicateAudience "HTTPS://A.example" -> one name means one audience; remove it from one of them"#,
        ],
    ),
    (
        "DuplicateAudience",
        &[(
            "a.yaml",
            "audiences:\n  https://a.example/x?k=1: {scopesSupported: [a]}\n  https://a.example/x?k=2: {scopesSupported: [a], ignoreQuery: true}\n  https://a.example/x?k=3: {scopesSupported: [a]}\n  api: {scopesSupported: [a], aliases: [\"https://a.example/x\"]}\n  https://a.example/y?k=4: {scopesSupported: [a]}\n",
        )],
        &[
            r#"a.yaml:3:3 DuplicateAudience "https://a.example/x?k=2" -> remove `ignoreQuery`, or merge the two entries"#,
            r#"a.yaml:4:3 DuplicateAudience "https://a.example/x?k=3" -> remove `ignoreQuery`, or merge the two entries"#,
            r#"a.yaml:5:41 DuplicateAudience "https://a.example/x" -> remove `ignoreQuery`, or merge the two entries"#,
        ],
    ),
    (
        "RedundantAlias",
        &[(
            "a.yaml",
            "audiences:\n  https://a.example/x?k: {scopesSupported: [a], ignoreQuery: true, aliases: [\"https://A.example:443/x\", \"api://b?k\", \"api://B\", \"x?k\", x]}\n  api: {scopesSupported: [a], aliases: [api]}\n",
        )],
        &[
            r#"a.yaml:2:78 RedundantAlias "https://A.example:443/x" -> remove it"#,
            r#"a.yaml:2:118 RedundantAlias "api://B" -> remove it"#,
            r#"a.yaml:3:41 RedundantAlias "api" -> remove it"#,
        ],
    ),
    (
        "DuplicateEntry",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [a], aliases: [b, b]}\nregistrationAudiences: [api, b, api]\n",
        )],
        &[
            r#"a.yaml:2:44 DuplicateEntry "b" -> remove it"#,
            r#"a.yaml:3:30 DuplicateEntry "b" -> remove it"#,
            r#"a.yaml:3:33 DuplicateEntry "api" -> remove it"#,
        ],
    ),
    (
        "AudienceMalformed",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [a], aliases: [\"https://a.example#x\", \"\"]}\nregistrationAudiences: [\"https://a.example:x\"]\n",
        )],
        &[
            r#"a.yaml:2:41 AudienceMalformed "https://a.example#x" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:2:64 AudienceMalformed "" -> an https URL without fragment, or a plain name"#,
            r#"a.yaml:3:25 AudienceMalformed "https://a.example:x" -> name a declared audience"#,
        ],
    ),
    (
        "IgnoreQueryWithoutUrl",
        &[(
            "a.yaml",
            "audiences:\n  urn:x: {scopesSupported: [a], ignoreQuery: true}\n  urn:y: {scopesSupported: [a], ignoreQuery: false}\n",
        )],
        &[
            r#"a.yaml:2:46 IgnoreQueryWithoutUrl "true" -> remove it here; list other spellings under `aliases`"#,
        ],
    ),
    (
        "RegistrationAudienceNotDeclared",
        &[(
            "a.yaml",
            "audiences:\n  https://mcp.example.com: {scopesSupported: [a]}\nregistrationAudiences: [https://mcp.example.org, api]\n",
        )],
        &[
            r#"a.yaml:3:25 RegistrationAudienceNotDeclared "https://mcp.example.org" -> did you mean `https://mcp.example.com`?"#,
            r#"a.yaml:3:50 RegistrationAudienceNotDeclared "api" -> declare it under `audiences`"#,
        ],
    ),
    (
        "DuplicateRegistrationAudiences",
        &[
            ("a.yaml", "audiences: {api: {scopesSupported: [a]}}\nregistrationAudiences: [api]\n"),
            ("b.yaml", "registrationAudiences: [api]\n"),
        ],
        &[r#"b.yaml:1:24 DuplicateRegistrationAudiences "" -> set it in one file"#],
    ),
    (
        "EmptyValue",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [a], description: \"\", scopeDescriptions: {a: \"\"}}\nregistrationAudiences: []\n",
        )],
        &[
            r#"a.yaml:2:44 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:2:71 EmptyValue "" -> write a value or leave the key out"#,
            r#"a.yaml:3:24 EmptyValue "" -> list an audience or leave the key out"#,
        ],
    ),
    (
        "UnknownKey",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    authorization: {unknownRegistration: {dcrr: none, DCR: none, other: none, cimd: nothing}}\n",
        )],
        &[
            r#"a.yaml:4:43 UnknownKey "dcrr" -> did you mean `dcr`?"#,
            r#"a.yaml:4:55 UnknownKey "DCR" -> did you mean `dcr`?"#,
            r#"a.yaml:4:66 UnknownKey "other" -> one of: cimd, dcr, static"#,
            r#"a.yaml:4:85 UnknownValue "nothing" -> one of: omitted, none, supported"#,
        ],
    ),
    (
        "DescribedScopeNotSupported",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid, mcp]\n    scopeMatching: hierarchic\n    scopeDescriptions: {openif: x, mcp.read: y, read: z, \"a b\": z}\n",
        )],
        &[
            r#"a.yaml:5:25 DescribedScopeNotSupported "openif" -> did you mean `openid`?"#,
            r#"a.yaml:5:49 DescribedScopeNotSupported "read" -> describe supported scopes only; remove it here"#,
            r#"a.yaml:5:58 ScopeMalformed "a b" -> a scope of `scopesSupported`"#,
        ],
    ),
    (
        "DuplicateKey",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    scopeDescriptions: {a: x, a: y}\n    authorization: {unknownRegistration: {dcr: none, dcr: none}}\n",
        )],
        &[
            r#"a.yaml:4:31 DuplicateKey "a" -> keep one of them"#,
            r#"a.yaml:5:54 DuplicateKey "dcr" -> keep one of them"#,
        ],
    ),
    (
        "AlwaysGrantScopeNotSupported",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [openid, up, p, f]\n    privilegedScopes: [p]\n    forbiddenScopes: [f]\n    authorization: {stepUpScopes: [up], alwaysGrantScopes: [opeind, up, p, f, openid, \"a b\"]}\n",
        )],
        &[
            r#"a.yaml:6:61 AlwaysGrantScopeNotSupported "opeind" -> did you mean `openid`? otherwise add `opeind` to `scopesSupported`"#,
            r#"a.yaml:6:69 AlwaysGrantScopeStepUp "up" -> a step-up scope is granted only where it is asked for; remove it here"#,
            r#"a.yaml:6:73 AlwaysGrantScopePrivileged "p" -> a privileged scope is never given unasked; remove it here"#,
            r#"a.yaml:6:76 AlwaysGrantScopeForbidden "f" -> remove it here"#,
            r#"a.yaml:6:87 ScopeMalformed "a b" -> one list entry is one scope; split it: [a, b]"#,
        ],
    ),
    (
        "AlwaysGrantScopePrivileged",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [p], authorization: {alwaysGrantScopes: [p]}}\nguardrails: {privilegedScopes: [p]}\n",
        )],
        &[
            r#"a.yaml:2:67 AlwaysGrantScopePrivileged "p" -> a privileged scope is never given unasked; remove it here"#,
        ],
    ),
    (
        "AlwaysGrantScopeForbidden",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [mcp], scopeMatching: hierarchic, forbiddenScopes: [mcp.x], authorization: {alwaysGrantScopes: [mcp]}}\n",
        )],
        &[r#"a.yaml:2:122 AlwaysGrantScopeForbidden "mcp" -> remove it here"#],
    ),
    (
        "AlwaysGrantScopeStepUp",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [mcp], scopeMatching: hierarchic, authorization: {stepUpScopes: [mcp], alwaysGrantScopes: [mcp.x]}}\n",
        )],
        &[
            r#"a.yaml:2:117 AlwaysGrantScopeStepUp "mcp.x" -> a step-up scope is granted only where it is asked for; remove it here"#,
        ],
    ),
    (
        "AlwaysGrantScopeWildcard",
        &[(
            "a.yaml",
            "audiences:\n  api: {scopesSupported: [mcp.*], scopeMatching: wildcard, authorization: {alwaysGrantScopes: [mcp.*, mcp.x]}}\n",
        )],
        &[r#"a.yaml:2:96 AlwaysGrantScopeWildcard "mcp.*" -> list the scopes that it stands for"#],
    ),
    (
        "NoAudience",
        &[("a.yaml", "guardrails: {forbiddenScopes: [admin]}\n")],
        &[
            r#"policies:0:0 NoAudience "" -> declare at least one under `audiences` in a `.yaml` or `.yml` file"#,
        ],
    ),
    (
        "NoAudience",
        &[("a.yaml", "audiences: {}\n")],
        &[
            r#"policies:0:0 NoAudience "" -> declare at least one under `audiences` in a `.yaml` or `.yml` file"#,
        ],
    ),
    (
        "DefaultAudienceNotDeclared",
        &[(
            "a.yaml",
            "audiences:\n  https://mcp.example.com: {scopesSupported: [a]}\ndefaultAudience: https://mcp.example.org\n",
        )],
        &[
            r#"a.yaml:3:18 DefaultAudienceNotDeclared "https://mcp.example.org" -> did you mean `https://mcp.example.com`?"#,
        ],
    ),
    (
        "DuplicateDefaultAudience",
        &[
            ("a.yaml", "audiences: {api: {scopesSupported: [a]}}\ndefaultAudience: api\n"),
            ("b.yaml", "defaultAudience: api\n"),
        ],
        &[r#"b.yaml:1:18 DuplicateDefaultAudience "api" -> set it in one file"#],
    ),
    (
        "DuplicateGuardrails",
        &[
            ("a.yaml", "audiences: {api: {scopesSupported: [a]}}\nguardrails: {}\n"),
            ("b.yaml", "# a second team\nguardrails: {}\n"),
        ],
        &[r#"b.yaml:2:1 DuplicateGuardrails "guardrails" -> keep all guardrails in one file"#],
    ),
    (
        "DuplicateRuleName",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    clientRules:\n      - {name: r, when: {source: dcr}, baselineClientScopes: [a]}\n      - {name: r, when: {source: cimd}, baselineClientScopes: [a]}\n",
        )],
        &[r#"a.yaml:6:16 DuplicateRuleName "r" -> give each rule its own name"#],
    ),
    (
        "HostMalformed",
        &[(
            "a.yaml",
            "audiences:\n  api:\n    scopesSupported: [a]\n    clientRules:\n      - {name: r, when: {clientIdHost: \"https://app.example.com/x\"}, baselineClientScopes: [a]}\n      - {name: s, when: {clientIdHost: \"app.example.com:8443\"}, baselineClientScopes: [a]}\n      - {name: t, when: {clientIdHost: \"\"}, baselineClientScopes: [a]}\n",
        )],
        &[
            r#"a.yaml:5:40 HostMalformed "https://app.example.com/x" -> did you mean `app.example.com`?"#,
            r#"a.yaml:6:40 HostMalformed "app.example.com:8443" -> did you mean `app.example.com`?"#,
            r#"a.yaml:7:40 HostMalformed "" -> a host alone, without scheme, port and path; international names in their xn-- form"#,
        ],
    ),
    (
        "EmptyFile",
        &[("a.yaml", "# nothing yet\n"), ("b.yaml", "audiences: {api: {scopesSupported: [a]}}\n")],
        &[r#"a.yaml:0:0 EmptyFile "" -> declare `audiences` or delete the file"#],
    ),
];

#[test]
fn each_code_has_a_case_with_its_place_value_and_suggestion() {
    let mut seen = HashSet::new();
    for (code, files, expected) in CASES {
        check_files(files, expected);
        let codes: Vec<&str> = findings(files).iter().map(|finding| finding.code.as_str()).collect();
        assert!(codes.contains(code), "{code} is not among {codes:?}");
        seen.insert(*code);
    }
    let list = "x, ".repeat(1000);
    let bomb = format!("a: &a [{list}]\nb: [{}]\n", "*a, ".repeat(100));
    let found = findings(&[("a.yaml", &bomb)]);
    assert_eq!((found[0].code, found[0].position.line, found.len()), (Code::YamlTooLarge, 2, 1));
    sound(&[("a.yaml", &bomb)], &found[0]);
    seen.insert("YamlTooLarge");
    let of_the_store = [
        "FileUnreadable",
        "FileTooLarge",
        "FileNotUtf8",
        "FileNotRegular",
        "FileSizeMismatch",
        "LinkLeadsOutside",
        "DirectoryLoop",
    ];
    let of_test_files = ["TestAudienceNotDeclared", "DuplicateTestName", "ImpossibleExpectation"];
    let of_access_files = [
        "NobodyMayCall",
        "CallerNameMalformed",
        "DuplicateCallerName",
        "CallerMatchMalformed",
        "DuplicateCallerMatch",
    ];
    let elsewhere = |code: &Code| {
        let is_doubt = code.severity() == Severity::Warning && *code != Code::EmptyFile;
        of_the_store.contains(&code.as_str())
            || of_test_files.contains(&code.as_str())
            || of_access_files.contains(&code.as_str())
            || is_doubt
    };
    for code in Code::ALL {
        assert!(seen.contains(code.as_str()) != elsewhere(code), "{} has no case", code.as_str());
    }
}
