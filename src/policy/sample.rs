//! Policies for tests, from YAML text in memory.

use std::sync::Arc;

use super::PolicySet;
use super::check::{Accepted, check};
use super::document::Document;
use super::finding::Findings;

/// Reads and checks files as a store would.
pub(crate) fn read(files: &[(&str, &str)]) -> Result<Accepted, Findings> {
    let documents: Vec<Document> =
        files.iter().map(|(name, text)| Document::read(&Arc::from(*name), text)).collect();
    check(&Arc::from("policies"), &documents)
}

/// A valid set from one file.
#[track_caller]
pub(crate) fn set(yaml: &str) -> PolicySet {
    match read(&[("policy.yaml", yaml)]) {
        Ok(accepted) => accepted.set,
        Err(findings) => {
            let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
            panic!("the policy is not valid:\n{}\n{yaml}", shown.join("\n"))
        }
    }
}

/// A file with one audience `api` that has these entries, written as in `a: [b], c: d`.
pub(crate) fn api(entries: &str) -> String {
    format!("audiences: {{api: {{{entries}}}}}")
}

/// A policy that uses every key.
pub(crate) const FULL: &str = "\
guardrails:
  forbiddenScopes: [root]
  privilegedScopes: [sudo]
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, a, b, c]
    baselineClientScopes: [a, b]
    defaultClientScopes: [openid, profile]
    privilegedScopes: [p, q]
    forbiddenScopes: [f, g]
    scopeMatching: exact
    registration:
      unsupportedScopes: reject
      nothingLeft: reject
    authorization:
      unsupportedScopes: reject
      unregisteredScopes: reject
      omittedScope: registered
      baselineForExistingClients: true
      stepUpScopes: [b, c]
      unknownRegistration: {cimd: omitted, dcr: none, static: supported}
      nothingLeft: default
      alwaysGrantScopes: [openid, a]
    token: {unsupportedScopes: drop, exceedingScopes: reject}
    clientRules:
      - name: first
        when:
          source: dcr
          clientIdHost: app.example.com
          softwareId: abc
          clientName: Claude*
          redirectUri: loopback
          grantTypes: [authorization_code, refresh_token]
          applicationType: native
        baselineClientScopes: [b, c]
      - name: second
        when: {source: cimd}
        baselineClientScopes: [c]
    scopeDescriptions: {openid: Who you are, a: The first}
    aliases: [urn:mcp, https://mcp.example.com/mcp]
    ignoreQuery: true
    description: The tools
  api: {scopesSupported: [x]}
defaultAudience: api
registrationAudiences: [https://mcp.example.com, api]
";
