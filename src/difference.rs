//! What changes from one policy set to another, and what of it lets a client have more.
//!
//! The changes are those of [`policy::change`](crate::policy::change), which marks what may widen by the kind of its key. Here
//! both sets are asked: a change widens only if the sets answer some question differently, with a scope that was not granted
//! before. The questions are derived from both sets (`probe`): each scope, alone and with another one, omitted, registered
//! or not or unknown, from each source and by the client of each rule. Where several audiences are named, rules that are
//! cautious stand in for questions about each combination. Does no I/O.

use std::collections::{HashMap, HashSet};

use self::joint::Shifts;
use self::probe::Probes;
use crate::audience::normalise;
use crate::call::Call;
use crate::decision::{Answer, Reason, RequestKind, TokenGrant};
use crate::policy::change::{Change, Differing, candidates, differing};
use crate::policy::{AudiencePolicy, NothingLeft, PolicySet};
use crate::proto::v1;

mod joint;
mod probe;

/// Most decisions for one comparison, counted for each audience; beyond that everything counts as widening that may widen.
const MAX_DECISIONS: usize = 500_000;

/// Every change from one set to another: the set first, then audiences sorted, then in the order of the format. Empty exactly
/// if both sets mean the same.
#[must_use]
pub fn changes(before: &PolicySet, after: &PolicySet) -> Vec<Change> {
    let mut changes = candidates(before, after);
    if changes.is_empty() {
        return changes;
    }
    let mut judge = Judge { before, after, left: MAX_DECISIONS };
    let mut effects: HashMap<String, Widening> = HashMap::new();
    for pair in differing(before.audiences(), after.audiences()) {
        if let Differing::Changed(old, new) = pair
            && old.meaning() != new.meaning()
        {
            effects.insert(new.audience.to_string(), judge.audience(old, new));
        }
    }
    for change in changes.iter_mut().filter(|change| !change.adds_names()) {
        if let Some(effect) = effects.get(&change.audience) {
            change.widening &= effect.widens();
        }
    }
    let mut found = Vec::new();
    for (audience, effect) in &effects {
        if let Widening::Wider(example) = effect
            && !changes.iter().any(|change| change.widening && change.audience == *audience)
        {
            found.push(Change::example(audience, example.clone()));
        }
    }
    found.sort_by(|one, other| one.audience.cmp(&other.audience));
    for change in found {
        // Behind the other changes of its audience.
        let behind = changes.iter().rposition(|one| one.audience == change.audience);
        changes.insert(behind.map_or(changes.len(), |at| at + 1), change);
    }
    unnamed(&mut judge, &mut changes);
    changes
}

/// What becomes of requests that name no audience.
fn unnamed(judge: &mut Judge<'_>, changes: &mut Vec<Change>) {
    let mut found = Vec::new();
    // Requests for a token mean the audiences that authorize requests mean.
    for kind in [RequestKind::Registration, RequestKind::Authorize] {
        let (requests, key, kinds) = match kind {
            RequestKind::Registration => ("register", "registrationAudiences", &[kind][..]),
            RequestKind::Authorize | RequestKind::Token => {
                ("authorize", "defaultAudience", &[RequestKind::Authorize, RequestKind::Token][..])
            }
        };
        let (old, new) = (targets(judge.before, kind), targets(judge.after, kind));
        if old.is_empty() != new.is_empty() {
            found.push(Change::audience_required(requests, new.is_empty()));
            // Says more than a list of all the audiences that are meant, or are not.
            changes.retain(|change| {
                change.key() != Some("registrationAudiences") || kind == RequestKind::Authorize
            });
        }
        let is_same =
            old.len() == new.len() && old.iter().zip(&new).all(|(one, other)| one.normal() == other.normal());
        let has_line = changes.iter().any(|change| change.audience.is_empty() && change.key() == Some(key));
        // One audience that stays the same was compared by its name.
        let is_known = is_same
            && (old.len() <= 1 || old.iter().zip(&new).all(|(one, other)| one.meaning() == other.meaning()));
        let effect = if is_known || old.is_empty() || new.is_empty() {
            Widening::Narrower
        } else if has_line || !changes.iter().any(|change| change.widening) {
            judge.ask(&[], &old, &new, kinds).0
        } else {
            continue;
        };
        for change in
            changes.iter_mut().filter(|change| change.audience.is_empty() && change.key() == Some(key))
        {
            change.widening &= effect.widens();
        }
        if let Widening::Wider(example) = effect
            && !changes.iter().any(|change| change.widening)
        {
            found.push(Change::example("", example));
        }
    }
    let behind = changes.iter().take_while(|change| change.audience.is_empty()).count();
    changes.splice(behind..behind, found);
}

/// The audiences of a request that names none; empty if it is denied.
fn targets(set: &PolicySet, kind: RequestKind) -> Vec<&AudiencePolicy> {
    match kind {
        RequestKind::Registration => {
            set.registration_audiences().iter().map(|audience| &**audience).collect()
        }
        RequestKind::Authorize | RequestKind::Token => {
            set.unnamed_audience().into_iter().map(|audience| &**audience).collect()
        }
    }
}

/// What a change of an audience does.
#[derive(Clone, Debug)]
enum Widening {
    /// No question gets more.
    Narrower,
    /// Some question gets more, such as this one, in words.
    Wider(String),
    /// There was too much to ask.
    Unknown,
}

impl Widening {
    const fn widens(&self) -> bool {
        !matches!(self, Self::Narrower)
    }
}

/// Asks both sets.
struct Judge<'s> {
    before: &'s PolicySet,
    after: &'s PolicySet,
    /// How many more decisions may be made.
    left: usize,
}

impl Judge<'_> {
    /// What the change of one audience does to the requests that name it, alone or with others.
    fn audience(&mut self, old: &AudiencePolicy, new: &AudiencePolicy) -> Widening {
        let (effect, shifts) = self.ask(&[new.normal()], &[old], &[new], &RequestKind::ALL);
        if effect.widens() {
            return effect;
        }
        match joint::widens(self.before, self.after, old, new, &shifts) {
            Some(why) => {
                Widening::Wider(format!("requests that name it together with other audiences: {why}"))
            }
            None => Widening::Narrower,
        }
    }

    /// Asks every question that is derived from these policies.
    fn ask(
        &mut self,
        names: &[&str],
        old: &[&AudiencePolicy],
        new: &[&AudiencePolicy],
        kinds: &[RequestKind],
    ) -> (Widening, Shifts) {
        let mut shifts = Shifts::default();
        let Some(probes) = Probes::of(old, new) else { return (Widening::Unknown, shifts) };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let weight = 2 * old.len().max(new.len());
        for (at, client) in probes.clients.iter().enumerate() {
            for kind in kinds {
                let call = Call {
                    kind: *kind,
                    audiences: names.clone(),
                    scope: None,
                    registered_scope: None,
                    grant: (*kind == RequestKind::Token).then_some(TokenGrant::JwtBearer),
                    granted_scope: None,
                    client: client.clone(),
                };
                let nothing_left = |audience: &&AudiencePolicy| match kind {
                    RequestKind::Registration => audience.registration_nothing_left == NothingLeft::Default,
                    RequestKind::Authorize => audience.nothing_left == NothingLeft::Default,
                    RequestKind::Token => false,
                };
                let mut asking = Asking {
                    judge: &mut *self,
                    weight,
                    call,
                    // Of a grant it makes no difference whose it is.
                    with_grants: *kind == RequestKind::Token && at == 0,
                    shifts: &mut shifts,
                    let_through: Vec::new(),
                    dropped: Vec::new(),
                };
                if let Err(effect) = asking.all(&probes, new.iter().all(nothing_left)) {
                    return (effect, shifts);
                }
            }
        }
        (Widening::Narrower, shifts)
    }
}

/// The questions of one kind by one client.
struct Asking<'j, 's> {
    judge: &'j mut Judge<'s>,
    weight: usize,
    call: Call,
    /// Whether to ask with grants as well.
    with_grants: bool,
    shifts: &'j mut Shifts,
    /// Scopes because of which the older set denied a request and the newer one does not.
    let_through: Vec<String>,
    /// Scopes that the newer set drops.
    dropped: Vec<String>,
}

impl Asking<'_, '_> {
    fn all(&mut self, probes: &Probes, gives_where_nothing_is_left: bool) -> Result<(), Widening> {
        let scopes = &probes.scopes;
        for backing in [Backing::Unknown, Backing::Registered("")] {
            self.one(None, backing)?;
            for scope in scopes {
                self.one(Some(scope), backing)?;
            }
        }
        for scope in scopes {
            for registered in std::iter::once(scope).chain(probes.covering(scope)) {
                self.backed(None, registered)?;
                self.backed(Some(scope), registered)?;
            }
            if self.with_grants {
                self.one(Some(scope), Backing::Granted(""))?;
            }
            if self.call.kind == RequestKind::Authorize {
                for always in &probes.always {
                    self.one(Some(scope), Backing::Registered(&format!("{scope} {always}")))?;
                }
            }
        }
        // A scope that no longer denies lets the others of its request through.
        let let_through = std::mem::take(&mut self.let_through);
        for other in let_through.iter().take(FEW) {
            for scope in scopes.iter().filter(|scope| *scope != other) {
                let both = format!("{scope} {other}");
                self.one(Some(&both), Backing::Unknown)?;
                self.one(Some(&both), Backing::Registered(""))?;
                self.backed(Some(&both), scope)?;
                if self.call.kind == RequestKind::Token {
                    self.backed(Some(&both), &both)?;
                }
            }
        }
        // What is dropped may bring in what stands in for it.
        let dropped = std::mem::take(&mut self.dropped);
        if gives_where_nothing_is_left {
            for other in dropped.iter().take(FEW) {
                for scope in scopes {
                    self.one(Some(other), Backing::Registered(scope))?;
                    self.one(Some(other), Backing::Registered(&format!("{other} {scope}")))?;
                }
            }
        }
        Ok(())
    }

    /// Asks with these scopes registered, and granted where that is asked.
    fn backed(&mut self, scope: Option<&str>, scopes: &str) -> Result<(), Widening> {
        self.one(scope, Backing::Registered(scopes))?;
        if self.with_grants { self.one(scope, Backing::Granted(scopes)) } else { Ok(()) }
    }

    /// Asks one question; an error ends the asking.
    fn one(&mut self, scope: Option<&str>, backing: Backing<'_>) -> Result<(), Widening> {
        let left = self.judge.left.checked_sub(self.weight).ok_or(Widening::Unknown)?;
        self.judge.left = left;
        let (registered, granted) = match backing {
            Backing::Unknown => (None, None),
            Backing::Registered(scopes) => (Some(scopes), None),
            Backing::Granted(scopes) => (None, Some(scopes)),
        };
        self.call.scope = scope.map(str::to_owned);
        self.call.registered_scope = registered.map(str::to_owned);
        self.call.granted_scope = granted.map(str::to_owned);
        let old = self.call.answer(self.judge.before);
        let new = self.call.answer(self.judge.after);
        if is_wider(&old, &new) {
            return Err(Widening::Wider(example(&self.call, &old, &new)));
        }
        let Some(scope) = scope.filter(|scope| !scope.contains(' ')) else { return Ok(()) };
        self.shifts.record(self.call.kind, scope, &old, &new);
        let note = |list: &mut Vec<String>| {
            if !list.iter().any(|known| known == scope) {
                list.push(scope.to_owned());
            }
        };
        if rejects(&old) && !rejects(&new) {
            note(&mut self.let_through);
        }
        if !rejects(&new) && !new.refused.is_empty() {
            note(&mut self.dropped);
        }
        Ok(())
    }
}

/// What a client has before it asks.
#[derive(Clone, Copy)]
enum Backing<'b> {
    /// That is not known.
    Unknown,
    /// It registered these scopes.
    Registered(&'b str),
    /// It has a grant of these scopes.
    Granted(&'b str),
}

/// Of scopes that have the same effect on a request a few are enough.
const FEW: usize = 8;

/// Returns `true` if a request was denied because of a scope in it, and not because nothing was left.
fn rejects(answer: &Answer<'_>) -> bool {
    matches!(
        answer.reason,
        Some(
            Reason::Forbidden
                | Reason::Unsupported
                | Reason::Unregistered
                | Reason::ExceedsGrant
                | Reason::Malformed
        )
    )
}

/// Returns `true` if an answer grants a scope that the one before did not grant, or did not grant at that audience.
pub(crate) fn is_wider(old: &Answer<'_>, new: &Answer<'_>) -> bool {
    let granted = |answer: &Answer<'_>| -> HashSet<(String, String)> {
        let at = |audience: &str| {
            normalise(audience).map_or_else(|_| audience.to_owned(), std::borrow::Cow::into_owned)
        };
        let grants = answer.audience_grants();
        grants
            .flat_map(|grant| grant.scope.iter().map(move |scope| (at(grant.audience), (*scope).to_owned())))
            .collect()
    };
    new.scope.iter().any(|scope| !old.scope.contains(scope))
        || new.audience_grants().next().is_some() && !granted(new).is_subset(&granted(old))
}

/// A question and its answers in words.
fn example(call: &Call, old: &Answer<'_>, new: &Answer<'_>) -> String {
    let Call { kind, audiences, scope, registered_scope, grant: _, granted_scope, client } = call;
    let mut text = kind.as_str().to_owned();
    text.push_str(&scope.as_ref().map_or_else(|| " without scope".to_owned(), |scope| format!(" `{scope}`")));
    text.push_str(&match (kind, registered_scope, granted_scope) {
        (_, _, Some(scope)) => format!(", granted `{scope}`"),
        (RequestKind::Registration, None, None) => String::new(),
        (RequestKind::Registration, Some(scope), None) => format!(" as an update of `{scope}`"),
        (RequestKind::Authorize | RequestKind::Token, None, None) => ", registration unknown".to_owned(),
        (RequestKind::Authorize | RequestKind::Token, Some(scope), None) => format!(", registered `{scope}`"),
    });
    if client.source() != v1::ClientSource::Unspecified {
        let name = client.source().as_str_name().trim_start_matches("CLIENT_SOURCE_").to_lowercase();
        text.push_str(&format!(", source {name}"));
    }
    if audiences.is_empty() {
        text.push_str(", no audience named");
    }
    let outcome = |answer: &Answer<'_>| match answer.reason {
        None => format!("ALLOW {}", answer.scope.join(" ")),
        Some(reason) => format!("DENY {}", reason.as_str()),
    };
    format!("{text}: {} -> {}", outcome(old), outcome(new))
}

#[cfg(test)]
mod tests;
