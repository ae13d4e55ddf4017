//! Where settings come from: flags, variables, the configuration file, defaults.

use super::*;

#[test]
fn settings_come_from_flags_environment_file_and_defaults_in_this_order() {
    let place = Place::with(&[(
        "scopeward.yaml",
        "listen: 127.0.0.1:1\ndebounce: 1s\nremovalQuiet: 7s\nstartFromLastGood: true\nlog: \"a=b,c\"\n",
    )]);
    let mut command = place.command(&["serve", "--print-config", "--listen", "127.0.0.1:3"]);
    command
        .env("SCOPEWARD_CONFIG", "scopeward.yaml")
        .env("SCOPEWARD_LISTEN", "127.0.0.1:2")
        .env("SCOPEWARD_DEBOUNCE", "2s")
        .env("SCOPEWARD_INSECURE_ALLOW_REMOTE_PLAINTEXT", "0");
    let printed = ran(command);
    assert_snapshot!(printed.shown());

    // What is printed is itself a configuration with the same values.
    place.write("printed.yaml", &printed.stdout);
    let again = place.run(&["serve", "--print-config", "--config", "printed.yaml"]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&again.stdout), values(&printed.stdout));
}

#[test]
fn a_configuration_file_is_checked_as_a_whole() {
    let place = Place::with(&[(
        "c.yaml",
        "listn: 127.0.0.1:1\nlisten: 5\ndebounce: [1s]\nauditMode: never\nstartFromLastGood: yes\nlog:\nlisten: 6\n",
    )]);
    assert_snapshot!(place.run(&["serve", "--config", "c.yaml"]).shown());
    let ran = place.run(&["serve", "--config", "nothing.yaml"]);
    assert_eq!(
        (ran.code, &*ran.stderr),
        (2, "error: cannot read `nothing.yaml`: no such file or directory\n")
    );
    let ran = place.run(&["serve", "--config", "."]);
    assert_eq!((ran.code, &*ran.stderr), (2, "error: the configuration `.` is a folder, not a file\n"));
}

#[test]
fn every_flag_has_its_variable_and_goes_before_it() {
    let place = Place::with_examples();
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = place.command(args);
        command.envs(variables.iter().copied());
        ran(command)
    };
    let json = [("SCOPEWARD_OUTPUT", "json")];
    assert!(run(&json, &["check"]).stdout.starts_with('{'));
    assert!(run(&json, &["check", "--output", "text"]).stdout.starts_with("valid"));
    let variables =
        [("SCOPEWARD_AUDIENCE", MCP), ("SCOPEWARD_SCOPE", "openid"), ("SCOPEWARD_OUTPUT", "json")];
    assert_eq!(run(&variables, &["explain", "expand"]).json()["scope"], "openid offline_access");
    assert_eq!(run(&[("SCOPEWARD_SERVER", "http://127.217.3.9:1")], &["describe"]).code, 2);
}
