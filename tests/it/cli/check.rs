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
