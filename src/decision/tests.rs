//! Decisions as tables: a policy, a question, the expected answer in one line.
//!
//! What holds for every answer is checked with each row.

use super::limit::{MAX_ANSWER_SCOPE_BYTES, MAX_CLIENT_BYTES, MAX_CORRELATION_ID_BYTES};
use super::{Answer, Client, MAX_AUDIENCES, MAX_DESCRIPTION_BYTES, MAX_SCOPES, Reason, check_limits};
use crate::audience::MAX_AUDIENCE_BYTES;
use crate::policy::PolicySet;
use crate::policy::sample::{api, set};
use crate::scope::{join, tokens};

mod audiences;
mod authorize;
pub(crate) mod draw;
mod naive;
mod properties;
mod registration;
mod token;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// `ALLOW scope | added scope=ORIGIN@rule | refused scope=REASON | registered scope | grants audience=scope`,
/// parts without content left out, `grants` only where several audiences decided; or `DENY REASON error`.
fn brief(answer: &Answer<'_>) -> String {
    let mut parts = Vec::new();
    match (answer.reason, &answer.oauth_error) {
        (None, None) => parts.push(format!("ALLOW {}", join(&answer.scope))),
        (Some(reason), Some(error)) => parts.push(format!("DENY {} {}", reason.as_str(), error.error)),
        (reason, error) => panic!("{reason:?} does not go with {error:?}"),
    }
    if !answer.added.is_empty() {
        let added = answer.added.iter().map(|added| {
            let rule = if added.rule.is_empty() { String::new() } else { format!("@{}", added.rule) };
            format!(" {}={}{rule}", added.scope, added.origin.as_str())
        });
        parts.push(format!("added{}", added.collect::<String>()));
    }
    if !answer.refused.is_empty() {
        let refused = answer.refused.iter().map(|one| format!(" {}={}", one.scope, one.reason.as_str()));
        parts.push(format!("refused{}", refused.collect::<String>()));
    }
    if !answer.effective_registered_scope().is_empty() {
        parts.push(format!("registered {}", join(answer.effective_registered_scope())));
    }
    if answer.audiences.len() > 1 && answer.audience_grants().next().is_some() {
        let grants = answer.audience_grants();
        let grants: Vec<String> =
            grants.map(|grant| format!("{}={}", grant.audience, join(grant.scope))).collect();
        parts.push(format!("grants {}", grants.join(", ")));
    }
    parts.join(" | ")
}

/// What holds for every answer.
#[track_caller]
fn sound(answer: &Answer<'_>) {
    let is_plain =
        |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b'"' && byte != b'\\'));
    for refused in &answer.refused {
        assert!(is_plain(&refused.message) && refused.message.len() < 1000, "{:?}", refused.message);
    }
    let distinct = |scopes: &[&str]| {
        let mut sorted = scopes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == scopes.len()
    };
    assert!(distinct(&answer.scope) && distinct(answer.effective_registered_scope()), "{answer:?}");
    if let Some(error) = &answer.oauth_error {
        let description = &error.error_description;
        assert!(!answer.is_allowed() && !answer.is_expansion());
        assert!(!description.is_empty() && description.len() <= MAX_DESCRIPTION_BYTES, "{description}");
        assert!(is_plain(description), "{description:?}");
        assert!(answer.scope.is_empty() && answer.added.is_empty(), "{answer:?}");
        assert!(
            answer.effective_registered_scope().is_empty() && answer.audience_grants().next().is_none(),
            "{answer:?}"
        );
    } else {
        assert!(answer.is_allowed() && !answer.scope.is_empty(), "{answer:?}");
        let places: Vec<_> = answer
            .added
            .iter()
            .map(|added| answer.scope.iter().position(|scope| *scope == added.scope))
            .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer:?}");
    }
}

/// A registration; a second one with the scope of the first changes nothing.
#[track_caller]
fn expand<'a>(
    set: &'a PolicySet,
    audiences: &'a [String],
    scope: Option<&'a str>,
    client: Client<'a>,
) -> Answer<'a> {
    let question = |scope| super::registration::RegistrationQuestion {
        audiences: audiences.into(),
        scope,
        previous_scope: None,
        client,
    };
    let answer = super::registration::expand(set, &question(scope));
    sound(&answer);
    if answer.is_allowed() {
        let own = join(&answer.scope);
        let again = super::registration::expand(
            set,
            &super::registration::RegistrationQuestion {
                audiences: audiences.into(),
                scope: Some(&own),
                previous_scope: None,
                client,
            },
        );
        sound(&again);
        assert_eq!(again.scope, answer.scope, "deciding on its own output changes nothing");
        assert!(again.added.is_empty() && again.refused.is_empty(), "{again:?}");
    }
    answer
}

#[track_caller]
fn check<'a>(
    set: &'a PolicySet,
    audiences: &'a [String],
    registered_scope: Option<&'a str>,
    scope: Option<&'a str>,
    client: Client<'a>,
) -> Answer<'a> {
    let answer = super::authorize::check(
        set,
        &super::authorize::AuthorizeQuestion { audiences: audiences.into(), scope, registered_scope, client },
    );
    sound(&answer);
    for scope in &answer.scope {
        assert!(answer.effective_registered_scope().contains(scope), "{answer:?}");
        assert!(answer.audience_grants().any(|grant| grant.scope.contains(scope)), "{answer:?}");
    }
    for grant in answer.audience_grants() {
        assert!(!grant.scope.is_empty() && grant.scope.iter().all(|scope| answer.scope.contains(scope)));
    }
    answer
}

#[test]
fn what_the_caller_controls_has_limits() {
    #[track_caller]
    fn limits(audiences: &[String], correlation_id: &str, expected: Option<&str>) {
        let error = check_limits(audiences.into(), correlation_id).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected);
    }
    limits(&[], "", None);
    let audiences = |count| vec!["api".to_owned(); count];
    limits(&audiences(MAX_AUDIENCES), "", None);
    limits(&audiences(MAX_AUDIENCES + 1), "", Some("`audiences` names 17 audiences, at most 16"));
    // Those that are left out do not count.
    limits(&[audiences(MAX_AUDIENCES), vec![String::new()]].concat(), "", None);
    let long = |length| vec!["api".to_owned(), "a".repeat(length)];
    limits(&long(MAX_AUDIENCE_BYTES), "", None);
    limits(&long(MAX_AUDIENCE_BYTES + 1), "", Some("`audiences[1]` has 2049 bytes, at most 2048"));
    limits(&[], &" ~".repeat(MAX_CORRELATION_ID_BYTES / 2), None);
    limits(
        &[],
        &"x".repeat(MAX_CORRELATION_ID_BYTES + 1),
        Some("`correlation_id` has 129 bytes, at most 128"),
    );
    for (id, byte) in [("ab\n", "0x0A"), ("ab\u{7f}", "0x7F"), ("ab\u{e9}", "0xC3")] {
        let expected = format!("`correlation_id`: byte {byte} at offset 2 is not printable ASCII");
        limits(&[], id, Some(&expected));
    }
}

#[test]
fn more_than_256_scopes_are_a_denial_duplicates_counted() {
    let set = set(&api("scopesSupported: [a], authorization: {unsupportedScopes: drop}"));
    let spread = |count: usize| format!("   {}   ", vec!["a"; count].join("   "));
    for scope in [spread, |count| vec!["a"; count].join(" ")] {
        for (count, reason) in [(MAX_SCOPES, None), (MAX_SCOPES + 1, Some(Reason::TooManyScopes))] {
            let scope = scope(count);
            let answer = expand(&set, &[], Some(&scope), Client::default());
            assert_eq!(answer.reason, reason);
            let answer = check(&set, &[], Some("a"), Some(&scope), Client::default());
            assert_eq!(answer.reason, reason);
            if let Some(error) = answer.oauth_error {
                let expected = "too many scopes: 257 were requested, at most 256";
                assert_eq!((error.error, &*error.error_description), ("invalid_scope", expected));
            }
        }
    }
    // A long scope is malformed, and blanks are nothing.
    let long = "a".repeat(1 << 20);
    assert_eq!(expand(&set, &[], Some(&long), Client::default()).reason, Some(Reason::Malformed));
    let blank = " ".repeat(1 << 20);
    assert_eq!(expand(&set, &[], Some(&blank), Client::default()).reason, Some(Reason::ScopeRequired));
    // What this service gave out has no number.
    let many = (0..20_000).map(|at| format!("s{at}")).collect::<Vec<_>>().join(" ") + " a";
    let answer = check(&set, &[], Some(&many), Some("a"), Client::default());
    assert_eq!(brief(&answer), "ALLOW a | registered a");
    let question =
        super::registration::RegistrationQuestion { previous_scope: Some(&many), ..Default::default() };
    assert_eq!(brief(&super::registration::expand(&set, &question)), "ALLOW a | added a=REGISTERED");
}

#[test]
fn more_than_64_kib_of_client_metadata_are_a_denial() {
    let set = set(&api("scopesSupported: [a]"));
    for (over, reason) in [(0, None), (1, Some(Reason::ClientTooLarge))] {
        let name = "x".repeat(MAX_CLIENT_BYTES + over - 5);
        let redirect_uris = strings(&["abc"]);
        let client =
            Client { client_name: &name, redirect_uris: (&redirect_uris).into(), ..Client::default() };
        assert_eq!(client.bytes(), MAX_CLIENT_BYTES + over);
        let answer = expand(&set, &[], Some("a"), client);
        assert_eq!(answer.reason, reason);
        if let Some(error) = answer.oauth_error {
            let expected = "client metadata too large: 65537 bytes, at most 65536";
            assert_eq!((error.error, &*error.error_description), ("invalid_client_metadata", expected));
        }
        assert_eq!(check(&set, &[], Some("a"), Some("a"), client).reason, reason);
    }
}

#[test]
fn an_answer_is_small_enough_to_be_the_next_question() {
    // 256 audiences give ten scopes of their own each, of as many bytes as a scope may have.
    for (length, reason) in [(28, None), (512, Some(Reason::TooManyScopes))] {
        let mut policy = "audiences:\n".to_owned();
        for at in 0..256 {
            let scope = |number: usize| format!("a{at:03}.{number}{}", "x".repeat(length - 6));
            let list = (0..10).map(scope).collect::<Vec<_>>().join(", ");
            policy.push_str(&format!(
                "  a{at}: {{scopesSupported: [{list}], baselineClientScopes: [{list}]}}\n"
            ));
        }
        let set = set(&policy);
        let answer = super::registration::expand(&set, &super::registration::RegistrationQuestion::default());
        assert_eq!(answer.reason, reason);
        if reason.is_none() {
            let own = join(&answer.scope);
            assert!(own.len() <= MAX_ANSWER_SCOPE_BYTES && answer.scope.len() == 2560);
            let again = super::registration::RegistrationQuestion {
                previous_scope: Some(&own),
                ..Default::default()
            };
            assert_eq!(super::registration::expand(&set, &again).scope, answer.scope);
            let audiences = strings(&["a7"]);
            let at_one = check(&set, &audiences, Some(&own), None, Client::default());
            assert_eq!((at_one.scope.len(), at_one.reason), (10, None));
            // A client may ask for all that it was given, and for 256 more.
            let again = super::registration::RegistrationQuestion { scope: Some(&own), ..again };
            assert_eq!(super::registration::expand(&set, &again).scope, answer.scope);
            let more = |count: usize| {
                let more = (0..count).map(|at| format!(" more{at}")).collect::<String>();
                check(&set, &audiences, Some(&own), Some(&format!("{own}{more}")), Client::default()).reason
            };
            assert_eq!(more(256), Some(Reason::Unsupported));
            assert_eq!(more(257), Some(Reason::TooManyScopes));
            let unknown = check(&set, &audiences, None, Some(&own), Client::default());
            assert_eq!(unknown.reason, Some(Reason::TooManyScopes));
        }
    }
}

/// Up to every limit, for drawn numbers and lengths, an allowed registration is a question that is accepted, with
/// the largest client and the most audiences beside it.
#[test]
fn an_answer_up_to_every_limit_is_the_next_question() {
    use proptest::prelude::*;
    use prost::Message;
    let drawn = (1..=256_usize, 0..=10_usize, 0..=40_usize, 9..=512_usize, any::<bool>());
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let allowed = std::cell::Cell::new(0);
    proptest!(config, |((audiences, baselines, defaults, length, names) in drawn)| {
        let mut policy = "audiences:\n".to_owned();
        for at in 0..audiences {
            let scope = |number: usize| format!("{at:03}.{number:03}{}", "x".repeat(length - 7));
            let list = |count: usize| (0..count).map(scope).collect::<Vec<_>>().join(", ");
            policy.push_str(&format!(
                "  a{at}: {{scopesSupported: [{}], baselineClientScopes: [{}], defaultClientScopes: [{}]}}\n",
                list(41), list(baselines), list(defaults)
            ));
        }
        let set = set(&policy);
        let named: Vec<String> = match names {
            true => (0..audiences.min(16)).map(|at| format!("a{at}")).collect(),
            false => Vec::new(),
        };
        let question = super::registration::RegistrationQuestion { audiences: (&named).into(), ..Default::default() };
        let answer = super::registration::expand(&set, &question);
        sound(&answer);
        if answer.is_allowed() {
            allowed.set(allowed.get() + 1);
            let own = join(&answer.scope);
            prop_assert!(own.len() <= MAX_ANSWER_SCOPE_BYTES);
            let next = crate::proto::v1::CheckAuthorizeScopesRequest {
                audiences: (0..16).map(|at| format!("{at:02}{}", "a".repeat(2046))).collect(),
                registered_scope: Some(own.clone()),
                client: Some(crate::proto::v1::Client {
                    client_name: "n".repeat(MAX_CLIENT_BYTES),
                    ..Default::default()
                }),
                correlation_id: "c".repeat(MAX_CORRELATION_ID_BYTES),
                ..Default::default()
            };
            prop_assert!(next.encoded_len() <= 256 * 1024, "{} bytes", next.encoded_len());
            let again = super::registration::RegistrationQuestion {
                audiences: (&named).into(), previous_scope: Some(&own), ..Default::default()
            };
            let update = super::registration::expand(&set, &again);
            prop_assert_eq!(&update.scope, &answer.scope);
            let first = named.first().cloned().unwrap_or_else(|| "a0".to_owned());
            let one = [first];
            prop_assert!(check(&set, &one, Some(&own), None, Client::default()).is_allowed());
        } else {
            let expected = if baselines + defaults == 0 { Reason::ScopeRequired } else { Reason::TooManyScopes };
            prop_assert_eq!(answer.reason, Some(expected));
        }
    });
    assert!(allowed.get() > 0, "some are small enough");
}

#[test]
fn a_token_of_512_bytes_is_judged_and_a_longer_one_is_malformed() {
    let set = set(&api("scopesSupported: [openid]"));
    for (length, reason) in [(511, Reason::Unsupported), (512, Reason::Unsupported), (513, Reason::Malformed)]
    {
        let scope = "x".repeat(length);
        assert_eq!(expand(&set, &[], Some(&scope), Client::default()).reason, Some(reason));
        let answer = check(&set, &[], Some(""), Some(&scope), Client::default());
        assert_eq!((answer.reason, answer.refused[0].scope), (Some(reason), &*scope));
    }
}

#[test]
fn hostile_text_is_refused_whole_and_shown_safely() {
    let mega = "x".repeat(1 << 20);
    let set = set(&api("scopesSupported: [openid]"));
    for hostile in [
        "a\0b",
        "a\tb",
        "a\nb",
        "a\rb",
        "a\"b",
        "a\\b",
        "a\u{202e}b",
        "a\u{a0}b",
        "\u{feff}a",
        "a\u{1b}[31m",
        "é",
        &mega,
    ] {
        let scope = format!("openid {hostile}");
        for answer in [
            expand(&set, &[], Some(&scope), Client::default()),
            check(&set, &[], None, Some(&scope), Client::default()),
        ] {
            assert_eq!(answer.reason, Some(Reason::Malformed), "{hostile:?}");
            assert_eq!(answer.refused.len(), 1);
            assert_eq!(answer.refused[0].scope, hostile, "the token as received");
        }
        let audiences = strings(&[hostile]);
        let answer = check(&set, &audiences, None, Some("openid"), Client::default());
        assert_eq!(answer.oauth_error.unwrap().error, "invalid_target");
        // A registered token outside the grammar is ignored.
        let answer = check(&set, &[], Some(&scope), Some("openid"), Client::default());
        assert_eq!(brief(&answer), "ALLOW openid | registered openid");
    }
}

#[test]
fn a_description_names_as_many_offenders_as_fit_and_counts_the_rest() {
    let set = set(&api("scopesSupported: [openid]"));
    for (count, length) in [(1, 4), (2, 512), (3, 100), (5, 100), (40, 12), (255, 4), (256, 512), (256, 1)] {
        // No offender is a part of another one.
        let names: Vec<String> = (0..count)
            .map(|at| {
                if length == 1 {
                    char::from(b'#' + (at % 50) as u8).to_string()
                } else {
                    format!("<{at:03}{}", "y".repeat(length - 4))
                }
            })
            .collect();
        let scope = names.join(" ");
        let answer = expand(&set, &[], Some(&scope), Client::default());
        let description = &answer.oauth_error.as_ref().unwrap().error_description;
        let shown = tokens(description.split_once(": ").unwrap().1);
        let rest = description.rsplit_once(" and ").and_then(|(_, rest)| rest.strip_suffix(" more"));
        let rest: usize = rest.map_or(0, |rest| rest.parse().unwrap());
        let named = shown.count() - if rest > 0 { 3 } else { 0 };
        assert_eq!(named + rest, answer.refused.len(), "{description}");
        assert!(rest == 0 || description.len() > 350, "there was room for more: {description}");
    }
}

#[test]
fn a_description_groups_by_reason() {
    let set = set(&api("scopesSupported: [openid], forbiddenScopes: [root]"));
    let answer = expand(&set, &[], Some("admin root other a\tb"), Client::default());
    assert_eq!(
        answer.oauth_error.unwrap().error_description,
        "scope not supported: admin other; scope forbidden: root; scope malformed: a%09b"
    );
}
