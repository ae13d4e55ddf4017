//! The tables of the joined store from one version to the next, and what their columns say of a record.

use scopeward::proto::v1::{AuditEventKind, TokenGrant};

use super::audit::{event, with_log};
use super::joined::{forward, recorded};
use super::*;
use crate::postgres::Postgres;
use crate::tools::wanted;

/// What schema 2 has and schema 1 had not.
const BACK_TO_SCHEMA_1: &str = "DROP VIEW scopeward_token_denials;
    ALTER TABLE scopeward_audit DROP COLUMN token_grant, DROP COLUMN token_granted_scopes;
    UPDATE scopeward_audit_schema SET version = 1";

const TOKEN_DENIALS: &str =
    "SELECT token_grant, token_granted_scopes, requested_scopes, refused_scopes, reason
    FROM scopeward_token_denials ORDER BY sequence";

/// Denials at the token endpoint, by a grant with scopes, one without any, and one that needs none.
fn append_token_denials(place: &Place) {
    let denied = |grant: TokenGrant, granted: Option<&str>| {
        let mut denied = event(AuditEventKind::Denial, MCP);
        denied.grant = grant.into();
        denied.granted_scope = granted.map(str::to_owned);
        denied
    };
    with_log(
        place,
        |_| {},
        async |log| {
            log.enqueue(denied(TokenGrant::Refresh, Some("openid mcp:read")));
            log.enqueue(denied(TokenGrant::TokenExchange, Some("")));
            log.append_durable(denied(TokenGrant::ClientCredentials, None)).await.unwrap();
        },
    );
}

#[test]
fn denials_at_the_token_endpoint_say_what_was_presented() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(2);
    append_token_denials(&place);
    forward(&place, &server);
    assert_eq!(
        server.query(TOKEN_DENIALS),
        "REFRESH|{openid,mcp:read}|{openid}|{admin}|UNSUPPORTED\n\
         TOKEN_EXCHANGE|{}|{openid}|{admin}|UNSUPPORTED\n\
         CLIENT_CREDENTIALS||{openid}|{admin}|UNSUPPORTED"
    );
    // The other questions have neither.
    let others =
        "SELECT count(*) FROM scopeward_audit WHERE token_grant IS NULL AND token_granted_scopes IS NULL";
    assert_eq!(server.query(others), "3");
    let verify = || place.run(&["audit", "verify", "--from", &server.url("postgres"), "--output", "json"]);
    assert_eq!(verify().code, 0);
    for (change, column) in [
        ("token_granted_scopes = '{openid}'", "token_granted_scopes"),
        ("token_grant = 'JWT_BEARER'", "token_grant"),
        ("token_grant = NULL", "token_grant"),
    ] {
        server.query(&format!("UPDATE scopeward_audit SET {change} WHERE sequence = 4"));
        let bad = verify();
        assert_eq!((bad.code, &bad.json()["bad"]["sequence"]), (1, &4.into()), "{change}");
        assert!(bad.stdout.contains(&format!("its column `{column}`")), "{change}: {}", bad.stdout);
    }
}

#[test]
fn tables_of_schema_1_are_named_and_brought_up_to_date() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(2);
    append_token_denials(&place);
    forward(&place, &server);
    let expected = server.query(TOKEN_DENIALS);
    server.query(BACK_TO_SCHEMA_1);
    let url = server.url("postgres");
    let advice = "has schema 1, and this version of scopeward uses schema 2: bring it up to date with `scopeward audit forward-schema";
    for args in [
        &["audit", "forward", "--once", "--audit-forward", &url][..],
        &["audit", "verify", "--from", &url],
        &["audit", "tail", "--from", &url],
    ] {
        let refused = place.run(args);
        assert!(refused.code == 2 && refused.stderr.contains(advice), "{args:?}: {}", refused.stderr);
    }
    let make = || place.run(&["audit", "forward-schema", "--audit-forward", &url]);
    // Once more does no harm.
    for _ in 0..2 {
        let made = make();
        assert_eq!((made.code, &*made.stderr), (0, ""));
        assert_eq!(server.query(TOKEN_DENIALS), expected);
        assert_eq!(server.query("SELECT max(version) FROM scopeward_audit_schema"), "2");
    }
    // A server that had not seen the new schema yet leaves the columns empty, which the next run fills in.
    server.query("UPDATE scopeward_audit SET token_grant = NULL, token_granted_scopes = NULL");
    assert_eq!(make().code, 0);
    let verified = place.run(&["audit", "verify", "--from", &url]);
    assert_eq!((verified.code, &*verified.stderr), (0, ""), "{}", verified.stdout);
    append_token_denials(&place);
    assert_eq!(forward(&place, &server)["written"], 3);

    // One of a newer version is left as it is.
    server.query("INSERT INTO scopeward_audit_schema VALUES (9); DROP VIEW scopeward_token_denials");
    let newer = make();
    assert!(newer.code == 2 && newer.stderr.contains("a newer version made it"), "{}", newer.stderr);
    assert_eq!(server.query("SELECT count(*) FROM pg_views WHERE viewname = 'scopeward_token_denials'"), "0");
}

#[test]
fn the_printed_statements_make_what_the_verb_makes() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(2);
    let printed = place.run(&["audit", "forward-schema"]);
    assert_eq!((printed.code, &*printed.stderr), (0, ""));
    for _ in 0..2 {
        server.query(&printed.stdout);
    }
    server.query(
        "GRANT SELECT, INSERT ON scopeward_audit TO writer; GRANT SELECT ON scopeward_audit_schema TO writer",
    );
    assert_eq!(forward(&place, &server)["written"], 3);
}

#[test]
fn tables_that_are_partitioned_as_the_guide_says_drop_a_month_and_prove_the_rest() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(3);
    let guide = include_str!("../../../docs/guides/more-than-one-machine.md");
    let command = |begin: &str| {
        let line =
            guide.lines().find_map(|line| line.strip_prefix("$ ").filter(|line| line.starts_with(begin)));
        line.unwrap_or_else(|| panic!("{begin}")).to_owned()
    };
    let make = command("scopeward audit forward-schema | sed");
    let make = make.strip_suffix(" | psql audit").unwrap();
    let make = make.replacen("scopeward", env!("CARGO_BIN_EXE_scopeward"), 1);
    let made = Command::new("sh").args(["-c", &make]).output().unwrap();
    assert!(made.status.success());
    server.query(std::str::from_utf8(&made.stdout).unwrap());
    server.query(
        "GRANT SELECT, INSERT ON scopeward_audit TO writer; GRANT SELECT ON scopeward_audit_schema TO writer",
    );
    let refused = place.run(&["audit", "forward", "--once", "--audit-forward", &server.url("postgres")]);
    assert!(refused.code == 2 && refused.stderr.contains("no partition of relation"), "{}", refused.stderr);

    // What is there so far is of one month, and what comes is of the next one.
    let partition = command("psql audit -c \"CREATE TABLE");
    let partition = partition.split('"').nth(1).unwrap();
    let border = server.query("SELECT clock_timestamp()");
    for (name, from, to) in [("one", "-infinity", &*border), ("two", &*border, "infinity")] {
        let statement =
            partition.replace("2026_12", name).replace("2026-12-01", from).replace("2027-01-01", to);
        assert!(
            statement.contains(&format!("scopeward_audit_{name} ")) && statement.contains(to),
            "{statement}"
        );
        server.query(&statement);
    }
    append_token_denials(&place);
    assert_eq!(forward(&place, &server)["written"], 7);
    let verify = || place.run(&["audit", "verify", "--from", &server.url("postgres"), "--output", "json"]);
    assert_eq!((verify().code, &verify().json()["records"]), (0, &7.into()));
    // The verb leaves it as it is.
    assert_eq!(place.run(&["audit", "forward-schema", "--audit-forward", &server.url("postgres")]).code, 0);
    assert_eq!(server.query(TOKEN_DENIALS).lines().count(), 3);
    server.query("DROP TABLE scopeward_audit_one");
    let rest = verify();
    assert_eq!((rest.code, &rest.json()["records"]), (0, &3.into()), "{}", rest.stdout);
}
