//! Each kind of change to a row and to a message has a name of its own.

use super::super::record::{GapReason, gap as new_gap};
use super::super::*;
use super::*;
use std::time::{Duration, UNIX_EPOCH};

const LOG_ID: Uuid = Uuid::from_u128(5);
const BASE: Tip = Tip { head: Head { sequence: 4, hash: [4; 32] }, latest_time: 17 };

fn bodies() -> [Body; 3] {
    let time = UNIX_EPOCH + Duration::from_secs(1);
    let event = || Body::Event(Box::new(new_event(v1::AuditEventKind::Denial, time)));
    [event(), Body::Gap(new_gap(GapReason::QueueFull, 3, time, time)), event()]
}

/// A chain of three records after record 4: an event, a gap, an event.
fn rows() -> Vec<StoredRow> {
    let mut tip = BASE;
    let mut rows = Vec::new();
    for mut body in bodies() {
        let (next, content) = body.seal(LOG_ID, tip);
        rows.push(StoredRow::new(next, content));
        tip = next;
    }
    rows
}

/// The same as a stream sends it, with the checkpoint before it.
fn chain() -> (v1::Checkpoint, Vec<Message>) {
    let mut walk = ChainWalk::new(LOG_ID, BASE);
    let mut messages: Vec<Message> =
        rows().iter().map(|row| walk.take(row).unwrap().into_message()).collect();
    messages.push(Message::Checkpoint(checkpoint(LOG_ID, walk.last().head)));
    (checkpoint(LOG_ID, BASE.head), messages)
}

fn checkpoint(log_id: Uuid, head: Head) -> v1::Checkpoint {
    v1::Checkpoint {
        log_id: log_id.to_string(),
        durable_sequence: head.sequence,
        head_hash: head.hash.to_vec(),
        server_time: None,
    }
}

fn walk(first: &v1::Checkpoint, messages: Vec<Message>, expected: Option<Head>) -> (VerifyReport, bool) {
    let mut walk = ChainWalk::at_checkpoint(first).unwrap();
    let mut found = walk.expect(expected).err();
    for message in messages {
        found = found.or_else(|| walk.receive(message).err());
    }
    walk.finish(found)
}

fn event(message: &mut Message) -> &mut v1::AuditEvent {
    match message {
        Message::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

fn gap(message: &mut Message) -> &mut v1::Gap {
    match message {
        Message::Gap(gap) => gap,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_that_was_not_touched_holds() {
    let (first, messages) = chain();
    let (report, is_complete) = walk(&first, messages.clone(), None);
    assert_eq!((report.records, report.gaps, report.missing_events), (3, 1, 3));
    assert_eq!((report.base.sequence, report.head.sequence), (4, 7));
    assert_eq!((report.bad, is_complete), (None, true));
    let (_, is_complete) = walk(&first, messages[..2].to_vec(), None);
    assert!(!is_complete, "without a checkpoint at the end it may have been cut off");
}

#[track_caller]
fn check(change: impl Fn(&mut Vec<Message>), sequence: u64, problem: &str) {
    let (first, mut messages) = chain();
    change(&mut messages);
    let bad = walk(&first, messages, None).0.bad.expect("something is bad");
    assert_eq!(bad.sequence, sequence, "{bad}");
    assert!(bad.problem.to_string().contains(problem), "{bad}");
}

#[test]
fn the_first_bad_record_is_named() {
    check(|messages| event(&mut messages[0]).effective_scope.push('x'), 5, "content changed");
    check(|messages| event(&mut messages[2]).sequence = 8, 7, "content changed");
    check(|messages| event(&mut messages[2]).kind = 0, 7, "content changed");
    check(|messages| event(&mut messages[2]).hash.truncate(31), 7, "`hash` has 31 bytes");
    // A gap has no hash of its own: the next record tells.
    check(|messages| gap(&mut messages[1]).count += 1, 7, "link broken");
    check(|messages| drop(messages.remove(0)), 5, "removed: the next record is 6");
    check(|messages| messages.swap(0, 2), 5, "removed: the next record is 7");
    check(|messages| messages.insert(1, messages[0].clone()), 6, "reordered");
    check(|messages| drop(messages.remove(2)), 7, "ends at record 6");
    let other = |messages: &mut Vec<Message>| {
        messages[3] = Message::Checkpoint(checkpoint(Uuid::nil(), Head { sequence: 7, hash: [0; 32] }))
    };
    check(other, 7, "does not have the expected hash");
    let another = |messages: &mut Vec<Message>| {
        let mut body = Body::Gap(v1::Gap::default());
        body.seal(Uuid::nil(), Tip { head: Head { sequence: 6, hash: [0; 32] }, latest_time: 0 });
        messages[2] = Record::new(body, [0; 32], [0; 32]).into_message();
    };
    check(another, 7, "it belongs to log");
}

#[test]
fn a_head_that_was_kept_elsewhere_must_be_found() {
    let (first, mut messages) = chain();
    let hash = event(&mut messages[0]).hash.clone().try_into().unwrap();
    let at = |sequence, hash| {
        walk(&first, messages.clone(), Some(Head { sequence, hash })).0.bad.map(|bad| bad.sequence)
    };
    assert_eq!(at(5, hash), None);
    assert_eq!(at(4, [4; 32]), None);
    assert_eq!(at(5, [0; 32]), Some(5));
    assert_eq!(at(4, [0; 32]), Some(4));
    assert_eq!(at(8, hash), Some(8));
}

#[test]
fn no_bit_of_an_event_can_be_changed_without_changing_its_hash() {
    let (first, messages) = chain();
    let Message::Event(event) = &messages[0] else { panic!("{messages:?}") };
    let bytes = prost::Message::encode_to_vec(event);
    let mut read = 0;
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let Ok(changed) = <v1::AuditEvent as prost::Message>::decode(&*changed) else { continue };
        // Fields that are not known, or were 0 and are not sent, leave the message as it was.
        if changed != *event {
            read += 1;
            let mut walk = ChainWalk::at_checkpoint(&first).unwrap();
            assert!(walk.receive(Message::Event(changed.clone())).is_err(), "{changed:?}");
        }
    }
    assert!(read > 500, "only {read} changes gave a message");
}

#[test]
fn each_kind_of_change_to_a_row_has_a_name_of_its_own() {
    let good = rows().remove(0);
    let check =
        |row: &StoredRow| ChainWalk::new(LOG_ID, BASE).take(row).map(|_| ()).map_err(|bad| bad.problem);
    let from = |log_id, tip| ChainWalk::new(log_id, tip).take(&good).map(|_| ()).map_err(|bad| bad.problem);

    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&StoredRow { hash: [1; 32], ..good.clone() }), Err(ChainProblem::ContentChanged));
    assert_eq!(check(&StoredRow { sequence: 6, ..good.clone() }), Err(ChainProblem::Missing { next: 6 }));
    assert_eq!(check(&StoredRow { latest_time: 1, ..good.clone() }), Err(ChainProblem::TimeColumn));
    let other = Head { sequence: 4, hash: [8; 32] };
    assert_eq!(from(LOG_ID, Tip { head: other, ..BASE }), Err(ChainProblem::LinkBroken));
    let earlier = Tip { head: Head { sequence: 2, ..BASE.head }, ..BASE };
    let moved = StoredRow { sequence: 3, ..good.clone() };
    let found = ChainWalk::new(LOG_ID, earlier).take(&moved).unwrap_err();
    assert_eq!(found, BadRecord { sequence: 3, problem: ChainProblem::Reordered { found: 5 } });
    assert_eq!(from(Uuid::nil(), BASE), Err(ChainProblem::OtherLog { found: LOG_ID.to_string() }));
    let nonsense =
        StoredRow { content: b"nonsense".as_slice().into(), hash: sha256(b"nonsense"), ..good.clone() };
    assert!(matches!(check(&nonsense), Err(ChainProblem::Undecodable(_))));
}

/// A stream tells no hash of a gap, and each gap may be the first record of format 2.
#[test]
fn gaps_at_the_change_of_the_format_settle_with_what_follows() {
    let time = UNIX_EPOCH + Duration::from_secs(1);
    for old_gaps in 0..=4 {
        let mut hash = BASE.head.hash;
        let mut messages = Vec::new();
        let mut sequence = BASE.head.sequence;
        for at in 0..4 {
            sequence += 1;
            let mut gap = new_gap(GapReason::TailLost, 1, time, time);
            (gap.log_id, gap.sequence) = (LOG_ID.to_string(), sequence);
            let body = Body::Gap(gap.clone());
            hash = if at < old_gaps { format1::hash(&body, &hash).unwrap() } else { body.hash(&hash) };
            messages.push(Message::Gap(gap));
        }
        let end = Head { sequence, hash };
        let first = checkpoint(LOG_ID, BASE.head);
        messages.push(Message::Checkpoint(checkpoint(LOG_ID, end)));
        let (report, is_complete) = walk(&first, messages.clone(), Some(end));
        assert_eq!((report.head, report.bad, is_complete), (end, None, true), "{old_gaps}");
        *gap(&mut messages[1]) = v1::Gap { count: 2, ..gap(&mut messages[1]).clone() };
        assert!(walk(&first, messages, None).0.bad.is_some());
    }
}
