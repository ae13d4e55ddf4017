//! The policy: what operators declare, checked, immutable and compiled for look-up.
//!
//! A [`PolicySet`] exists only in a valid state: [`check`] makes one out of documents, or reports
//! every finding. Knows nothing about files, requests or time.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

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
pub mod index;
pub mod keys;
pub mod manifest;
pub mod outline;
pub mod yaml;

#[cfg(test)]
pub(crate) mod sample;

pub use digest::Digest;
use index::AudienceIndex;

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
///
/// A large policy has a million of these, most of which differ by name and scopes alone: all else is shared by those of
/// a file that have the same.
#[derive(Debug)]
pub struct AudiencePolicy {
    /// The audience as spelled in the policy.
    pub audience: Box<str>,
    /// The audience normalised, if that differs from the spelling.
    normal: Option<Box<str>>,
    /// The ceiling; not empty.
    pub scopes_supported: ScopeList,
    /// SHA-256 over all of this; see [`digest`].
    digest: [u8; 32],
    settings: Arc<AudienceSettings>,
}

/// What an audience allows beyond its name and the scopes that it supports.
#[derive(Debug, PartialEq)]
pub struct AudienceSettings {
    /// Other spellings that mean this audience, in policy order.
    pub aliases: Box<[Alias]>,
    /// Whether the query of a named audience is not compared.
    pub ignore_query: bool,
    /// What people read about it; empty if nothing is written. Not in the digest.
    pub description: Box<str>,
    /// Scopes and their texts for consent pages, in policy order. Not in the digest.
    pub scope_descriptions: Box<[(Box<str>, Box<str>)]>,
    /// In every client's set, asked or not.
    pub baseline_client_scopes: ScopeList,
    /// Stands in for an omitted scope.
    pub default_client_scopes: ScopeList,
    /// Whether `defaultClientScopes` was written; `false` if it was filled in.
    pub default_is_declared: bool,
    /// May be asked for, never given unasked; those of the guardrails included.
    pub privileged_scopes: ScopeList,
    /// Never in any answer; those of the guardrails included.
    pub forbidden_scopes: ScopeList,
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
    /// `token.unsupportedScopes`.
    pub token_unsupported_scopes: Treatment,
    /// `token.exceedingScopes`.
    pub token_exceeding_scopes: Treatment,
    /// More baseline for the clients that match, in policy order.
    pub client_rules: Box<[ClientRule]>,
}

impl Deref for AudiencePolicy {
    type Target = AudienceSettings;

    fn deref(&self) -> &AudienceSettings {
        &self.settings
    }
}

impl AudiencePolicy {
    /// The audience in the form in which audiences are compared.
    #[must_use]
    pub fn normal(&self) -> &str {
        self.normal.as_deref().unwrap_or(&self.audience)
    }

    /// The normal form as far as requests are compared with it: without its query where that is not compared.
    fn compared(&self) -> &str {
        if self.ignore_query { audience::without_query(self.normal()) } else { self.normal() }
    }

    /// Every further text that names it, as requests are compared with it.
    fn other_names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().flat_map(|alias| {
            let normal = &*alias.normal;
            [&*alias.spelled, if self.ignore_query { audience::without_query(normal) } else { normal }]
        });
        std::iter::once(&*self.audience).chain(aliases).filter(|name| *name != self.compared())
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
    index: AudienceIndex,
    default_audience: Option<Arc<AudiencePolicy>>,
    registration_audiences: Box<[Arc<AudiencePolicy>]>,
    /// A request that names no audience is for all of them.
    unnamed_means_all: bool,
    digest: Digest,
}

impl PolicySet {
    /// Puts a set together. `registration_audiences` is empty if the policy declares none.
    fn new(
        index: AudienceIndex,
        default_audience: Option<Arc<AudiencePolicy>>,
        registration_audiences: Vec<Arc<AudiencePolicy>>,
    ) -> Self {
        let audiences = index.audiences();
        let registration_audiences: Box<[_]> = match registration_audiences {
            declared if !declared.is_empty() => declared.into(),
            _ if audiences.len() <= MAX_REGISTRATION_AUDIENCES => audiences.iter().cloned().collect(),
            _ => default_audience.iter().cloned().collect(),
        };
        let digest = digest::of_set(audiences, default_audience.as_deref(), &registration_audiences);
        let unnamed_means_all = false;
        Self { index, default_audience, registration_audiences, unnamed_means_all, digest }
    }

    /// The set as somebody sees it who knows only the audiences of these names: all others are unknown, and a request that names
    /// none is for these. May be empty. The digest is that of the whole.
    #[must_use]
    pub fn seen_with(&self, known: &[Box<str>]) -> Self {
        let known = known.iter().filter_map(|name| self.audience(name).ok().flatten().cloned());
        let index = AudienceIndex::of(known.collect()).with_cost(self.cost());
        Self {
            default_audience: None,
            registration_audiences: index.audiences().iter().cloned().collect(),
            unnamed_means_all: true,
            digest: self.digest.clone(),
            index,
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
        self.index.cost()
    }

    /// The audiences, and where each is found; shared with whoever makes the next set.
    #[must_use]
    pub(crate) const fn index(&self) -> &AudienceIndex {
        &self.index
    }

    /// Looks an audience up as a request names it: by its spelling or an alias, and without the query
    /// where the policy says so.
    ///
    /// # Errors
    /// [`AudienceError`] if the text cannot name an audience. An unknown one is `Ok(None)`.
    pub fn audience(&self, audience: &str) -> Result<Option<&Arc<AudiencePolicy>>, AudienceError> {
        self.index.find(audience)
    }

    /// The same, where `near` may well be the audience, such as the one before in a list. It is one of this set.
    ///
    /// # Errors
    /// As for [`PolicySet::audience`].
    #[inline]
    pub fn audience_near<'p>(
        &'p self,
        audience: &str,
        near: Option<&'p AudiencePolicy>,
    ) -> Result<Option<&'p AudiencePolicy>, AudienceError> {
        // No other audience has this name.
        match near.filter(|near| near.compared() == audience) {
            Some(near) => Ok(Some(near)),
            None => Ok(self.audience(audience)?.map(|found| &**found)),
        }
    }

    /// Every audience, sorted by its normal form.
    #[must_use]
    pub const fn audiences(&self) -> &Arc<[Arc<AudiencePolicy>]> {
        self.index.audiences()
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

    /// What a name means by the rules, one audience after the other: by its normal form, and without its query where that is
    /// not compared.
    fn searched<'p>(
        set: &'p PolicySet,
        name: &str,
    ) -> Result<Option<&'p Arc<AudiencePolicy>>, AudienceError> {
        let normal = audience::normalise(name)?;
        Ok(set.audiences().iter().find(|policy| {
            let mut names =
                std::iter::once(policy.normal()).chain(policy.aliases.iter().map(|alias| &*alias.normal));
            match policy.ignore_query {
                true => names.any(|name| audience::without_query(name) == audience::without_query(&normal)),
                false => names.any(|name| *name == *normal),
            }
        }))
    }

    proptest::proptest! {
        /// A name is looked up by its bytes first, and normalised only if those are not found.
        #[test]
        fn looking_up_by_bytes_first_finds_what_normalising_finds(
            names in proptest::collection::vec("(https|HTTPS)://[ab](:443|:80|)(/|/x|)(\\?q|)|[aA]|urn:a(\\?q|)", 1..12),
            declared in 1..8_usize,
            ignores: [bool; 8],
        ) {
            let mut yaml = "audiences:\n".to_owned();
            for (pair, ignores) in names.chunks(2).zip(ignores).take(declared) {
                let aliases = pair.get(1).map(|alias| format!(", aliases: ['{alias}']")).unwrap_or_default();
                let ignores = ignores && audience::is_url(&pair[0]);
                yaml.push_str(&format!("  '{}': {{scopesSupported: [a], ignoreQuery: {ignores}{aliases}}}\n", pair[0]));
            }
            let Ok(accepted) = sample::read(&[("a.yaml", &yaml)]) else { return Ok(()) };
            let set = accepted.set;
            for name in names.iter().map(String::as_str).chain(["https://a#", "https://b/?", "", "urn:b"]) {
                let found = set.audience(name).map(|found| found.map(|policy| policy.normal()));
                let expected = searched(&set, name).map(|found| found.map(|policy| policy.normal()));
                proptest::prop_assert_eq!(found, expected, "{} in {}", name, yaml);
            }
        }
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
