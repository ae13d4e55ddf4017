//! Policies and questions drawn at random, odd corners included, over a small alphabet of dotted scopes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::{distinct, has_star, matches, normal, without_query, words};
use crate::decision::Client;
use crate::decision::authorize::AuthorizeQuestion;
use crate::decision::registration::RegistrationQuestion;
use crate::decision::token::TokenQuestion;
use crate::policy::{ClientSource, PolicySet, Word};

pub(super) const SCOPES: &[&str] = &[
    "a",
    "a.b",
    "a.b.c",
    "a.c",
    "a.*",
    "a.*.c",
    "*",
    "*.b",
    "b",
    "b.a",
    "b.*",
    "a..b",
    "b.",
    "c:*",
    "openid",
    "profile",
    "offline_access",
];
/// What no policy has, malformed ones included.
const FOREIGN: &[&str] =
    &["unknown", "A", "a.b.x", "a.*.*", "openid.", "a\tb", "a\"b", "a\\b", "é", "email", "c:d"];

/// How each audience may be declared, what an alias of it may be, and what else may name it or nearly does.
const NAMES: [(&[&str], &[&str], &[&str]); 4] = [
    (
        &["https://one.example.com", "HTTPS://One.example.com:443/"],
        &["api://one", "https://one.example.com/mcp"],
        &[
            "https://ONE.example.com/",
            "https://one.example.com:443",
            "https://one.example.com?kb=x",
            "http://one.example.com",
        ],
    ),
    (
        &["https://two.example.com:8443/mcp"],
        &["https://two.example.com:8443/mcp/", "2"],
        &[
            "https://TWO.example.com:8443/mcp",
            "https://two.example.com:8443/MCP",
            "https://two.example.com:8443/mcp?q=/",
        ],
    ),
    (&["urn:three"], &["3"], &["URN:three", "urn:three?q", "urn:three "]),
    (&["four"], &["4", "custom://four"], &["CUSTOM://Four/", "four/", "https://one.example.com/#part"]),
];

/// The keys that are one word, with what they may be; the default comes first.
pub(super) const WORDS: [(&str, &[&str]); 15] = [
    ("scopeMatching", &["exact", "hierarchic", "wildcard"]),
    ("ignoreQuery", &["false", "true"]),
    ("registration.unsupportedScopes", &["reject", "drop"]),
    ("registration.nothingLeft", &["reject", "default"]),
    ("authorization.unsupportedScopes", &["reject", "drop"]),
    ("authorization.unregisteredScopes", &["reject", "drop"]),
    ("authorization.omittedScope", &["registered", "default", "reject"]),
    ("authorization.baselineForExistingClients", &["true", "false"]),
    ("authorization.nothingLeft", &["reject", "default"]),
    // Either the first, which is one word for all, or some of the rest.
    ("authorization.unknownRegistration", &["omitted", "none", "supported"]),
    ("authorization.unknownRegistration.cimd", &["omitted", "none", "supported"]),
    ("authorization.unknownRegistration.dcr", &["omitted", "none", "supported"]),
    ("authorization.unknownRegistration.static", &["omitted", "none", "supported"]),
    ("token.unsupportedScopes", &["drop", "reject"]),
    ("token.exceedingScopes", &["reject", "drop"]),
];

pub(super) const LISTS: [&str; 10] = [
    "scopesSupported",
    "baselineClientScopes",
    "defaultClientScopes",
    "privilegedScopes",
    "forbiddenScopes",
    "guardrails.privilegedScopes",
    "guardrails.forbiddenScopes",
    "authorization.stepUpScopes",
    "authorization.alwaysGrantScopes",
    "aliases",
];

/// The members of `when`, with what they may be; the entries of a list are separated by blanks.
pub(super) const MEMBERS: [(&str, &[&str]); 7] = [
    ("source", &["dcr", "cimd", "static"]),
    ("clientIdHost", &["app.example.com"]),
    ("softwareId", &["abc"]),
    ("clientName", &["Claude*", "*Code", "C*d*e", "Claude Code"]),
    ("redirectUri", &["loopback", "https://app.example.com/cb"]),
    ("grantTypes", &["authorization_code", "authorization_code refresh_token"]),
    ("applicationType", &["native"]),
];

/// An audience as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Audience {
    pub(super) name: &'static str,
    /// By the names of [`WORDS`], those that are written.
    pub(super) words: BTreeMap<&'static str, &'static str>,
    /// By the names of [`LISTS`], those that are written; those of the guardrails are the same at each audience.
    pub(super) lists: BTreeMap<&'static str, Vec<&'static str>>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) when: BTreeMap<&'static str, &'static str>,
    pub(super) scopes: Vec<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) audiences: Vec<Audience>,
    pub(super) default_audience: Option<&'static str>,
    pub(super) registration_audiences: Option<Vec<&'static str>>,
}

/// A client; `source` is empty if it is not told.
#[derive(Clone, Debug, Default)]
pub(super) struct Person {
    pub(super) source: &'static str,
    pub(super) client_id: String,
    pub(super) client_name: String,
    pub(super) software_id: String,
    pub(super) redirect_uris: Vec<String>,
    pub(super) grant_types: Vec<String>,
    pub(super) application_type: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) audiences: Vec<String>,
    pub(super) scope: Option<String>,
    /// `registered_scope`, or `previous_scope` at a registration.
    pub(super) registered: Option<String>,
    /// `granted_scope` of a token.
    pub(super) granted: Option<String>,
    pub(super) person: Person,
    /// The audiences that the caller may know of, if not all.
    pub(super) caller_knows: Option<Vec<&'static str>>,
}

impl Audience {
    pub(super) fn word(&self, name: &str) -> &'static str {
        let (name, values) = WORDS.iter().find(|(known, _)| *known == name).unwrap();
        self.words.get(name).copied().unwrap_or(values[0])
    }

    pub(super) fn list(&self, name: &str) -> &[&'static str] {
        assert!(LISTS.contains(&name), "{name}");
        self.lists.get(name).map_or(&[], Vec::as_slice)
    }

    fn written(&self) -> Value {
        let mut whole = json!({});
        let mut put = |path: &str, value: Value| {
            let mut place = &mut whole;
            for part in path.split('.') {
                place = &mut place[part];
            }
            *place = value;
        };
        for (name, word) in &self.words {
            put(name, word.parse::<bool>().map_or_else(|_| json!(word), |flag| json!(flag)));
        }
        for (name, list) in self.lists.iter().filter(|(name, _)| !name.starts_with("guardrails.")) {
            put(name, json!(list));
        }
        if !self.rules.is_empty() {
            let rule = |rule: &Rule| {
                let member = |(name, wanted): (&&str, &&str)| match *name {
                    "grantTypes" => (name.to_string(), json!(wanted.split(' ').collect::<Vec<_>>())),
                    _ => (name.to_string(), json!(wanted)),
                };
                let when: Map<String, Value> = rule.when.iter().map(member).collect();
                json!({"name": rule.name, "when": when, "baselineClientScopes": rule.scopes})
            };
            put("clientRules", self.rules.iter().map(rule).collect());
        }
        whole
    }
}

impl Policy {
    /// The place of an audience that a question names, aliases aside.
    pub(super) fn place_of(&self, asked: &Question) -> Option<usize> {
        let bare = |name: &str| normal(name).map(|name| without_query(&name).to_owned());
        let is_asked =
            |audience: &Audience| asked.audiences.iter().any(|name| bare(name) == bare(audience.name));
        self.audiences.iter().position(is_asked)
    }

    /// A policy file; JSON is YAML.
    pub(super) fn written(&self) -> String {
        let audiences: Map<String, Value> =
            self.audiences.iter().map(|one| (one.name.to_owned(), one.written())).collect();
        let mut whole = json!({ "audiences": audiences });
        for list in ["privilegedScopes", "forbiddenScopes"] {
            if let Some(entries) = self.audiences[0].lists.get(&*format!("guardrails.{list}")) {
                whole["guardrails"][list] = json!(entries);
            }
        }
        if let Some(default) = self.default_audience {
            whole["defaultAudience"] = json!(default);
        }
        if let Some(registration) = &self.registration_audiences {
            whole["registrationAudiences"] = json!(registration);
        }
        format!("{whole:#}")
    }
}

impl Question {
    /// The scopes that are asked for.
    pub(super) fn words(&self) -> Vec<&str> {
        words(self.scope.as_deref().unwrap_or(""))
    }

    fn client<'a>(&'a self) -> Client<'a> {
        let Person {
            source,
            client_id,
            client_name,
            software_id,
            redirect_uris,
            grant_types,
            application_type,
        } = &self.person;
        Client {
            client_id,
            source: ClientSource::parse(source),
            client_name,
            software_id,
            redirect_uris: redirect_uris.into(),
            grant_types: grant_types.into(),
            application_type,
            ..Client::default()
        }
    }

    pub(super) fn registration<'a>(&'a self, previous_scope: Option<&'a str>) -> RegistrationQuestion<'a> {
        RegistrationQuestion {
            audiences: (&self.audiences).into(),
            scope: self.scope.as_deref(),
            previous_scope,
            client: self.client(),
        }
    }

    pub(super) fn authorization(&self) -> AuthorizeQuestion<'_> {
        AuthorizeQuestion {
            audiences: (&self.audiences).into(),
            scope: self.scope.as_deref(),
            registered_scope: self.registered.as_deref(),
            client: self.client(),
        }
    }

    pub(super) fn token(&self) -> TokenQuestion<'_> {
        TokenQuestion {
            audiences: (&self.audiences).into(),
            scope: self.scope.as_deref(),
            granted_scope: self.granted.as_deref(),
            registered_scope: self.registered.as_deref(),
            client: self.client(),
        }
    }

    /// The policy as the caller sees it.
    pub(super) fn view(&self, set: &PolicySet) -> Option<PolicySet> {
        let known = self.caller_knows.as_ref()?;
        Some(set.seen_with(&known.iter().map(|name| Box::from(*name)).collect::<Vec<_>>()))
    }
}

/// Numbers that look random (SplitMix64), the same for the same seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % count as u64).unwrap()
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Up to so many different ones, in any order.
    fn some<T: Copy + PartialEq>(&mut self, list: &[T], most: usize) -> Vec<T> {
        let mut some = Vec::new();
        for _ in 0..self.below(most + 1) {
            let one = self.pick(list);
            if !some.contains(&one) {
                some.push(one);
            }
        }
        some
    }

    /// A valid policy of one to four audiences, once in a while of more than 256.
    pub(super) fn policy(&mut self) -> Policy {
        let guardrails = self.once_in(3).then(|| [self.some(SCOPES, 2), self.some(SCOPES, 2)]);
        let mut names = NAMES.to_vec();
        let mut audiences = Vec::new();
        for _ in 0..=self.below(4) {
            let (spellings, aliases, _) = names.swap_remove(self.below(names.len()));
            let mut audience = Audience { name: self.pick(spellings), ..Audience::default() };
            if let Some([privileged, forbidden]) = &guardrails {
                audience.lists.insert("guardrails.privilegedScopes", privileged.clone());
                audience.lists.insert("guardrails.forbiddenScopes", forbidden.clone());
            }
            let aliases = self.some(aliases, 2);
            if !aliases.is_empty() {
                audience.lists.insert("aliases", aliases);
            }
            self.fill(&mut audience);
            audiences.push(audience);
        }
        if self.once_in(200) {
            static PADDING: OnceLock<Vec<String>> = OnceLock::new();
            let names = PADDING.get_or_init(|| (0..257).map(|at| format!("padding-{at}")).collect());
            let mut lists = audiences[0].lists.clone();
            lists.retain(|name, _| name.starts_with("guardrails."));
            lists.insert("scopesSupported", vec!["a"]);
            let small =
                |name: &'static String| Audience { name, lists: lists.clone(), ..Audience::default() };
            audiences.extend(names.iter().map(small));
        }
        let names: Vec<&'static str> = audiences.iter().map(|one| one.name).collect();
        let default_audience = self.once_in(2).then(|| self.pick(&names));
        let registration_audiences =
            self.once_in(3).then(|| self.some(&names, 3)).filter(|named| !named.is_empty());
        Policy { audiences, default_audience, registration_audiences }
    }

    /// Lists hold what a valid policy may hold there.
    fn fill(&mut self, audience: &mut Audience) {
        let one_word = self.once_in(2);
        for (name, values) in WORDS {
            let is_unknown = name.starts_with("authorization.unknownRegistration");
            let is_written = !is_unknown || (name == "authorization.unknownRegistration") == one_word;
            let is_url = audience.name.contains("://");
            if is_written && !self.once_in(4) && (name != "ignoreQuery" || is_url) {
                audience.words.insert(name, self.pick(values));
            }
        }
        let mut supported = self.some(SCOPES, 8);
        supported.push(self.pick(SCOPES));
        supported = distinct(supported);
        audience.lists.insert("scopesSupported", supported);
        for name in ["privilegedScopes", "forbiddenScopes"] {
            if self.once_in(2) {
                audience.lists.insert(name, self.some(SCOPES, 3));
            }
        }
        let of = audience.clone();
        let may_be_asked = |scope: &&str| of.supports(scope) && !of.forbids(scope);
        let may_be_given = |scope: &&str| {
            may_be_asked(scope)
                && !of.is_privileged(scope)
                && !(of.word("scopeMatching") == "wildcard" && has_star(scope))
        };
        let mut drawn = |most| {
            let list = if self.once_in(2) { SCOPES } else { of.list("scopesSupported") };
            self.some(list, most)
        };
        let (step_up, baseline, default, always) = (drawn(3), drawn(10), drawn(8), drawn(8));
        let step_up: Vec<&str> = step_up.into_iter().filter(may_be_asked).collect();
        let is_step_up =
            |scope: &&str| step_up.iter().any(|entry| matches(of.word("scopeMatching"), entry, scope));
        // Those that many hold are given most often.
        let mut always = always;
        always.extend(baseline.iter().chain(&default).filter(|_| self.once_in(3)));
        let always = distinct(always).into_iter();
        let always = always.filter(may_be_given).filter(|scope| !is_step_up(scope)).collect();
        let lists = [
            ("authorization.stepUpScopes", step_up.clone()),
            ("baselineClientScopes", baseline.into_iter().filter(may_be_given).collect()),
            ("defaultClientScopes", default.into_iter().filter(may_be_given).collect()),
            ("authorization.alwaysGrantScopes", always),
        ];
        for (name, list) in lists {
            if self.once_in(2) {
                audience.lists.insert(name, list);
            }
        }
        for name in ["first", "second"] {
            let most = if self.once_in(4) { 3 } else { 1 };
            let when =
                self.some(&MEMBERS, most).into_iter().map(|(member, values)| (member, self.pick(values)));
            let when: BTreeMap<&str, &str> = when.collect();
            let scopes: Vec<&str> =
                self.some(of.list("scopesSupported"), 4).into_iter().filter(may_be_given).collect();
            if self.once_in(2) && !when.is_empty() && !scopes.is_empty() {
                audience.rules.push(Rule { name, when, scopes });
            }
        }
    }

    pub(super) fn question(&mut self, policy: &Policy) -> Question {
        let audiences = match self.below(8) {
            0..=2 => Vec::new(),
            3..=5 => vec![self.name(policy)],
            _ => (0..=self.below(4)).map(|_| self.name(policy)).collect(),
        };
        let names: Vec<&'static str> = policy.audiences.iter().map(|one| one.name).collect();
        // Mostly what some audience supports.
        let mut scopes = SCOPES.to_vec();
        for audience in policy.audiences.iter().take(4) {
            scopes.extend(audience.list("scopesSupported").iter().chain(audience.list("scopesSupported")));
        }
        let mut scope = self.parameter(&scopes);
        match self.below(200) {
            // At and over the limit of 256.
            0 => scope = Some("a ".repeat(256)),
            1 => scope = Some((0..600).map(|at| format!(" s{at}")).collect()),
            2 => scope = Some(format!("a {}", "x".repeat(512))),
            3 => scope = Some(format!("a {}", "x".repeat(513))),
            _ => {}
        }
        Question {
            audiences,
            scope,
            registered: if self.once_in(4) { None } else { self.parameter(&scopes) },
            granted: if self.once_in(3) { None } else { self.parameter(&scopes) },
            person: self.person(),
            caller_knows: self.once_in(8).then(|| self.some(&names, 3)),
        }
    }

    /// How a request names an audience, mostly one of the policy.
    fn name(&mut self, policy: &Policy) -> String {
        if self.once_in(12) {
            return self
                .pick(&["", "five", "https://one.example.com/#part", "https://one.example.com/x"])
                .to_owned();
        }
        let known = self.below(policy.audiences.len().min(4));
        let known = &policy.audiences[known];
        let Some((spellings, aliases, others)) =
            NAMES.into_iter().find(|(spellings, ..)| spellings.contains(&known.name))
        else {
            return known.name.to_owned();
        };
        if known.name.contains("://") && self.once_in(8) {
            return format!("{}?kb=x", known.name);
        }
        let declared: Vec<&str> = known.list("aliases").to_vec();
        match self.below(12) {
            0..=5 => known.name,
            6..=7 if !declared.is_empty() => self.pick(&declared),
            8 => self.pick(aliases),
            9..=10 => self.pick(others),
            _ => self.pick(spellings),
        }
        .to_owned()
    }

    /// A list of scopes as text: absent, empty, blank, or some, oddly separated at times.
    fn parameter(&mut self, scopes: &[&'static str]) -> Option<String> {
        let mut words: Vec<&str> = match self.below(8) {
            0 | 1 => return None,
            2 => return Some(self.pick(&["", " ", "   "]).to_owned()),
            _ => self.some(scopes, 5),
        };
        if self.once_in(4) {
            words.push(self.pick(FOREIGN));
        }
        if self.once_in(8) && !words.is_empty() {
            words.push(self.pick(&words.clone()));
        }
        let text = words.join(self.pick(&[" ", " ", " ", "  "]));
        Some(match self.below(8) {
            0 => format!(" {text}"),
            1 => format!("{text} "),
            _ => text,
        })
    }

    fn person(&mut self) -> Person {
        const CLIENT_IDS: [&str; 10] = [
            "https://app.example.com/client.json",
            "https://APP.example.com:443/client.json",
            "https://app.example.com",
            "https://app.example.com:8443/client.json",
            "https://u@app.example.com/client.json",
            "https://app.example.com/client.json#x",
            "https://app.example.com\\x/",
            "http://app.example.com/client.json",
            "https://app.example.com/é",
            "abc",
        ];
        const NAMES: [&str; 6] = ["", "Claude Code", "Claude", "claude code", "Cod ed Code", "C*d*e"];
        const REDIRECT_URIS: [&str; 14] = [
            "http://localhost:33418/callback",
            "http://localhost:33418/callback",
            "http://127.0.0.1/callback",
            "http://[::1]:8080/callback",
            "HTTP://LOCALHOST/",
            "https://app.example.com/cb",
            "https://APP.example.com:443/cb",
            "https://app.example.com/cb/",
            "https://localhost/",
            "http://127.1/",
            "http://127.0.0.01/",
            "http://u@localhost/",
            "http://localhost/#x",
            "http://localhost.example.com/",
        ];
        const GRANT_TYPES: [&str; 3] = ["authorization_code", "refresh_token", "client_credentials"];
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        let mut person = Person {
            source: self.pick(&["", "dcr", "cimd", "static"]),
            client_id: if self.once_in(2) { CLIENT_IDS[0] } else { self.pick(&CLIENT_IDS) }.to_owned(),
            client_name: if self.once_in(2) { "Claude Code" } else { self.pick(&NAMES) }.to_owned(),
            software_id: self.pick(&["", "abc", "abc", "ABC"]).to_owned(),
            redirect_uris: owned(match self.below(4) {
                0 => vec![REDIRECT_URIS[0]],
                1 => vec!["https://app.example.com/cb", REDIRECT_URIS[2]],
                _ => self.some(&REDIRECT_URIS, 2),
            }),
            grant_types: owned(self.some(&GRANT_TYPES, 3)),
            application_type: self.pick(&["", "native", "native", "web"]).to_owned(),
        };
        match self.below(200) {
            0 => person.client_name = format!("Claude{}", " ".repeat(250)),
            1 => person.client_name = format!("Claude{}", " ".repeat(251)),
            2 => person.client_name = "n".repeat(64 * 1024 + 1),
            _ => {}
        }
        person
    }
}
