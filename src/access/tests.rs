use super::*;

const HASH: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn read(text: &str) -> Result<CheckedAccess, Vec<String>> {
    AccessDocument::read(&"access.yaml".into(), text)
        .outcome
        .map_err(|findings| findings.iter().map(|finding| format!("{finding}")).collect())
}

#[track_caller]
fn list(text: &str) -> AccessList {
    read(text).expect("it is valid").list
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = read(text).expect_err("it is not valid");
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}, not {expected}");
    }
}

fn everybody() -> AccessList {
    list(&format!(
        "callers:\n  - name: as\n    match:\n      - spiffeId: spiffe://example.org/as\n      - dnsName: as.example.org\n    \
         may: [decide]\n  - name: bot\n    match: [{{tokenSha256: {HASH}}}, {{unixUid: 998}}]\n    may: [audit]\n"
    ))
}

#[test]
fn a_caller_is_known_by_what_it_shows() {
    let list = everybody();
    let names = [Box::from("other.example.org"), Box::from("as.example.org")];
    let by = |credentials: Credentials<'_>| {
        list.identify(&credentials).map(|(at, by)| (&*list.callers()[at].name, by.as_str()))
    };
    let nothing = Credentials::default();
    assert_eq!(by(nothing), None);
    assert_eq!(
        by(Credentials { spiffe_id: Some("spiffe://example.org/as"), ..nothing }),
        Some(("as", "mtls"))
    );
    assert_eq!(by(Credentials { spiffe_id: Some("spiffe://example.org/AS"), ..nothing }), None);
    assert_eq!(by(Credentials { dns_names: &names, ..nothing }), Some(("as", "mtls")));
    assert_eq!(by(Credentials { dns_names: &names[..1], ..nothing }), None);
    assert_eq!(by(Credentials { token: Some(b"hello"), ..nothing }), Some(("bot", "token")));
    assert_eq!(by(Credentials { token: Some(b"hello "), ..nothing }), None);
    assert_eq!(by(Credentials { token: Some(HASH.as_bytes()), ..nothing }), None);
    assert_eq!(by(Credentials { uid: Some(998), ..nothing }), Some(("bot", "unix")));
    assert_eq!(by(Credentials { uid: Some(0), ..nothing }), None);
    // A token belongs to the call; one that is not known takes nothing away.
    let as_id = Credentials { spiffe_id: Some("spiffe://example.org/as"), ..nothing };
    assert_eq!(by(Credentials { token: Some(b"hello"), ..as_id }), Some(("bot", "token")));
    assert_eq!(by(Credentials { token: Some(b"wrong"), ..as_id }), Some(("as", "mtls")));
}

#[test]
fn every_mistake_is_found() {
    let caller = |rest: &str| format!("callers:\n  - name: a\n    {rest}\n");
    let of_match = |entry: &str| caller(&format!("match: [{entry}]\n    may: [decide]"));
    check("", &["missing key `callers`"]);
    check("callers: []\n", &["`callers`"]);
    check(&caller("match: []\n    may: []"), &["nobody may call anything", "caller `a`: `match` is empty"]);
    check(
        &caller("match: [{unixUid: 1}]\n    may: [decied, decide, decide]"),
        &["`decied` is no right", "duplicate entry `decide`"],
    );
    check(&caller("match: [{unixUid: 1}]\n    may: [decide]\n    maxCalls: 0"), &["`maxCalls` is 0"]);
    check(
        &caller("match: [{unixUid: 1}]\n    may: [decide]\n    audiences: [a, a]"),
        &["duplicate entry `a`"],
    );
    check(&caller("match: [{unixUid: 1}]\n    may: [decide]\n    color: red"), &["unknown key `color`"]);
    check(&of_match("{unixUid: -1}"), &["unixUid"]);
    check(&of_match("{unixUid: 1, dnsName: a}"), &["and only one of them"]);
    check(&of_match("{unixUid: 1}, {unixUid: 1}"), &["already, on line 3"]);
    for bad in [
        "https://a",
        "spiffe://",
        "spiffe://A/b",
        "spiffe://a//b",
        "spiffe://a/b?c",
        "spiffe://a/..",
        "spiffe://a:1/b",
    ] {
        check(&of_match(&format!("{{spiffeId: \"{bad}\"}}")), &["is not a SPIFFE ID"]);
    }
    for bad in ["*.example.org", "A.example", "a..b", ".a", "a b"] {
        check(&of_match(&format!("{{dnsName: \"{bad}\"}}")), &["is not a DNS name"]);
    }
    let twins = "callers:\n  - {name: a, match: [{unixUid: 1}], may: [decide]}\n  - {name: a, match: [{unixUid: 2}], may: [decide]}\n";
    check(twins, &["duplicate caller name `a`, first on line 2"]);
    check(
        &caller("match: [{unixUid: 1}]\n    may: [decide]").replace("name: a", "name: \"a\\tb\""),
        &["not printable"],
    );
}

#[test]
fn a_token_in_the_place_of_its_hash_is_never_shown() {
    for hash in [&HASH[1..], &HASH.to_uppercase(), &format!("{HASH}0"), "s3cret-token"] {
        let found =
            read(&format!("callers: [{{name: a, match: [{{tokenSha256: \"{hash}\"}}], may: [decide]}}]\n"));
        let found = found.expect_err("it is no hash").join("\n");
        assert!(found.contains("64 hexadecimal digits") && !found.contains(hash), "{found}");
    }
}

#[test]
fn what_is_odd_is_a_warning() {
    let checked = read(
        "callers:\n  - {name: a, match: [], may: [decide]}\n  - {name: b, match: [{unixUid: 1}], may: [status], audiences: [x, Y]}\n",
    )
    .expect("it is valid");
    let codes: Vec<_> = checked.warnings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["NobodyMayDecide", "UselessCaller"]);
    let set = crate::policy::sample::set("audiences: {x: {scopesSupported: [a]}}\n");
    let undeclared = checked.undeclared(&set);
    assert_eq!(undeclared.iter().map(|finding| &*finding.value).collect::<Vec<_>>(), ["Y"]);
}

#[test]
fn changes_are_told_without_what_callers_are_known_by() {
    let before = everybody();
    let after = list(
        "callers:\n  - name: as\n    match: [{spiffeId: spiffe://example.org/as}]\n    may: [decide, status]\n    maxCalls: 3\n  - \
         name: new\n    match: [{unixUid: 998}]\n    may: [audit]\n",
    );
    let (changes, widening) = after.changes(&before);
    assert_eq!(
        changes,
        [
            "caller `bot` removed",
            "caller `as` may status",
            "caller `as` is known by something else",
            "caller `as`: another number of calls",
            "caller `new` added",
        ]
    );
    assert_eq!(widening, 2);
    assert_eq!(before.changes(&everybody()), (Vec::new(), 0));
}

#[test]
fn the_table_reads_what_the_schema_and_the_page_say() {
    crate::policy::format::conform::check_table(&super::keys::ACCESS);
    crate::policy::format::conform::file_is(
        "docs/reference/access.schema.json",
        &(serde_json::to_string_pretty(&super::keys::access_schema()).unwrap() + "\n"),
    );
    crate::policy::format::conform::file_is("docs/reference/access.md", &super::keys::page());
}
