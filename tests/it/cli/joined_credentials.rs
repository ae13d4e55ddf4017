//! Each way to say how the joined store lets a server in.

use std::ffi::OsStr;

use super::joined::{append, caught_up, condition, forwarding, recorded};
use super::*;
use crate::postgres::Postgres;
use crate::tools::wanted;

/// Runs `audit forward --once` with these variables; the store may be in one of them.
fn forward(place: &Place, url: Option<&str>, variables: &[(&str, &str)]) -> Ran {
    let mut args = vec!["audit", "forward", "--once", "--output", "json"];
    args.extend(url.iter().flat_map(|url| ["--audit-forward", url]));
    let mut command = place.command(&args);
    command.env_remove("PGPASSWORD").env_remove("PGSERVICEFILE").env_remove("NATS_PASSWORD");
    command.envs(variables.iter().copied());
    ran(command)
}

/// Forwards another record, which must succeed.
#[track_caller]
fn forwards(place: &Place, url: Option<&str>, variables: &[(&str, &str)]) {
    append(place, 0);
    let ran = forward(place, url, variables);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{url:?} {variables:?}");
    // The first one has what was there before.
    assert!(ran.json()["written"].as_u64() >= Some(1), "{}", ran.stdout);
}

#[test]
fn postgresql_is_entered_in_each_way_that_the_guide_names() {
    if !wanted("postgres") {
        return;
    }
    let server = Postgres::start();
    let place = recorded(1);
    let url = server.url("writer");
    let service = |name: &str, more: &str| {
        let port = server.port();
        format!(
            "# of a test\n[other]\nhost=192.0.2.1\n\n[{name}]\nhost=127.0.0.1\nport={port}\nuser=writer\ndbname=audit\n{more}\n"
        )
    };
    place.write("password", "writing\n");
    place.write("password-crlf", "writing\r\n");
    place.write("wrong", "guess");
    place.write("services", service("audit", "password=writing\ntarget_session_attrs=read-write"));
    place.write("services-open", service("audit", ""));
    place.write("home/.pg_service.conf", service("of-home", "password=writing"));
    let home = place.0.path().join("home");
    let home = home.to_str().unwrap();
    let with_password = url.replace("writer@", "writer:writing@");
    let file = |name: &'static str| ("SCOPEWARD_AUDIT_FORWARD_PASSWORD_FILE", name);
    let of_service = Some("postgres:///?service=audit");
    for (url, variables) in [
        (Some(&*url), &[("PGPASSWORD", "writing")][..]),
        (Some(&*url), &[file("password")]),
        (Some(&*url), &[file("password-crlf")]),
        // The file goes before the environment.
        (Some(&*url), &[file("password"), ("PGPASSWORD", "guess")]),
        (None, &[("SCOPEWARD_AUDIT_FORWARD", &*with_password)]),
        (None, &[("SCOPEWARD_AUDIT_FORWARD", &*url), file("password")]),
        (of_service, &[("PGSERVICEFILE", "services")]),
        // What the service says goes before the environment, as with libpq.
        (of_service, &[("PGSERVICEFILE", "services"), ("PGPASSWORD", "guess")]),
        (of_service, &[("PGSERVICEFILE", "services-open"), ("PGPASSWORD", "writing")]),
        (of_service, &[("PGSERVICEFILE", "services-open"), file("password")]),
        (Some("postgres:///?service=of-home"), &[("HOME", home)]),
    ] {
        forwards(&place, url, variables);
    }
    for (url, variables, words) in [
        (&*url, &[file("wrong"), ("PGPASSWORD", "writing")][..], "password authentication failed"),
        (
            "postgres:///?service=audit",
            &[("PGSERVICEFILE", "nowhere")],
            "could not read the service file `nowhere`",
        ),
        (
            "postgres:///?service=none",
            &[("PGSERVICEFILE", "services")],
            "the service `none` is not in the service file",
        ),
        (&*with_password, &[], "put it into PGPASSWORD"),
    ] {
        let refused = forward(&place, Some(url), variables);
        assert!(refused.code == 2 && refused.stderr.contains(words), "{url}: {}", refused.stderr);
        assert!(!refused.stderr.contains("writing"), "{}", refused.stderr);
    }
    let verified = place.run(&["audit", "verify", "--from", &server.url("postgres")]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
}

#[test]
fn a_password_that_changes_is_read_from_its_file_without_a_restart() {
    if !wanted("postgres") {
        return;
    }
    let (store, place, password, server) = forwarding(&[("PGPASSWORD", OsStr::new("guess"))]);
    server.expand(3);
    caught_up(&server, 4.0);
    store.query("ALTER ROLE writer PASSWORD 'next'");
    store.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'");
    server.expand(3);
    server.status_when(&place, "the refusal", |status| {
        condition(status, "AuditForwardingBehind") == Some("DestinationRefused")
    });
    fs::write(&password, "next\n").unwrap();
    caught_up(&server, 7.0);
}

#[cfg(feature = "nats")]
mod nats {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use nkeys::KeyPair;
    use serde_json::json;

    use super::*;
    use crate::nats::Nats;

    #[test]
    fn nats_is_entered_in_each_way_that_the_guide_names() {
        if !wanted("nats") {
            return;
        }
        let file = |name: &'static str| ("SCOPEWARD_AUDIT_FORWARD_PASSWORD_FILE", name);
        let place = recorded(1);
        place.write("password", "writing\n");
        place.write("wrong", "guess\n");

        let server = Nats::start();
        server.make_stream(&json!({}));
        let url = server.url("writer");
        let with_password = url.replace("writer@", "writer:writing@");
        for (url, variables) in [
            (Some(&*url), &[("NATS_PASSWORD", "writing")][..]),
            (Some(&*url), &[file("password")]),
            (Some(&*url), &[file("password"), ("NATS_PASSWORD", "guess")]),
            (None, &[("SCOPEWARD_AUDIT_FORWARD", &*with_password)]),
        ] {
            forwards(&place, url, variables);
        }

        // Without a user: a token, the seed of an nkey, credentials with a JWT.
        let user = KeyPair::new_user();
        let seed = user.seed().unwrap();
        let (credentials, operated) = operated(&user);
        place.write("token", "a token\n");
        place.write("seed", format!("{seed}\n"));
        place.write("other-seed", KeyPair::new_user().seed().unwrap());
        place.write("credentials", &credentials);
        let token = "authorization { token: \"a token\" }".to_owned();
        let nkey = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
        for (access, name, secret) in
            [(token, "token", "a token"), (nkey, "seed", &*seed), (operated, "credentials", &*credentials)]
        {
            let server = Nats::start_for(&access);
            let url = server.url("");
            let made = place.run(&[
                "audit",
                "forward-schema",
                "--audit-forward",
                &url,
                "--audit-forward-password-file",
                name,
            ]);
            assert_eq!((made.code, &*made.stderr), (0, ""), "{name}");
            forwards(&place, Some(&url), &[file(name)]);
            forwards(&place, Some(&url), &[("NATS_PASSWORD", secret)]);
            for other in ["wrong", "other-seed"] {
                let refused = forward(&place, Some(&url), &[file(other)]);
                let is_named = refused.stderr.contains("refused: ");
                assert!(refused.code == 2 && is_named, "{name} {other}: {}", refused.stderr);
            }
            let args = ["audit", "verify", "--from", &url, "--audit-forward-password-file", name];
            let verified = place.run(&args);
            assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
        }
    }

    /// The credentials of a user of an account, and the configuration of a server that trusts the operator of that account.
    fn operated(user: &KeyPair) -> (String, String) {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let limits = |has_jetstream: bool| {
            let most = if has_jetstream { -1 } else { 0 };
            json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
                "mem_storage": most, "disk_storage": most, "streams": most, "consumer": most,
            })
        };
        let of_account = |account: &KeyPair, has_jetstream: bool| {
            let claims = json!({"type": "account", "version": 2, "limits": limits(has_jetstream)});
            format!("{}: {}", account.public_key(), token(&operator, account, &claims))
        };
        let access = format!(
            "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{ {}, {} }}",
            token(&operator, &operator, &json!({"type": "operator", "version": 2})),
            system.public_key(),
            of_account(&account, true),
            of_account(&system, false),
        );
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(&account, user, &claims),
            user.seed().unwrap(),
        );
        (credentials, access)
    }

    /// A JWT as NATS has them.
    fn token(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
        let content = json!({
            "jti": "test", "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test", "nats": claims,
        });
        let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
        let [header, content] = [header, content].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{content}");
        let signature = issuer.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
