use super::*;
use crate::policy::sample::set;

const POLICY: &str = "\
defaultAudience: https://mcp.example.com
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, 'mcp:read', 'mcp:write', admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, 'mcp:read']
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization: {stepUpScopes: ['mcp:write'], unregisteredScopes: drop}
    clientRules:
      - name: tools
        when: {source: cimd}
        baselineClientScopes: [profile]
  https://other.example.com: {scopesSupported: [other]}
";

fn configuration(policy: &str, server: StaticServer) -> StaticConfiguration {
    let set = set(policy);
    export(&set, set.unnamed_audience().unwrap(), server)
}

#[test]
fn every_server_has_its_form() {
    let all =
        [StaticServer::ToolHive, StaticServer::Keycloak, StaticServer::BetterAuth, StaticServer::McpSdk];
    let texts: Vec<String> = all.map(|server| configuration(POLICY, server).text).into();
    insta::assert_snapshot!(texts.join("\n----\n\n"));
}

#[track_caller]
fn check_departures(policy: &str, server: StaticServer, expected: &[(DepartureEffect, &str)]) {
    let found = configuration(policy, server).departures;
    let found: Vec<(DepartureEffect, &str)> =
        found.iter().map(|departure| (departure.effect, departure.about.as_str())).collect();
    assert_eq!(found, expected, "{policy}");
}

const ONE: &str = "audiences:\n  a: ";

#[test]
fn a_policy_that_a_server_can_say_has_no_departure_but_the_audit() {
    let recorded = (DepartureEffect::Other, "nothing is recorded of what clients get without asking");
    let policy = format!(
        "{ONE}{{scopesSupported: [openid, email, x], baselineClientScopes: [openid], authorization: \
         {{baselineForExistingClients: false, omittedScope: reject}}}}\n"
    );
    check_departures(
        &policy,
        StaticServer::ToolHive,
        &[
            recorded,
            (
                DepartureEffect::Other,
                "an authorize request without scope gets no scope (`authorization.omittedScope: reject`)",
            ),
        ],
    );
}

#[test]
fn patterns_and_what_is_forbidden_are_in_no_list() {
    let policy = format!(
        "{ONE}{{scopesSupported: ['x.*', x.read, z, y], forbiddenScopes: [z], scopeMatching: wildcard, \
         baselineClientScopes: [x.read]}}\n"
    );
    let StaticConfiguration { text, departures } = configuration(&policy, StaticServer::ToolHive);
    assert!(text.contains("scopes_supported: [\"x.read\", \"y\"]\n"), "{text}");
    assert!(
        departures.iter().any(|departure| departure.about.starts_with("patterns are left out")),
        "{departures:?}"
    );
}

#[test]
fn nothing_of_a_name_or_of_a_scope_ends_a_comment_or_a_word() {
    let policy = "audiences:\n  \"a\\u2028b\": {scopesSupported: [\"$(id)\", \"'x\", '`y`']}\n";
    for server in
        [StaticServer::ToolHive, StaticServer::Keycloak, StaticServer::BetterAuth, StaticServer::McpSdk]
    {
        let text = configuration(policy, server).text;
        assert!(!text.contains('\u{2028}'), "{text}");
        if server == StaticServer::Keycloak {
            assert!(
                text.contains("scope '$(id)'")
                    && text.contains(r"scope ''\''x'")
                    && text.contains("scope '`y`'"),
                "{text}"
            );
        }
    }
}

#[test]
fn privileged_scopes_are_registered_by_nobody_where_everybody_would_hold_them() {
    let text = configuration(POLICY, StaticServer::BetterAuth).text;
    let allowed = text.lines().find(|line| line.contains("AllowedScopes: [")).unwrap();
    assert!(!allowed.contains("admin") && text.contains("scopes: [\"openid\", \"profile\", \"offline_access\", \"mcp:read\", \"mcp:write\", \"admin\"]"), "{text}");
}
