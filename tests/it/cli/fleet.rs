//! `fleet status`: several servers beside one another.

use super::status::digest;
use super::*;
use crate::certs::{Authority, Name};
use crate::service::POLICY;

const WIDER: &str = "scopesSupported: [profile, ";

/// So many servers, each with a folder of its own.
fn fleet(count: usize) -> Vec<(Place, Server)> {
    let start = || {
        let place = Place::with(&[("policies/mcp.yaml", POLICY)]);
        let server =
            Server::start_with(&place, &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        (place, server)
    };
    (0..count).map(|_| start()).collect()
}

fn urls(servers: &[(Place, Server)]) -> Vec<&str> {
    servers.iter().map(|(_, server)| server.url.strip_prefix("http://").unwrap()).collect()
}

#[test]
fn a_server_with_another_policy_is_found_and_waited_for() {
    let mut servers = fleet(3);
    let place = Place::new();
    let urls: Vec<String> = urls(&servers).into_iter().map(str::to_owned).collect();
    let status = |args: &[&str]| {
        let mut all = vec!["fleet", "status"];
        all.extend(urls.iter().map(String::as_str));
        all.extend(args);
        place.run(&all)
    };
    let alike = status(&["--output", "json"]);
    assert_eq!((alike.code, &*alike.stderr), (0, ""));
    let report = alike.json();
    assert_eq!(report["skewed"], false);
    assert!(
        report["replicas"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["ready"] == true && one["lagSeconds"] == 0)
    );
    let old = report["replicas"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(status(&["--digest", &old]).code, 0);

    // One of them gets an edit.
    let (edited, server) = &servers[1];
    let wider = POLICY.replacen("scopesSupported: [", WIDER, 1);
    edited.write("policies/mcp.yaml", &wider);
    let new = digest(edited, "policies");
    assert_eq!(server.ask(edited, &["status", "--wait", "--digest", &new, "--timeout", "60s"]).code, 0);
    let skewed = status(&[]);
    assert_eq!(skewed.code, 1);
    assert!(skewed.stderr.contains("the servers serve different policies"), "{}", skewed.stderr);
    let report = status(&["--output", "json"]).json();
    assert_eq!(report["skewed"], true);
    let lags: Vec<_> =
        report["replicas"].as_array().unwrap().iter().map(|one| one["lagSeconds"].as_u64()).collect();
    assert_eq!(lags[1], Some(0));
    let late = status(&["--wait", "--digest", &new, "--timeout", "300ms"]);
    assert_eq!(late.code, 1);
    assert!(late.stderr.contains("after 300 ms"), "{}", late.stderr);

    // The others follow while the gate waits.
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| status(&["--wait", "--digest", &new, "--timeout", "60s"]));
        servers[0].0.write("policies/mcp.yaml", &wider);
        servers[2].0.write("policies/mcp.yaml", &wider);
        waiting.join().unwrap()
    });
    assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "{}", outcome.stdout);
    let no = status(&["--digest", &old]);
    assert!(no.code == 1 && no.stderr.contains("3 of 3 servers do not serve"), "{}", no.stderr);

    // A broken edit keeps the policy, and shows.
    servers[2].0.write("policies/mcp.yaml", "audiences: 7\n");
    let mut broken = status(&[]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !broken.stdout.contains("PolicyAccepted False") && std::time::Instant::now() < deadline {
        broken = status(&[]);
    }
    assert_eq!(broken.code, 0, "{}", broken.stderr);
    assert!(broken.stdout.contains("ServingLastGood True"), "{}", broken.stdout);

    servers.remove(0);
    let silent = status(&[]);
    assert_eq!(silent.code, 2);
    assert!(silent.stderr.contains("1 of 3 servers do not answer"), "{}", silent.stderr);
}

#[test]
fn a_name_stands_for_all_of_its_addresses_over_tls_too() {
    let place = Place::with_examples();
    let ca = Authority::new("CA");
    ca.issue(&[Name::Dns("localhost")]).write(place.0.path(), "server");
    place.write("ca.pem", ca.pem());
    let flags = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let tls = ["--tls-cert-file", "server.pem", "--tls-private-key-file", "server.key"];
    let server = Server::start_with(&place, &[&flags[..], &tls].concat());
    let address = word(&server.ready, "grpc=");
    let ran = place.run(&[
        "fleet",
        "status",
        &format!("dns:///{address}"),
        "--tls-ca-file",
        "ca.pem",
        "--output",
        "json",
    ]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    assert_eq!(ran.json()["replicas"][0]["server"], format!("https://{address}/"));
    for (server, words) in [
        ("dns:///name.invalid:1", "could not resolve `name.invalid:1`"),
        ("dns:///nowhere", "dns:///NAME:PORT"),
        ("dns:///https://a:1", "dns:///NAME:PORT"),
        ("ftp://a:1", "unix:/PATH"),
    ] {
        let ran = place.run(&["fleet", "status", server]);
        assert!(ran.code == 2 && ran.stderr.contains(words), "{server}: {}", ran.stderr);
    }
}
