//! Policy files are untrusted: no damage to a text makes the reader panic or report a place outside it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{findings, judged, placed};
use crate::decision::{Client, authorize, registration};
use crate::policy::check::Guardrails;
use crate::policy::sample::{FULL, read};

const STYLES: &[&str] = &[
    FULL,
    "audiences: {https://mcp.example.com: {scopesSupported: [openid, \"mcp:read\"], baselineClientScopes: [openid]}}",
    "# anchors\naudiences:\n  one: &one\n    scopesSupported: &all [a, b]\n    baselineClientScopes: *all\n  two: *one\n",
    "%YAML 1.2\n---\n? audiences\n: ? api\n  : scopesSupported:\n    - |-\n      a\n    - >-\n      b\n    - 'c'\n...\n",
];

/// One edit of a text, anywhere in it.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Bytes that mean something to YAML, and any others.
    let special = select(b"\n\t :-?,[]{}#&*!|>'\"%@`\\~<.0x\0\r\xef\xbb\xbf\xc2\xa0\xe2\x80\xae".to_vec());
    let byte = prop_oneof![3 => special, 1 => any::<u8>()];
    prop_oneof![
        4 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (any::<Index>(), vec(byte, 1..5)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (any::<Index>(), 1..20usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        2 => (any::<Index>(), any::<Index>(), 1..60usize).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        1 => any::<Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(text: &str, edits: &[Damage]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for edit in edits {
        let place = |index: &Index| index.index(bytes.len() + 1);
        match edit {
            Damage::Set(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Damage::Insert(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Remove(at, length) => {
                let at = place(at);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Damage::Copy(from, to, length) => {
                let (from, to) = (place(from), place(to));
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(to..to, piece);
            }
            Damage::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_judged_without_panic(style in select(STYLES), edits in vec(damage(), 1..8)) {
        let text = damaged(style, &edits);
        let files = [("a.yaml", &*text), ("b.yaml", "audiences: {other: {scopesSupported: [x]}}")];
        match read(&files) {
            Err(findings) => prop_assert!(findings.iter().any(crate::policy::finding::Finding::is_error)),
            Ok(accepted) => {
                let client = Client::default();
                for audience in accepted.set.audiences().iter() {
                    let audiences = [audience.audience.clone().into_string()];
                    let question = registration::RegistrationQuestion { audiences: (&audiences).into(), client, ..Default::default() };
                    let answer = registration::expand(&accepted.set, &question);
                    let own = answer.scope.join(" ");
                    let question = authorize::AuthorizeQuestion {
                        audiences: (&audiences).into(),
                        scope: Some(&own),
                        registered_scope: None,
                        client,
                    };
                    if answer.is_allowed() && audience.unknown_registration.of(None).as_str() != "none" {
                        prop_assert!(authorize::check(&accepted.set, &question).is_allowed(), "{}", text);
                    }
                }
            }
        }
        judged("a.yaml", &text, &Guardrails::default());
        for finding in findings(&files) {
            placed(&files, &finding);
        }
    }
}
