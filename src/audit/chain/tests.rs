//! The encoding is reversible and unique, and the hash covers all of it.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn client() -> impl Strategy<Value = Client> {
    let source = option::of(prop::sample::select(ClientSource::ALL));
    (".{0,20}", source, ".{0,9}", ".{0,9}", ".{0,9}", vec(".{0,9}", 0..3), vec(".{0,9}", 0..3), ".{0,9}")
        .prop_map(
            |(
                client_id,
                source,
                client_name,
                software_id,
                software_version,
                redirect_uris,
                grant_types,
                application_type,
            )| {
                Client {
                    client_id,
                    source,
                    client_name,
                    software_id,
                    software_version,
                    redirect_uris,
                    grant_types,
                    application_type,
                }
            },
        )
}

fn scopes() -> impl Strategy<Value = (Vec<AddedScope>, Vec<RefusedScope>)> {
    let added = (".{0,200}", prop::sample::select(Origin::ALL), ".{0,9}")
        .prop_map(|(scope, origin, rule)| AddedScope { scope, origin, rule });
    let refused = (".{0,9}", prop::sample::select(Reason::ALL), ".{0,9}")
        .prop_map(|(scope, reason, message)| RefusedScope { scope, reason, message });
    (vec(added, 0..3), vec(refused, 0..3))
}

fn event() -> impl Strategy<Value = AuditEvent> {
    let head = (any::<u128>(), prop::sample::select(EventKind::ALL), any::<i64>(), option::of(any::<u128>()));
    let texts = (vec(".{0,9}", 0..3), option::of(".{0,9}"), option::of(".{0,9}"), vec(".{0,9}", 6));
    let policy = (any::<u64>(), option::of((any::<bool>(), ".{0,9}", any::<u32>())));
    let rest = (option::of(prop::sample::select(Reason::ALL)), any::<u32>(), any::<bool>());
    (head, texts, option::of(client()), scopes(), policy, rest).prop_map(
        |(
            (id, kind, time, decision),
            (audiences, requested, registered, texts),
            client,
            scopes,
            policy,
            rest,
        )| {
            let mut event = AuditEvent::new_with_id(Uuid::from_u128(id), kind, from_nanos(time));
            event.decision_id = decision.map(Uuid::from_u128);
            event.audiences = audiences;
            event.requested_scope = requested;
            event.registered_scope = registered;
            event.method = texts[0].clone();
            event.effective_scope = texts[1].clone();
            event.caller = Caller { name: texts[2].clone(), authenticated_by: texts[3].clone() };
            event.peer = texts[4].clone();
            event.trace_id = texts[5].clone();
            (event.added, event.refused) = scopes;
            event.policy.generation = policy.0;
            event.policy_change = policy.1.map(|(accepted, previous_digest, finding_count)| PolicyChange {
                accepted,
                previous_digest,
                finding_count,
            });
            event.reason = rest.0;
            event.attempt = rest.1;
            event.claim_stored(client, rest.2);
            event
        },
    )
}

fn row(content: &mut Content, head: Head) -> Row {
    let hash = content.seal(head);
    Row { sequence: head.sequence + 1, latest_time: content.time(), content: content.bytes().to_vec(), hash }
}

const AFTER: Head = Head { sequence: 41, hash: [7; 32] };

proptest! {
    #[test]
    fn every_event_comes_back_from_its_encoding(event in event()) {
        let log_id = Uuid::from_u128(5);
        let row = row(&mut Content::event(log_id, &event), AFTER);
        let record = row.check(log_id, &AFTER.hash).unwrap();
        prop_assert_eq!(record.sequence, 42);
        prop_assert_eq!(record.prev_hash, AFTER.hash);
        prop_assert_eq!(record.expected_hash(), row.hash);
        prop_assert_eq!(record.body, Body::Event(Box::new(event)));
    }

    #[test]
    fn bytes_that_decode_are_the_only_encoding_of_what_they_say(
        event in event(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        let log_id = Uuid::from_u128(5);
        let mut content = Content::event(log_id, &event);
        content.seal(AFTER);
        let mut bytes = content.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(record) = decode(&bytes, sha256(&bytes)) {
            prop_assert_eq!(record.expected_hash(), sha256(&bytes));
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_without_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes, GENESIS_HASH);
    }
}

#[test]
fn gap_comes_back_from_its_encoding() {
    for reason in GapReason::ALL {
        let gap = Gap {
            count: 3_000_000_000_000,
            reason: *reason,
            first_time: from_nanos(-5),
            last_time: from_nanos(1_700_000_000_123_456_789),
        };
        let log_id = Uuid::new_v4();
        let record = row(&mut Content::gap(log_id, &gap), AFTER).check(log_id, &AFTER.hash).unwrap();
        assert_eq!(record.body, Body::Gap(gap));
    }
}

#[test]
fn bytes_are_those_of_the_reference() {
    // The worked example of docs/reference/audit-chain.md.
    let gap = Gap {
        count: 300,
        reason: GapReason::QueueFull,
        first_time: from_nanos(1_000_000_000),
        last_time: from_nanos(2_000_000_000),
    };
    let mut content = Content::gap(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), &gap);
    let hash = content.seal(Head { sequence: 0, hash: GENESIS_HASH });
    assert_eq!(
        crate::hex::encode(content.bytes()),
        "010200112233445566778899aabbccddeeff0000000000000001\
         0000000000000000000000000000000000000000000000000000000000000000\
         000000007735940001ac02000000003b9aca00"
    );
    assert_eq!(crate::hex::encode(&hash), "5382e3e6db6171d226230a3e4d0c1380d1d3e8d56135febfa868b8718f5b9807");
}

#[test]
fn each_kind_of_change_has_a_name_of_its_own() {
    let log_id = Uuid::from_u128(5);
    let event = AuditEvent::new(EventKind::Denial, SystemTime::UNIX_EPOCH);
    let good = row(&mut Content::event(log_id, &event), AFTER);
    let check = |row: &Row| row.check(log_id, &AFTER.hash).map(|_| ());

    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&Row { hash: [1; 32], ..good.clone() }), Err(Problem::ContentChanged));
    assert_eq!(check(&Row { sequence: 43, ..good.clone() }), Err(Problem::Reordered { found: 42 }));
    assert_eq!(good.check(log_id, &[8; 32]), Err(Problem::LinkBroken));
    assert_eq!(good.check(Uuid::from_u128(6), &AFTER.hash), Err(Problem::OtherLog { found: log_id }));
    let nonsense = Row { content: b"nonsense".to_vec(), hash: sha256(b"nonsense"), ..good };
    assert!(matches!(check(&nonsense), Err(Problem::Undecodable(_))));
}

#[test]
fn numbers_have_one_encoding() {
    let number = |bytes: &[u8]| Bytes(bytes).number();
    assert_eq!(number(&[0]), Ok(0));
    assert_eq!(number(&[0xac, 2]), Ok(300));
    assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
    assert!(number(&[0x80, 0]).is_err());
    assert!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).is_err());
    assert!(number(&[0x80]).is_err());
}

#[test]
fn times_come_back_to_the_nanosecond() {
    for nanos in [0, 1, -1, i64::MAX, i64::MIN + 1, 1_700_000_000_123_456_789] {
        assert_eq!(to_nanos(from_nanos(nanos)), nanos);
    }
}
