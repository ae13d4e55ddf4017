//! The requests that decide, borrowed from the bytes of their message: what they say is read without a copy.
//!
//! Only messages in plain form are read here, as all known encoders write them: known fields, each that is not repeated at
//! most once and not at its default, no number longer than it has to be. All else is `None`, and for `prost` to decode or
//! to refuse: unknown fields, merged messages, groups, wrong wire types, text that is not UTF-8. So nothing here says what is an error.

use std::str;

use super::v1;
use crate::short_list::ShortList;

/// Texts of a request; most requests have one or two.
pub type TextList<'a> = ShortList<&'a str, 2>;

/// A [`v1::CheckAuthorizeScopesRequest`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckRequestRef<'a> {
    /// `audiences`.
    pub audiences: TextList<'a>,
    /// `scope`.
    pub scope: Option<&'a str>,
    /// `registered_scope`.
    pub registered_scope: Option<&'a str>,
    /// `client`.
    pub client: Option<ClientRef<'a>>,
    /// `correlation_id`.
    pub correlation_id: &'a str,
}

/// A [`v1::ExpandRegistrationScopesRequest`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExpandRequestRef<'a> {
    /// `audiences`.
    pub audiences: TextList<'a>,
    /// `scope`.
    pub scope: Option<&'a str>,
    /// `client`.
    pub client: Option<ClientRef<'a>>,
    /// `previous_scope`.
    pub previous_scope: Option<&'a str>,
    /// `correlation_id`.
    pub correlation_id: &'a str,
}

/// A [`v1::CheckTokenScopesRequest`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenRequestRef<'a> {
    /// `audiences`.
    pub audiences: TextList<'a>,
    /// `scope`.
    pub scope: Option<&'a str>,
    /// `granted_scope`.
    pub granted_scope: Option<&'a str>,
    /// `registered_scope`.
    pub registered_scope: Option<&'a str>,
    /// `client`.
    pub client: Option<ClientRef<'a>>,
    /// `grant`, which may be a value that this version does not know.
    pub grant: i32,
    /// `correlation_id`.
    pub correlation_id: &'a str,
}

/// A [`v1::Client`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientRef<'a> {
    /// `client_id`.
    pub client_id: &'a str,
    /// `source`, which may be a value that this version does not know.
    pub source: i32,
    /// `client_name`.
    pub client_name: &'a str,
    /// `software_id`.
    pub software_id: &'a str,
    /// `software_version`.
    pub software_version: &'a str,
    /// `redirect_uris`.
    pub redirect_uris: TextList<'a>,
    /// `grant_types`.
    pub grant_types: TextList<'a>,
    /// `application_type`.
    pub application_type: &'a str,
}

/// A request that is read from the bytes of its message.
pub trait PlainRequest<'a>: Default {
    /// Sets the fields in place: a request is too large to be moved for nothing.
    fn fill(&mut self, bytes: &'a [u8]) -> Option<()>;

    /// Reads a message in plain form. Encoding it again gives as many bytes.
    #[must_use]
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut request = Self::default();
        request.fill(bytes)?;
        Some(request)
    }
}

/// Reads a [`v1::BatchCheckAuthorizeScopesRequest`] or a [`v1::BatchCheckTokenScopesRequest`] of at most `most` checks: each with
/// its length in bytes.
#[must_use]
pub fn read_batch<'a, R: PlainRequest<'a>>(bytes: &'a [u8], most: usize) -> Option<Vec<(R, usize)>> {
    let mut checks = Vec::with_capacity(most.min(bytes.len() / MIN_CHECK_BYTES));
    let mut rest = bytes;
    while let Some(key) = rest.first() {
        let (check, after) = delimited(rest)?;
        if *key != key_of(1) || checks.len() == most {
            return None;
        }
        checks.push((R::default(), check.len()));
        checks.last_mut()?.0.fill(check)?;
        rest = after;
    }
    Some(checks)
}

impl<'a> PlainRequest<'a> for CheckRequestRef<'a> {
    fn fill(&mut self, bytes: &'a [u8]) -> Option<()> {
        match str::from_utf8(bytes) {
            Ok(text) => self.fill_from(text),
            Err(_) => self.fill_from(bytes),
        }
    }
}

impl<'a> CheckRequestRef<'a> {
    fn fill_from(&mut self, mut rest: impl Source<'a>) -> Option<()> {
        while let Some(key) = rest.bytes().first() {
            let (field, after) = delimited(rest)?;
            match *key {
                AUDIENCES => self.audiences.push(field.text()?),
                SCOPE => once(&mut self.scope, field.text()?)?,
                REGISTERED_SCOPE => once(&mut self.registered_scope, field.text()?)?,
                CHECK_CLIENT => ClientRef::fill_from(&mut self.client, field)?,
                CORRELATION_ID => not_default(&mut self.correlation_id, field.text()?)?,
                _ => return None,
            }
            rest = after;
        }
        Some(())
    }

    /// Borrows from a message.
    #[must_use]
    pub fn of(message: &'a v1::CheckAuthorizeScopesRequest) -> Self {
        // Taken apart in full, so that a new field is not forgotten.
        let v1::CheckAuthorizeScopesRequest { audiences, scope, registered_scope, client, correlation_id } =
            message;
        Self {
            audiences: texts(audiences),
            scope: scope.as_deref(),
            registered_scope: registered_scope.as_deref(),
            client: client.as_ref().map(ClientRef::of),
            correlation_id,
        }
    }

    /// The message itself.
    #[must_use]
    pub fn to_message(&self) -> v1::CheckAuthorizeScopesRequest {
        let Self { audiences, scope, registered_scope, client, correlation_id } = self;
        v1::CheckAuthorizeScopesRequest {
            audiences: owned(audiences),
            scope: scope.map(str::to_owned),
            registered_scope: registered_scope.map(str::to_owned),
            client: client.as_ref().map(ClientRef::to_message),
            correlation_id: (*correlation_id).to_owned(),
        }
    }
}

impl<'a> PlainRequest<'a> for ExpandRequestRef<'a> {
    fn fill(&mut self, bytes: &'a [u8]) -> Option<()> {
        match str::from_utf8(bytes) {
            Ok(text) => self.fill_from(text),
            Err(_) => self.fill_from(bytes),
        }
    }
}

impl<'a> ExpandRequestRef<'a> {
    fn fill_from(&mut self, mut rest: impl Source<'a>) -> Option<()> {
        while let Some(key) = rest.bytes().first() {
            let (field, after) = delimited(rest)?;
            match *key {
                AUDIENCES => self.audiences.push(field.text()?),
                SCOPE => once(&mut self.scope, field.text()?)?,
                EXPAND_CLIENT => ClientRef::fill_from(&mut self.client, field)?,
                PREVIOUS_SCOPE => once(&mut self.previous_scope, field.text()?)?,
                CORRELATION_ID => not_default(&mut self.correlation_id, field.text()?)?,
                _ => return None,
            }
            rest = after;
        }
        Some(())
    }

    /// Borrows from a message.
    #[must_use]
    pub fn of(message: &'a v1::ExpandRegistrationScopesRequest) -> Self {
        let v1::ExpandRegistrationScopesRequest { audiences, scope, client, previous_scope, correlation_id } =
            message;
        Self {
            audiences: texts(audiences),
            scope: scope.as_deref(),
            client: client.as_ref().map(ClientRef::of),
            previous_scope: previous_scope.as_deref(),
            correlation_id,
        }
    }

    /// The message itself.
    #[must_use]
    pub fn to_message(&self) -> v1::ExpandRegistrationScopesRequest {
        let Self { audiences, scope, client, previous_scope, correlation_id } = self;
        v1::ExpandRegistrationScopesRequest {
            audiences: owned(audiences),
            scope: scope.map(str::to_owned),
            client: client.as_ref().map(ClientRef::to_message),
            previous_scope: previous_scope.map(str::to_owned),
            correlation_id: (*correlation_id).to_owned(),
        }
    }
}

impl<'a> PlainRequest<'a> for TokenRequestRef<'a> {
    fn fill(&mut self, bytes: &'a [u8]) -> Option<()> {
        match str::from_utf8(bytes) {
            Ok(text) => self.fill_from(text),
            Err(_) => self.fill_from(bytes),
        }
    }
}

impl<'a> TokenRequestRef<'a> {
    fn fill_from(&mut self, mut rest: impl Source<'a>) -> Option<()> {
        while let Some(key) = rest.bytes().first() {
            if *key == GRANT {
                rest = small_number(&mut self.grant, rest)?;
                continue;
            }
            let (field, after) = delimited(rest)?;
            match *key {
                AUDIENCES => self.audiences.push(field.text()?),
                SCOPE => once(&mut self.scope, field.text()?)?,
                GRANTED_SCOPE => once(&mut self.granted_scope, field.text()?)?,
                TOKEN_REGISTERED_SCOPE => once(&mut self.registered_scope, field.text()?)?,
                TOKEN_CLIENT => ClientRef::fill_from(&mut self.client, field)?,
                TOKEN_CORRELATION_ID => not_default(&mut self.correlation_id, field.text()?)?,
                _ => return None,
            }
            rest = after;
        }
        Some(())
    }

    /// Borrows from a message.
    #[must_use]
    pub fn of(message: &'a v1::CheckTokenScopesRequest) -> Self {
        let v1::CheckTokenScopesRequest {
            audiences,
            scope,
            granted_scope,
            registered_scope,
            client,
            grant,
            correlation_id,
        } = message;
        Self {
            audiences: texts(audiences),
            scope: scope.as_deref(),
            granted_scope: granted_scope.as_deref(),
            registered_scope: registered_scope.as_deref(),
            client: client.as_ref().map(ClientRef::of),
            grant: *grant,
            correlation_id,
        }
    }

    /// The message itself.
    #[must_use]
    pub fn to_message(&self) -> v1::CheckTokenScopesRequest {
        let Self { audiences, scope, granted_scope, registered_scope, client, grant, correlation_id } = self;
        v1::CheckTokenScopesRequest {
            audiences: owned(audiences),
            scope: scope.map(str::to_owned),
            granted_scope: granted_scope.map(str::to_owned),
            registered_scope: registered_scope.map(str::to_owned),
            client: client.as_ref().map(ClientRef::to_message),
            grant: *grant,
            correlation_id: (*correlation_id).to_owned(),
        }
    }
}

impl<'a> ClientRef<'a> {
    /// Makes a client that may come once.
    fn fill_from(place: &mut Option<Self>, mut rest: impl Source<'a>) -> Option<()> {
        if place.is_some() {
            return None;
        }
        let client = place.insert(Self::default());
        while let Some(key) = rest.bytes().first() {
            if *key == SOURCE {
                rest = small_number(&mut client.source, rest)?;
                continue;
            }
            let (field, after) = delimited(rest)?;
            match *key {
                CLIENT_ID => not_default(&mut client.client_id, field.text()?)?,
                CLIENT_NAME => not_default(&mut client.client_name, field.text()?)?,
                SOFTWARE_ID => not_default(&mut client.software_id, field.text()?)?,
                SOFTWARE_VERSION => not_default(&mut client.software_version, field.text()?)?,
                REDIRECT_URIS => client.redirect_uris.push(field.text()?),
                GRANT_TYPES => client.grant_types.push(field.text()?),
                APPLICATION_TYPE => not_default(&mut client.application_type, field.text()?)?,
                _ => return None,
            }
            rest = after;
        }
        Some(())
    }

    /// Borrows from a message.
    #[must_use]
    pub fn of(message: &'a v1::Client) -> Self {
        let v1::Client {
            client_id,
            source,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = message;
        Self {
            client_id,
            source: *source,
            client_name,
            software_id,
            software_version,
            redirect_uris: texts(redirect_uris),
            grant_types: texts(grant_types),
            application_type,
        }
    }

    /// The message itself.
    #[must_use]
    pub fn to_message(&self) -> v1::Client {
        let Self {
            client_id,
            source,
            client_name,
            software_id,
            software_version,
            redirect_uris,
            grant_types,
            application_type,
        } = self;
        v1::Client {
            client_id: (*client_id).to_owned(),
            source: *source,
            client_name: (*client_name).to_owned(),
            software_id: (*software_id).to_owned(),
            software_version: (*software_version).to_owned(),
            redirect_uris: owned(redirect_uris),
            grant_types: owned(grant_types),
            application_type: (*application_type).to_owned(),
        }
    }
}

fn texts(list: &[String]) -> TextList<'_> {
    list.iter().map(String::as_str).collect()
}

fn owned(list: &TextList<'_>) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Sets an enum that may come once, of one byte: there are few values, and 0 is the default. Returns what follows it.
#[inline]
fn small_number<'a, S: Source<'a>>(place: &mut i32, rest: S) -> Option<S> {
    let (field, after) = rest.split(2)?;
    match field.bytes() {
        [_, value @ 1..=0x7F] if *place == 0 => *place = i32::from(*value),
        _ => return None,
    }
    Some(after)
}

/// Sets a field that may come once.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// Sets a text that may come once, and not empty.
fn not_default<'a>(field: &mut &'a str, value: &'a str) -> Option<()> {
    (field.is_empty() && !value.is_empty()).then(|| *field = value)
}

/// Bytes of a message, or the same that are known to be UTF-8: then no text of it has to be looked through again.
///
/// A message as a whole is UTF-8 if its texts are and no length in it has two bytes.
trait Source<'a>: Copy {
    fn bytes(self) -> &'a [u8];

    /// The bytes before a position and those from there on.
    fn split(self, at: usize) -> Option<(Self, Self)>;

    fn text(self) -> Option<&'a str>;
}

impl<'a> Source<'a> for &'a [u8] {
    fn bytes(self) -> &'a [u8] {
        self
    }

    fn split(self, at: usize) -> Option<(Self, Self)> {
        self.split_at_checked(at)
    }

    fn text(self) -> Option<&'a str> {
        str::from_utf8(self).ok()
    }
}

impl<'a> Source<'a> for &'a str {
    fn bytes(self) -> &'a [u8] {
        self.as_bytes()
    }

    fn split(self, at: usize) -> Option<(Self, Self)> {
        self.split_at_checked(at)
    }

    fn text(self) -> Option<&'a str> {
        Some(self)
    }
}

/// The content of the field that comes first, which has a key of one byte and a length, and what follows it.
#[inline]
fn delimited<'a, S: Source<'a>>(source: S) -> Option<(S, S)> {
    let (length, width) = match source.bytes() {
        [_, length @ 0..=0x7F, ..] => (usize::from(*length), 2),
        [_, low, high @ 1..=0x7F, ..] => (usize::from(*low & 0x7F) | usize::from(*high) << 7, 3),
        [_, low, middle @ 0x80..=0xFF, high @ 1..=0x7F, ..] => {
            let (low, middle) = (usize::from(*low & 0x7F), usize::from(*middle & 0x7F));
            (low | middle << 7 | usize::from(*high) << 14, 4)
        }
        _ => return None,
    };
    source.split(width)?.1.split(length)
}

/// The key of a field that has a length: wire type 2.
const fn key_of(number: u8) -> u8 {
    number << 3 | 2
}

const AUDIENCES: u8 = key_of(1);
const SCOPE: u8 = key_of(2);
const REGISTERED_SCOPE: u8 = key_of(3);
const CHECK_CLIENT: u8 = key_of(4);
const EXPAND_CLIENT: u8 = key_of(3);
const PREVIOUS_SCOPE: u8 = key_of(4);
const CORRELATION_ID: u8 = key_of(5);
const GRANTED_SCOPE: u8 = key_of(3);
const TOKEN_REGISTERED_SCOPE: u8 = key_of(4);
const TOKEN_CLIENT: u8 = key_of(5);
/// A number: wire type 0.
const GRANT: u8 = 6 << 3;
const TOKEN_CORRELATION_ID: u8 = key_of(7);

const CLIENT_ID: u8 = key_of(1);
/// A number: wire type 0.
const SOURCE: u8 = 2 << 3;
const CLIENT_NAME: u8 = key_of(3);
const SOFTWARE_ID: u8 = key_of(4);
const SOFTWARE_VERSION: u8 = key_of(5);
const REDIRECT_URIS: u8 = key_of(6);
const GRANT_TYPES: u8 = key_of(7);
const APPLICATION_TYPE: u8 = key_of(8);

/// What the smallest check that makes sense takes in a batch; only room for the list is reckoned by it.
const MIN_CHECK_BYTES: usize = 16;

#[cfg(test)]
mod tests;
