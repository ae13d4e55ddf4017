//! Flags in the environment: their values, their names, and what is said of a wrong one.

use super::*;
use crate::service::POLICY;

fn run(place: &Place, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = place.command(args);
    command.envs(variables.iter().copied());
    ran(command)
}

#[test]
fn a_switch_is_one_of_four_words_or_an_error() {
    let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
    let name = "SCOPEWARD_INSECURE_ALLOW_REMOTE_PLAINTEXT";
    for (value, expected) in [
        ("true", "true"),
        ("TRUE", "true"),
        ("1", "true"),
        ("false", "false"),
        ("False", "false"),
        ("0", "false"),
    ] {
        let printed = run(&place, &[(name, value)], &["serve", "--print-config"]).stdout;
        let line = format!("insecureAllowRemotePlaintext: {expected}");
        assert!(printed.lines().any(|printed| printed.starts_with(&line)), "{value}: {printed}");
    }
    for value in ["disabled", "yes", "off", "", "2"] {
        let refused = run(&place, &[(name, value)], &["serve", "--print-config"]);
        assert_eq!(refused.code, 2, "{value}");
        assert_eq!(
            refused.stderr,
            format!(
                "error: {name} in the environment has an invalid value `{value}`: it must be true, false, 1 or 0\n"
            )
        );
    }
    let denied = run(&place, &[("SCOPEWARD_DENY_WARNINGS", "no")], &["check"]);
    assert_eq!(denied.code, 2);
    assert!(denied.stderr.contains("SCOPEWARD_DENY_WARNINGS"), "{}", denied.stderr);
}

#[test]
fn a_wrong_value_is_blamed_on_where_it_stands() {
    let place = Place::with(&[
        ("policies/mcp.yaml", POLICY),
        ("c.yaml", "auditMaxSize: 1MiB\nlisten: localhost:1\n"),
    ]);
    for (name, value, args, hint) in [
        ("SCOPEWARD_DEBOUNCE", "fast", &["serve", "--print-config"][..], "a whole number with a unit"),
        ("SCOPEWARD_AUDIT_MAX_SIZE", "1MiB", &["serve", "--print-config"], "at least 16MiB"),
        ("SCOPEWARD_AUDIT_MODE", "never", &["serve", "--print-config"], "one of: blocking, batch"),
        ("SCOPEWARD_MAX_CALLS", "0", &["serve", "--print-config"], "1 to 1000000"),
        ("SCOPEWARD_LISTEN", "localhost:1", &["serve", "--print-config"], "127.0.0.1:1 or [::1]:1"),
        ("SCOPEWARD_OUTPUT", "xml", &["check"], "one of: text, json, github, sarif, junit"),
        ("SCOPEWARD_SERVER", "nowhere", &["describe"], "it names no port"),
        ("SCOPEWARD_POLICIES", "", &["check"], ""),
    ] {
        let ran = run(&place, &[(name, value)], args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{name}");
        let start = format!("error: {name} in the environment has an invalid value `{value}`: ");
        assert!(ran.stderr.starts_with(&start) && ran.stderr.contains(hint), "{}", ran.stderr);
        assert!(!ran.stderr.contains("--"), "no flag was given: {}", ran.stderr);
    }
    // A flag goes first, so that a wrong one is to blame whatever the environment says.
    let flag =
        run(&place, &[("SCOPEWARD_DEBOUNCE", "fast")], &["serve", "--print-config", "--debounce=fast"]);
    assert_eq!(flag.code, 2);
    assert!(flag.stderr.contains("for '--debounce <TIME>'"), "{}", flag.stderr);
    let good =
        run(&place, &[("SCOPEWARD_DEBOUNCE", "fast")], &["serve", "--print-config", "--debounce", "1s"]);
    assert_eq!(good.code, 0, "{}", good.stderr);

    let file = place.run(&["serve", "--config", "c.yaml"]);
    assert_eq!(file.code, 2);
    for text in [
        "`1MiB` is no value of `auditMaxSize`: it must be at least 16MiB",
        "c.yaml:1:15",
        "`localhost:1` is no value of `listen`: an address is IP:PORT",
        "c.yaml:2:9",
    ] {
        assert!(file.stderr.contains(text), "{text} in {}", file.stderr);
    }
    assert!(!file.stderr.contains("'--"), "no flag was given: {}", file.stderr);
}

#[test]
fn a_name_that_is_no_variable_is_a_warning() {
    let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
    let warned = run(
        &place,
        &[
            ("SCOPEWARD_POLICYS", "x"),
            ("SCOPEWARD_ENTIRELY_DIFFERENT", "x"),
            // What Kubernetes sets for services.
            ("SCOPEWARD_SERVICE_HOST", "10.0.0.1"),
            ("SCOPEWARD_SERVICE_PORT_GRPC", "50551"),
            ("SCOPEWARD_PORT", "tcp://10.0.0.1:50551"),
            ("SCOPEWARD_PORT_50551_TCP_ADDR", "10.0.0.1"),
            // Another verb's.
            ("SCOPEWARD_DEBOUNCE", "1s"),
        ],
        &["check"],
    );
    assert_eq!(warned.code, 0);
    assert_eq!(
        warned.stderr,
        "warning: SCOPEWARD_ENTIRELY_DIFFERENT in the environment is no variable of scopeward; it changes nothing\n\
         warning: SCOPEWARD_POLICYS in the environment is no variable of scopeward; did you mean SCOPEWARD_POLICIES?\n"
    );
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.env("SCOPEWARD_AUDIT_MAXSIZE", "1GiB").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let said = log.lines().map(Result::unwrap).find(|line| line.contains("SCOPEWARD_AUDIT_MAXSIZE"));
    _ = child.kill();
    _ = child.wait();
    let said = said.expect("a line of the log");
    assert!(said.contains("WARN") && said.contains("did you mean SCOPEWARD_AUDIT_MAX_SIZE?"), "{said}");
}

#[test]
fn verbs_that_read_a_policy_find_it_by_one_rule() {
    let place = Place::with(&[
        ("elsewhere/mcp.yaml", POLICY),
        (
            "elsewhere/mcp_test.yaml",
            "tests:\n  - name: a\n    register: { scope: openid }\n    expect: { decision: ALLOW }\n",
        ),
        ("old/mcp.yaml", &POLICY.replace(" \"mcp:write\"", "")),
    ]);
    let set = [("SCOPEWARD_POLICIES", "elsewhere")];
    for args in [
        &["check"][..],
        &["test"],
        &["explain", "expand", "--scope", "openid"],
        &["diff", "old"],
        &["serve", "--print-config"],
    ] {
        let without = place.run(args);
        if args[0] != "serve" {
            assert_eq!(without.code, 2, "{args:?}: {}", without.stderr);
            assert!(without.stderr.contains("`policies`"), "{args:?}: {}", without.stderr);
        }
        let with = run(&place, &set, args);
        assert_eq!(with.code, 0, "{args:?}: {}{}", with.stdout, with.stderr);
    }
    // What is named goes first.
    assert_eq!(run(&place, &set, &["check", "nothing"]).code, 2);
    assert_eq!(run(&place, &set, &["diff", "old", "nothing"]).code, 2);
}
