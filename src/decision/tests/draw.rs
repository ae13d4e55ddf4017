//! Policies and questions drawn at random, over a small alphabet of dotted scopes, so that the ways of matching are exercised.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{check, expand, set, sound};
use crate::decision::{Answer, Client, registration, token};
use crate::policy::sample::read;
use crate::policy::{ClientSource, PolicySet};
use crate::scope::matching::ScopeMatching::{self, Exact, Hierarchic, Wildcard};
use crate::scope::matching::has_star_segment;
use crate::scope::{TokenList, distinct_tokens};

pub(crate) const SCOPES: &[&str] = &[
    "a", "a.b", "a.b.c", "a.c", "a.*", "a.*.c", "*", "*.b", "b", "b.a", "b.*", "a..b", "b.", "c:*", "openid",
];
/// In the order in which a set has them.
pub(crate) const NAMES: [&str; 3] = ["https://one.example.com", "two", "urn:three"];
/// An alias of each.
pub(crate) const ALIASES: [&str; 3] = ["api://one", "2", "urn:drei"];

/// One audience as drawn; lists may hold what is not valid, see [`Drawn::valid`].
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) matching: ScopeMatching,
    pub(crate) supported: Vec<&'static str>,
    pub(crate) baseline: Vec<&'static str>,
    pub(crate) default: Option<Vec<&'static str>>,
    pub(crate) step_up: Vec<&'static str>,
    pub(crate) privileged: Vec<&'static str>,
    pub(crate) forbidden: Vec<&'static str>,
    pub(crate) rule: Vec<&'static str>,
    pub(crate) always: Vec<&'static str>,
    /// At registration; unsupported and unregistered ones at authorize; unsupported and exceeding ones of a token.
    pub(crate) drops: [bool; 5],
    /// Whether nothing left means the default: at registration, at authorize.
    pub(crate) nothing_left: [bool; 2],
    pub(crate) omitted: &'static str,
    /// For `cimd`, `dcr` and `static`; the first one for every client if it is written as one word.
    pub(crate) unknown: [&'static str; 3],
    pub(crate) is_one_word: bool,
    pub(crate) existing: bool,
}

/// A policy as drawn.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) policies: [Drawn; 3],
    /// `defaultAudience`.
    pub(crate) default: Option<usize>,
    /// `registrationAudiences`.
    pub(crate) registration: Option<Vec<usize>>,
}

impl Drawn {
    /// Leaves out of each list what a policy may not hold there.
    pub(crate) fn valid(mut self) -> Self {
        let Self { matching, supported, privileged, forbidden, .. } = self.clone();
        let stopped = |list: &[&str], scope: &str| list.iter().any(|entry| matching.stops(entry, scope));
        let may_step_up = |scope: &&str| {
            supported.iter().any(|entry| matching.matches(entry, scope)) && !stopped(&forbidden, scope)
        };
        let may_be_given = |scope: &&str| {
            may_step_up(scope)
                && !stopped(&privileged, scope)
                && !(matching == Wildcard && has_star_segment(scope))
        };
        self.step_up.retain(may_step_up);
        self.baseline.retain(may_be_given);
        self.rule.retain(may_be_given);
        let step_up = self.step_up.clone();
        self.always.retain(|scope| {
            may_be_given(scope) && !step_up.iter().any(|entry| matching.matches(entry, scope))
        });
        if let Some(default) = &mut self.default {
            default.retain(may_be_given);
        }
        self
    }

    fn yaml(&self, name: &str) -> String {
        let list = |list: &[&str]| {
            format!("[{}]", list.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", "))
        };
        let treatment = |drop| if drop { "drop" } else { "reject" };
        let [at_registration, unsupported, unregistered, of_token, exceeding] = self.drops.map(treatment);
        let [nothing_left, nothing_left_authorize] =
            self.nothing_left.map(|default| if default { "default" } else { "reject" });
        let [cimd, dcr, r#static] = self.unknown;
        let unknown = if self.is_one_word {
            cimd.to_owned()
        } else {
            format!("{{cimd: {cimd}, dcr: {dcr}, static: {static}}}")
        };
        let at = NAMES.iter().position(|one| *one == name).unwrap();
        let mut text = format!(
            "audiences:\n  {name}:\n    aliases: [\"{}\"]\n    scopesSupported: {}\n    baselineClientScopes: {}\n    \
             privilegedScopes: {}\n    forbiddenScopes: {}\n    scopeMatching: {}\n    \
             registration: {{unsupportedScopes: {at_registration}, nothingLeft: {nothing_left}}}\n    \
             authorization: {{unsupportedScopes: {unsupported}, unregisteredScopes: {unregistered}, \
             omittedScope: {}, unknownRegistration: {unknown}, baselineForExistingClients: {}, stepUpScopes: {}, \
             nothingLeft: {nothing_left_authorize}, alwaysGrantScopes: {}}}\n    \
             token: {{unsupportedScopes: {of_token}, exceedingScopes: {exceeding}}}\n",
            ALIASES[at],
            list(&self.supported),
            list(&self.baseline),
            list(&self.privileged),
            list(&self.forbidden),
            self.matching.as_str(),
            self.omitted,
            self.existing,
            list(&self.step_up),
            list(&self.always),
        );
        if let Some(default) = &self.default {
            text.push_str(&format!("    defaultClientScopes: {}\n", list(default)));
        }
        if !self.rule.is_empty() {
            text.push_str(&format!(
                "    clientRules: [{{name: r, when: {{source: dcr}}, baselineClientScopes: {}}}]\n",
                list(&self.rule)
            ));
        }
        text
    }
}

fn scopes(most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(SCOPES, 0..=most).prop_shuffle()
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let lists = (
        subsequence(SCOPES, 1..=8).prop_shuffle(),
        scopes(8),
        option::of(scopes(8)),
        scopes(5),
        scopes(2),
        scopes(2),
        scopes(4),
        scopes(5),
    );
    let knobs = (
        select(vec![Exact, Hierarchic, Wildcard]),
        any::<[bool; 5]>(),
        any::<[bool; 2]>(),
        select(vec!["registered", "default", "reject"]),
        [(); 3].map(|()| select(vec!["omitted", "none", "supported"])),
        any::<bool>(),
        any::<bool>(),
    );
    (lists, knobs).prop_map(
        |(
            (supported, baseline, default, step_up, privileged, forbidden, rule, always),
            (matching, drops, nothing_left, omitted, unknown, is_one_word, existing),
        )| {
            Drawn {
                matching,
                supported,
                baseline,
                default,
                step_up,
                privileged,
                forbidden,
                rule,
                always,
                drops,
                nothing_left,
                omitted,
                unknown,
                is_one_word,
                existing,
            }
        },
    )
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Places in `NAMES`.
    pub(crate) places: Vec<usize>,
    pub(crate) audiences: Vec<String>,
    pub(crate) scope: Option<String>,
    pub(crate) registered: Option<String>,
    pub(crate) source: Option<ClientSource>,
}

impl Asked {
    pub(crate) fn client(&self) -> Client<'static> {
        Client { source: self.source, ..Client::default() }
    }

    pub(crate) fn tokens(&self) -> TokenList<'_> {
        distinct_tokens(self.scope.as_deref().unwrap_or_default())
    }

    pub(crate) fn expand<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        expand(set, &self.audiences, self.scope.as_deref(), self.client())
    }

    pub(crate) fn update<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        let (audiences, scope, client) = (&self.audiences, self.scope.as_deref(), self.client());
        let question = registration::RegistrationQuestion {
            audiences: audiences.into(),
            scope,
            previous_scope: self.registered.as_deref(),
            client,
        };
        let answer = registration::expand(set, &question);
        sound(&answer);
        answer
    }

    pub(crate) fn check<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        check(set, &self.audiences, self.registered.as_deref(), self.scope.as_deref(), self.client())
    }

    /// A refresh of what is registered, taken as a grant.
    pub(crate) fn refresh<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        self.token(set, Some(self.registered.as_deref().unwrap_or_default()))
    }

    /// A request for a token by the client's own credentials.
    pub(crate) fn credentials<'a>(&'a self, set: &'a PolicySet) -> Answer<'a> {
        self.token(set, None)
    }

    fn token<'a>(&'a self, set: &'a PolicySet, granted_scope: Option<&'a str>) -> Answer<'a> {
        let answer = token::check(
            set,
            &token::TokenQuestion {
                audiences: (&self.audiences).into(),
                scope: self.scope.as_deref(),
                granted_scope,
                registered_scope: self.registered.as_deref(),
                client: self.client(),
            },
        );
        sound(&answer);
        answer
    }

    /// The same with nothing asked.
    pub(crate) fn omitted(&self) -> Self {
        Self { scope: None, ..self.clone() }
    }
}

pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let token = || prop_oneof![9 => select(SCOPES), 1 => select(vec!["unknown", "a.b.x", "a\tb"])];
    let parameter = move || option::of(vec(token(), 0..6).prop_map(|tokens| tokens.join(" ")));
    let source =
        select(vec![None, Some(ClientSource::Dcr), Some(ClientSource::Cimd), Some(ClientSource::Static)]);
    (subsequence(vec![0usize, 1, 2], 0..=3).prop_shuffle(), parameter(), parameter(), source).prop_map(
        |(places, scope, registered, source)| Asked {
            audiences: places.iter().map(|at| NAMES[*at].to_owned()).collect(),
            places,
            scope,
            registered,
            source,
        },
    )
}

/// Three files with an audience each, valid.
pub(crate) fn policies() -> impl Strategy<Value = World> {
    let registration = option::of(subsequence(vec![0usize, 1, 2], 1..=3).prop_shuffle());
    ([drawn(), drawn(), drawn()], option::of(0..3usize), registration).prop_map(
        |(policies, default, registration)| World {
            policies: policies.map(Drawn::valid),
            default,
            registration,
        },
    )
}

impl World {
    /// Its files, by the place of their audience; what is said once is in the first.
    pub(crate) fn files(&self) -> [String; 3] {
        let mut files = [0, 1, 2].map(|at| self.policies[at].yaml(NAMES[at]));
        if let Some(default) = self.default {
            files[0].push_str(&format!("defaultAudience: {}\n", NAMES[default]));
        }
        if let Some(registration) = &self.registration {
            let names: Vec<&str> = registration.iter().map(|at| NAMES[*at]).collect();
            files[0].push_str(&format!("registrationAudiences: [\"{}\"]\n", names.join("\", \"")));
        }
        files
    }
}

pub(crate) fn compiled(world: &World) -> PolicySet {
    read_all(&world.files())
}

#[track_caller]
pub(crate) fn read_all(files: &[String]) -> PolicySet {
    let names = ["a.yaml", "b.yaml", "c.yaml"];
    let files: Vec<(&str, &str)> = names.into_iter().zip(files.iter().map(String::as_str)).collect();
    match read(&files) {
        Ok(accepted) => accepted.set,
        Err(findings) => panic!("{findings:#?}\n{files:#?}"),
    }
}

#[test]
fn the_generator_draws_allowed_and_denied_questions() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut allowed = [0; 4];
    for _ in 0..200 {
        let (policies, asked) = (policies(), asked()).new_tree(&mut runner).unwrap().current();
        let set = compiled(&policies);
        allowed[0] += usize::from(asked.expand(&set).is_allowed());
        allowed[1] += usize::from(asked.check(&set).is_allowed());
        allowed[2] += usize::from(asked.refresh(&set).is_allowed());
        allowed[3] += usize::from(asked.credentials(&set).is_allowed());
    }
    assert!(allowed.iter().all(|count| (20..180).contains(count)), "{allowed:?}");
    // One that is by hand what the generator makes.
    assert!(set(&Drawn { supported: vec!["a"], ..example() }.yaml("two")).audience("two").is_ok());
}

fn example() -> Drawn {
    Drawn {
        matching: Exact,
        supported: Vec::new(),
        baseline: Vec::new(),
        default: None,
        step_up: Vec::new(),
        privileged: Vec::new(),
        forbidden: Vec::new(),
        rule: Vec::new(),
        always: Vec::new(),
        drops: [false; 5],
        nothing_left: [false; 2],
        omitted: "registered",
        unknown: ["omitted"; 3],
        is_one_word: true,
        existing: true,
    }
}
