//! The must-pass examples of the design, asked through a real client.

use scopeward::rpc::v1;
use scopeward::rpc::v1::{Decision, Origin, Reason};

use crate::harness::{AUDIENCE, authorize, one_audience, registration};
use crate::service::Service;

/// Registers under a policy of one audience.
async fn register(
    supported: &str,
    baseline: &str,
    scope: Option<&str>,
) -> v1::ExpandRegistrationScopesResponse {
    let members = format!("scopesSupported: [{supported}], baselineClientScopes: [{baseline}]");
    let service = Service::start(&one_audience(&members)).await;
    let mut client = service.scopes();
    let answer =
        client.expand_registration_scopes(registration(scope)).await.expect("an answer").into_inner();
    let policy = answer.policy.as_ref().expect("an answer names its policy");
    assert_eq!((policy.generation, policy.digest.len()), (1, "sha256:".len() + 64));
    assert_eq!(answer.decision_id.len(), 36);
    service.stop().await;
    answer
}

#[track_caller]
fn assert_allowed(answer: &v1::ExpandRegistrationScopesResponse, scope: &str, added: &[(&str, Origin)]) {
    assert_eq!((answer.decision(), answer.scope.as_str()), (Decision::Allow, scope));
    let given = answer.added.iter().map(|added| (added.scope.as_str(), added.origin())).collect::<Vec<_>>();
    assert_eq!(given, added);
    assert_eq!((answer.reason(), answer.oauth_error.as_ref()), (Reason::Unspecified, None));
}

#[track_caller]
fn assert_denied(answer: &v1::ExpandRegistrationScopesResponse, reason: Reason, offenders: &[&str]) {
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, reason));
    assert_eq!((answer.scope.as_str(), answer.added.len()), ("", 0));
    let error = answer.oauth_error.as_ref().expect("a denial has an OAuth error");
    assert_eq!(error.error, "invalid_client_metadata");
    assert!(offenders.iter().all(|offender| error.error_description.contains(offender)), "{error:?}");
    let refused = answer.refused.iter().map(|refused| refused.scope.as_str()).collect::<Vec<_>>();
    assert_eq!(refused, offenders);
}

#[tokio::test]
async fn registration_is_united_with_the_baseline() {
    const OFFLINE: &str = "offline_access";
    let answer = register("openid, offline_access", OFFLINE, Some("openid")).await;
    assert_allowed(&answer, "openid offline_access", &[(OFFLINE, Origin::Baseline)]);
    let answer = register("openid, profile", "", Some("openid profile")).await;
    assert_allowed(&answer, "openid profile", &[]);
    let answer = register("openid, offline_access", "openid", Some("openid offline_access")).await;
    assert_allowed(&answer, "openid offline_access", &[]);
    let both = "openid, offline_access";
    let answer = register("openid, profile, offline_access", both, Some("openid profile")).await;
    assert_allowed(&answer, "openid profile offline_access", &[(OFFLINE, Origin::Baseline)]);
    let answer = register("\"mcp:read\", \"mcp:write\", offline_access", OFFLINE, None).await;
    assert_allowed(&answer, OFFLINE, &[(OFFLINE, Origin::Default)]);
}

#[tokio::test]
async fn registration_is_denied_with_every_offender_named() {
    let answer = register("openid, profile", "", Some("openid admin root")).await;
    assert_denied(&answer, Reason::Unsupported, &["admin", "root"]);
    let answer = register("\"mcp:read\"", "", None).await;
    assert_denied(&answer, Reason::ScopeRequired, &[]);
}

#[tokio::test]
async fn authorize_grants_what_used_to_fail_and_still_refuses_the_rest() {
    let members = "scopesSupported: [openid, offline_access], baselineClientScopes: [offline_access]";
    let service = Service::start(&one_audience(members)).await;
    let mut client = service.scopes();
    let mut ask = async |scope, registered| {
        client
            .check_authorize_scopes(authorize(Some(scope), Some(registered)))
            .await
            .expect("an answer")
            .into_inner()
    };

    let answer = ask("openid offline_access", "openid offline_access").await;
    assert_eq!((answer.decision(), answer.scope.as_str()), (Decision::Allow, "openid offline_access"));
    assert_eq!(answer.added, []);
    assert_eq!(
        answer.audience_grants,
        [v1::AudienceGrant { audience: AUDIENCE.to_owned(), scope: "openid offline_access".to_owned() }]
    );

    let answer = ask("openid admin", "openid offline_access").await;
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::Unsupported));
    assert_eq!(answer.oauth_error.as_ref().map(|error| error.error.as_str()), Some("invalid_scope"));
    let refused = answer.refused.iter().map(|one| (one.scope.as_str(), one.reason())).collect::<Vec<_>>();
    assert_eq!(refused, [("admin", Reason::Unsupported)]);
    assert_eq!((answer.effective_registered_scope.as_str(), answer.audience_grants.len()), ("", 0));

    // As stored before the baseline existed.
    let answer = ask("openid offline_access", "openid").await;
    assert_eq!(
        (answer.decision(), answer.effective_registered_scope.as_str()),
        (Decision::Allow, "openid offline_access")
    );
    let added = answer.added.iter().map(|added| (added.scope.as_str(), added.origin())).collect::<Vec<_>>();
    assert_eq!(added, [("offline_access", Origin::Baseline)]);
    service.stop().await;
}

#[tokio::test]
async fn batch_answers_each_check_in_order_under_one_policy() {
    use v1::batch_check_result::Result::{Error, Response};
    let service = Service::start(&one_audience("scopesSupported: [a, b]")).await;
    let mut client = service.scopes();
    let too_many = vec!["a"; 257].join(" ");
    let checks = vec![
        authorize(Some("a"), Some("a")),
        authorize(Some(&too_many), Some("a")),
        v1::CheckAuthorizeScopesRequest {
            correlation_id: "\t".to_owned(),
            ..authorize(Some("a"), Some("a"))
        },
        authorize(Some("b"), Some("a")),
        authorize(Some("b"), Some("b")),
    ];
    let request = v1::BatchCheckAuthorizeScopesRequest { checks };
    let results = client.batch_check_authorize_scopes(request).await.expect("an answer").into_inner().results;
    let mut ids = Vec::new();
    let mut digests = Vec::new();
    let mut shown = Vec::new();
    for result in results {
        shown.push(match result.result.expect("a result is set") {
            Response(response) => {
                digests.push(response.policy.clone());
                ids.push(response.decision_id.clone());
                format!("{} {}", response.decision().as_str_name(), response.scope)
            }
            Error(error) => format!("{} {} {}", error.code, error.reason, error.message),
        });
    }
    assert_eq!(
        shown,
        [
            "DECISION_ALLOW a",
            "DECISION_DENY ",
            "3 NOT_PRINTABLE `checks[2].correlation_id`: byte 0x09 at offset 0 is not printable ASCII",
            "DECISION_DENY ",
            "DECISION_ALLOW b",
        ]
    );
    digests.dedup();
    assert_eq!(digests.len(), 1);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let empty = v1::BatchCheckAuthorizeScopesRequest::default();
    let answer = client.batch_check_authorize_scopes(empty).await.expect("an answer").into_inner();
    assert_eq!(answer.results, []);
    service.stop().await;
}

/// The edges of the API, each through a real client: a policy, a question, the answer in one line.
mod edges {
    use super::*;

    struct Edge {
        service: Service,
    }

    impl Edge {
        async fn under(policy: &str) -> Self {
            Self { service: Service::start(policy).await }
        }

        async fn register(&self, request: v1::ExpandRegistrationScopesRequest) -> String {
            let answer = self.service.scopes().expand_registration_scopes(request).await.expect("an answer");
            let answer = answer.into_inner();
            let error = answer.oauth_error.as_ref().map(|error| &*error.error);
            shown(answer.decision(), &answer.scope, answer.reason(), error, &answer.added, &answer.refused)
        }

        async fn authorize(&self, request: v1::CheckAuthorizeScopesRequest) -> String {
            let answer = self.service.scopes().check_authorize_scopes(request).await.expect("an answer");
            let answer = answer.into_inner();
            let error = answer.oauth_error.as_ref().map(|error| &*error.error);
            shown(answer.decision(), &answer.scope, answer.reason(), error, &answer.added, &answer.refused)
        }
    }

    /// `ALLOW a b +b=BASELINE -x=UNSUPPORTED`, or `DENY REASON error -x=REASON`.
    fn shown(
        decision: Decision,
        scope: &str,
        reason: Reason,
        error: Option<&str>,
        added: &[v1::AddedScope],
        refused: &[v1::RefusedScope],
    ) -> String {
        let short = |name: &str| name.split_once('_').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let mut text = match decision {
            Decision::Allow => format!("ALLOW {scope}"),
            _ => format!("DENY {} {}", short(reason.as_str_name()), error.unwrap_or_default()),
        };
        for one in added {
            text += &format!(" +{}={}", one.scope, short(one.origin().as_str_name()));
        }
        for one in refused {
            text += &format!(" -{}={}", one.scope, short(one.reason().as_str_name()));
        }
        text
    }

    fn unnamed(scope: Option<&str>) -> v1::ExpandRegistrationScopesRequest {
        v1::ExpandRegistrationScopesRequest { audiences: Vec::new(), ..registration(scope) }
    }

    // Row 1, and redirect URIs as frameworks normalise them (row 13).
    #[tokio::test]
    async fn only_a_uri_that_all_parsers_read_alike_holds_a_rule() {
        let edge = Edge::under(&one_audience(
            "scopesSupported: [a, b], clientRules: [{name: claude, when: {clientIdHost: claude.ai}, baselineClientScopes: [b]}, \
             {name: app, when: {redirectUri: \"https://App.example.com:443/cb\"}, baselineClientScopes: [b]}]",
        ))
        .await;
        let by_id = |client_id: &str| v1::ExpandRegistrationScopesRequest {
            client: Some(v1::Client {
                client_id: client_id.to_owned(),
                source: v1::ClientSource::Cimd.into(),
                ..Default::default()
            }),
            ..registration(Some("a"))
        };
        assert_eq!(edge.register(by_id("https://Claude.AI/x")).await, "ALLOW a b +b=BASELINE");
        for other in [r"https://claude.ai\@evil.example/x", "https://claude.ai", "https://claude.ai/x#y"] {
            assert_eq!(edge.register(by_id(other)).await, "ALLOW a", "{other}");
        }
        let by_redirect = |uri: &str| v1::ExpandRegistrationScopesRequest {
            client: Some(v1::Client { redirect_uris: vec![uri.to_owned()], ..Default::default() }),
            ..registration(Some("a"))
        };
        assert_eq!(edge.register(by_redirect("https://app.example.com/cb")).await, "ALLOW a b +b=BASELINE");
        assert_eq!(edge.register(by_redirect("https://app.example.com/CB")).await, "ALLOW a");
        edge.service.stop().await;
    }

    // Rows 2 and 3.
    #[tokio::test]
    async fn what_clients_choose_is_answered_and_an_answer_is_a_legal_question() {
        let scopes = (0..256).map(|at| format!("s{at}")).collect::<Vec<_>>();
        let members = format!("scopesSupported: [{}, z], baselineClientScopes: [z]", scopes.join(", "));
        let edge = Edge::under(&one_audience(&members)).await;
        let all = scopes.join(" ");
        let answer = edge.register(registration(Some(&all))).await;
        assert_eq!(answer, format!("ALLOW {all} z +z=BASELINE"));
        let own = format!("{all} z");
        assert_eq!(edge.authorize(authorize(Some("z"), Some(&own))).await, "ALLOW z");
        let update =
            v1::ExpandRegistrationScopesRequest { previous_scope: Some(own.clone()), ..registration(None) };
        assert!(edge.register(update).await.starts_with(&format!("ALLOW {own} +s0=REGISTERED ")));
        let denied = "DENY TOO_MANY_SCOPES invalid_client_metadata";
        assert_eq!(edge.register(registration(Some(&own))).await, denied);
        let large = v1::Client { client_name: "x".repeat(64 * 1024 + 1), ..Default::default() };
        let request = v1::ExpandRegistrationScopesRequest { client: Some(large), ..registration(Some("z")) };
        assert_eq!(edge.register(request).await, "DENY CLIENT_TOO_LARGE invalid_client_metadata");
        edge.service.stop().await;
    }

    // Rows 4 and 5.
    #[tokio::test]
    async fn registrations_that_name_no_audience() {
        let many: String = (0..17).map(|at| format!("  a{at}: {{scopesSupported: [x{at}]}}\n")).collect();
        let policy = format!(
            "audiences:\n{many}  mine: {{scopesSupported: [a, b]}}\n  theirs: {{scopesSupported: [c], forbiddenScopes: [b]}}\n"
        );
        let edge = Edge::under(&policy).await;
        assert_eq!(edge.register(unnamed(Some("a b x16"))).await, "ALLOW a b x16");
        let named = v1::ExpandRegistrationScopesRequest {
            audiences: vec!["mine".to_owned(), "theirs".to_owned()],
            ..unnamed(Some("a b"))
        };
        assert_eq!(edge.register(named).await, "DENY FORBIDDEN invalid_client_metadata -b=FORBIDDEN");
        let unknown =
            v1::ExpandRegistrationScopesRequest { audiences: vec!["x".to_owned()], ..unnamed(Some("a")) };
        assert_eq!(edge.register(unknown).await, "DENY AUDIENCE_UNKNOWN invalid_client_metadata");
        edge.service.stop().await;
        let edge = Edge::under(&format!("{policy}registrationAudiences: [mine]\n")).await;
        assert_eq!(
            edge.register(unnamed(Some("c"))).await,
            "DENY UNSUPPORTED invalid_client_metadata -c=UNSUPPORTED"
        );
        edge.service.stop().await;
    }

    // Rows 6 and 7.
    #[tokio::test]
    async fn clients_that_ask_for_too_little_or_for_nothing_we_have() {
        let edge = Edge::under(&one_audience(
            "scopesSupported: [a, b, offline_access], defaultClientScopes: [a], \
             registration: {unsupportedScopes: drop, nothingLeft: default}, \
             authorization: {unsupportedScopes: drop, nothingLeft: default, alwaysGrantScopes: [offline_access], stepUpScopes: [b]}",
        ))
        .await;
        let refused = "-openid=UNSUPPORTED -email=UNSUPPORTED";
        assert_eq!(
            edge.register(registration(Some("openid email"))).await,
            format!("ALLOW a +a=DEFAULT {refused}")
        );
        assert_eq!(
            edge.authorize(authorize(Some("openid email"), Some("a"))).await,
            format!("ALLOW a +a=REGISTERED {refused}")
        );
        assert_eq!(
            edge.authorize(authorize(Some("b"), Some("a offline_access"))).await,
            "ALLOW b offline_access +b=STEP_UP +offline_access=ALWAYS"
        );
        assert_eq!(edge.authorize(authorize(Some("a"), Some("a"))).await, "ALLOW a");
        edge.service.stop().await;
    }

    // Row 9: what it is worth, that it is counted, by source.
    #[tokio::test]
    async fn an_unknown_registration_counts_by_source() {
        let edge = Edge::under(&one_audience(
            "scopesSupported: [a], defaultClientScopes: [a], authorization: {unknownRegistration: {cimd: omitted, dcr: none}}",
        ))
        .await;
        let from = |source: v1::ClientSource| v1::CheckAuthorizeScopesRequest {
            client: Some(v1::Client { source: source.into(), ..Default::default() }),
            ..authorize(Some("a"), None)
        };
        assert_eq!(edge.authorize(from(v1::ClientSource::Cimd)).await, "ALLOW a +a=DEFAULT");
        let denied = "DENY UNREGISTERED invalid_scope -a=UNREGISTERED";
        assert_eq!(edge.authorize(from(v1::ClientSource::Dcr)).await, denied);
        edge.service.stop().await;
    }

    // Row 12.
    #[tokio::test]
    async fn an_audience_may_be_left_out_or_spelled_otherwise() {
        let edge = Edge::under(
            "audiences:\n  https://mcp.example.com/mcp: {scopesSupported: [a], aliases: [\"https://mcp.example.com/mcp/\"], ignoreQuery: true}\n",
        )
        .await;
        for audience in ["", "https://mcp.example.com/mcp/", "https://mcp.example.com/mcp?kb_name=x"] {
            let mut request = authorize(Some("a"), Some("a"));
            request.audiences = vec![audience.to_owned()];
            let answer =
                edge.service.scopes().check_authorize_scopes(request).await.expect("an answer").into_inner();
            let grants: Vec<_> = answer.audience_grants.iter().map(|grant| &*grant.audience).collect();
            assert_eq!(grants, ["https://mcp.example.com/mcp"], "{audience}");
        }
        edge.service.stop().await;
    }

    // Row 17.
    #[tokio::test]
    async fn a_stored_pattern_opens_nothing_that_is_privileged_or_not_supported() {
        let edge = Edge::under(&one_audience(
            "scopeMatching: wildcard, scopesSupported: [\"agent.*\", admin], privilegedScopes: [agent.root]",
        ))
        .await;
        assert_eq!(edge.authorize(authorize(Some("agent.run"), Some("agent.*"))).await, "ALLOW agent.run");
        let denied = |scope: &str| format!("DENY UNREGISTERED invalid_scope -{scope}=UNREGISTERED");
        for (scope, registered) in [("agent.root", "agent.*"), ("admin", "*"), ("agent.run", "*")] {
            assert_eq!(edge.authorize(authorize(Some(scope), Some(registered))).await, denied(scope));
        }
        edge.service.stop().await;
    }

    // Row 18.
    #[tokio::test]
    async fn a_refusal_says_that_the_scope_was_withdrawn() {
        let edge = Edge::under(&one_audience("scopesSupported: [a]")).await;
        let request = authorize(Some("b"), Some("a b"));
        let answer =
            edge.service.scopes().check_authorize_scopes(request).await.expect("an answer").into_inner();
        let said = "now, though this client registered it";
        assert!(answer.refused[0].message.ends_with(said), "{answer:?}");
        let error = answer.oauth_error.expect("an OAuth error").error_description;
        assert_eq!(error, "scope registered but not granted now: b");
        edge.service.stop().await;
    }
}
