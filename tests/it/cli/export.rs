//! `export`: what it prints, what it says that it cannot say, and which audience it takes.

use super::{MCP, Place};

const OTHER: &str = "audiences:\n  https://other.example.com: {scopesSupported: [a]}\n";

#[test]
fn the_configuration_is_printed_and_what_it_cannot_say_is_noted() {
    let place = Place::with_examples();
    let ran = place.run(&["export", "policies/mcp-server.yaml", "--format", "mcp-sdk"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("client_registration_options = ClientRegistrationOptions("),
        "{}",
        ran.stdout
    );
    assert!(!ran.stderr.is_empty(), "nothing is noted");
    for note in ran.stderr.lines() {
        // Each one is a comment as well.
        let note = note.strip_prefix("note: ").unwrap();
        assert!(ran.stdout.contains(&format!("# - {note}\n")), "{note} is not in\n{}", ran.stdout);
    }
}

#[test]
fn an_audience_is_named_where_there_are_several() {
    let place = Place::with_examples();
    place.write("other.yaml", OTHER);
    let both = ["export", "policies/mcp-server.yaml", "other.yaml", "--format", "toolhive"];
    let ran = place.run(&both);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(
        ran.stderr
            .contains("name one with --audience: `https://mcp.example.com`, `https://other.example.com`"),
        "{}",
        ran.stderr
    );
    let ran = place.run(&[&both[..], &["--audience", "https://OTHER.example.com/"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("scopes_supported: [\"a\"]\n"), "{}", ran.stdout);
    for (name, expected) in
        [("https://third.example.com", "is no audience of the policy; there are `"), ("", "--audience")]
    {
        let ran = place.run(&[&both[..], &["--audience", name]].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    assert!(place.run(&[&both[..], &["--audience", MCP]].concat()).stdout.contains("mcp"));
}

#[test]
fn a_policy_that_is_not_valid_is_not_exported() {
    let place = Place::with(&[("p.yaml", super::UNSUPPORTED_BASELINE)]);
    let ran = place.run(&["export", "p.yaml", "--format", "keycloak"]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(
        ran.stderr.contains("BaselineScopeNotSupported") && ran.stderr.contains("nothing was exported"),
        "{}",
        ran.stderr
    );
    let ran = place.run(&["export", "p.yaml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--format <SERVER>"), "{}", ran.stderr);
}
