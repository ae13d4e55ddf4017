//! The digest of a policy set: SHA-256 over what it means, not over how it is written.
//!
//! Covers each audience in normal form with defaults filled in and guardrails folded in, sorted, and
//! the default audience. Comments, file names, the spelling of an audience and limits that only decide
//! validity are not covered; the order inside a list is. Each audience is hashed by itself, so that a
//! reload hashes only what changed.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{AudiencePolicy, RedirectCondition};
use crate::scope::ScopeList;

/// `sha256:` and 64 hexadecimal digits in lower case.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Digest(Arc<str>);

impl Digest {
    fn new(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(7 + 2 * bytes.len());
        text.push_str("sha256:");
        for byte in bytes {
            for nibble in [byte >> 4, byte & 0xF] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Self(text.into())
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The digest of a whole set; `audiences` are sorted.
pub(super) fn of_set(audiences: &[Arc<AudiencePolicy>], default_audience: Option<&str>) -> Digest {
    let mut encoder = Encoder(Sha256::new());
    encoder.text("scopeward-policy-set-1");
    encoder.optional(default_audience);
    encoder.count(audiences.len());
    for audience in audiences {
        encoder.0.update(audience.digest);
    }
    Digest::new(&encoder.0.finalize())
}

/// The digest of one audience, computed from everything but itself.
pub(super) fn of_audience(policy: &AudiencePolicy) -> [u8; 32] {
    // Taken apart in full, so that a new field cannot be forgotten.
    let AudiencePolicy {
        audience: _,
        normal: _,
        scopes_supported,
        baseline_client_scopes,
        default_client_scopes,
        default_is_declared: _,
        privileged_scopes,
        forbidden_scopes,
        step_up_scopes,
        scope_matching,
        registration_unsupported_scopes,
        unsupported_scopes,
        unregistered_scopes,
        omitted_scope,
        baseline_for_existing_clients,
        unknown_registration,
        client_rules,
        digest: _,
    } = policy;
    let mut encoder = Encoder(Sha256::new());
    encoder.text("scopeward-audience-1");
    encoder.text(policy.normal());
    for list in [
        scopes_supported,
        baseline_client_scopes,
        default_client_scopes,
        privileged_scopes,
        forbidden_scopes,
        step_up_scopes,
    ] {
        encoder.list(list);
    }
    encoder.text(scope_matching.as_str());
    encoder.text(registration_unsupported_scopes.as_str());
    encoder.text(unsupported_scopes.as_str());
    encoder.text(unregistered_scopes.as_str());
    encoder.text(omitted_scope.as_str());
    encoder.text(if *baseline_for_existing_clients { "true" } else { "false" });
    encoder.text(unknown_registration.as_str());
    encoder.count(client_rules.len());
    for rule in client_rules {
        let super::ClientRule { name, when, baseline_client_scopes } = rule;
        let super::ClientCondition {
            source,
            client_id_host,
            software_id,
            client_name,
            redirect_uri,
            grant_types,
            application_type,
        } = when;
        encoder.text(name);
        encoder.optional(source.map(super::ClientSource::as_str));
        encoder.optional(client_id_host.as_deref());
        encoder.optional(software_id.as_deref());
        encoder.optional(client_name.as_deref());
        match redirect_uri {
            None => encoder.count(0),
            Some(RedirectCondition::Loopback) => encoder.count(1),
            Some(RedirectCondition::Exact(uri)) => {
                encoder.count(2);
                encoder.text(uri);
            }
        }
        match grant_types {
            None => encoder.count(0),
            Some(grant_types) => {
                encoder.count(1 + grant_types.len());
                for grant_type in grant_types {
                    encoder.text(grant_type);
                }
            }
        }
        encoder.optional(application_type.as_deref());
        encoder.list(baseline_client_scopes);
    }
    encoder.0.finalize().into()
}

/// Writes values so that no two different ones look alike: each text after its length.
struct Encoder(Sha256);

impl Encoder {
    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            None => self.0.update([0]),
            Some(text) => {
                self.0.update([1]);
                self.text(text);
            }
        }
    }

    /// Tokens hold no space, so the joined text says where each ends.
    fn list(&mut self, list: &ScopeList) {
        self.text(list.as_str());
    }
}
