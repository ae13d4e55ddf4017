//! The policy: what operators declare, checked, immutable and compiled for look-up.
//!
//! A [`PolicySet`] exists only in a valid state: [`check`] makes one out of documents, or reports
//! every finding. Knows nothing about files, requests or time.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::audience::{self, AudienceError};
use crate::scope::ScopeList;
use crate::scope::matching::ScopeMatching;

pub mod change;
pub mod check;
pub mod digest;
pub mod document;
pub mod finding;
pub mod manifest;
pub mod reference;
pub mod yaml;

#[cfg(test)]
pub(crate) mod sample;

pub use digest::Digest;

/// Most scopes in a baseline list; guardrails may lower it.
pub const MAX_BASELINE_CLIENT_SCOPES: usize = 10;

/// What `defaultClientScopes` is where it is not declared: those of these that are supported and
/// neither privileged nor forbidden.
pub const IMPLIED_DEFAULT_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

macro_rules! spelled {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $spelling:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// The spelling of policy files.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $spelling,)+ }
            }
        }
    )+};
}

spelled! {
    /// What happens to a request because of a scope that it may not have.
    Treatment {
        /// The whole request is denied.
        Reject = "reject",
        /// The scope is left out and the rest is decided.
        Drop = "drop",
    }
    /// What an authorize request without scope gets (RFC 6749 section 3.3).
    OmittedScope {
        /// What the client holds.
        Registered = "registered",
        /// Those of the default scopes that the client holds.
        Default = "default",
        /// A denial.
        Reject = "reject",
    }
    /// What a client holds if the caller does not know what it registered.
    UnknownRegistration {
        /// What a registration without scope would give it now.
        Omitted = "omitted",
        /// Nothing.
        None = "none",
        /// Every supported scope.
        Supported = "supported",
    }
    /// Where the authorization server knows a client from.
    ClientSource {
        /// Dynamic registration (RFC 7591).
        Dcr = "dcr",
        /// A client id metadata document: the client id is an https URL.
        Cimd = "cimd",
        /// Configured by hand.
        Static = "static",
    }
}

/// What one audience allows: complete, with defaults filled in and guardrails folded in.
#[derive(Debug)]
pub struct AudiencePolicy {
    /// The audience as spelled in the policy.
    pub audience: Box<str>,
    /// The audience normalised, if that differs from the spelling.
    normal: Option<Box<str>>,
    /// The ceiling; not empty.
    pub scopes_supported: ScopeList,
    /// In every client's set, asked or not.
    pub baseline_client_scopes: ScopeList,
    /// Stands in for an omitted scope.
    pub default_client_scopes: ScopeList,
    /// Whether `defaultClientScopes` was written; `false` if it was filled in.
    pub default_is_declared: bool,
    /// May be asked for, never given unasked; those of the guardrails included.
    pub privileged_scopes: Arc<ScopeList>,
    /// Never in any answer; those of the guardrails included.
    pub forbidden_scopes: Arc<ScopeList>,
    /// May be authorized though never registered.
    pub step_up_scopes: ScopeList,
    /// How entries are compared with scopes.
    pub scope_matching: ScopeMatching,
    /// `registration.unsupportedScopes`.
    pub registration_unsupported_scopes: Treatment,
    /// `authorization.unsupportedScopes`.
    pub unsupported_scopes: Treatment,
    /// `authorization.unregisteredScopes`.
    pub unregistered_scopes: Treatment,
    /// `authorization.omittedScope`.
    pub omitted_scope: OmittedScope,
    /// `authorization.baselineForExistingClients`.
    pub baseline_for_existing_clients: bool,
    /// `authorization.unknownRegistration`.
    pub unknown_registration: UnknownRegistration,
    /// More baseline for the clients that match, in policy order.
    pub client_rules: Box<[ClientRule]>,
    /// SHA-256 over all of this; see [`digest`].
    digest: [u8; 32],
}

impl AudiencePolicy {
    /// The audience in the form in which audiences are compared.
    #[must_use]
    pub fn normal(&self) -> &str {
        self.normal.as_deref().unwrap_or(&self.audience)
    }

    /// The supported scopes that are not forbidden, in policy order: what a discovery document may say.
    pub fn published_scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes_supported
            .iter()
            .filter(|scope| self.scope_matching.find_stop(&self.forbidden_scopes, scope).is_none())
    }
}

/// More baseline for the clients that match.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientRule {
    /// Its name, unique in its audience.
    pub name: Box<str>,
    /// For which clients; every member that is there must hold, and there is at least one.
    pub when: ClientCondition,
    /// What it gives.
    pub baseline_client_scopes: ScopeList,
}

/// The `when` of a client rule. All but the CIMD host is the client's own word.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientCondition {
    /// Where the client is known from.
    pub source: Option<ClientSource>,
    /// Host of the https client id of a CIMD client, in lower case.
    pub client_id_host: Option<Box<str>>,
    /// Equal `software_id`.
    pub software_id: Option<Box<str>>,
    /// Pattern for `client_name`: case-sensitive, `*` stands for any text.
    pub client_name: Option<Box<str>>,
    /// A redirect URI.
    pub redirect_uri: Option<RedirectCondition>,
    /// Grant types that the client must all have.
    pub grant_types: Option<Box<[Box<str>]>>,
    /// Equal `application_type`.
    pub application_type: Option<Box<str>>,
}

/// What a client rule wants of the redirect URIs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RedirectCondition {
    /// All of them are plain http on a loopback host (RFC 8252 section 7.3).
    Loopback,
    /// One of them is this, byte for byte.
    Exact(Box<str>),
}

/// Every audience of a policy, valid as a whole; never empty.
#[derive(Debug)]
pub struct PolicySet {
    /// Sorted by normal audience.
    audiences: Arc<[Arc<AudiencePolicy>]>,
    index: HashTable<u32>,
    hasher: hashbrown::DefaultHashBuilder,
    default_audience: Option<u32>,
    digest: Digest,
}

impl PolicySet {
    /// Puts audiences together; of two equal ones the first stays (the caller has reported the other).
    fn new(mut audiences: Vec<Arc<AudiencePolicy>>, default_audience: Option<&str>) -> Self {
        use std::hash::BuildHasher;
        audiences.sort_by(|one, other| one.normal().cmp(other.normal()));
        audiences.dedup_by(|one, other| one.normal() == other.normal());
        let audiences: Arc<[Arc<AudiencePolicy>]> = audiences.into();
        let hasher = hashbrown::DefaultHashBuilder::default();
        let key =
            |at: u32| hasher.hash_one(audiences.get(at as usize).map_or("", |audience| audience.normal()));
        let mut index = HashTable::with_capacity(audiences.len());
        for at in (0..).take(audiences.len()) {
            if let Entry::Vacant(vacant) = index.entry(key(at), |_| false, |at| key(*at)) {
                vacant.insert(at);
            }
        }
        let at = |normal: &str| {
            audiences.binary_search_by(|audience| audience.normal().cmp(normal)).ok().map(|at| at as u32)
        };
        let default_audience = default_audience.and_then(at);
        let digest = digest::of_set(
            &audiences,
            default_audience.and_then(|at| audiences.get(at as usize)).map(|audience| audience.normal()),
        );
        Self { audiences, index, hasher, default_audience, digest }
    }

    /// Looks an audience up as a request names it.
    ///
    /// # Errors
    /// [`AudienceError`] if the text cannot name an audience. An unknown one is `Ok(None)`.
    pub fn audience(&self, audience: &str) -> Result<Option<&Arc<AudiencePolicy>>, AudienceError> {
        use std::hash::BuildHasher;
        let normal = audience::normalise(audience)?;
        let same =
            |at: &u32| self.audiences.get(*at as usize).is_some_and(|policy| policy.normal() == normal);
        let found = self.index.find(self.hasher.hash_one(&*normal), same);
        Ok(found.and_then(|at| self.audiences.get(*at as usize)))
    }

    /// Every audience, sorted by its normal form.
    #[must_use]
    pub fn audiences(&self) -> &Arc<[Arc<AudiencePolicy>]> {
        &self.audiences
    }

    /// The audience of a request that names none, if the policy declares one.
    #[must_use]
    pub fn default_audience(&self) -> Option<&Arc<AudiencePolicy>> {
        self.default_audience.and_then(|at| self.audiences.get(at as usize))
    }

    /// What the set means, as a hash: equal digests give equal answers.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}
