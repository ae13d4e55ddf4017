//! What becomes of files: valid sets, and what is wrong with others.

use std::fs;
use std::path::Path;

use super::super::read::ReadLimits;
use super::*;

fn loader(folder: &Path) -> Loader {
    Loader::new(vec![folder.to_owned()], ReadSettings::default())
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn an_edit_of_one_file_is_seen_and_the_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", "audiences: {a: {scopesSupported: [x]}}");
    write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x]}}");
    let mut loader = loader(folder.path());
    let first = loader.load().unwrap();
    let before = first.outcome.unwrap().set;
    write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
    let second = loader.load().unwrap();
    assert_ne!(first.bytes, second.bytes);
    let after = second.outcome.unwrap().set;
    assert!(Arc::ptr_eq(&before.audiences()[0], &after.audiences()[0]), "a.yaml is not compiled again");
    assert_eq!(after.audiences()[1].scopes_supported.as_str(), "x y");
}

#[test]
fn new_guardrails_judge_unchanged_files_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", "audiences: {a: {scopesSupported: [x, y], baselineClientScopes: [x]}}");
    let mut loader = loader(folder.path());
    assert!(loader.load().unwrap().outcome.is_ok());
    write(folder.path(), "z.yaml", "guardrails: {forbiddenScopes: [x]}");
    let findings = loader.load().unwrap().outcome.unwrap_err();
    assert_eq!(
        findings.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        [Code::BaselineScopeForbidden]
    );
    // The key spelled with an escape: the quick look at the text does not see it, the result does.
    write(folder.path(), "z.yaml", "\"guardrail\\x73\": {forbiddenScopes: [y]}");
    let set = loader.load().unwrap().outcome.unwrap().set;
    assert_eq!(set.audiences()[0].forbidden_scopes.as_str(), "y");
    fs::remove_file(folder.path().join("z.yaml")).unwrap();
    let set = loader.load().unwrap().outcome.unwrap().set;
    assert!(set.audiences()[0].forbidden_scopes.is_empty());
}

#[test]
fn many_files_are_read_by_several_threads_with_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..50 {
        write(
            folder.path(),
            &format!("{n:02}.yaml"),
            &format!("audiences: {{a{n}: {{scopesSupported: [x]}}}}"),
        );
    }
    let set = loader(folder.path()).load().unwrap().outcome.unwrap().set;
    assert_eq!(set.audiences().len(), 50);
    write(folder.path(), "99.yaml", "audiences: {a7: {scopesSupported: [x]}}");
    let findings = loader(folder.path()).load().unwrap().outcome.unwrap_err();
    assert_eq!(findings[0].code, Code::DuplicateAudience);
}

const MANIFEST: &str = "kind: ConfigMap\ndata:\n  a.yaml: |\n    audiences: {a: {scopesSupported: [x]}}\n  \
                        g.yaml: |\n    guardrails: {forbiddenScopes: [y]}\n";

#[test]
fn a_named_manifest_is_read_and_one_in_a_folder_is_not() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "policy.yaml", MANIFEST);
    let named = || Loader::new(vec![folder.path().join("policy.yaml")], ReadSettings::default());
    let set = named().for_authors().load().unwrap().outcome.unwrap().set;
    assert_eq!(set.audiences()[0].forbidden_scopes.as_str(), "y");
    for mut loader in [named(), loader(folder.path()).for_authors()] {
        let findings = loader.load().unwrap().outcome.unwrap_err();
        assert!(findings.iter().any(|finding| finding.code == Code::UnknownKey), "{findings:?}");
    }
}

#[test]
fn standard_input_is_one_more_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
    let text = "guardrails: {forbiddenScopes: [y]}";
    let loaded = loader(folder.path()).with_input(text.into()).load().unwrap();
    assert_eq!(loaded.outcome.unwrap().set.audiences()[0].forbidden_scopes.as_str(), "y");
    assert_eq!(loaded.files.iter().map(|file| &*file.path).min(), Some(STANDARD_INPUT));
    let alone = |bytes: &[u8]| {
        let loader = Loader::new(Vec::new(), ReadSettings::default()).for_authors();
        loader.with_input(bytes.to_vec()).load().unwrap().outcome
    };
    assert_eq!(alone(MANIFEST.as_bytes()).unwrap().set.audiences().len(), 1);
    let findings = alone(b"a: b\nc: \xff").unwrap_err();
    let place = (&*findings[0].file, findings[0].position.line, findings[0].position.column);
    assert_eq!((findings[0].code, place), (Code::FileNotUtf8, (STANDARD_INPUT, 2, 4)));
    let findings = alone(&vec![b' '; (16 << 20) + 1]).unwrap_err();
    assert_eq!(findings[0].code, Code::FileTooLarge);
}

#[test]
fn no_text_of_a_file_outside_is_in_a_finding() {
    use std::os::unix::fs::symlink;
    const SECRET: &str = "hunter2";
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("policies");
    fs::create_dir(&folder).unwrap();
    write(&folder, "a.yaml", "audiences: {a: {scopesSupported: [x]}}");
    let secrets = [
        format!("root:{SECRET}:1:2\n{SECRET}\n"),
        format!("{SECRET}: [{SECRET}\n"),
        format!("audiences: {{{SECRET}: {{scopesSupported: [{SECRET}, {SECRET}], {SECRET}: 1}}}}"),
        format!("audiences: {{a: {{scopesSupported: [{SECRET}], baselineClientScopes: [{SECRET}2]}}}}"),
        format!("defaultAudience: {SECRET}"),
        // What another file means by nearly the same name, or by the same name in another spelling.
        format!("audiences: {{\"https://{SECRET}.example.com\": {{scopesSupported: [x]}}}}"),
        format!("audiences: {{{SECRET}: {{scopesSupported: [x], aliases: [b]}}}}"),
    ];
    write(
        &folder,
        "b.yaml",
        "defaultAudience: https://hunter3.example.com\naudiences: {b: {scopesSupported: [x]}}",
    );
    // The other files are read after it, and before it.
    for (secret, link) in secrets.iter().flat_map(|secret| [(secret, "0.yaml"), (secret, "z.yaml")]) {
        fs::write(root.path().join("secret"), secret).unwrap();
        let link = folder.join(link);
        symlink(root.path().join("secret"), &link).unwrap();
        let findings = loader(&folder).load().unwrap().outcome.unwrap_err();
        assert_eq!((findings[0].code, findings.count()), (Code::LinkLeadsOutside, 1));
        let settings = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
        let loaded = Loader::new(vec![folder.clone()], settings).load().unwrap();
        let findings = loaded.outcome.unwrap_err();
        assert!(!findings.is_empty());
        for finding in &findings {
            assert!(!format!("{finding:?}").contains(SECRET), "{finding:?}");
        }
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn no_guardrail_of_a_file_outside_is_in_a_finding() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("policies");
    fs::create_dir(&folder).unwrap();
    let policy = "audiences: {a: {scopesSupported: [x, x.y], scopeMatching: hierarchic, \
                  baselineClientScopes: [x], defaultClientScopes: [x], alwaysGrantScopes: [x]}}";
    write(&folder, "a.yaml", policy);
    let settings = ReadSettings { allow_outside_links: true, ..ReadSettings::default() };
    for (list, escaped) in
        [("privilegedScopes", false), ("forbiddenScopes", false), ("forbiddenScopes", true)]
    {
        let key = if escaped { "\"guardrail\\x73\"" } else { "guardrails" };
        let guardrails = format!("{key}: {{{list}: [x.hunter2]}}");
        let messages = |findings: &[Finding]| -> Vec<String> {
            findings.iter().map(|finding| format!("{} {}", finding.message, finding.suggestion)).collect()
        };
        fs::write(root.path().join("secret"), &guardrails).unwrap();
        symlink(root.path().join("secret"), folder.join("0.yaml")).unwrap();
        let found = Loader::new(vec![folder.clone()], settings).load().unwrap().outcome.unwrap_err();
        let (found, count) = (messages(&found), found.count());
        assert!(found.iter().all(|message| !message.contains("hunter2")), "{found:?}");
        assert!(found[0].contains(&format!("by an entry of `guardrails.{list}`")), "{found:?}");
        // A file inside is quoted.
        fs::remove_file(folder.join("0.yaml")).unwrap();
        write(&folder, "0.yaml", &guardrails);
        let found = loader(&folder).load().unwrap().outcome.unwrap_err();
        assert_eq!(found.count(), count);
        assert!(messages(&found)[0].contains("`x.hunter2` in `guardrails."), "{found:?}");
        fs::remove_file(folder.join("0.yaml")).unwrap();
    }
}

#[test]
fn unchanged_files_are_not_read_again_because_another_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", "audiences: {a: {scopesSupported: [x]}}");
    write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x]}}");
    let settings = ReadSettings { recheck_window: std::time::Duration::ZERO, ..ReadSettings::default() };
    let mut loader = Loader::new(vec![folder.path().to_owned()], settings);
    let first = loader.load().unwrap();
    let set = first.outcome.unwrap().set;
    write(folder.path(), "b.yaml", "audiences: [");
    for _ in 0..3 {
        let broken = loader.load().unwrap();
        assert!(broken.outcome.is_err());
        assert!(std::ptr::eq(first.files[0].text(), broken.files[0].text()), "a.yaml is read again");
    }
    write(folder.path(), "b.yaml", "audiences: {b: {scopesSupported: [x, y]}}");
    let after = loader.load().unwrap().outcome.unwrap().set;
    assert!(Arc::ptr_eq(&set.audiences()[0], &after.audiences()[0]), "a.yaml is compiled again");
}

#[test]
fn at_the_limit_all_is_read_and_beyond_it_nothing_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| format!("audiences: {{{name}: {{scopesSupported: [x]}}}}\n");
    let bytes: usize = ["a", "b"].map(|name| text(name).len()).iter().sum();
    let limits = ReadLimits { total_bytes: bytes as u64, ..ReadLimits::default() };
    let settings = ReadSettings { limits, ..ReadSettings::default() };
    let mut loader = Loader::new(vec![folder.path().to_owned()], settings);
    write(folder.path(), "a.yaml", &text("a"));
    write(folder.path(), "b.yaml", &text("b"));
    assert_eq!(loader.load().unwrap().outcome.unwrap().set.audiences().len(), 2);
    // One byte more, wherever it is, rejects all; the file that is named is the one at which the sum is over the limit.
    write(folder.path(), "a.yaml", &format!("{}#", text("a")));
    let findings = loader.load().unwrap().outcome.unwrap_err();
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::FileTooLarge]);
    assert!(findings[0].is_error() && findings[0].file.ends_with("/b.yaml"), "{findings:?}");
    write(folder.path(), "a.yaml", &text("a"));
    assert!(loader.load().unwrap().outcome.is_ok());
}

#[test]
fn an_empty_folder_declares_no_audience() {
    let folder = tempfile::tempdir().unwrap();
    let findings = loader(folder.path()).load().unwrap().outcome.unwrap_err();
    assert_eq!(findings[0].code, Code::NoAudience);
}
