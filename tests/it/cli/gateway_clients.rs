//! `gateway clients`: the record of a state directory.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scopeward::clients::{ClientRecord, Clients};
use scopeward::gateway::metadata::ClientMetadata;
use serde_json::json;

use super::{Place, Ran};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A record with two clients, which stays open while the returned value is there.
fn record(state_dir: &Path) -> Clients {
    std::fs::create_dir_all(state_dir).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let clients = Clients::open(state_dir, "http://hydra:4444", 10).unwrap();
        let metadata = ClientMetadata { client_name: "a \u{202e}\"name\"".into(), ..Default::default() };
        let first = ClientRecord::registered("", "c1", "openid mcp:read", metadata, at(1_000_000_000));
        clients.put(first.clone()).await.unwrap();
        clients.add("", "c1", "mcp:write").await.unwrap();
        clients.note_login(&first, at(1_000_000_060));
        let second =
            ClientRecord::registered("/realms/t", "c2", "", ClientMetadata::default(), at(1_000_000_000));
        clients.put(second).await.unwrap();
        clients
    })
}

fn run(place: &Place, args: &[&str]) -> Ran {
    place.run(&[&["gateway", "clients"], args].concat())
}

#[test]
fn clients_are_listed_and_forgotten_while_a_gateway_has_them() {
    let place = Place::new();
    let _open = record(&place.0.path().join(".scopeward"));
    let listed = run(&place, &["list"]);
    assert_eq!(
        listed.shown(),
        "exit 0\n--- stdout\n\"c1\"  named \"a \u{fffd}\\\"name\\\"\"\n    registered 2001-09-09T01:46:40Z with \"openid mcp:read\", added \
         \"mcp:write\", last login 2001-09-09T01:47:40Z\n\"c2\"  /realms/t\n    registered 2001-09-09T01:46:40Z without scope, no login\n\
         2 clients of http://hydra:4444\n"
    );
    let one = run(&place, &["list", "--issuer", "/realms/t", "--output", "json"]);
    let expected = json!({
        "issuer": "/realms/t", "clientId": "c2", "source": "registration", "registeredScope": "", "addedScope": "",
        "metadata": {"clientName": "", "softwareId": "", "softwareVersion": "", "redirectUris": [], "grantTypes": [], "applicationType": ""},
        "firstTime": "2001-09-09T01:46:40Z", "registeredTime": "2001-09-09T01:46:40Z", "loginTime": null,
    });
    assert_eq!((one.code, one.json()), (0, expected), "{}", one.shown());
    let forgotten = run(&place, &["forget", "c1", "c2"]);
    assert_eq!(
        forgotten.shown(),
        "exit 1\n--- stdout\nforgotten c1\n--- stderr\nerror: client `c2` is not known\n",
        "the other one is of another issuer"
    );
    assert_eq!(run(&place, &["forget", "--issuer=/realms/t", "c2"]).code, 0);
    assert_eq!(run(&place, &["list"]).stdout, "0 clients of http://hydra:4444\n");
    assert_eq!(run(&place, &["list", "--output=json"]).stdout, "");
}

#[test]
fn a_record_is_moved_with_its_upstream() {
    let place = Place::new();
    let state = place.0.path().join("state");
    drop(record(&state));
    let moved = run(&place, &["move", "--state-dir=state", "--to", "http://other:4444/"]);
    assert_eq!(
        moved.shown(),
        "exit 0\n--- stdout\nmoved the clients of http://hydra:4444 are those of http://other:4444\n"
    );
    Clients::open(&state, "http://other:4444", 10).unwrap();
    let error = Clients::open(&state, "http://hydra:4444", 10).unwrap_err().to_string();
    assert!(error.contains("`http://other:4444`") && error.contains("`http://hydra:4444`"), "{error}");
}

#[test]
fn what_is_no_record_cannot_be_read() {
    let place = Place::new();
    let missing = run(&place, &["list"]);
    assert_eq!(missing.shown(), "exit 2\n--- stderr\nerror: there is no record of clients in `.scopeward`\n");
    place.write("state/clients.db", "something else, longer than a header of a database");
    let foreign = run(&place, &["list", "--state-dir=state"]);
    assert_eq!(foreign.shown(), "exit 2\n--- stderr\nerror: `state/clients.db` is not a record of clients\n");
    let bare = place.run(&["gateway", "clients"]);
    assert_eq!(bare.code, 2);
    assert_eq!(run(&place, &["list", "--issuer", "x"]).code, 2);
    let both = place.run(&["gateway", "--upstream=http://a", "clients", "list"]);
    assert_eq!(both.code, 2, "{}", both.shown());
}
