//! An edit storm under full decision load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Equal, changed and broken content and ConfigMap swaps under full decision load: each answer is wholly
/// that of one set, told by its generation and digest, and nothing broken is ever served.
///
/// `SCOPEWARD_STORM_EDITS` makes it longer; see docs/performance.md.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_storm_gives_no_wrong_answer() {
    let edits: u32 =
        std::env::var("SCOPEWARD_STORM_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    // Version n supports `v0` to `v7` and has `v{n % 8}` as its baseline, so an answer tells its version.
    let text = |version: u32| {
        format!(
            "audiences:\n  https://mcp.example.com:\n    scopesSupported: [openid, v0, v1, v2, v3, v4, v5, v6, v7]\n    \
             baselineClientScopes: [v{}]\n",
            version % 8
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("policies");
    fs::create_dir(&volume).unwrap();
    project(&volume, 0, &text(0));
    let mut settings = settings(folder.path());
    // Each version takes the scope of the one before out of the baseline, and none is to wait for that.
    settings.removal_quiet = Duration::ZERO;
    let service = Service::start_in(folder, settings).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicU64::new(0));
    let mut askers = Vec::new();
    for _ in 0..8 {
        let (mut client, stop, answers) = (service.scopes(), Arc::clone(&stop), Arc::clone(&answers));
        askers.push(tokio::spawn(async move {
            let mut seen: Vec<(u64, String, String)> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let request = v1::ExpandRegistrationScopesRequest {
                    audiences: vec!["https://mcp.example.com".to_owned()],
                    scope: Some("openid".to_owned()),
                    ..Default::default()
                };
                let answer = client.expand_registration_scopes(request).await.unwrap().into_inner();
                assert_eq!(answer.decision(), v1::Decision::Allow, "{answer:?}");
                let policy = answer.policy.unwrap();
                answers.fetch_add(1, Ordering::Relaxed);
                if seen.last().is_none_or(|(generation, ..)| *generation != policy.generation) {
                    seen.push((policy.generation, policy.digest, answer.scope));
                } else {
                    let (_, digest, scope) = seen.last().unwrap();
                    assert_eq!(
                        (digest, scope),
                        (&policy.digest, &answer.scope),
                        "one generation, one answer"
                    );
                }
            }
            seen
        }));
    }

    let writer = {
        let volume = service.policies();
        tokio::task::spawn_blocking(move || {
            let mut version = 0;
            for edit in 1..=edits {
                match edit % 5 {
                    // A new meaning, as the kubelet brings it.
                    0 | 2 => {
                        version += 1;
                        project(&volume, edit, &text(version));
                    }
                    // The same meaning again.
                    1 => project(&volume, edit, &text(version)),
                    // Broken: a file beside it, and gone again.
                    3 => fs::write(volume.join("broken.yaml"), "audiences: [").unwrap(),
                    _ => fs::remove_file(volume.join("broken.yaml")).unwrap(),
                }
                std::thread::sleep(Duration::from_millis(u64::from(edit % 4) * 15));
            }
            let _ = fs::remove_file(volume.join("broken.yaml"));
            version
        })
    };
    let version = writer.await.unwrap();
    let last = service
        .status_when("the last version", |status| {
            condition(&status.conditions, "PolicyAccepted") == Some(("True", "PolicyAccepted"))
                && status.last_attempt.as_ref().is_some_and(|attempt| attempt.accepted)
        })
        .await;
    // The last version is served in the end.
    let wanted = format!("openid v{}", version % 8);
    let deadline = tokio::time::Instant::now() + crate::service::DEADLINE;
    loop {
        let request = v1::ExpandRegistrationScopesRequest {
            audiences: vec!["https://mcp.example.com".to_owned()],
            scope: Some("openid".to_owned()),
            ..Default::default()
        };
        if service.scopes().expand_registration_scopes(request).await.unwrap().into_inner().scope == wanted {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the last version is not served: {last:?}");
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);

    let mut by_generation: std::collections::BTreeMap<u64, (String, String)> =
        std::collections::BTreeMap::new();
    for asker in askers {
        let mut before = 0;
        for (generation, digest, scope) in asker.await.unwrap() {
            assert!(generation > before, "generations only grow");
            before = generation;
            let known = by_generation.entry(generation).or_insert_with(|| (digest.clone(), scope.clone()));
            assert_eq!(*known, (digest, scope), "generation {generation} is one set");
        }
    }
    // Equal digests exactly where the meaning is equal.
    let mut meaning = std::collections::HashMap::new();
    for (digest, scope) in by_generation.values() {
        assert_eq!(*meaning.entry(digest).or_insert(scope), scope);
    }
    let accepted = generation(&service.status().await);
    println!(
        "{edits} edits, {accepted} generations, {} answers, {} generations seen by callers",
        answers.load(Ordering::Relaxed),
        by_generation.len()
    );
    assert!(by_generation.len() > 1, "the storm was seen");
}
