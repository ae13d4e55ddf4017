//! The encoding is reversible and unique, and the hash covers all of it.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::super::chain::{decode as read, time_of};
use super::*;
use crate::hex;
use crate::proto::v1;

fn client() -> impl Strategy<Value = v1::Client> {
    let lists = (vec(".{0,9}", 0..3), vec(".{0,9}", 0..3));
    (".{0,20}", 0..5_i32, ".{0,9}", ".{0,9}", ".{0,9}", lists, ".{0,9}").prop_map(
        |(client_id, source, client_name, software_id, software_version, lists, application_type)| {
            v1::Client {
                client_id,
                source,
                client_name,
                software_id,
                software_version,
                redirect_uris: lists.0,
                grant_types: lists.1,
                application_type,
            }
        },
    )
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    let time = (any::<i32>(), 0..1_000_000_000);
    option::of(time.prop_map(|(seconds, nanos)| Timestamp { seconds: seconds.into(), nanos }))
}

pub(in super::super) fn event() -> impl Strategy<Value = Body> {
    let ids = (".{0,36}", time(), 0..7_i32, ".{0,36}");
    let texts = (
        vec(".{0,9}", 0..3),
        vec(".{0,9}", 0..3),
        option::of(".{0,9}"),
        option::of(".{0,9}"),
        vec(".{0,9}", 7),
    );
    let added = (".{0,200}", 0..7_i32, ".{0,9}").prop_map(|(scope, origin, rule)| v1::AddedScope {
        scope,
        origin,
        rule,
    });
    let refused = (".{0,9}", any::<i32>(), ".{0,9}").prop_map(|(scope, reason, message)| v1::RefusedScope {
        scope,
        reason,
        message,
    });
    let change = (any::<bool>(), ".{0,9}", any::<u32>(), vec(".{0,9}", 0..3)).prop_map(
        |(accepted, previous_digest, finding_count, changes)| v1::PolicyChange {
            accepted,
            previous_digest,
            finding_count,
            change_count: 3,
            changes,
            widening_count: 1,
        },
    );
    let rest = (option::of(any::<u64>()), option::of(change), any::<i32>(), any::<u32>(), any::<bool>());
    (ids, texts, option::of(client()), vec(added, 0..3), vec(refused, 0..3), rest).prop_map(
        |(ids, texts, client, added, refused, rest)| {
            let (audiences, asked_audiences, requested_scope, registered_scope, texts) = texts;
            Body::Event(Box::new(AuditEvent {
                event_id: ids.0,
                event_time: ids.1,
                kind: ids.2,
                decision_id: ids.3,
                method: texts[0].clone(),
                audiences,
                client,
                requested_scope,
                registered_scope,
                effective_scope: texts[1].clone(),
                added,
                refused,
                reason: rest.2,
                policy: rest.0.map(|generation| v1::PolicyVersion { generation, digest: texts[2].clone() }),
                policy_change: rest.1,
                caller: Some(v1::Caller { name: texts[3].clone(), authenticated_by: texts[4].clone() }),
                peer: texts[5].clone(),
                trace_id: texts[6].clone(),
                attempt: rest.3,
                client_truncated: rest.4,
                asked_audiences,
                correlation_id: "c".to_owned(),
                ..AuditEvent::default()
            }))
        },
    )
}

fn a_gap() -> impl Strategy<Value = Body> {
    let counts = btree_map(".{0,9}", any::<u64>(), 0..4);
    (any::<u64>(), ".{0,9}", time(), time(), counts).prop_map(
        |(count, reason, first_time, last_time, reason_counts)| {
            Body::Gap(Gap { count, reason, first_time, last_time, reason_counts, ..Gap::default() })
        },
    )
}

pub(in super::super) const LOG_ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const AFTER: Tip = Tip { head: Head { sequence: 41, hash: [7; 32] }, latest_time: i64::MIN };

proptest! {
    #[test]
    fn every_record_comes_back_from_its_encoding(mut body in prop_oneof![event(), a_gap()]) {
        let most = body.max_bytes();
        let (tip, content) = body.seal(LOG_ID, AFTER);
        prop_assert!(content.len() <= most);
        let record = read(&content, tip.head.hash).unwrap();
        prop_assert_eq!(record.head(), tip.head);
        prop_assert_eq!(record.prev_hash, AFTER.head.hash);
        prop_assert_eq!(record.body.time(), tip.latest_time);
        prop_assert_eq!(time_of(&content), Some(tip.latest_time));
        prop_assert_eq!(&record, &Record::new(body.clone(), AFTER.head.hash, tip.head.hash));
        // Written again, it has the same bytes.
        prop_assert_eq!(body.seal(LOG_ID, AFTER).1, content);
    }

    #[test]
    fn bytes_that_decode_are_the_only_encoding_of_what_they_say(
        mut body in prop_oneof![event(), a_gap()], at in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        let (_, content) = body.seal(LOG_ID, AFTER);
        let mut bytes = content.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok((changed, prev_hash)) = decode(&bytes) {
            prop_assert!(changed != body || prev_hash != AFTER.head.hash);
            prop_assert_eq!(changed.encode(&prev_hash), bytes);
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_without_panic(bytes in vec(any::<u8>(), 0..400), tag in any::<bool>()) {
        let content = if tag { [&TAG[..], &bytes].concat() } else { bytes };
        let _ = read(&content, GENESIS_HASH);
    }
}

#[test]
fn only_the_canonical_encoding_is_taken() {
    let mut body = Body::Gap(Gap { count: 1, ..Gap::default() });
    let (_, content) = body.seal(LOG_ID, AFTER);
    assert!(read(&content, GENESIS_HASH).is_ok());
    let message = |rest: &[u8]| [&content[..PREFIX_BYTES], rest].concat();
    let refused = |content: &[u8], expected: &str| {
        let error = read(content, GENESIS_HASH).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    refused(&message(&[0x1a, 2, 0x18, 0]), "canonical");
    refused(&message(&[0x1a, 3, 0x18, 0x81, 0]), "canonical");
    refused(&message(&[0x1a, 3, 0x98, 6, 1]), "canonical");
    refused(&message(&[0x1a, 0, 0x1a, 0]), "canonical");
    refused(&message(&[]), "neither an event nor a gap");
    refused(&message(&[0x12, 0]), "neither an event nor a gap");
    refused(&message(&[0x0a, 4, 0xba, 1, 1, 9]), "its message has hashes");
    refused(&content[..40], "ends inside the hash");
    refused(b"\x03whatever", "format 3 is unknown");
    refused(b"", "empty");
}

/// The worked examples of `docs/reference/audit-chain.md`, which has the same text.
#[test]
fn bytes_are_those_of_the_reference() {
    let reference = include_str!("../../../docs/reference/audit-chain.md").replace(['\n', ' '], "");
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let gap = Gap {
        count: 300,
        reason: "queue_full".to_owned(),
        first_time: at(1),
        last_time: at(2),
        ..Gap::default()
    };
    let event = AuditEvent {
        event_id: "019b7c1e-5b60-7000-8000-000000000001".to_owned(),
        event_time: Some(Timestamp { seconds: 3, nanos: 500_000_000 }),
        kind: v1::AuditEventKind::Denial.into(),
        requested_scope: Some(String::new()),
        reason: v1::Reason::ScopeRequired.into(),
        ..AuditEvent::default()
    };
    let mut tip = Tip { head: Head { sequence: 0, hash: GENESIS_HASH }, latest_time: i64::MIN };
    for mut body in [Body::Gap(gap), Body::Event(Box::new(event))] {
        let (next, content) = body.seal(LOG_ID, tip);
        let message = hex::encode(&content[PREFIX_BYTES..]);
        let hash = hex::encode(&next.head.hash);
        assert!(reference.contains(&message), "{message}");
        assert!(reference.contains(&hash), "{hash}");
        tip = next;
    }
    assert!(reference.contains(&hex::encode(TAG)));
}

#[test]
fn times_come_back_to_the_nanosecond() {
    for nanos in [0, 1, -1, i64::MAX, i64::MIN + 1, 1_700_000_000_123_456_789] {
        assert_eq!(to_nanos(from_nanos(nanos)), nanos);
    }
    assert_eq!(nanos_of(None), 0);
    assert_eq!(nanos_of(Some(Timestamp { seconds: i64::MAX, nanos: 0 })), i64::MAX);
    assert_eq!(nanos_of(Some(Timestamp { seconds: i64::MIN, nanos: 0 })), i64::MIN);
}
