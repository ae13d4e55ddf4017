//! `check`: its formats, its inputs, and warnings.

use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

/// Valid, with a warning: the baseline gives every client what reads like a privilege.
const LOOKS_PRIVILEGED: &str = "\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, \"mcp:write\"]
    baselineClientScopes: [\"mcp:write\"]
";

const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: scopeward-policy}
data:
  mcp.yaml: |
    audiences:
      https://mcp.example.com:
        scopesSupported: [openid]
        baselineClientScopes: [offline_access]
";

/// Runs with this on standard input.
fn run_with_input(place: &Place, args: &[&str], input: &[u8]) -> Ran {
    let mut command = place.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn warnings_change_the_exit_code_only_if_they_are_denied() {
    let place = Place::with(&[("policies/mcp.yaml", LOOKS_PRIVILEGED)]);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.starts_with("warning[BaselineScopeLooksPrivileged]: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("valid: 1 audience in 1 file"), "{}", ran.stdout);
    for format in ["text", "json", "github", "sarif", "junit"] {
        assert_eq!(place.run(&["check", "--output", format]).code, 0, "{format}");
        assert_eq!(place.run(&["check", "--output", format, "--deny-warnings"]).code, 1, "{format}");
    }
    let ran = place.run(&["check", "--deny-warnings"]);
    assert!(ran.stdout.ends_with("error: warnings are denied\n"), "{}", ran.stdout);
    assert_eq!(Place::with_examples().run(&["check", "--deny-warnings"]).code, 0);
}

#[test]
fn no_warning_suggests_text_of_a_file_outside() {
    let place = Place::with(&[
        ("policies/a.yaml", "defaultAudience: API\naudiences: {API: {scopesSupported: [openid]}}\n"),
        ("policies/guardrails.yaml", "guardrails: {forbiddenScopes: [hunter3]}\n"),
        ("secret", "audiences: {api: {scopesSupported: [openid, hunter2]}}\n"),
    ]);
    symlink(place.0.path().join("secret"), place.0.path().join("policies/link.yaml")).unwrap();
    let ran = place.run(&["check", "--allow-outside-links", "--output", "json"]);
    let report = ran.json();
    let found: Vec<String> =
        report["findings"].as_array().unwrap().iter().map(|one| one["code"].to_string()).collect();
    assert_eq!(found, [r#""NearTwinAudience""#, r#""UnusedProtection""#], "{}", ran.stdout);
    assert!(!ran.stdout.contains("hunter2") && !ran.stdout.contains("`api`"), "{}", ran.stdout);
    let ran = place.run(&["explain", "authorize", "--allow-outside-links", "--audience", "apx"]);
    assert!(ran.stdout.contains("did you mean `API`?") && !ran.stdout.contains("`api`"), "{}", ran.stdout);
    // The same text inside of the folder is suggested.
    fs::rename(place.0.path().join("secret"), place.0.path().join("policies/link.yaml")).unwrap();
    let ran = place.run(&["check"]);
    assert!(ran.stdout.contains("did you mean `hunter2`?") && ran.stdout.contains("`api`"), "{}", ran.stdout);
}

/// The recommended baseline and the recommended hook agree.
#[test]
fn the_baseline_of_the_guide_passes_the_hook() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let hooks = fs::read_to_string(root.join(".pre-commit-hooks.yaml")).unwrap();
    let entry = hooks.lines().find_map(|line| line.trim().strip_prefix("entry: scopeward check")).unwrap();
    let guide = fs::read_to_string(root.join("docs/guides/choosing-a-baseline.md")).unwrap();
    let (_, policy) = guide.split_once("```yaml file=next/mcp.yaml\n").unwrap();
    let policy = policy.split("```").next().unwrap();
    let place = Place::with(&[("policies/mcp.yaml", policy)]);
    let args: Vec<&str> = ["check"].into_iter().chain(entry.split_whitespace()).chain(["policies"]).collect();
    let ran = place.run(&args);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 1), "{}", ran.stdout);
    // What is accepted is a warning, and the only one.
    let place = Place::with(&[("policies/mcp.yaml", &policy.replace("acceptWarnings", "# "))]);
    let ran = place.run(&[&args[..], &["--output", "json"]].concat());
    assert_eq!(ran.code, 1);
    assert_eq!(ran.json()["findings"][0]["code"], "OfflineAccessForEveryClient");
    assert_eq!(ran.json()["warning_count"], 1);
}

#[test]
fn accepted_warnings_are_neither_listed_nor_counted() {
    let accepting = format!("{LOOKS_PRIVILEGED}acceptWarnings: [BaselineScopeLooksPrivileged]\n");
    let other = LOOKS_PRIVILEGED.replace("mcp.", "two.");
    #[track_caller]
    fn check(files: &[(&str, &str)], more: &[&str], expected: &[&str]) {
        let ran = Place::with(files).run(&[&["check", "--output", "json"], more].concat());
        let report = ran.json();
        let found = report["findings"].as_array().unwrap().iter();
        let found: Vec<String> = found
            .map(|finding| {
                format!("{} {}", finding["file"].as_str().unwrap(), finding["code"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            (ran.code, found),
            (0, expected.iter().map(ToString::to_string).collect()),
            "{}",
            ran.stderr
        );
        assert_eq!(report["warning_count"], expected.len());
        assert_eq!(report["finding_count"], expected.len());
    }
    let privileged = "policies/b.yaml BaselineScopeLooksPrivileged";
    let no_default = "policies NoDefaultAudience";
    // A file speaks for itself.
    let files = [("policies/a.yaml", &*accepting), ("policies/b.yaml", &*other)];
    check(&files, &[], &[no_default, privileged]);
    check(&files, &["--allow", "BaselineScopeLooksPrivileged"], &[no_default]);
    check(&files, &["--allow", "BaselineScopeLooksPrivileged,NoDefaultAudience"], &[]);
    check(&files, &["--allow", "NoDefaultAudience", "--allow", "EmptyFile"], &[privileged]);
    // Any file may speak for the folder.
    let folder = [files[0], files[1], ("policies/c.yaml", "acceptWarnings: [NoDefaultAudience]\n")];
    check(&folder, &[], &[privileged]);
    let empty = [files[0], ("policies/empty.yaml", "# nothing\n")];
    check(&empty, &[], &["policies/empty.yaml EmptyFile"]);
    check(&empty, &["--allow", "EmptyFile"], &[]);
}

#[test]
fn only_warnings_can_be_accepted() {
    let place = Place::with(&[("policies/mcp.yaml", LOOKS_PRIVILEGED)]);
    for (code, expected) in [
        ("NoDefaultAudienc", "did you mean `NoDefaultAudience`?"),
        ("UnknownKey", "an error cannot be accepted"),
        ("x", "a code of a warning"),
    ] {
        let ran = place.run(&["check", "--allow", code]);
        assert!(ran.code == 2 && ran.stderr.contains(expected), "{}", ran.stderr);
        let text =
            format!("{LOOKS_PRIVILEGED}acceptWarnings: [{code}, NoDefaultAudience, NoDefaultAudience]\n");
        let ran = Place::with(&[("policies/mcp.yaml", &text)]).run(&["check"]);
        let count = |text: &str| ran.stdout.matches(text).count();
        assert_eq!((ran.code, count("error["), count("duplicate entry `NoDefaultAudience`")), (1, 2, 1));
        assert_eq!(count(expected), 1, "{}", ran.stdout);
    }
}

#[test]
fn no_format_shows_text_of_a_file_outside() {
    const SECRET: &str = "hunter2";
    let place = Place::with(&[
        ("policies/mcp.yaml", UNSUPPORTED_BASELINE),
        ("secret", "audiences: {hunter2: {hunter2: [hunter2], scopesSupported: [\"hunter2 x\"]}}\n"),
        ("shadow", "root:hunter2:19000\nhunter2: [\n"),
    ]);
    for target in ["secret", "shadow"] {
        let link = place.0.path().join("policies/link.yaml");
        symlink(place.0.path().join(target), &link).unwrap();
        for format in ["text", "json", "github", "sarif", "junit"] {
            for (flag, code) in
                [(None, "LinkLeadsOutside"), (Some("--allow-outside-links"), "its text is not shown")]
            {
                let ran = place.run(&[&["check", "--output", format][..], flag.as_slice()].concat());
                assert_eq!(ran.code, 1, "{}", ran.stderr);
                let all = ran.stdout + &ran.stderr;
                assert!(all.contains(code) && !all.contains(SECRET), "{format}, {flag:?}: {all}");
                // What is in the directory is shown as ever.
                assert!(all.contains("BaselineScopeNotSupported"), "{format}, {flag:?}: {all}");
            }
        }
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn findings_become_annotations_of_a_workflow() {
    let place = Place::with(&[
        ("policies/mcp.yaml", UNSUPPORTED_BASELINE),
        ("policies/two, three.yaml", &LOOKS_PRIVILEGED.replace("mcp.", "two.")),
    ]);
    assert_snapshot!(place.run(&["check", "--output", "github"]).shown());
}

#[test]
fn findings_become_sarif() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let ran = place.run(&["check", "--output", "sarif"]);
    let log = ran.json();
    let result = &log["runs"][0]["results"][0];
    assert_eq!((ran.code, &log["version"]), (1, &"2.1.0".into()));
    assert_eq!(result["ruleId"], "BaselineScopeNotSupported");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "policies/mcp.yaml");
    assert_eq!((&place["region"]["startLine"], &place["region"]["endColumn"]), (&4.into(), &42.into()));
}

#[test]
fn findings_become_junit() {
    let place = Place::with(&[
        ("policies/mcp.yaml", UNSUPPORTED_BASELINE),
        ("policies/fine.yaml", "audiences: {a: {scopesSupported: [openid]}}\n"),
    ]);
    let ran = place.run(&["check", "--output", "junit"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("name=\"policies/mcp.yaml\""), "{}", ran.stdout);
    assert!(ran.stdout.contains("<failure type=\"BaselineScopeNotSupported\""), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("<testcase name=\"valid\" classname=\"policies/fine.yaml\""),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_manifest_that_is_named_is_checked_for_what_it_holds() {
    let place = Place::with(&[("deploy/policy.yaml", MANIFEST), ("deploy/service.yaml", "kind: Service\n")]);
    let ran = place.run(&["check", "deploy/policy.yaml"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains(" --> deploy/policy.yaml:9:32\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("9 |         baselineClientScopes: [offline_access]\n"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("error[").count(), 1, "{}", ran.stdout);
    // A server reads no manifests, so the same file in a folder is no policy.
    let ran = place.run(&["check", "deploy"]);
    assert!(ran.code == 1 && ran.stdout.contains("UnknownKey"), "{}", ran.stdout);
}

#[test]
fn standard_input_is_checked_alone_or_with_files() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let ran = run_with_input(&place, &["check", "-"], UNSUPPORTED_BASELINE.as_bytes());
    assert!(ran.code == 1 && ran.stdout.contains(" --> -:4:28\n"), "{}", ran.stdout);
    let ran = run_with_input(&place, &["check", "-"], MANIFEST.as_bytes());
    assert!(ran.code == 1 && ran.stdout.contains(" --> -:9:32\n"), "{}", ran.stdout);
    let valid = b"audiences: {a: {scopesSupported: [openid]}}";
    let ran = run_with_input(&place, &["check", "-"], valid);
    assert!(ran.code == 0 && ran.stdout.starts_with("valid: 1 audience in 1 file"), "{}", ran.stdout);
    let ran = run_with_input(&place, &["check", "policies", "-", "--output", "json"], valid);
    assert_eq!((ran.code, ran.json()["findings"].as_array().unwrap().len()), (1, 1));
    let ran = run_with_input(&place, &["check", "-"], b"");
    assert!(ran.code == 1 && ran.stdout.contains("NoAudience"), "{}", ran.stdout);
    let ran = run_with_input(&place, &["check", "-"], b"a: \xff");
    assert!(ran.code == 1 && ran.stdout.contains("--> -:1:4\n"), "{}", ran.stdout);
}

const GUARDRAILS: &str = "guardrails: {forbiddenScopes: [admin]}\n";

#[test]
fn a_file_is_checked_in_the_place_of_another_one() {
    let place = Place::with(&[
        ("policies/guardrails.yaml", GUARDRAILS),
        ("policies/mcp.yaml", "audiences: {https://mcp.example.com: {scopesSupported: [openid]}}\n"),
        (
            "policies/other.yaml",
            "defaultAudience: https://mcp.example.com\naudiences: {other: {scopesSupported: [openid]}}\n",
        ),
        (
            "new/mcp.yaml",
            "audiences: {https://mcp.example.com: {scopesSupported: [openid, admin], baselineClientScopes: [admin]}}\n",
        ),
    ]);
    let report = |args: &[&str]| {
        let ran = place.run(&[&["check", "--output", "json"], args].concat());
        let findings = ran.json()["findings"].as_array().unwrap().clone();
        let errors = findings.into_iter().filter(|finding| finding["severity"] == "error");
        let errors: Vec<_> = errors.map(|one| (one["file"].clone(), one["code"].clone())).collect();
        (ran.code, errors)
    };
    // Under the guardrails of another file, and in the place of what it replaces.
    let expected = (1, vec![("new/mcp.yaml".into(), "BaselineScopeForbidden".into())]);
    for old in ["policies/mcp.yaml", "./policies/mcp.yaml", "new/../policies/mcp.yaml"] {
        assert_eq!(report(&["policies", "--replace", &format!("{old}=new/mcp.yaml")]), expected);
    }
    let absolute = place.0.path().join("policies/mcp.yaml").display().to_string();
    assert_eq!(report(&["--replace", &format!("{absolute}=new/mcp.yaml")]), expected);
    assert_eq!(report(&[]), (0, vec![]));
    // Without its place it is declared twice.
    assert_eq!(report(&["policies", "new/mcp.yaml"]).1[1].1, "DuplicateAudience");

    // The new file may be in the folder, the old one may be broken, and several may be replaced.
    place.write("policies/mcp.yaml", "audiences: [\n");
    place.write("policies/next.yaml", "audiences: {https://mcp.example.com: {scopesSupported: [openid]}}\n");
    assert_eq!(report(&["policies", "--replace", "policies/mcp.yaml=policies/next.yaml"]), (0, vec![]));
    let both = [
        "--replace",
        "policies/mcp.yaml=policies/next.yaml",
        "--replace",
        "policies/guardrails.yaml=new/none.yaml",
    ];
    place.write("new/none.yaml", "guardrails: {maxBaselineClientScopes: 0}\n");
    assert_eq!(report(&both), (0, vec![]));

    place.write("new/empty.yaml", "");
    // From standard input, as what is staged for a commit.
    let staged =
        "audiences: {https://mcp.example.com: {scopesSupported: [openid, x], baselineClientScopes: [x]}}\n";
    let args = [
        "check",
        "policies",
        "--replace",
        "policies/mcp.yaml=-",
        "--replace",
        "policies/next.yaml=new/empty.yaml",
    ];
    let ran = run_with_input(&place, &args, staged.as_bytes());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let ran = run_with_input(
        &place,
        &args[..4],
        b"audiences: {a: {scopesSupported: [a], scopeMatching: exactly}}\n",
    );
    assert!(ran.stdout.contains("--> -:1:54"), "{}", ran.stdout);
}

#[test]
fn what_cannot_stand_in_for_a_file_is_2() {
    let place = Place::with(&[
        ("policies/mcp.yaml", "audiences: {https://mcp.example.com: {scopesSupported: [openid]}}\n"),
        ("policies/mcp_test.yaml", ""),
        ("other.yaml", ""),
    ]);
    for (replace, words) in [
        ("policies/mpc.yaml=other.yaml", "`policies/mpc.yaml` is not a policy file in `policies`"),
        ("other.yaml=policies/mcp.yaml", "`other.yaml` is not a policy file in `policies`"),
        ("policies/mcp_test.yaml=other.yaml", "`policies/mcp_test.yaml` is not a policy file in `policies`"),
        ("policies=other.yaml", "`policies` is not a policy file in `policies`"),
        ("policies/mcp.yaml=gone.yaml", "cannot read `gone.yaml`"),
        ("policies/mcp.yaml", "write `OLD=NEW`"),
        ("=other.yaml", "write `OLD=NEW`"),
    ] {
        let ran = place.run(&["check", "--replace", replace]);
        assert_eq!(ran.code, 2, "{replace}: {}", ran.stdout);
        assert!(ran.stderr.contains(words), "{replace}: {}", ran.stderr);
    }
    let twice = ["check", "--replace", "policies/mcp.yaml=other.yaml", "--replace", "policies/mcp.yaml=-"];
    assert!(place.run(&twice).stderr.contains("`policies/mcp.yaml` is replaced twice"));
    let twice = ["check", "-", "--replace", "policies/mcp.yaml=-"];
    assert!(place.run(&twice).stderr.contains("standard input can be read once"));
}

#[test]
fn json_has_no_invisible_characters_and_no_escape_sequences() {
    let hostile = "\\u009b31m\\u202E\\u2066\\u2028\\u2029\\u200B";
    let policy = format!(
        "audiences:\n  https://mcp.example.com:\n    scopesSupported: [openid]\n    description: \"d{hostile}\"\n    \
         scopeDescriptions: {{openid: \"o{hostile}\"}}\n    clientRules: [{{name: \"r{hostile}\", when: {{clientName: \"n{hostile}\"}}, \
         baselineClientScopes: [openid]}}]\n"
    );
    let tests = format!(
        "tests: [{{name: \"t{hostile}\", register: {{scope: \"s{hostile}\"}}, expect: {{decision: DENY}}}}]\n"
    );
    let place = Place::with(&[
        ("policies/mcp.yaml", &policy),
        ("policies/mcp_test.yaml", &tests),
        ("old/mcp.yaml", "audiences: {https://mcp.example.com: {scopesSupported: [openid]}}\n"),
        ("wrong/mcp.yaml", &policy.replace("[openid]", &format!("[\"{hostile}\"]"))),
    ]);
    let raw = "\u{9b}31m\u{202e}\u{2066}\u{2028}\u{2029}\u{200b}";
    for (args, has_text) in [
        (&["check", "--output", "json"][..], false),
        (&["check", "wrong", "--output", "json"], true),
        (&["check", "wrong", "--output", "sarif"], true),
        (&["test", "--output", "json"], true),
        (&["diff", "old", "policies", "--output", "json"], true),
        (&["explain", "expand", "--client-name", &format!("n{raw}"), "--output", "json"], true),
        (&["schema"], false),
    ] {
        let ran = place.run(args);
        assert!(ran.code != 2, "{args:?}: {}", ran.stderr);
        let is_plain =
            |one: char| one == '\n' || !one.is_control() && !raw.contains(one) || one.is_ascii_graphic();
        assert!(ran.stdout.chars().all(is_plain), "{args:?}: {:?}", ran.stdout);
        assert_eq!(ran.json().to_string().contains(raw), has_text, "{args:?}: {}", ran.stdout);
    }
}

#[test]
fn check_shows_the_line_with_a_caret() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let ran = place.run(&["check"]);
    assert_snapshot!(ran.shown());
}

#[test]
fn check_reports_every_finding_of_every_file() {
    let place = Place::with(&[
        (
            "p/a.yaml",
            "audiences:\n  https://a.example:\n    scopesSuported: [openid]\n    scopesSupported: [\"a b\", x, x]\n",
        ),
        ("p/b.yml", "audiences:\n  HTTPS://A.example:443/:\n    scopesSupported: openid\n"),
        ("p/sub/c.yaml", "audiences: [\n"),
        ("p/d_test.yaml", "not a policy: ["),
        ("p/.e.yaml", "not a policy: ["),
        ("p/f.yaml", ""),
    ]);
    place.write("p/g.yaml", b"a: \xff\n");
    assert_snapshot!(place.run(&["check", "p"]).shown());
}

#[test]
fn check_writes_json_with_all_members() {
    let place = Place::with(&[("policies/mcp.yaml", UNSUPPORTED_BASELINE)]);
    let ran = place.run(&["check", "--output", "json"]);
    assert_snapshot!(ran.shown());
    let finding = &ran.json()["findings"][0];
    assert_eq!(finding["file"], "policies/mcp.yaml");
    assert_eq!((&finding["line"], &finding["column"]), (&4.into(), &28.into()));
    assert_eq!(finding["value"], "offline_access");
    let ran = Place::with_examples().run(&["check", "--output", "json"]);
    let digest = ran.json()["digest"].as_str().map(str::len);
    assert_eq!((ran.code, digest), (0, Some("sha256:".len() + 64)));
    let mut report = ran.json();
    report["digest"] = "".into();
    assert_eq!(
        report,
        serde_json::json!({
            "valid": true, "digest": "", "audience_count": 4, "file_count": 4,
            "error_count": 0, "warning_count": 0, "finding_count": 0, "findings": [],
        })
    );
}

#[test]
fn check_takes_several_paths_as_one_set() {
    let audience = |name: &str| format!("audiences: {{{name}: {{scopesSupported: [openid]}}}}\n");
    let place = Place::with(&[
        ("one/a.yaml", &format!("{}defaultAudience: a\n", audience("a"))),
        ("two.txt", &audience("b")),
    ]);
    let ran = place.run(&["check", "one", "two.txt"]);
    assert!(ran.stdout.starts_with("valid: 2 audiences in 2 files"), "{}", ran.stdout);
    place.write("two.txt", audience("a"));
    let ran = place.run(&["check", "one", "two.txt"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("DuplicateAudience"), "{}", ran.stdout);
}
