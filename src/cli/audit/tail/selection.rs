//! Which records are printed, and before which the reading ends.

use prost_types::Timestamp;

use crate::audit::Filter;
use crate::rpc::v1;
use crate::rpc::v1::stream_audit_events_response::Message;

/// What to print.
#[derive(Debug)]
pub(super) struct Selection {
    /// Kinds and audiences; a server applies it too.
    pub(super) filter: Filter,
    /// Only events of these client ids; empty means all.
    pub(super) clients: Vec<String>,
    /// The reading ends before the first record from this time or later.
    pub(super) until: Option<Timestamp>,
    /// How many more records are printed; `None` means all.
    pub(super) left: Option<u64>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// Print it.
    Print,
    /// Go on behind it.
    Pass,
    /// End before it.
    End,
}

impl Selection {
    /// Chooses what to do with the next message. A checkpoint is never printed, and no end.
    pub(super) fn choose(&mut self, message: &Message) -> Choice {
        let time = match message {
            Message::Event(event) => event.event_time,
            Message::Gap(gap) => gap.last_time,
            Message::Checkpoint(_) => None,
        };
        let is_over = self.until.zip(time).is_some_and(|(until, time)| key(time) >= key(until));
        if is_over || self.is_done() {
            return Choice::End;
        }
        let is_wanted = match message {
            Message::Checkpoint(_) => false,
            // Events are missing there, and nobody knows which.
            Message::Gap(_) => true,
            Message::Event(event) => self.filter.wants_event(event) && self.is_client(event),
        };
        if !is_wanted {
            return Choice::Pass;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Choice::Print
    }

    /// Whether as many records as were asked for are printed.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn is_client(&self, event: &v1::AuditEvent) -> bool {
        let id = event.client.as_ref().map_or("", |client| &client.client_id);
        self.clients.is_empty() || self.clients.iter().any(|client| client == id)
    }
}

/// Times in their order.
const fn key(time: Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::v1::AuditEventKind;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn event(client: &str, seconds: i64) -> Message {
        let client = v1::Client { client_id: client.to_owned(), ..Default::default() };
        Message::Event(v1::AuditEvent {
            kind: AuditEventKind::Denial.into(),
            client: Some(client),
            event_time: at(seconds),
            ..Default::default()
        })
    }

    fn everything() -> Selection {
        Selection { filter: Filter::default(), clients: Vec::new(), until: None, left: None }
    }

    #[test]
    fn the_end_is_a_count_or_a_time() {
        let mut two = Selection { left: Some(2), ..everything() };
        assert_eq!(two.choose(&event("a", 1)), Choice::Print);
        assert_eq!(two.choose(&Message::Checkpoint(v1::Checkpoint::default())), Choice::Pass);
        assert_eq!(two.choose(&Message::Gap(v1::Gap::default())), Choice::Print);
        assert!(two.is_done());
        assert_eq!(two.choose(&event("a", 1)), Choice::End);

        let mut until = Selection { until: at(5), ..everything() };
        assert_eq!(until.choose(&event("a", 4)), Choice::Print);
        let checkpoint = v1::Checkpoint { server_time: at(6), ..Default::default() };
        assert_eq!(until.choose(&Message::Checkpoint(checkpoint)), Choice::Pass);
        assert_eq!(until.choose(&event("a", 5)), Choice::End);
        assert_eq!(
            until.choose(&Message::Gap(v1::Gap { last_time: at(5), ..Default::default() })),
            Choice::End
        );
    }

    #[test]
    fn clients_are_chosen_by_id_and_what_is_passed_does_not_count() {
        let mut one = Selection { clients: vec!["b".to_owned()], left: Some(1), ..everything() };
        assert_eq!(one.choose(&event("a", 1)), Choice::Pass);
        assert_eq!(one.choose(&Message::Event(v1::AuditEvent::default())), Choice::Pass);
        assert_eq!(one.choose(&event("b", 1)), Choice::Print);
        assert!(one.is_done());
    }
}
