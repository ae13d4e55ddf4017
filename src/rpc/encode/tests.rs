//! What is written here are the bytes that `prost` writes.

use std::collections::BTreeSet;
use std::time::SystemTime;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use super::*;
use crate::decision::tests::draw::{asked, compiled, policies};
use crate::decision::{AudienceList, EffectiveScope, Grants, Origin, Reason, Standing};
use crate::policy::sample::{api, set};
use crate::rpc::{FILE_DESCRIPTOR_SET, v1};

fn active(set: crate::policy::PolicySet, generation: u64) -> Active {
    Active { set, generation, load_time: SystemTime::UNIX_EPOCH }
}

fn encoded(message: &impl WireMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Compares what is written of an answer, in each form, and returns all of it.
#[track_caller]
fn compare<'a>(policy: &'a Active, answer: impl Fn() -> Answer<'a>) -> [(&'static str, Vec<u8>); 4] {
    let (id, shown) = (WireId::from(uuid::Uuid::from_u128(0x1234_5678_9ABC << 60)), answer());
    let expand = encoded(&EncodedExpand::new(&shown, policy, &id));
    assert_eq!(expand, convert::expand_response(&answer(), policy, &id).encode_to_vec());
    let check = encoded(&EncodedCheck::new(&shown, policy, &id));
    let mut response = convert::check_response(&answer(), policy, &id);
    assert_eq!(check, response.encode_to_vec());
    let result = |response: &v1::CheckAuthorizeScopesResponse| {
        let result = v1::batch_check_result::Result::Response(response.clone());
        let results = vec![v1::BatchCheckResult { result: Some(result) }];
        v1::BatchCheckAuthorizeScopesResponse { results }.encode_to_vec()
    };
    let item = EncodedCheck::new(&shown, policy, &id).into_item();
    assert_eq!(encoded(&item), result(&response));
    response.refused.iter_mut().for_each(|refused| refused.message.clear());
    assert_eq!(encoded(&item.without_messages()), result(&response));
    let token = EncodedToken::new(&shown, policy, &id);
    let mut response = convert::token_response(&answer(), policy, &id);
    assert_eq!(encoded(&token), response.encode_to_vec());
    let token_result = |response: &v1::CheckTokenScopesResponse| {
        let result = v1::batch_check_token_result::Result::Response(response.clone());
        let results = vec![v1::BatchCheckTokenResult { result: Some(result) }];
        v1::BatchCheckTokenScopesResponse { results }.encode_to_vec()
    };
    assert_eq!(encoded(&token.into_item()), token_result(&response));
    response.refused.iter_mut().for_each(|refused| refused.message.clear());
    assert_eq!(encoded(&token.into_item().without_messages()), token_result(&response));
    [
        ("CheckTokenScopesResponse", encoded(&token)),
        ("ExpandRegistrationScopesResponse", expand),
        ("CheckAuthorizeScopesResponse", check),
        ("BatchCheckAuthorizeScopesResponse", encoded(&item)),
    ]
}

/// Adds the full names of the fields that are set, those of messages inside as well.
fn add_set_fields(message: &DynamicMessage, found: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        found.insert(field.full_name().to_owned());
        let list = [value.clone()];
        for value in value.as_list().unwrap_or(&list) {
            if let Value::Message(inner) = value {
                add_set_fields(inner, found);
            }
        }
    }
}

fn all_fields(message: &MessageDescriptor, found: &mut BTreeSet<String>) {
    for field in message.fields() {
        if found.insert(field.full_name().to_owned())
            && let Some(inner) = field.kind().as_message()
        {
            all_fields(inner, found);
        }
    }
}

/// Drawn policies and questions; then answers by hand, with lengths around those at which a length takes one byte more.
/// Each field of the descriptors is set in one of them, so a field that is added and forgotten here is noticed.
#[test]
fn answers_are_written_as_prost_writes_them() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let descriptor = |name: &str| pool.get_message_by_name(&format!("scopeward.v1.{name}")).unwrap();
    let mut found = BTreeSet::new();
    let mut note = |written: [(&'static str, Vec<u8>); 4]| {
        for (name, bytes) in written {
            add_set_fields(&DynamicMessage::decode(descriptor(name), &*bytes).unwrap(), &mut found);
        }
    };
    let mut runner = TestRunner::new(Config::default());
    for generation in 0..50 {
        let world = policies().new_tree(&mut runner).unwrap().current();
        let policy = active(compiled(&world), generation << (generation % 50));
        for asked in proptest::collection::vec(asked(), 8).new_tree(&mut runner).unwrap().current() {
            note(compare(&policy, || asked.check(&policy.set)));
            note(compare(&policy, || asked.expand(&policy.set)));
        }
    }
    let policy = active(set(&api("scopesSupported: [a]")), u64::MAX);
    for length in [0, 1, 2, 126, 127, 128, 129, 200, 16_381, 16_382, 16_383, 16_384, 40_000] {
        let text = "é".repeat(length / 2) + &"x".repeat(length % 2);
        for (reason, origin) in Reason::ALL.into_iter().zip(Origin::ALL.into_iter().cycle()) {
            for count in 0..3 {
                let scope = || std::iter::repeat_n(&*text, count);
                note(compare(&policy, || Answer {
                    reason: (count > 0).then_some(reason),
                    scope: scope().collect(),
                    added: std::iter::repeat_n(
                        Added { scope: &text, origin, rule: &text, is_registered: false },
                        count,
                    )
                    .collect(),
                    refused: vec![
                        Refused {
                            scope: &text,
                            reason,
                            standing: Standing::Unknown,
                            message: text.clone()
                        };
                        count
                    ],
                    effective: match count {
                        1 => EffectiveScope::Granted,
                        _ => EffectiveScope::Other(scope().collect()),
                    },
                    grants: match count {
                        1 => Grants::Whole(&text),
                        _ => Grants::Parts(vec![(&text, scope().collect()); count]),
                    },
                    as_omitted: false,
                    oauth_error: (count > 0).then(|| OAuthError {
                        error: if count == 1 { "" } else { "invalid_scope" },
                        error_description: text.clone(),
                    }),
                    audiences: AudienceList::new(),
                    trail: Vec::new(),
                }));
            }
        }
    }
    let mut expected = BTreeSet::new();
    for name in
        ["ExpandRegistrationScopesResponse", "CheckAuthorizeScopesResponse", "CheckTokenScopesResponse"]
    {
        all_fields(&descriptor(name), &mut expected);
    }
    found.retain(|name| !name.starts_with("scopeward.v1.BatchCheck"));
    assert_eq!(found, expected);
}
