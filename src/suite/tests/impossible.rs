//! Expectations that no answer can meet.

use super::*;

#[test]
fn expectations_that_no_answer_meets_are_reported() {
    #[track_caller]
    fn check(case: &str, expected: &[&str]) {
        let found: Vec<String> = read(&only(case))
            .findings
            .iter()
            .map(|finding| {
                assert_eq!(finding.code, Code::ImpossibleExpectation, "{finding:?}");
                let message = finding.message.strip_prefix("test case `x`: ").expect("the case is named");
                format!("{}: {message}", finding.value)
            })
            .collect();
        assert_eq!(found, expected, "{case}");
    }
    // What means ALLOW in one place and DENY in another.
    check(
        "register: {}, expect: {decision: ALLOW, error: invalid_client_metadata}",
        &[": `error` here means DENY, but `decision` means ALLOW"],
    );
    check(
        "register: {}, expect: {decision: ALLOW, scope: ''}",
        &[": `scope` here means DENY, but `decision` means ALLOW"],
    );
    check(
        "register: {}, expect: {decision: DENY, scope: a}",
        &[": `scope` here means ALLOW, but `decision` means DENY"],
    );
    check(
        "register: {}, expect: {reason: SCOPE_REQUIRED, added: [a]}",
        &[": `reason` here means DENY, but an entry of `added` means ALLOW"],
    );
    check(
        "authorize: {}, expect: {scope: a, effectiveRegisteredScope: ''}",
        &[": `effectiveRegisteredScope` here means DENY, but `scope` means ALLOW"],
    );
    check(
        "authorize: {}, expect: {decision: DENY, audienceGrants: [{audience: a}]}",
        &[": an entry of `audienceGrants` here means ALLOW, but `decision` means DENY"],
    );
    check(
        "register: {scope: \"a b\\tc\"}, expect: {decision: ALLOW}",
        &["b\tc: `b\\tc` in the request is not a valid scope token, which is always denied"],
    );
    // Scopes.
    check(
        "register: {}, expect: {scope: 'a é'}",
        &["é: `é` is in no answer: byte 0xC3 at offset 0 is not allowed in a scope"],
    );
    // Added.
    check("register: {}, expect: {added: [a, a]}", &["a: duplicate entry `a` in `added`"]);
    check(
        "register: {}, expect: {added: ['a b']}",
        &["a b: `added`: `a b` is in no answer: byte 0x20 at offset 1 is not allowed in a scope"],
    );
    check("register: {}, expect: {scope: b, added: [a]}", &["a: `a` is in `added` but not in `scope`"]);
    check(
        "register: {scope: a}, expect: {added: [a]}",
        &["a: `a` is asked for, so a registration does not add it"],
    );
    check(
        "register: {}, expect: {added: [{scope: a, origin: STEP_UP}]}",
        &["STEP_UP: the origin STEP_UP never comes from a registration"],
    );
    check(
        "register: {}, expect: {added: [{scope: a, origin: REGISTERED}]}",
        &["REGISTERED: the origin REGISTERED needs a `previousScope`"],
    );
    check(
        "register: {previousScope: a}, expect: {added: [{scope: a, origin: DEFAULT}]}",
        &["DEFAULT: the origin DEFAULT never comes from an update"],
    );
    check(
        "authorize: {}, expect: {added: [{scope: a, origin: ALWAYS}]}",
        &["ALWAYS: the origin ALWAYS needs a request with a scope"],
    );
    check(
        "register: {scope: b}, expect: {added: [{scope: a, origin: DEFAULT, rule: r}]}",
        &["r: a client rule adds with origin BASELINE, not DEFAULT"],
    );
    check(
        "authorize: {scope: a, registeredScope: a}, expect: {added: [{scope: a, origin: REGISTERED}]}",
        &["REGISTERED: the origin REGISTERED needs a scope that is not asked for"],
    );
    check(
        "authorize: {}, expect: {added: [{scope: a, origin: REGISTERED}, {scope: b, origin: STEP_UP}]}",
        &[
            "REGISTERED: the origin REGISTERED needs a `registeredScope`",
            "STEP_UP: the origin STEP_UP needs the scope to be asked for",
        ],
    );
    // Refused.
    check("register: {scope: a}, expect: {refused: [b]}", &["b: `b` is not asked for, so it is not refused"]);
    check("register: {scope: a}, expect: {refused: [a, a]}", &["a: duplicate entry `a` in `refused`"]);
    check(
        "register: {scope: a}, expect: {scope: a, refused: [a]}",
        &["a: `a` is in `refused` and in `scope`"],
    );
    check(
        "register: {scope: a}, expect: {refused: [{scope: a, reason: MALFORMED}]}",
        &["MALFORMED: `a` is a valid scope token, so it is not MALFORMED"],
    );
    check(
        "register: {scope: é}, expect: {refused: [{scope: é, reason: FORBIDDEN}]}",
        &["FORBIDDEN: `é` is not a valid scope token, so it is refused as MALFORMED"],
    );
    check(
        "register: {scope: a}, expect: {refused: [{scope: a, reason: UNREGISTERED}]}",
        &["UNREGISTERED: a registration is never refused as UNREGISTERED"],
    );
    check(
        "authorize: {scope: a}, expect: {refused: [{scope: a, reason: AUDIENCE_UNKNOWN}]}",
        &["AUDIENCE_UNKNOWN: AUDIENCE_UNKNOWN is why a request is denied, not one scope"],
    );
    // Errors and reasons.
    check(
        "register: {}, expect: {error: invalid_scope}",
        &["invalid_scope: a registration is refused with `invalid_client_metadata` (RFC 7591 section 3.2.2)"],
    );
    check(
        "authorize: {}, expect: {error: invalid_client_metadata}",
        &[
            "invalid_client_metadata: such a request is refused with `invalid_scope` (RFC 6749 sections 4.1.2.1 and 5.2)",
        ],
    );
    check(
        "authorize: {scope: a}, expect: {error: invalid_target, reason: FORBIDDEN, refused: [a]}",
        &[
            "invalid_target: `invalid_target` does not go with the reason FORBIDDEN",
            "a: `invalid_target` is decided before any scope, so none is refused",
        ],
    );
    for (case, expected) in [
        (
            "register: {scope: a}, expect: {reason: UNREGISTERED}",
            "UNREGISTERED never comes from a registration",
        ),
        ("register: {}, expect: {reason: NOTHING_GRANTED}", "NOTHING_GRANTED needs a request with a scope"),
        (
            "authorize: {scope: ' '}, expect: {reason: UNREGISTERED}",
            "UNREGISTERED needs a request with a scope",
        ),
        (
            "register: {scope: a}, expect: {reason: MALFORMED}",
            "MALFORMED needs a scope that is not a valid token",
        ),
        ("register: {}, expect: {reason: AUDIENCE_UNKNOWN}", "AUDIENCE_UNKNOWN needs a named audience"),
        (
            "register: {audiences: [a]}, expect: {reason: AUDIENCE_REQUIRED}",
            "AUDIENCE_REQUIRED needs a request without audience",
        ),
    ] {
        let reason = expected.split(' ').next().unwrap();
        check(case, &[&format!("{reason}: the reason {expected}")]);
    }
    for (case, expected) in [
        ("authorize: {scope: a}, expect: {reason: EXCEEDS_GRANT}", "comes from a request for a token only"),
        (
            "token: {grant: refresh, grantedScope: a, scope: a}, expect: {reason: UNREGISTERED}",
            "never comes from a request for a token, which has EXCEEDS_GRANT instead",
        ),
        (
            "token: {grant: refresh, grantedScope: a}, expect: {reason: EXCEEDS_GRANT}",
            "needs a request with a scope",
        ),
    ] {
        let reason = if expected.starts_with("never") { "UNREGISTERED" } else { "EXCEEDS_GRANT" };
        check(case, &[&format!("{reason}: the reason {reason} {expected}")]);
    }
    // Nothing is added to a token, and nothing of it counts as registered.
    check(
        "token: {grant: refresh, grantedScope: a}, expect: {added: [{scope: a, origin: REGISTERED}], \
         effectiveRegisteredScope: a}",
        &[
            "a: `a` in `added`: nothing is added to a token",
            "a: the answer to a request for a token has no `effectiveRegisteredScope`",
        ],
    );
    check(
        "token: {grant: refresh, grantedScope: a, scope: a b}, expect: {refused: [{scope: a, reason: EXCEEDS_GRANT}, \
         {scope: b, reason: UNREGISTERED}]}",
        &[
            "EXCEEDS_GRANT: `a` is in `grantedScope`, so it does not exceed it",
            "UNREGISTERED: a token is never refused a scope as UNREGISTERED, but as EXCEEDS_GRANT",
        ],
    );
    check(
        "authorize: {scope: a}, expect: {refused: [{scope: a, reason: EXCEEDS_GRANT}]}",
        &["EXCEEDS_GRANT: only a token is refused a scope as EXCEEDS_GRANT"],
    );
    // What a registration does not answer.
    check(
        "register: {}, expect: {effectiveRegisteredScope: a, audienceGrants: [{audience: b}]}",
        &[
            ": the answer to a registration has no `audienceGrants`",
            "a: the answer to a registration has no `effectiveRegisteredScope`",
        ],
    );
}

#[test]
fn a_case_that_was_not_read_is_not_judged_further() {
    let text = only("register: {scope: [a]}, expect: {refused: [a]}");
    assert_eq!(findings(&text), ["1:37 WrongType : test case `x`: `scope` needs a string, not a list"]);
}
