//! Who may call what: the access file, read, checked and compiled. Pure: it is told who somebody is and what they show.
//!
//! Knows neither certificates nor connections, and no budget: it has names and hashes, and says which caller that is.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

mod check;
pub mod keys;

pub use check::{AccessDocument, CheckedAccess};

/// What a caller may call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// Ask for decisions.
    Decide,
    /// Ask what audiences support.
    Describe,
    /// See what serves, and what is wrong with the newest files.
    Status,
    /// Read the audit.
    Audit,
}

impl Right {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Decide, Self::Describe, Self::Status, Self::Audit];

    /// The word in the access file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Describe => "describe",
            Self::Status => "status",
            Self::Audit => "audit",
        }
    }
}

/// How it is known who a caller is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthenticatedBy {
    /// By a certificate that a client CA issued.
    Mtls,
    /// By a bearer token.
    Token,
    /// By the user of a process on the same machine.
    Unix,
}

impl AuthenticatedBy {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Mtls, Self::Token, Self::Unix];

    /// The word in audit events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Token => "token",
            Self::Unix => "unix",
        }
    }
}

/// One caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CallerRules {
    /// In audit, logs and metrics. Unique.
    pub name: Arc<str>,
    /// What it may call, each once.
    pub rights: Vec<Right>,
    /// The audiences that it knows, as written; `None` for all.
    pub audiences: Option<Arc<[Box<str>]>>,
    /// How many calls it may have in flight; `None` for as many as there are.
    pub max_calls: Option<usize>,
    /// By what it is known, as written and sorted; tokens by their hash.
    matches: Vec<String>,
}

impl CallerRules {
    /// Returns `true` if it may do that.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }
}

/// What somebody shows of themselves. Certificates and users were verified before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'c> {
    /// The one URI in a client certificate, if it is one.
    pub spiffe_id: Option<&'c str>,
    /// The DNS names in a client certificate.
    pub dns_names: &'c [Box<str>],
    /// A bearer token.
    pub token: Option<&'c [u8]>,
    /// The user of the process at the other end of a Unix socket.
    pub uid: Option<u32>,
}

/// Every caller, compiled for look-up. Has at least one.
#[derive(Debug, Default)]
pub struct AccessList {
    callers: Vec<CallerRules>,
    by_spiffe_id: HashMap<Box<str>, usize>,
    by_dns_name: HashMap<Box<str>, usize>,
    by_uid: HashMap<u32, usize>,
    by_token: Vec<([u8; 32], usize)>,
}

impl AccessList {
    /// The callers, in the order of the file.
    #[must_use]
    pub fn callers(&self) -> &[CallerRules] {
        &self.callers
    }

    /// The callers that are known by one of these keys of `match`, in the order of the file.
    pub fn known_by(&self, keys: &[&str]) -> impl Iterator<Item = &CallerRules> {
        let is_of = |one: &String| one.split_once(' ').is_some_and(|(key, _)| keys.contains(&key));
        self.callers.iter().filter(move |caller| caller.matches.iter().any(is_of))
    }

    /// The place among [`AccessList::callers`] of who shows this, and by what it is known: by a token before a certificate, since it
    /// belongs to the call and not to the connection, then by the URI of a certificate, then by its DNS names, then by the user.
    #[must_use]
    pub fn identify(&self, shown: &Credentials<'_>) -> Option<(usize, AuthenticatedBy)> {
        let by_token = shown.token.and_then(|token| self.token(token)).map(|at| (at, AuthenticatedBy::Token));
        by_token
            .or_else(|| {
                let by_uri = shown.spiffe_id.and_then(|id| self.by_spiffe_id.get(id));
                let mut by_name = shown.dns_names.iter().filter_map(|name| self.by_dns_name.get(name));
                by_uri.or_else(|| by_name.next()).map(|at| (*at, AuthenticatedBy::Mtls))
            })
            .or_else(|| {
                shown.uid.and_then(|uid| self.by_uid.get(&uid)).map(|at| (*at, AuthenticatedBy::Unix))
            })
    }

    /// Compares with every hash, and each one in full, so that the time tells nothing about any of them.
    fn token(&self, token: &[u8]) -> Option<usize> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, at) in &self.by_token {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(*at);
            }
        }
        found
    }

    /// What differs from the list `before`, in words that say nothing of how callers are known; and how many of the changes let
    /// somebody do more.
    #[must_use]
    pub fn changes(&self, before: &Self) -> (Vec<String>, usize) {
        let mut changes = Vec::new();
        let mut widening = 0;
        let known =
            |list: &Self, name: &str| list.callers.iter().find(|caller| &*caller.name == name).cloned();
        for caller in &before.callers {
            if known(self, &caller.name).is_none() {
                changes.push(format!("caller `{}` removed", caller.name));
            }
        }
        for caller in &self.callers {
            let name = &caller.name;
            let Some(old) = known(before, name) else {
                widening += 1;
                changes.push(format!("caller `{name}` added"));
                continue;
            };
            for right in Right::ALL {
                match (old.may(right), caller.may(right)) {
                    (false, true) => {
                        widening += 1;
                        changes.push(format!("caller `{name}` may {}", right.as_str()));
                    }
                    (true, false) => {
                        changes.push(format!("caller `{name}` may no longer {}", right.as_str()))
                    }
                    _ => {}
                }
            }
            if old.audiences != caller.audiences {
                let list = |rules: &CallerRules| rules.audiences.clone().unwrap_or_default();
                let adds = list(caller).iter().any(|audience| !list(&old).contains(audience));
                widening += usize::from(caller.audiences.is_none() || (adds && old.audiences.is_some()));
                changes.push(format!("caller `{name}`: other audiences"));
            }
            if old.matches != caller.matches {
                let adds = caller.matches.iter().any(|one| !old.matches.contains(one));
                widening += usize::from(adds);
                changes.push(format!("caller `{name}` is known by something else"));
            }
            if old.max_calls != caller.max_calls {
                changes.push(format!("caller `{name}`: another number of calls"));
            }
        }
        (changes, widening)
    }
}

#[cfg(test)]
mod tests;
