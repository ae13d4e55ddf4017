//! The policy: what operators declare, checked, immutable and compiled for look-up.
//!
//! A [`PolicySet`] exists only in a valid state: [`check`] makes one out of documents, or reports
//! every finding. Knows nothing about files, requests or time.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::audience::{self, AudienceError};
use crate::scope::ScopeList;
use crate::scope::matching::{ScopeMatching, has_star_segment};

pub mod change;
pub mod check;
pub mod cost;
pub mod digest;
pub mod document;
pub mod finding;
pub mod format;
pub mod keys;
pub mod manifest;
pub mod outline;
pub mod yaml;

#[cfg(test)]
pub(crate) mod sample;

pub use digest::Digest;

/// Most scopes in a baseline list; guardrails may lower it.
pub const MAX_BASELINE_CLIENT_SCOPES: usize = 10;

/// Most audiences of a registration that names none.
pub const MAX_REGISTRATION_AUDIENCES: usize = 256;

/// Most `aliases` of one audience.
pub const MAX_ALIASES: usize = 16;

/// Longest text of `scopeDescriptions`, in characters.
pub const MAX_SCOPE_DESCRIPTION_CHARS: usize = 200;

/// Longest `description` of an audience, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 500;

/// Longest name of a client rule and longest `clientName` pattern in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// What `defaultClientScopes` is where it is not declared: those of these that are supported and
/// neither privileged nor forbidden.
pub const IMPLIED_DEFAULT_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];

/// A value that files spell as one word of a few.
pub trait Word: Copy + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// How each is spelled, in the same order.
    const NAMES: &'static [&'static str];

    /// The value of a spelling.
    #[must_use]
    fn parse(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Self::ALL.get(at).copied()
    }
}

/// Makes an enum with constants `ALL` and `as_str` a [`Word`].
macro_rules! word {
    ($name:ty) => {
        impl $crate::policy::Word for $name {
            const ALL: &'static [Self] = &<$name>::ALL;
            #[expect(clippy::indexing_slicing, reason = "a constant: the compiler checks it")]
            const NAMES: &'static [&'static str] = &{
                let mut names = [""; <$name>::ALL.len()];
                let mut at = 0;
                while at < names.len() {
                    names[at] = <$name>::ALL[at].as_str();
                    at += 1;
                }
                names
            };
        }
    };
}
pub(crate) use word;

word!(ScopeMatching);

macro_rules! spelled {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $spelling:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        word!($name);

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($spelling),+].len()] = [$(Self::$variant),+];

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
    /// What happens to a request of which every scope was dropped.
    NothingLeft {
        /// The request is denied.
        Reject = "reject",
        /// It is decided as if the scope had been omitted.
        Default = "default",
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

/// `authorization.unknownRegistration`: what an unknown registration counts as, for each source of
/// clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnknownRegistrations {
    /// For clients of the source `cimd`.
    pub cimd: UnknownRegistration,
    /// For clients of the source `dcr`.
    pub dcr: UnknownRegistration,
    /// For clients of the source `static`.
    pub static_: UnknownRegistration,
    /// For clients of which the caller does not say where they are known from.
    pub untold: UnknownRegistration,
}

impl UnknownRegistrations {
    /// The same for every client.
    #[must_use]
    pub const fn all(unknown: UnknownRegistration) -> Self {
        Self { cimd: unknown, dcr: unknown, static_: unknown, untold: unknown }
    }

    /// What holds for a client of this source.
    #[must_use]
    pub const fn of(&self, source: Option<ClientSource>) -> UnknownRegistration {
        match source {
            Some(ClientSource::Cimd) => self.cimd,
            Some(ClientSource::Dcr) => self.dcr,
            Some(ClientSource::Static) => self.static_,
            None => self.untold,
        }
    }
}

impl fmt::Display for UnknownRegistrations {
    /// One word, or a map as in policy files: `{cimd: omitted, dcr: none, static: none}`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all(self.untold) {
            return formatter.write_str(self.untold.as_str());
        }
        let Self { cimd, dcr, static_, untold: _ } = self;
        let (cimd, dcr, static_) = (cimd.as_str(), dcr.as_str(), static_.as_str());
        write!(formatter, "{{cimd: {cimd}, dcr: {dcr}, static: {static_}}}")
    }
}

/// Another spelling of an audience.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alias {
    /// As spelled in the policy.
    pub spelled: Box<str>,
    /// In the form in which audiences are compared.
    pub normal: Box<str>,
}

/// What one audience allows: complete, with defaults filled in and guardrails folded in.
#[derive(Debug)]
pub struct AudiencePolicy {
    /// The audience as spelled in the policy.
    pub audience: Box<str>,
    /// The audience normalised, if that differs from the spelling.
    normal: Option<Box<str>>,
    /// Other spellings that mean this audience, in policy order.
    pub aliases: Box<[Alias]>,
    /// Whether the query of a named audience is not compared.
    pub ignore_query: bool,
    /// What people read about it; empty if nothing is written. Not in the digest.
    pub description: Box<str>,
    /// Scopes and their texts for consent pages, in policy order. Not in the digest.
    pub scope_descriptions: Box<[(Box<str>, Box<str>)]>,
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
    /// `registration.nothingLeft`.
    pub registration_nothing_left: NothingLeft,
    /// `authorization.unsupportedScopes`.
    pub unsupported_scopes: Treatment,
    /// `authorization.unregisteredScopes`.
    pub unregistered_scopes: Treatment,
    /// `authorization.omittedScope`.
    pub omitted_scope: OmittedScope,
    /// `authorization.baselineForExistingClients`.
    pub baseline_for_existing_clients: bool,
    /// `authorization.unknownRegistration`.
    pub unknown_registration: UnknownRegistrations,
    /// `authorization.nothingLeft`.
    pub nothing_left: NothingLeft,
    /// Granted at authorize to every client that holds them, asked or not.
    pub always_grant_scopes: ScopeList,
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

    /// What it means, as a hash: equal ones give equal answers.
    #[must_use]
    pub const fn meaning(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What belongs into discovery documents, in policy order: the supported scopes that are not
    /// forbidden, not privileged, no step-up scopes and no patterns. Clients ask for all that is advertised.
    pub fn advertised_scopes(&self) -> impl Iterator<Item = &str> {
        let matching = self.scope_matching;
        self.published_scopes().filter(move |scope| {
            matching.find_stop(&self.privileged_scopes, scope).is_none()
                && matching.find(&self.step_up_scopes, scope).is_none()
                && !(matching == ScopeMatching::Wildcard && has_star_segment(scope))
        })
    }

    /// The supported scopes that are not forbidden, in policy order.
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
    /// One of them is this: scheme and host in lower case, no default port.
    Exact(Box<str>),
}

/// Every audience of a policy, valid as a whole; never empty.
#[derive(Debug)]
pub struct PolicySet {
    /// Sorted by normal audience.
    audiences: Arc<[Arc<AudiencePolicy>]>,
    names: Names,
    default_audience: Option<Arc<AudiencePolicy>>,
    registration_audiences: Box<[Arc<AudiencePolicy>]>,
    /// A request that names no audience is for all of them.
    unnamed_means_all: bool,
    cost: cost::AudienceCost,
    digest: Digest,
}

impl PolicySet {
    /// Puts audiences together; of two equal ones the first stays (the caller has reported the other).
    ///
    /// `registration_audiences` is empty if the policy declares none.
    fn new(
        mut audiences: Vec<Arc<AudiencePolicy>>,
        default_audience: Option<&str>,
        registration_audiences: &[&str],
    ) -> Self {
        audiences.sort_by(|one, other| one.normal().cmp(other.normal()));
        audiences.dedup_by(|one, other| one.normal() == other.normal());
        let audiences: Arc<[Arc<AudiencePolicy>]> = audiences.into();
        let names = Names::new(&audiences);
        let find = |name: &&str| names.find(&audiences, name).ok().flatten().cloned();
        let default_audience = default_audience.as_ref().and_then(find);
        let registration_audiences: Box<[_]> = match registration_audiences {
            [] if audiences.len() <= MAX_REGISTRATION_AUDIENCES => audiences.iter().cloned().collect(),
            [] => default_audience.iter().cloned().collect(),
            declared => declared.iter().filter_map(find).collect(),
        };
        let digest = digest::of_set(&audiences, default_audience.as_deref(), &registration_audiences);
        let costs = audiences.iter().map(|audience| cost::AudienceCost::of(audience));
        let cost = costs.fold(cost::AudienceCost::default(), cost::AudienceCost::max);
        let unnamed_means_all = false;
        Self { audiences, names, default_audience, registration_audiences, unnamed_means_all, cost, digest }
    }

    /// The set as somebody sees it who knows only the audiences of these names: all others are unknown, and a request that names
    /// none is for these. May be empty. The digest is that of the whole.
    #[must_use]
    pub fn seen_with(&self, known: &[Box<str>]) -> Self {
        let mut audiences: Vec<_> =
            known.iter().filter_map(|name| self.audience(name).ok().flatten().cloned()).collect();
        audiences.sort_by(|one, other| one.normal().cmp(other.normal()));
        audiences.dedup_by(|one, other| one.normal() == other.normal());
        let audiences: Arc<[Arc<AudiencePolicy>]> = audiences.into();
        Self {
            names: Names::new(&audiences),
            default_audience: None,
            registration_audiences: audiences.iter().cloned().collect(),
            unnamed_means_all: true,
            cost: self.cost,
            digest: self.digest.clone(),
            audiences,
        }
    }

    /// Returns `true` if a request of any kind that names no audience is for all of them.
    #[must_use]
    pub const fn unnamed_means_all(&self) -> bool {
        self.unnamed_means_all
    }

    /// What deciding costs at most at each audience.
    #[must_use]
    pub const fn cost(&self) -> cost::AudienceCost {
        self.cost
    }

    /// Looks an audience up as a request names it: by its spelling or an alias, and without the query
    /// where the policy says so.
    ///
    /// # Errors
    /// [`AudienceError`] if the text cannot name an audience. An unknown one is `Ok(None)`.
    pub fn audience(&self, audience: &str) -> Result<Option<&Arc<AudiencePolicy>>, AudienceError> {
        self.names.find(&self.audiences, audience)
    }

    /// Every audience, sorted by its normal form.
    #[must_use]
    pub fn audiences(&self) -> &Arc<[Arc<AudiencePolicy>]> {
        &self.audiences
    }

    /// The audience of an authorize request that names none: the default one, else the only one; `None` if such a request
    /// is denied.
    #[must_use]
    pub fn unnamed_audience(&self) -> Option<&Arc<AudiencePolicy>> {
        match (self.default_audience(), &**self.audiences()) {
            (Some(default), _) => Some(default),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// The audience of a request that names none, if the policy declares one.
    #[must_use]
    pub fn default_audience(&self) -> Option<&Arc<AudiencePolicy>> {
        self.default_audience.as_ref()
    }

    /// The audiences of a registration that names none (RFC 7591 knows no `resource`): those that
    /// `registrationAudiences` lists, in its order; else every audience, if there are at most
    /// [`MAX_REGISTRATION_AUDIENCES`]; else the default one. Empty if such a registration is to be
    /// denied, which is a warning about the set.
    #[must_use]
    pub fn registration_audiences(&self) -> &[Arc<AudiencePolicy>] {
        &self.registration_audiences
    }

    /// What the set means, as a hash: equal digests give equal answers.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// What audiences are called, and which one each name means.
#[derive(Debug)]
struct Names {
    /// The normal form of each audience and alias, without the query where it is not compared, and
    /// each spelling that differs from it.
    index: HashTable<(Box<str>, u32)>,
    hasher: hashbrown::DefaultHashBuilder,
    /// Whether the query of some audience is not compared.
    ignores_queries: bool,
}

impl Names {
    fn new(audiences: &[Arc<AudiencePolicy>]) -> Self {
        let mut names = Self {
            index: HashTable::with_capacity(audiences.len()),
            hasher: hashbrown::DefaultHashBuilder::default(),
            ignores_queries: audiences.iter().any(|policy| policy.ignore_query),
        };
        for (at, policy) in (0..).zip(audiences) {
            let spelled = std::iter::once((&*policy.audience, policy.normal()));
            let aliases = policy.aliases.iter().map(|alias| (&*alias.spelled, &*alias.normal));
            for (spelled, normal) in spelled.chain(aliases) {
                names.insert(spelled, at);
                names.insert(if policy.ignore_query { audience::without_query(normal) } else { normal }, at);
            }
        }
        names
    }

    /// A name that is there already stays: two audiences of a valid set never share one.
    fn insert(&mut self, name: &str, at: u32) {
        let hasher = &self.hasher;
        let hash = |(name, _): &(Box<str>, u32)| hasher.hash_one(&**name);
        if let Entry::Vacant(vacant) =
            self.index.entry(hasher.hash_one(name), |(known, _)| **known == *name, hash)
        {
            vacant.insert((name.into(), at));
        }
    }

    fn get<'p>(&self, audiences: &'p [Arc<AudiencePolicy>], name: &str) -> Option<&'p Arc<AudiencePolicy>> {
        let found = self.index.find(self.hasher.hash_one(name), |(known, _)| **known == *name);
        found.and_then(|(_, at)| audiences.get(*at as usize))
    }

    fn find<'p>(
        &self,
        audiences: &'p [Arc<AudiencePolicy>],
        name: &str,
    ) -> Result<Option<&'p Arc<AudiencePolicy>>, AudienceError> {
        // Nearly every request names an audience as the policy does.
        if let Some(found) = self.get(audiences, name) {
            return Ok(Some(found));
        }
        let normal = audience::normalise(name)?;
        if let Cow::Owned(normal) = &normal
            && let Some(found) = self.get(audiences, normal)
        {
            return Ok(Some(found));
        }
        let bare = audience::without_query(&normal);
        if !self.ignores_queries || bare.len() == normal.len() {
            return Ok(None);
        }
        Ok(self.get(audiences, bare).filter(|policy| policy.ignore_query))
    }
}

#[cfg(test)]
mod tests {
    use super::sample::set;
    use super::*;

    #[test]
    fn an_audience_is_found_by_every_name_it_has() {
        let set = set("\
audiences:
  https://mcp.example.com/x?kb=1:
    scopesSupported: [a]
    ignoreQuery: true
    aliases: [urn:mcp, 'api://mcp/?v=1', 'https://Other.example/']
  https://tools.example.com: {scopesSupported: [a], aliases: [tools, '7']}
  https://Plain.example:443/: {scopesSupported: [a]}
");
        #[track_caller]
        fn check(set: &PolicySet, name: &str, expected: &str) {
            let found = set.audience(name).unwrap().map(|policy| &*policy.audience);
            assert_eq!(found.unwrap_or_default(), expected, "{name}");
        }
        let mcp = "https://mcp.example.com/x?kb=1";
        for name in [
            mcp,
            "https://mcp.example.com/x",
            "HTTPS://MCP.example.com:443/x?kb=2",
            "https://mcp.example.com/x?",
            "https://mcp.example.com/x?kb=1&kb=2?",
            "urn:mcp",
            "api://mcp",
            "API://mcp/?v=2",
            "https://other.example?q",
            "https://Other.example/",
        ] {
            check(&set, name, mcp);
        }
        for name in
            ["https://mcp.example.com/x/", "https://mcp.example.com/", "urn:mcp?x", "URN:mcp", "api://mcp/y"]
        {
            check(&set, name, "");
        }
        let tools = "https://tools.example.com";
        for name in [tools, "https://tools.example.com/", "tools", "7"] {
            check(&set, name, tools);
        }
        for name in ["https://tools.example.com?x", "https://tools.example.com/?", "Tools", "tools?x"] {
            check(&set, name, "");
        }
        for name in ["https://plain.example", "https://Plain.example:443/", "https://plain.example:443"] {
            check(&set, name, "https://Plain.example:443/");
        }
        assert!(set.audience("").is_err() && set.audience("https://mcp.example.com/x#y").is_err());
    }

    #[test]
    fn a_registration_without_audience_is_for_what_the_policy_says() {
        #[track_caller]
        fn check(yaml: &str, expected: &[&str]) {
            let set = set(yaml);
            let found: Vec<_> = set.registration_audiences().iter().map(|policy| &*policy.audience).collect();
            assert_eq!(found, expected);
        }
        let few = "audiences: {b: {scopesSupported: [a], aliases: [x]}, a: {scopesSupported: [a]}}\n";
        check(few, &["a", "b"]);
        check(&format!("{few}defaultAudience: a"), &["a", "b"]);
        check(&format!("{few}registrationAudiences: [x, a]"), &["b", "a"]);
        let many = |count: usize| -> String {
            let audiences = (0..count).map(|at| format!("n{at}: {{scopesSupported: [a]}}"));
            format!("audiences: {{{}}}\n", audiences.collect::<Vec<_>>().join(", "))
        };
        let all = set(&many(MAX_REGISTRATION_AUDIENCES));
        assert_eq!(all.registration_audiences().len(), MAX_REGISTRATION_AUDIENCES);
        let many = many(MAX_REGISTRATION_AUDIENCES + 1);
        check(&many, &[]);
        check(&format!("{many}defaultAudience: n7"), &["n7"]);
        check(&format!("{many}defaultAudience: n7\nregistrationAudiences: [n9, n8]"), &["n9", "n8"]);
    }

    #[test]
    fn an_unknown_registration_counts_by_source() {
        use UnknownRegistration::{None as Nothing, Omitted, Supported};
        #[track_caller]
        fn check(written: &str, expected: [UnknownRegistration; 4], shown: &str) {
            let set = set(&sample::api(&format!(
                "scopesSupported: [a], authorization: {{unknownRegistration: {written}}}"
            )));
            let unknown = set.audiences()[0].unknown_registration;
            let sources =
                [Some(ClientSource::Cimd), Some(ClientSource::Dcr), Some(ClientSource::Static), None];
            assert_eq!(sources.map(|source| unknown.of(source)), expected);
            assert_eq!(unknown.to_string(), shown);
        }
        check("none", [Nothing, Nothing, Nothing, Nothing], "none");
        check("{}", [Omitted, Omitted, Omitted, Omitted], "omitted");
        check(
            "{dcr: none, static: supported}",
            [Omitted, Nothing, Supported, Omitted],
            "{cimd: omitted, dcr: none, static: supported}",
        );
        check(
            "{cimd: none, dcr: none, static: none}",
            [Nothing, Nothing, Nothing, Omitted],
            "{cimd: none, dcr: none, static: none}",
        );
    }

    #[test]
    fn only_what_clients_may_ask_for_is_advertised() {
        #[track_caller]
        fn check(entries: &str, expected: &[&str]) {
            let set = set(&sample::api(entries));
            assert_eq!(set.audiences()[0].advertised_scopes().collect::<Vec<_>>(), expected, "{entries}");
        }
        check(
            "scopesSupported: [a, p, f, s, '*', b], privilegedScopes: [p], forbiddenScopes: [f], \
             authorization: {stepUpScopes: [s]}",
            &["a", "*", "b"],
        );
        check(
            "scopesSupported: [a, mcp.*, x.y, mcp.read, mcp.admin], scopeMatching: wildcard, privilegedScopes: \
             [mcp.admin], authorization: {stepUpScopes: [x.y]}",
            &["a", "mcp.read"],
        );
        check("scopesSupported: [a, mcp], scopeMatching: hierarchic, privilegedScopes: [mcp.admin]", &["a"]);
    }
}
