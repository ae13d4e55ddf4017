//! The audit event: plain data, its enums, and the cut that keeps client claims small.
//!
//! Knows nothing of where an event goes. Names and numbers of the enums are those of
//! `proto/scopeward/v1`, so that a wire layer converts by number and the JSON form by name.

use std::time::SystemTime;

use uuid::Uuid;

/// How many bytes of client-claimed text an event keeps, over all fields of [`Client`] together.
pub const MAX_CLIENT_BYTES: usize = 4096;

/// Declares an enum whose values have a stable number and a stable wire name.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $code:literal, $wire:literal;)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Every value, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number of the value on the wire and in the hashed encoding; never 0.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// The value with this number; `None` for 0 (unspecified) and unknown numbers.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name of the value in the wire enum, with the enum's prefix.
            #[must_use]
            pub const fn wire_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $wire,)+
                }
            }

            /// The value with this wire name; `None` for any other text.
            #[must_use]
            pub fn from_wire_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.wire_name() == name)
            }
        }
    };
}
pub(super) use wire_enum;

wire_enum! {
    /// What an event is about.
    EventKind {
        /// A client got a scope that it had not asked for or not registered.
        Expansion = 1, "AUDIT_EVENT_KIND_EXPANSION";
        /// A request was denied.
        Denial = 2, "AUDIT_EVENT_KIND_DENIAL";
        /// A policy was accepted or rejected.
        PolicyChange = 3, "AUDIT_EVENT_KIND_POLICY_CHANGE";
    }
}

wire_enum! {
    /// How the authorization server came to know the client.
    ClientSource {
        /// Dynamic client registration (RFC 7591).
        Dcr = 1, "CLIENT_SOURCE_DCR";
        /// A client id metadata document: the client id is an https URL.
        Cimd = 2, "CLIENT_SOURCE_CIMD";
        /// Configured by an operator.
        Static = 3, "CLIENT_SOURCE_STATIC";
    }
}

wire_enum! {
    /// Where an added scope comes from.
    Origin {
        /// The baseline of the audience or of a client rule.
        Baseline = 1, "ORIGIN_BASELINE";
        /// The default that stands in for an omitted scope.
        Default = 2, "ORIGIN_DEFAULT";
        /// What the client had registered.
        Registered = 3, "ORIGIN_REGISTERED";
        /// The step-up scopes of the audience.
        StepUp = 4, "ORIGIN_STEP_UP";
    }
}

wire_enum! {
    /// Why a scope or a whole request was refused.
    Reason {
        /// Not a scope token (RFC 6749 section 3.3).
        Malformed = 1, "REASON_MALFORMED";
        /// Named by a list of forbidden scopes.
        Forbidden = 2, "REASON_FORBIDDEN";
        /// Unknown to the audience.
        Unsupported = 3, "REASON_UNSUPPORTED";
        /// Supported, but not registered by the client.
        Unregistered = 4, "REASON_UNREGISTERED";
        /// The scope was omitted and nothing stands in for it.
        ScopeRequired = 5, "REASON_SCOPE_REQUIRED";
        /// Every requested scope was dropped.
        NothingGranted = 6, "REASON_NOTHING_GRANTED";
        /// The audience is not in the policy.
        AudienceUnknown = 7, "REASON_AUDIENCE_UNKNOWN";
        /// The audience is not a valid resource indicator (RFC 8707 section 2).
        AudienceMalformed = 8, "REASON_AUDIENCE_MALFORMED";
        /// No audience was named and none is the default.
        AudienceRequired = 9, "REASON_AUDIENCE_REQUIRED";
    }
}

/// One event of the audit log, before it has a place in the chain.
///
/// Made by [`AuditEvent::new`] with empty contents; the caller fills in what is known. What a
/// client claims about itself goes in through [`AuditEvent::claim`], which keeps it small.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEvent {
    /// UUIDv7 of the event, new for each one.
    pub event_id: Uuid,
    /// When the decision was taken or the policy read, nanosecond resolution, UTC.
    pub event_time: SystemTime,
    /// What the event is about.
    pub kind: EventKind,
    /// UUIDv7 of the answer; `None` for a policy change.
    pub decision_id: Option<Uuid>,
    /// The full name of the RPC, as in `/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes`;
    /// empty for a policy change.
    pub method: String,
    /// The audiences that were asked about, in request order; empty if none was named.
    pub audiences: Vec<String>,
    client: Option<Client>,
    /// The scope that was requested, as received. `None`: omitted; `Some("")`: sent empty.
    pub requested_scope: Option<String>,
    /// The registered scope as received. `None`: unknown to the caller; `Some("")`: registered
    /// with none.
    pub registered_scope: Option<String>,
    /// The scope of the answer; empty on a denial.
    pub effective_scope: String,
    /// What the answer adds, in the order of the answer.
    pub added: Vec<AddedScope>,
    /// What was refused, in the order of the answer.
    pub refused: Vec<RefusedScope>,
    /// Why the whole was denied; `None` unless it was.
    pub reason: Option<Reason>,
    /// The policy that decided, or the one that serves after a policy change.
    pub policy: PolicyVersion,
    /// Only in events of kind [`EventKind::PolicyChange`].
    pub policy_change: Option<PolicyChange>,
    /// Who called, as authenticated by us; empty without TLS.
    pub caller: Caller,
    /// The address of the calling socket; empty if there is none.
    pub peer: String,
    /// Trace id of the `traceparent` header: 32 hex digits or empty.
    pub trace_id: String,
    /// What `grpc-previous-rpc-attempts` said; 0 for the first attempt.
    pub attempt: u32,
    client_truncated: bool,
}

impl AuditEvent {
    /// Makes an event with a new id and no contents but these.
    #[must_use]
    pub fn new(kind: EventKind, event_time: SystemTime) -> Self {
        Self::new_with_id(Uuid::now_v7(), kind, event_time)
    }

    /// Makes an event that has its id already, as one that is read back.
    #[must_use]
    pub fn new_with_id(event_id: Uuid, kind: EventKind, event_time: SystemTime) -> Self {
        Self {
            event_id,
            event_time,
            kind,
            decision_id: None,
            method: String::new(),
            audiences: Vec::new(),
            client: None,
            requested_scope: None,
            registered_scope: None,
            effective_scope: String::new(),
            added: Vec::new(),
            refused: Vec::new(),
            reason: None,
            policy: PolicyVersion::default(),
            policy_change: None,
            caller: Caller::default(),
            peer: String::new(),
            trace_id: String::new(),
            attempt: 0,
            client_truncated: false,
        }
    }

    /// Takes what a client says about itself, cut to [`MAX_CLIENT_BYTES`].
    ///
    /// While the text is too long, the field with most bytes gives way: a list loses its last
    /// entry, a single text its end (never inside a character). Of equally large fields the one
    /// declared later gives way. The same claims are thus always cut in the same way.
    pub fn claim(&mut self, mut client: Client) {
        self.client_truncated = client.cut(MAX_CLIENT_BYTES);
        self.client = Some(client);
    }

    /// Restores the claims of a stored event, which were cut when it was made.
    pub fn claim_stored(&mut self, client: Option<Client>, truncated: bool) {
        self.client = client;
        self.client_truncated = truncated;
    }

    /// What the client says about itself: claims, not facts. `None` if the event has no client.
    #[must_use]
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Whether some of the client's claims were cut away.
    #[must_use]
    pub const fn client_truncated(&self) -> bool {
        self.client_truncated
    }
}

/// What a client says about itself. All of it is claimed by the client or its document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Client {
    /// The client id as the authorization server sent it; empty at a registration.
    pub client_id: String,
    /// How the authorization server knows the client; `None` if it did not say.
    pub source: Option<ClientSource>,
    /// `client_name` of the registration (RFC 7591 section 2).
    pub client_name: String,
    /// `software_id` of the registration.
    pub software_id: String,
    /// `software_version` of the registration.
    pub software_version: String,
    /// `redirect_uris` of the registration, in order.
    pub redirect_uris: Vec<String>,
    /// `grant_types` of the registration, in order.
    pub grant_types: Vec<String>,
    /// `application_type` of the registration.
    pub application_type: String,
}

impl Client {
    /// Cuts the text down to `limit` bytes in all and says whether anything was lost.
    fn cut(&mut self, limit: usize) -> bool {
        let mut fields = [
            Text::One(&mut self.client_id),
            Text::One(&mut self.client_name),
            Text::One(&mut self.software_id),
            Text::One(&mut self.software_version),
            Text::Many(&mut self.redirect_uris),
            Text::Many(&mut self.grant_types),
            Text::One(&mut self.application_type),
        ];
        let mut weights = fields.each_ref().map(Text::weight);
        let mut truncated = false;
        loop {
            let total: usize = weights.iter().sum();
            let Some(excess) = total.checked_sub(limit).filter(|excess| *excess > 0) else {
                return truncated;
            };
            truncated = true;
            // `max_by_key` returns the last of several maxima, hence the later field.
            let largest = fields.iter_mut().zip(&mut weights).max_by_key(|(_, weight)| **weight);
            let Some((field, weight)) = largest else {
                return truncated;
            };
            *weight -= field.shorten(excess);
        }
    }
}

/// A field of claims, seen only as text that can give way.
enum Text<'a> {
    One(&'a mut String),
    Many(&'a mut Vec<String>),
}

impl Text<'_> {
    /// The bytes that count. An entry of a list counts one more than its text, so that a list of
    /// many empty entries is bounded too.
    fn weight(&self) -> usize {
        match self {
            Self::One(text) => text.len(),
            Self::Many(texts) => texts.iter().map(|text| text.len() + 1).sum(),
        }
    }

    /// Takes one step towards being `excess` bytes shorter and returns the bytes removed.
    fn shorten(&mut self, excess: usize) -> usize {
        match self {
            Self::One(text) => shorten(text, excess),
            Self::Many(texts) => match texts.as_mut_slice() {
                [only] if only.len() > excess => shorten(only, excess),
                _ => texts.pop().map_or(0, |text| text.len() + 1),
            },
        }
    }
}

/// Removes at least `excess` bytes from the end, more where a character would be split, and
/// returns how many.
fn shorten(text: &mut String, excess: usize) -> usize {
    let before = text.len();
    let mut end = before.saturating_sub(excess);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    before - end
}

/// A scope that an answer adds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddedScope {
    /// The scope token.
    pub scope: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The client rule that adds it; empty if none does.
    pub rule: String,
}

/// A scope that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusedScope {
    /// The token as received.
    pub scope: String,
    /// Why.
    pub reason: Reason,
    /// The reason in words; may be empty.
    pub message: String,
}

/// Names a policy set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyVersion {
    /// Counts accepted sets, from 1 in each process; 0 if there is none.
    pub generation: u64,
    /// `sha256:` and hex digits; empty if there is no set.
    pub digest: String,
}

/// What happened to a policy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyChange {
    /// Whether the new set serves now.
    pub accepted: bool,
    /// Digest of the set that served before; empty if none did.
    pub previous_digest: String,
    /// How many findings the attempt had.
    pub finding_count: u32,
}

/// Who called us.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Caller {
    /// The authenticated name; empty without TLS.
    pub name: String,
    /// How the name was proven, as in `mtls`; empty without TLS.
    pub authenticated_by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(client: Client) -> AuditEvent {
        let mut event = AuditEvent::new(EventKind::Expansion, SystemTime::now());
        event.claim(client);
        event
    }

    fn weight(client: &Client) -> usize {
        client.client_id.len()
            + client.client_name.len()
            + client.software_id.len()
            + client.software_version.len()
            + client.redirect_uris.iter().map(String::len).sum::<usize>()
            + client.grant_types.iter().map(String::len).sum::<usize>()
            + client.application_type.len()
    }

    #[test]
    fn small_claims_are_kept_whole() {
        let client = Client { client_id: "c".repeat(MAX_CLIENT_BYTES), ..Client::default() };
        let event = claimed(client.clone());
        assert_eq!(event.client(), Some(&client));
        assert!(!event.client_truncated());
    }

    #[test]
    fn one_byte_too_many_is_cut_and_marked() {
        let event = claimed(Client { client_id: "c".repeat(MAX_CLIENT_BYTES + 1), ..Client::default() });
        assert!(event.client_truncated());
        assert_eq!(event.client().unwrap().client_id.len(), MAX_CLIENT_BYTES);
    }

    #[test]
    fn largest_field_gives_way_and_the_client_id_stays() {
        let event = claimed(Client {
            client_id: "the-client".into(),
            client_name: "n".repeat(10_000),
            redirect_uris: vec!["https://a.example/".into(), "https://b.example/".into()],
            ..Client::default()
        });
        let client = event.client().unwrap();
        assert_eq!(client.client_id, "the-client");
        assert_eq!(client.redirect_uris.len(), 2);
        // Ten bytes of client id, 18 + 1 for each redirect URI.
        assert_eq!(client.client_name.len(), MAX_CLIENT_BYTES - 10 - 38);
    }

    #[test]
    fn lists_lose_their_last_entries_first() {
        let event = claimed(Client {
            redirect_uris: (0..100).map(|n| format!("{n:0>99}")).collect(),
            ..Client::default()
        });
        let kept = &event.client().unwrap().redirect_uris;
        assert_eq!(kept.len(), 40);
        assert_eq!(kept.last().unwrap(), &format!("{:0>99}", 39));
    }

    #[test]
    fn a_single_long_entry_is_cut_at_its_end() {
        let event = claimed(Client { redirect_uris: vec!["u".repeat(9000)], ..Client::default() });
        let kept = &event.client().unwrap().redirect_uris;
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].len(), MAX_CLIENT_BYTES - 1);
    }

    #[test]
    fn many_empty_entries_are_bounded_too() {
        let event = claimed(Client { grant_types: vec![String::new(); 60_000], ..Client::default() });
        assert_eq!(event.client().unwrap().grant_types.len(), MAX_CLIENT_BYTES);
    }

    #[test]
    fn cutting_never_splits_a_character_and_repeats_itself() {
        for width in 4090..4110 {
            let client = Client {
                client_name: "ü€😀".repeat(2000),
                software_id: "x".repeat(width),
                ..Client::default()
            };
            let once = claimed(client.clone());
            let again = claimed(client);
            assert_eq!(once.client(), again.client());
            assert!(weight(once.client().unwrap()) <= MAX_CLIENT_BYTES);
        }
    }

    #[test]
    fn names_and_numbers_of_enums_lead_back_to_the_value() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert_eq!(Reason::from_wire_name(reason.wire_name()), Some(*reason));
        }
        assert_eq!(Reason::from_code(0), None);
        assert_eq!(EventKind::from_code(4), None);
    }
}
