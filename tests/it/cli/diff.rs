//! `diff`: two policies, a server, recorded calls.

use super::*;

const OLD: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\"]
    defaultClientScopes: [openid]
    privilegedScopes: [\"mcp:read\"]
";

/// Gives every client `offline_access`, protects `mcp:read` no more, adds an audience.
const NEW: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, offline_access, \"mcp:read\"]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid]
  https://new.example.com:
    scopesSupported: [openid]
";

fn place() -> Place {
    Place::with(&[("old/mcp.yaml", OLD), ("new/mcp.yaml", NEW)])
}

#[test]
fn changes_are_listed_and_what_widens_is_marked() {
    let place = place();
    assert_snapshot!(place.run(&["diff", "old", "new"]).shown(), @r"
    exit 0
    --- stdout
    ~ authorize requests that name no audience: answered -> denied (narrowing)
    ! https://mcp.example.com: baselineClientScopes +offline_access (widening)
    ! https://mcp.example.com: privilegedScopes -mcp:read (widening)
    ! https://new.example.com: audience added (widening)
    4 changes, 3 widening: sha256:DIGEST -> sha256:DIGEST
    ");
    assert_snapshot!(place.run(&["diff", "new", "old", "--fail-on-widening"]).shown(), @r"
    exit 1
    --- stdout
    ! authorize requests that name no audience: denied -> answered (widening)
    ~ https://mcp.example.com: baselineClientScopes -offline_access
    ~ https://mcp.example.com: privilegedScopes +mcp:read
    - https://new.example.com: audience removed
    4 changes, 1 widening: sha256:DIGEST -> sha256:DIGEST
    ");
    let default = format!("{OLD}defaultAudience: https://mcp.example.com\n");
    place.write("default/mcp.yaml", default);
    let other = "audiences: {'https://other.example.com': {scopesSupported: [openid]}}\n";
    place.write("two/mcp.yaml", OLD);
    place.write("two/other.yaml", other);
    place.write("both/mcp.yaml", format!("{OLD}defaultAudience: https://mcp.example.com\n"));
    place.write("both/other.yaml", other);
    // Whatever it says of its audiences, a request without one is answered that was denied.
    let ran = place.run(&["diff", "two", "both", "--fail-on-widening"]);
    let line = "! authorize requests that name no audience: denied -> answered (widening)";
    assert!(ran.code == 1 && ran.stdout.lines().any(|said| said == line), "{}", ran.shown());
    let ran = place.run(&["diff", "old", "default", "--fail-on-widening"]);
    assert_eq!(
        (ran.code, ran.stdout.lines().next()),
        (0, Some("~ defaultAudience (none) -> https://mcp.example.com"))
    );
    let ran = place.run(&["diff", "old", "old/mcp.yaml", "--fail-on-widening"]);
    assert_eq!(stable(&ran.stdout), "no changes: sha256:DIGEST\n");
    assert_eq!(ran.code, 0);
}

#[test]
fn only_a_widening_that_is_to_fail_exits_with_1() {
    let place = place();
    assert_eq!(place.run(&["diff", "old", "new"]).code, 0);
    let ran = place.run(&["diff", "old", "new", "--fail-on-widening", "--output", "json"]);
    let json = ran.json();
    assert_eq!((ran.code, &json["widening"]), (1, &3.into()));
    assert_eq!(json["changes"][0]["change"], "audience-required");
    assert_eq!(json["changes"][1]["change"], "scopes-added");
    assert_eq!(json["changes"][1]["scopes"], serde_json::json!(["offline_access"]));
    assert_eq!(json["changes"][2]["removal"], true);
    assert_eq!(
        (&json["changes"][3]["change"], &json["notVisible"]),
        (&"audience-added".into(), &Value::Array(vec![]))
    );
}

#[test]
fn what_cannot_be_compared_is_2() {
    let place = place();
    place.write("bad/mcp.yaml", UNSUPPORTED_BASELINE);
    place.write("notes.txt", "{\"kind\":\"AUDIT_EVENT_KIND_DENIAL\"}\n");
    place.write("store.db", b"SQLite format 3\0 and no more");
    for (args, said) in [
        (&["diff", "old", "bad"][..], "bad/mcp.yaml:4:28"),
        (&["diff", "bad", "old"], "the policy in `bad` is not valid"),
        (&["diff", "old", "nowhere"], "cannot read `nowhere`"),
        (&["diff"], "<OLD>"),
        (&["diff", "old"], "cannot read `policies`"),
        (&["diff", "old", "new", "--against", "http://127.217.3.9:1"], "--against"),
        (&["diff", "new", "--against", "http://127.217.3.9:1"], "could not connect to http://127.217.3.9:1"),
        (&["diff", "old", "new", "--replay", "nowhere"], "cannot read `nowhere`"),
        (&["diff", "old", "new", "--replay", "old"], "old/audit`"),
        (&["diff", "old", "new", "--replay", "notes.txt"], "notes.txt:1: "),
        (&["diff", "old", "new", "--replay", "store.db"], "`store.db` is not an audit log"),
        (&["diff", "-", "-"], "standard input can be read only once"),
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn recorded_calls_show_which_answers_flip() {
    let place = place();
    place.write("policies/mcp.yaml", OLD);
    let server = Server::start(&place);
    let ask = |scope: &str| {
        let args = ["authorize", "--audience", MCP, "--registered-scope", "openid", "--scope", scope];
        server.ask(&place, &[&args[..], &["--client-name", "Claude Code"]].concat()).code
    };
    assert_eq!((ask("openid offline_access"), ask("openid offline_access")), (3, 3));
    assert_eq!((ask("openid"), ask("openid payments")), (0, 3));
    assert_eq!(server.ask(&place, &["expand", "--audience", MCP]).code, 0);

    // Only the server can read its store while it runs.
    let ran = place.run(&["diff", "old", "new", "--replay", ".scopeward"]);
    assert_eq!(ran.code, 2);
    let said = "is in use by a running server; write its records to a file with `scopeward audit tail --output json`";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let tail = server.ask(&place, &["audit", "tail", "--output", "json"]);
    place.write("live.jsonl", &tail.stdout);
    let live = place.run(&["diff", "old", "new", "--replay", "live.jsonl", "--output", "json"]).json();
    assert_eq!(live["replay"]["calls"], 4, "{live}");
    assert_eq!(server.end("TERM"), Some(0));
    let ran = place.run(&["diff", "old", "new", "--replay", ".scopeward"]);
    assert_snapshot!(ran.shown());
    let ran = place.run(&["diff", "old", "new", "--replay", ".scopeward/audit", "--output", "json"]);
    let replay = &ran.json()["replay"];
    assert_eq!((&replay["calls"], &replay["flipped"]), (&4.into(), &3.into()));
    assert_eq!(replay["flips"][0]["flip"], "now-allowed");
    assert_eq!(
        (&replay["flips"][0]["count"], &replay["flips"][0]["clients"][0]),
        (&2.into(), &"Claude Code".into())
    );
}

#[test]
fn recorded_calls_may_come_as_json_lines() {
    let place = place();
    let denial = serde_json::json!({
        "sequence": "7",
        "kind": "AUDIT_EVENT_KIND_DENIAL",
        "method": "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes",
        "audiences": [MCP],
        "requestedScope": "openid offline_access",
        "registeredScope": "openid",
    });
    place.write("audit.jsonl", format!("{denial}\n\n{denial}"));
    let ran = place.run(&["diff", "old", "new", "--replay", "audit.jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("2 recorded calls, 2 flip"), "{}", ran.stdout);
    assert!(ran.stdout.contains("denied before, allowed now: 2"), "{}", ran.stdout);
}

#[test]
fn a_server_is_compared_as_far_as_it_tells() {
    let place = place();
    place.write("policies/mcp.yaml", OLD);
    let server = Server::start(&place);
    let against =
        |new: &str, more: &[&str]| place.run(&[&["diff", "--against", &server.url, new], more].concat());
    assert_snapshot!(against("new", &[]).shown());

    let ran = against("old", &["--fail-on-widening"]);
    assert_eq!((ran.code, &*stable(&ran.stdout)), (0, "no changes: sha256:DIGEST\n"));

    // Aliases and texts are told; texts are in no digest.
    let texts = "    description: ours\n    scopeDescriptions: {openid: who you are}\n";
    place.write("texts/mcp.yaml", format!("{OLD}{texts}"));
    let ran = against("texts", &["--fail-on-widening"]);
    let expected = "\
~ https://mcp.example.com: description (none) -> ours
~ https://mcp.example.com: scopeDescriptions.openid (none) -> who you are
2 changes, 0 widening: sha256:DIGEST -> sha256:DIGEST
";
    assert_eq!((ran.code, &*stable(&ran.stdout)), (0, expected));
    place.write("alias/mcp.yaml", format!("{OLD}    aliases: [mcp]\n"));
    let ran = against("alias", &[]);
    let line = "! https://mcp.example.com: aliases +mcp (widening)\n1 change, 1 widening: ";
    assert!(ran.stdout.starts_with(line), "{}", ran.stdout);

    // What cannot be seen may widen.
    let privileged = "    privilegedScopes: [\"mcp:read\"]\n";
    let drops = format!("{privileged}    authorization: {{unregisteredScopes: drop}}\n");
    place.write("hidden/mcp.yaml", OLD.replace(privileged, &drops));
    let ran = against("hidden", &["--fail-on-widening"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.starts_with("no change that can be seen: "), "{}", ran.stdout);
    let json = against("hidden", &["--output", "json"]).json();
    assert_eq!((&json["widening"], &json["notVisible"][0]), (&0.into(), &"forbiddenScopes".into()));
}
