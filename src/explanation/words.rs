//! An explanation in words: what the command line prints and the console shows, so that both say the same.
//!
//! Text of files and requests is safe to show in it. How it looks is the callers' to decide.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::places::{FilePlace, ListEntry};
use super::{Asked, Explanation, Fact, NearAudiences, NotHeld, RuleMatch, Setting};
use crate::decision::Answer;
use crate::escape::{clean, shown};

/// An answer and its grounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerText {
    /// `ALLOW` or `DENY`.
    pub decision: Toned,
    /// What is granted, or the reason of the denial.
    pub gist: String,
    /// What is to be said about the question as a whole.
    pub notes: Vec<String>,
    /// What each audience that decided made of it.
    pub audiences: Vec<AudienceText>,
    /// Each scope that is refused by all, or by one that rejects the whole.
    pub refused: Vec<RefusalText>,
    /// What the client gets.
    pub client_gets: Vec<String>,
}

/// A word that stands out.
#[derive(Debug, Serialize)]
pub struct Toned {
    /// How.
    pub tone: Tone,
    /// The word.
    pub text: String,
}

/// How a word stands out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Tone {
    /// Allowed.
    Good,
    /// Refused.
    Bad,
    /// Neither, and worth a look.
    Notable,
    /// Not at all.
    Plain,
}

/// A scope that is refused.
#[derive(Debug, Serialize)]
pub struct RefusalText {
    /// The reason.
    pub reason: &'static str,
    /// The same in words, with the scope.
    pub message: String,
}

/// How the scopes fared at one audience.
#[derive(Debug, Serialize)]
pub struct AudienceText {
    /// Its name.
    pub audience: String,
    /// Where it is declared; empty if that is not known.
    pub place: String,
    /// Scope by scope, in the order of the trail.
    pub scopes: Vec<ScopeText>,
    /// The client rules.
    pub rules: Vec<RuleText>,
    /// The settings that had a part in it.
    pub settings: Vec<SettingText>,
}

/// How one scope fared.
#[derive(Debug, Serialize)]
pub struct ScopeText {
    /// The scope.
    pub scope: String,
    /// What became of it.
    pub outcome: Toned,
    /// Why, in the order in which it is looked at.
    pub grounds: Vec<Ground>,
}

/// A ground, and where in the files it is.
#[derive(Debug, Serialize)]
pub struct Ground {
    /// In words.
    pub text: String,
    /// `file:line:column`; empty if it is not written anywhere.
    pub place: String,
}

/// A client rule.
#[derive(Debug, Serialize)]
pub struct RuleText {
    /// Its name.
    pub name: String,
    /// Where it begins; empty if that is not known.
    pub place: String,
    /// Whether it holds, and what does not.
    pub outcome: Toned,
}

/// A setting.
#[derive(Debug, Serialize)]
pub struct SettingText {
    /// Its key, by its path.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where it is written, or `default`.
    pub place: String,
}

impl Explanation {
    /// The explanation of `answer` in words.
    #[must_use]
    pub fn text(&self, answer: &Answer<'_>, asked: Asked) -> AnswerText {
        let toned = |tone, text: &str| Toned { tone, text: text.to_owned() };
        let (decision, gist) = match answer.reason {
            None => (toned(Tone::Good, "ALLOW"), answer.scope.join(" ")),
            Some(reason) => (toned(Tone::Bad, "DENY"), reason.as_str().to_owned()),
        };
        let mut notes: Vec<String> = self.near_audiences.iter().map(near_text).collect();
        if self.as_omitted && answer.trail.iter().any(|step| step.asked) {
            notes.push(
                "nothing is left of what was asked, so it is decided as if the scope had been omitted (nothingLeft)".to_owned(),
            );
        }
        let mut scopes = self.scopes(asked);
        let audiences = answer.audiences.iter().map(|policy| {
            let audience = &*policy.audience;
            let rules = self.client_rules.iter().filter(|rule| rule.audience == audience);
            let settings = self.settings.iter().filter(|setting| setting.audience == audience);
            let place = self.places.iter().find(|(name, _)| name == audience).map(|(_, place)| place);
            AudienceText {
                audience: clean(audience).into_owned(),
                place: place_text(place),
                scopes: scopes.remove(audience).unwrap_or_default(),
                rules: rules.map(rule_text).collect(),
                settings: settings.map(setting_text).collect(),
            }
        });
        AnswerText {
            decision,
            gist,
            notes,
            audiences: audiences.collect(),
            refused: answer
                .refused
                .iter()
                .map(|refused| RefusalText {
                    reason: refused.reason.as_str(),
                    message: refused.message.clone(),
                })
                .collect(),
            client_gets: client_gets(answer, asked),
        }
    }

    /// The scopes of each audience.
    fn scopes(&self, asked: Asked) -> HashMap<&str, Vec<ScopeText>> {
        // One scope may have several facts: asked for, given by the baseline, given by a rule.
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        let mut found: HashMap<&str, Vec<Vec<&Fact>>> = HashMap::new();
        for fact in &self.trail {
            let scopes = found.entry(&fact.audience).or_default();
            let at = *places.entry((&fact.audience, &fact.scope)).or_insert(scopes.len());
            match scopes.get_mut(at) {
                Some(facts) => facts.push(fact),
                None => scopes.push(vec![fact]),
            }
        }
        let text = |(audience, scopes): (_, Vec<Vec<&Fact>>)| {
            (audience, scopes.iter().filter_map(|facts| scope_text(facts, asked)).collect())
        };
        found.into_iter().map(text).collect()
    }
}

fn near_text(NearAudiences { audience, near }: &NearAudiences) -> String {
    let near: Vec<String> = near.iter().map(|near| format!("`{}`", shown(near))).collect();
    let hint = match near.as_slice() {
        [] => "the audiences of the policy are named differently".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    format!("no audience `{}` in the policy; {hint}", shown(audience))
}

fn scope_text(facts: &[&Fact], question: Asked) -> Option<ScopeText> {
    let decisive = *facts.first()?;
    let asked = facts.iter().any(|fact| fact.asked);
    // Nothing that a token gets is added: it stands for what was granted or is held.
    let adds = !asked && !matches!(question, Asked::Token { .. });
    let (tone, text) = match (decisive.outcome, decisive.reason) {
        ("GRANTED", _) if !adds => (Tone::Good, "granted".to_owned()),
        ("GRANTED", _) => (Tone::Notable, "added".to_owned()),
        ("WITHHELD", reason) => (Tone::Notable, format!("not given, {reason}")),
        (_, reason) => (Tone::Bad, format!("refused, {reason}")),
    };
    let mut grounds = vec![said(if asked { "asked for" } else { "not asked for" })];
    grounds.push(match &decisive.supported {
        Some(entry) => of_entry("supported: ", entry),
        None => said("in no entry of scopesSupported"),
    });
    grounds.extend(decisive.forbidden.as_ref().map(|entry| of_entry("forbidden: ", entry)));
    let privileged = decisive.privileged.as_ref();
    let is_given = !asked && decisive.outcome == "GRANTED";
    let why = if is_given { "privileged, and granted before: " } else { "privileged, never given unasked: " };
    grounds.extend(privileged.map(|entry| of_entry(why, entry)));
    if decisive.always {
        grounds.push(said("in authorization.alwaysGrantScopes"));
    }
    grounds.extend(decisive.not_held.as_ref().map(not_held_text));
    grounds.extend(decisive.stands_in.as_ref().map(|entry| of_entry("stands in for the scope: ", entry)));
    for holding in facts.iter().filter_map(|fact| fact.held.as_ref()) {
        let entry = &holding.entry;
        grounds.push(match (holding.origin, &*holding.rule) {
            ("GRANTED", _) => said(&format!("in the grant: `{}`", entry.entry)),
            ("REGISTERED", _) => said(&format!("registered: `{}`", entry.entry)),
            ("ANY_SUPPORTED", _) => {
                of_entry("registration unknown, which counts as any supported scope: ", entry)
            }
            (origin, "") => of_entry(&format!("held by {origin}: "), entry),
            (origin, rule) => of_entry(&format!("held by {origin}, client rule `{}`: ", shown(rule)), entry),
        });
    }
    Some(ScopeText { scope: decisive.scope.clone(), outcome: Toned { tone, text }, grounds })
}

fn not_held_text(not_held: &NotHeld) -> Ground {
    let NotHeld { because, setting } = not_held;
    let Some(setting) = setting else {
        return said(match *because {
            "NOT_IN_GRANT" => "not in the grant",
            _ => "not held: not registered, and nothing in the policy gives it",
        });
    };
    let why = match *because {
        "REGISTRATION_UNKNOWN" | "REGISTRATION_UNKNOWN_FOR_TOKEN" if setting.entry == "none" => {
            "what the client registered is unknown, which counts as nothing"
        }
        "REGISTRATION_UNKNOWN" => {
            "what the client registered is unknown, which counts as a registration without scope, and nothing in the policy gives it"
        }
        "REGISTRATION_UNKNOWN_FOR_TOKEN" => {
            "what the client registered is unknown, which for a token counts as no more than the baseline"
        }
        _ => "not registered, and the baseline does not cover clients that registered before",
    };
    of_entry(&format!("not held: {why}: "), setting)
}

fn said(text: &str) -> Ground {
    Ground { text: text.to_owned(), place: String::new() }
}

/// A ground that is an entry of a list.
fn of_entry(before: &str, ListEntry { list, entry, place }: &ListEntry) -> Ground {
    let mut text = format!("{before}`{}` in {list}", clean(entry));
    if place.is_none() && ["authorization.", "token."].iter().any(|section| list.starts_with(section)) {
        text.push_str(", the default");
    } else if place.is_none() && *list == "defaultClientScopes" {
        text.push_str(", which is not declared and filled in");
    }
    Ground { text, place: place_text(place.as_ref()) }
}

fn rule_text(RuleMatch { audience: _, name, holds, not_met, place }: &RuleMatch) -> RuleText {
    let outcome = match holds {
        true => Toned { tone: Tone::Good, text: "holds".to_owned() },
        false => Toned {
            tone: Tone::Plain,
            text: format!("does not hold for this client: {}", not_met.join(", ")),
        },
    };
    RuleText { name: shown(name), place: place_text(place.as_ref()), outcome }
}

fn setting_text(Setting { audience: _, key, value, place }: &Setting) -> SettingText {
    let place = place.as_ref().map_or_else(|| "default".to_owned(), FilePlace::to_string);
    SettingText { key, value: value.clone(), place }
}

fn place_text(place: Option<&FilePlace>) -> String {
    place.map(FilePlace::to_string).unwrap_or_default()
}

fn client_gets(answer: &Answer<'_>, asked: Asked) -> Vec<String> {
    let scope = answer.scope.join(" ");
    match (&answer.oauth_error, asked) {
        (Some(error), _) => {
            vec![format!("error={}", error.error), format!("error_description={}", error.error_description)]
        }
        (None, Asked::Registration) => vec![format!("scope={scope} (RFC 7591 section 3.2.1)")],
        (None, Asked::Authorize { .. } | Asked::Token { .. }) => {
            let mut lines = vec![format!("scope={scope} (RFC 6749 section 3.3)")];
            lines.extend(
                answer
                    .audience_grants()
                    .map(|grant| format!("at {}: {}", clean(grant.audience), grant.scope.join(" "))),
            );
            lines
        }
    }
}

/// The command that asks a running server the same. Needs no proto file, since the server has reflection.
#[must_use]
pub fn grpcurl(method: &str, request: &str) -> String {
    // In a shell nothing is special between single quotes but the quote that ends them.
    let request = ascii(request).replace('\'', r"'\''");
    format!("grpcurl -plaintext -d '{request}' 127.0.0.1:50551 scopeward.v1.ScopePolicyService/{method}")
}

/// JSON with everything outside of printable ASCII escaped, so that a terminal shows what a shell gets.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            ' '..='~' => text.push(character),
            // JSON has such characters in strings only.
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a String does not fail.
                    _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}
