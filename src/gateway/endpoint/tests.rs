use proptest::prelude::*;

use super::*;

fn table(kind: UpstreamKind, issuers: &[&str]) -> EndpointTable {
    let issuers: Vec<String> = issuers.iter().map(|issuer| (*issuer).to_owned()).collect();
    EndpointTable::new(kind, &issuers)
}

#[track_caller]
fn check(table: &EndpointTable, target: &str, expected: GatewayRoute) {
    let target = CanonicalTarget::parse(target.as_bytes()).unwrap();
    assert_eq!(table.route(&target), expected, "{target:?}");
}

use EndpointName::{Authorization, Backchannel, DeviceAuthorization, PushedAuthorization, Registration};
use GatewayRoute::{ClientConfiguration, Discovery, Endpoint, Other, Refused};
use PathRefusal::{SiblingDoor, Spelling};

#[test]
fn endpoints_of_any_server_are_those_that_were_added() {
    let mut table = table(UpstreamKind::Generic, &["", "/t"]);
    check(&table, "/register", Other);
    table.add(Registration, 0, "/register");
    table.add(Authorization, 0, "/authorize");
    table.add(PushedAuthorization, 1, "/t/par");
    check(&table, "/register?x", Endpoint(Registration, 0));
    check(&table, "/register/a%3Ab", ClientConfiguration(0, "a:b".into()));
    // As Spring Authorization Server has it; what could be read in two ways names no client.
    check(&table, "/register?client_id=a%3Ab&x=y", ClientConfiguration(0, "a:b".into()));
    for query in
        ["", "client_id=", "client_id=a&client_id=b", "Client_id=a", "client_id=a;b", "client_id=a&scope=b"]
    {
        check(&table, &format!("/register?{query}"), Endpoint(Registration, 0));
    }
    check(&table, "/authorize?client_id=b", Endpoint(Authorization, 0));
    check(&table, "/authorize?a=b", Endpoint(Authorization, 0));
    check(&table, "/t/par", Endpoint(PushedAuthorization, 1));
    assert_eq!(table.path(PushedAuthorization, 1), Some("/t/par"));
    assert_eq!(table.path(PushedAuthorization, 0), None);
    for target in [
        "/",
        "/registered",
        "/register-user",
        "/authorize/x",
        "/par",
        "/token",
        "/%7Euser",
        "/a;b",
        "/a.json",
    ] {
        check(&table, target, Other);
    }
    for target in [
        "/register/",
        "/Register",
        "/%72egister",
        "/register;x",
        "/register;",
        "/register%20",
        "/register.json",
        "/register.",
        "/REGISTER/a",
        "/register/a/",
        "/register/a;b",
        "/%EF%BD%92egister",
        "/authorize/",
        "/authorize.json",
        "/T/par",
    ] {
        check(&table, target, Refused(Spelling));
    }
    for (place, target) in [
        (0, "/.well-known/openid-configuration"),
        (0, "/.well-known/oauth-authorization-server"),
        (1, "/t/.well-known/openid-configuration"),
        (1, "/t/.well-known/oauth-authorization-server"),
        (1, "/.well-known/openid-configuration/t"),
        (1, "/.well-known/oauth-authorization-server/t"),
    ] {
        check(&table, target, Discovery(place));
    }
    check(&table, "/.well-known/jwks.json", Other);
}

#[test]
fn hydra_has_its_endpoints_before_discovery() {
    let table = table(UpstreamKind::Hydra, &[""]);
    check(&table, "/oauth2/register", Endpoint(Registration, 0));
    check(&table, "/oauth2/register/id", ClientConfiguration(0, "id".into()));
    check(&table, "/oauth2/auth?x", Endpoint(Authorization, 0));
    check(&table, "/oauth2/device/auth", Endpoint(DeviceAuthorization, 0));
    check(&table, "/oauth2/token", Other);
    check(&table, "/admin/clients", Refused(SiblingDoor));
    check(&table, "/Admin", Refused(SiblingDoor));
}

#[test]
fn keycloak_has_only_the_named_realms_and_one_way_to_register() {
    let table = table(UpstreamKind::Keycloak, &["/realms/t", "/realms/U"]);
    let oidc = "/realms/t/protocol/openid-connect";
    check(&table, "/realms/t/clients-registrations/openid-connect", Endpoint(Registration, 0));
    check(&table, "/realms/U/clients-registrations/openid-connect/c", ClientConfiguration(1, "c".into()));
    check(&table, &format!("{oidc}/auth?x"), Endpoint(Authorization, 0));
    check(&table, &format!("{oidc}/registrations"), Endpoint(Authorization, 0));
    check(&table, &format!("{oidc}/forgot-credentials"), Endpoint(Authorization, 0));
    check(&table, &format!("{oidc}/auth/device"), Endpoint(DeviceAuthorization, 0));
    check(&table, &format!("{oidc}/ext/par/request"), Endpoint(PushedAuthorization, 0));
    check(&table, &format!("{oidc}/ext/ciba/auth"), Endpoint(Backchannel, 0));
    for target in ["/", "/resources/x.css", "/realms/t", "/realms/t/", "/realms/U/account"] {
        check(&table, target, Other);
    }
    for target in [
        "/admin",
        "/admin/realms/t/clients",
        "/Admin/",
        "/realms",
        "/realms/master",
        "/realms/u",
        "/realms/T/account",
        "/realms/t.x",
        "/realms/tt",
        "/realms/t/clients-registrations",
        "/realms/t/clients-registrations/default",
        "/realms/t/clients-registrations/install/c",
        "/realms/t/clients-registrations/saml2-entity-descriptor",
        "/realms/t/clients-registrations/Default",
        "/realms/t/clients-managements/register-node",
        "/%72ealms/master",
    ] {
        check(&table, target, Refused(SiblingDoor));
    }
    let below = self::table(UpstreamKind::Keycloak, &["/auth/realms/t"]);
    check(&below, "/auth/admin", Refused(SiblingDoor));
    check(&below, "/auth/realms/master", Refused(SiblingDoor));
    check(&below, "/auth/realms/t/account", Other);
}

#[test]
fn an_endpoint_is_named_by_a_path_that_a_request_can_have() {
    #[track_caller]
    fn check(text: &str, expected: Result<(EndpointName, &str), &str>) {
        let read = text.parse::<EndpointFlag>().map_err(|why| why.to_string());
        let expected =
            expected.map(|(name, path)| EndpointFlag { name, path: path.into() }).map_err(str::to_owned);
        assert_eq!(read, expected);
    }
    check("registration=/oauth2/register", Ok((Registration, "/oauth2/register")));
    check("backchannel_authentication=/b", Ok((Backchannel, "/b")));
    check("/x", Err("`/x` is not NAME=/PATH"));
    check("registration=x", Err("path `x`: the request target does not begin with `/`"));
    check("registration=/x/", Err("path `/x/` ends with `/`"));
    check("registration=/", Err("path `/` ends with `/`"));
    check("registration=/x?y", Err("path `/x?y` has a query"));
    check("registration=/a/../x", Err("path `/a/../x`: the path has a dot segment"));
    check(
        "token=/x",
        Err(
            "`token` is not `registration`, `authorization`, `pushed_authorization_request`, `device_authorization` or \
             `backchannel_authentication`",
        ),
    );
    assert_eq!(issuer_path("/"), Ok(""));
    assert_eq!(issuer_path(""), Ok(""));
    assert_eq!(issuer_path("/realms/t"), Ok("/realms/t"));
    issuer_path("realms").unwrap_err();
}

/// What servers make of a path before they look for who answers it, in the order in which each does it.
fn readings(path: &str) -> Vec<String> {
    let decode = |path: &str| {
        String::from_utf8_lossy(&percent_encoding::percent_decode_str(path).collect::<Vec<_>>()).into_owned()
    };
    let slashes = |path: &str| path.replace('\\', "/");
    let params = |path: &str| -> String {
        path.split('/').map(|segment| segment.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
    };
    let merge = |path: &str| {
        let mut merged = String::new();
        for character in path.chars() {
            if character != '/' || !merged.ends_with('/') {
                merged.push(character);
            }
        }
        merged
    };
    let dots = |path: &str| {
        let mut out: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => _ = out.pop(),
                _ => out.push(segment),
            }
        }
        format!("/{}", out.join("/"))
    };
    let lower = |path: &str| path.to_lowercase();
    let nul = |path: &str| path.split('\0').next().unwrap().to_owned();
    let bare = |path: &str| path.trim_end_matches('/').to_owned();
    let steps: [&dyn Fn(&str) -> String; 8] =
        [&decode, &slashes, &params, &merge, &dots, &lower, &nul, &bare];
    let orders: [&[usize]; 9] = [
        &[0],
        &[0, 0],
        &[5],
        &[3, 0, 4],
        &[0, 3, 4, 7],
        &[0, 1, 3, 4, 5, 7],
        &[2, 0, 4, 7],
        &[0, 2, 3, 4, 5, 7],
        &[0, 0, 1, 6, 2, 3, 4, 5, 7],
    ];
    orders
        .into_iter()
        .map(|order| order.iter().fold(path.to_owned(), |path, step| steps[*step](&path)))
        .collect()
}

fn odd_paths() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "/register",
        "/oauth2",
        "/oauth2/register",
        "/oauth2/auth",
        "/auth",
        "/id",
        "register",
        "/REGISTER",
        "/%72egister",
        "%2f",
        "/",
        "//",
        "/.",
        "/..",
        "/%2e%2e",
        "/..;x",
        ";x",
        ";",
        "\\",
        "%5c",
        "%00",
        "%25",
        "2f",
        "%252f",
        "%2572",
        ".",
        ".json",
        "%20",
        "/x",
        "a",
        "%61",
        "%EF%BC%8F",
        "\u{e9}",
        "%c0%af",
    ]);
    prop::collection::vec(part, 1..7).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_passes_has_one_reading(path in odd_paths()) {
        let mut table = table(UpstreamKind::Hydra, &[""]);
        table.add(Registration, 0, "/register");
        let endpoints = ["/oauth2/register", "/oauth2/auth", "/oauth2/device/auth", "/register"];
        let Ok(target) = CanonicalTarget::parse(path.as_bytes()) else { return Ok(()) };
        match table.route(&target) {
            Endpoint(name, _) => {
                prop_assert!(endpoints.contains(&&*path), "{:?}", name);
                for reading in readings(&path) {
                    prop_assert_eq!(&reading, &path);
                }
            }
            ClientConfiguration(_, _) => {
                for reading in readings(&path) {
                    prop_assert!(
                        ["/oauth2/register/", "/register/"].iter().any(|above| reading.starts_with(above)),
                        "{} is read as {}", path, reading
                    );
                }
            }
            Other => {
                for reading in readings(&path) {
                    let is_client = |above: &&str| {
                        above.ends_with("register") && reading.strip_prefix(*above).is_some_and(|rest| rest.starts_with('/'))
                    };
                    prop_assert!(
                        !endpoints.contains(&&*reading) && !endpoints.iter().any(is_client),
                        "{} is read as {}", path, reading
                    );
                }
            }
            Discovery(_) | Refused(_) => {}
        }
    }
}
