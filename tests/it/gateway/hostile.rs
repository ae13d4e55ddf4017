//! Requests that want a scope that was not decided: none reaches the upstream with one, and nothing panics.

use percent_encoding::percent_decode_str;

use super::upstream::{Seen, Upstream};
use super::{Gateway, raw};

/// The paths at which the upstream would decide, however it reads paths: decoded, without dots, doubles, parameters and case.
fn is_decided(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..3 {
        text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    let text = text.replace('\\', "/").to_lowercase();
    let mut segments: Vec<&str> = Vec::new();
    let text = text.strip_suffix(".json").unwrap_or(&text);
    for segment in text.split('/') {
        match segment.split(';').next().unwrap().trim() {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    let first = segments.first().copied().unwrap_or_default();
    ["authorize", "register", "par", "device", "bc"].contains(&first)
}

/// Whether a text has the forbidden scope in it, in whatever encoding.
fn names_admin(text: &str) -> bool {
    let mut text = text.to_owned();
    for _ in 0..4 {
        if text.to_lowercase().contains("admin") {
            return true;
        }
        text = percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    }
    text.replace("\\u0061", "a").contains("admin")
}

/// Whether the laxest of parsers reads the forbidden scope in a query or a body: one that separates at `;` too, decodes names
/// again and again, and folds, trims and cuts them.
fn asks(text: &str) -> bool {
    if text.trim_start_matches(|letter: char| !letter.is_ascii_graphic()).starts_with(['{', '[', '<', '"']) {
        return names_admin(text);
    }
    text.split(['&', ';', '\n']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut name = name.to_owned();
        for _ in 0..3 {
            name = percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned();
        }
        let folded: String = name
            .split(['\0', '['])
            .next()
            .unwrap()
            .trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}')
            .chars()
            .map(|letter| match letter {
                '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(letter) - 0xfee0).unwrap(),
                '\u{17f}' => 's',
                letter => letter,
            })
            .collect();
        let matters = ["scope", "request", "request_uri"].contains(&&*folded.to_lowercase());
        matters && names_admin(value)
    })
}

/// The upstream got a request with an undecided scope.
fn leaked(seen: &Seen) -> bool {
    let names_another = ["x-original-url", "x-rewrite-url", "x-http-method-override", "upgrade"];
    let is_other = names_another.iter().any(|name| seen.headers.contains_key(*name));
    let query = seen.target.split_once('?').map_or("", |(_, query)| query);
    is_other || is_decided(seen.path()) && (asks(query) || asks(&seen.text()))
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn with_body(line: &str, content_type: &str, body: &str) -> String {
    request(line, &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len()), body)
}

/// Spellings of a path that some server takes for it.
fn spellings(path: &str) -> Vec<String> {
    let name = path.trim_start_matches('/');
    let first = &name[..1];
    let rest = &name[1..];
    let encoded = format!("%{:02x}", first.as_bytes()[0]);
    let wide: String =
        name.chars().map(|letter| char::from_u32(u32::from(letter) + 0xfee0).unwrap()).collect();
    let wide_encoded: String = wide.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut all = vec![
        path.to_owned(),
        format!("/{encoded}{rest}"),
        format!("/{}{rest}", encoded.to_uppercase()),
        format!("/%25{}{rest}", &encoded[1..]),
        format!("//{name}"),
        format!("/./{name}"),
        format!("/x/../{name}"),
        format!("/x/%2e%2e/{name}"),
        format!("/x/..%2f{name}"),
        format!("/x%2f..%2f{name}"),
        format!("/..;/{name}"),
        format!("/;x/{name}"),
        format!("/x/..;y=z/{name}"),
        format!("/%2f{name}"),
        format!("/%5c{name}"),
        format!("/\\{name}"),
        format!("/.//{name}"),
        format!("/%2e/{name}"),
        format!("/{name}/"),
        format!("/{name}//"),
        format!("/{name}/."),
        format!("/{name}/x/.."),
        format!("/{name};x=y"),
        format!("/{name};"),
        format!("/{name}%3b"),
        format!("/{name}.json"),
        format!("/{name}."),
        format!("/{name}%20"),
        format!("/{name}%00"),
        format!("/{name}%0d%0a"),
        format!("/{name}%09"),
        format!("/{}", name.to_uppercase()),
        format!("/{}{rest}", first.to_uppercase()),
        format!("/{wide_encoded}"),
        format!("/%ef%bc%8f{name}"),
        format!("/{name}%ff"),
        format!("/{name}%c0%ae"),
        format!("/%u0061{name}"),
    ];
    all.push(format!("/{}", name.replace('i', "%C4%B1").replace('s', "%C5%BF")));
    all.push(format!("/{}", name.replace('k', "%E2%84%AA")));
    all
}

/// Forms that say the scope in a way that some parser reads.
fn forms(client: &str) -> Vec<String> {
    let id = format!("client_id={client}");
    let mut forms: Vec<String> = [
        "scope=admin",
        "scope=openid+admin",
        "scope=openid%20admin",
        "scope=openid%09admin",
        "scope=openid%0Aadmin",
        "scope=openid%00admin",
        "scope=openid%C2%A0admin",
        "scope=openid,admin",
        "scope=admin&scope=openid",
        "scope=openid&scope=admin",
        "scope[]=admin",
        "scope[0]=admin",
        "scope%5B%5D=admin",
        "s%63ope=admin",
        "%73cope=admin",
        "s%2563ope=admin",
        "Scope=admin",
        "SCOPE=admin",
        "scope%00=admin",
        "scope%20=admin",
        "+scope=admin",
        "%20scope=admin",
        "scope.=admin",
        "%EF%BD%93cope=admin",
        "%C5%BFcope=admin",
        "%EF%BB%BFscope=admin",
        "scope=openid;scope=admin",
        "x=y;scope=admin",
        "x;scope=admin",
        "scope=openid%26scope%3Dadmin",
        "scope=openid&scope",
        "&&scope=admin",
        "scope==admin",
        "scope=%61dmin",
        "scope=%2561dmin",
        "scope=openid%",
        "scope=%zzadmin",
        "scope=%C0%A0admin",
        "scope=admin%20admin",
        "scope=openid&scope%",
        "scope=openid&_charset_=utf-7&scope=%2BAGEdmin",
        "_charset_=UTF-16&scope=openid",
        "_method=PUT&scope=openid",
        "scope=openid&request=eyJhbGciOiJub25lIn0.eyJzY29wZSI6ImFkbWluIn0.",
        "request=eyJhbGciOiJub25lIn0.eyJzY29wZSI6ImFkbWluIn0.",
        "request_uri=https://evil.example/object",
        "request_uri=urn:ietf:params:oauth:request_uri:x&scope=admin",
        "Request_uri=https://evil.example/admin",
        "scope=openid&request_uri=https://evil.example/admin",
        "login_verifier=x&scope=admin",
        "consent_verifier=x&scope=admin",
        "login_verifier=&scope=admin",
        "login_verifier=x&login_verifier=y&scope=admin",
        "login_verifier=x&consent_verifier=y&scope=admin",
    ]
    .iter()
    .flat_map(|form| [format!("{id}&{form}"), format!("{form}&{id}")])
    .collect();
    forms.push(format!("{id}&{id}&scope=admin"));
    forms.push("client_id=a&client_id=b&scope=admin".to_owned());
    forms.push(format!("{id}&redirect_uri=a&redirect_uri=b&scope=admin"));
    forms.push("scope=admin".to_owned());
    forms.push(String::new());
    forms.push(format!("{id}&scope=admin{}", "&x=y".repeat(300)));
    forms.push(format!("{}&{id}&scope=admin", "x=y&".repeat(300)));
    forms
}

/// Bodies of registrations that some parser reads another scope in.
fn registrations() -> Vec<String> {
    [
        r#"{"scope":"admin"}"#,
        r#"{"scope":"openid admin"}"#,
        r#"{"scope":"openid","scope":"admin"}"#,
        r#"{"scope":"admin","scope":"openid"}"#,
        r#"{"scope":"openid","Scope":"admin"}"#,
        r#"{"SCOPE":"admin"}"#,
        r#"{"sc\u006fpe":"admin","scope":"openid"}"#,
        r#"{"scope":"\u0061dmin"}"#,
        r#"{"scope":["admin"]}"#,
        r#"{"scope":{"x":"admin"}}"#,
        r#"{"scope":7}"#,
        r#"{"scope":"openid"}{"scope":"admin"}"#,
        "{\"scope\":\"openid\"}\n{\"scope\":\"admin\"}",
        r#"{"scope":"openid"} trailing admin"#,
        r#"{"scope":"openid",}"#,
        r#"{'scope':'admin'}"#,
        r#"{scope:"admin"}"#,
        r#"/* c */{"scope":"admin"}"#,
        "{\"scope\":\"openid\",\"\u{17f}cope\":\"admin\"}",
        "{\"scope\":\"openid\",\"\u{ff53}cope\":\"admin\"}",
        "{\"scope\":\"openid\",\"scope\\u0000\":\"admin\"}",
        "{\"scope\":\"openid\",\"scope \":\"admin\"}",
        "\u{feff}{\"scope\":\"admin\"}",
        r#"{"scope":"openid\tadmin"}"#,
        r#"{"scope":"openid\u00a0admin"}"#,
        r#"{"scope":"openid","software_statement":"eyJhbGciOiJub25lIn0.eyJzY29wZSI6ImFkbWluIn0."}"#,
        r#"[{"scope":"admin"}]"#,
        r#""admin""#,
        "scope=admin",
        "<scope>admin</scope>",
        "",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Requests that two parsers of HTTP read differently.
fn smuggled() -> Vec<String> {
    const HIDDEN: &str = "GET /authorize?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = HIDDEN.len();
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let post = "POST /echo HTTP/1.1\r\nHost: h\r\n";
    let mut all = vec![
        format!("{post}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}", chunked.len()),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{chunked}", chunked.len()),
        format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: +{length}\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: 0x10\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: 1, 1\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length : {length}\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: -1\r\n\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n{chunked}"),
        format!("{post}Transfer_Encoding: chunked\r\n\r\n{chunked}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1 ;x\r\na\r\n{chunked}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n{chunked}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1\na\n{chunked}"),
        format!("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("GET /echo HTTP/1.1\r\nHost: h\r\nX: y\r\n Content-Length: {length}\r\n\r\n{HIDDEN}"),
        format!("GET /echo HTTP/1.1\r\nHost: h\r\nX: y\r\n\t: folded\r\n\r\n{HIDDEN}"),
        "GET /echo HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n".into(),
        "GET /echo HTTP/1.1\r\n\r\n".into(),
        "GET http://auth.example.com/authorize?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET //auth.example.com/authorize?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "CONNECT auth.example.com:80 HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "CONNECT /authorize?scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET * HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET authorize?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET ?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET /authorize#?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET /authorize?client_id=x#&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET\t/authorize?client_id=x&scope=admin\tHTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET /authorize?client_id=x&scope=admin\r\nHost: h\r\n\r\n".into(),
        "GET /authorize ?client_id=x&scope=admin HTTP/1.1\r\nHost: h\r\n\r\n".into(),
        "GET /authorize?client_id=x&scope=admin HTTP/2.0\r\nHost: h\r\n\r\n".into(),
        "GET /authorize?client_id=x&scope=admin HTTP/0.9\r\nHost: h\r\n\r\n".into(),
        "GET /echo HTTP/1.1\nHost: h\n\nGET /authorize?client_id=x&scope=admin HTTP/1.1\nHost: h\n\n".into(),
        "GET /echo HTTP/1.1\rHost: h\r\r".into(),
        "\x16\x03\x01\x02\0\x01".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /authorize?client_id=x&scope=admin HTTP/1.1\r\n\r\n".into(),
        format!("GET /echo HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n{HIDDEN}"),
        format!(
            "GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n{HIDDEN}"
        ),
        format!("GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: HTTP/2.0\r\nConnection: Upgrade\r\n\r\n{HIDDEN}"),
    ];
    for header in
        ["X-Original-URL", "X-Rewrite-URL", "x_original_url", "X-HTTP-Method-Override", "X-Method-Override"]
    {
        all.push(request("GET /echo", &format!("{header}: /authorize?client_id=x&scope=admin\r\n"), ""));
    }
    for connection in ["close, Content-Type", "Content-Length", "Host", "Cookie, X-Forwarded-For"] {
        all.push(
            with_body("POST /authorize", "application/x-www-form-urlencoded", "client_id=x&scope=admin")
                .replace("Connection: close", &format!("Connection: {connection}")),
        );
    }
    all
}

#[tokio::test]
async fn no_hostile_request_reaches_the_upstream_with_an_undecided_scope() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    let client =
        gateway.register(r#"{"scope":"openid"}"#).await.json()["client_id"].as_str().unwrap().to_owned();
    let mut requests = smuggled();
    const FORM: &str = "application/x-www-form-urlencoded";
    let query = format!("client_id={client}&scope=admin");
    for path in ["/authorize", "/par", "/device", "/bc"] {
        for spelling in spellings(path) {
            for method in ["GET", "HEAD", "OPTIONS_", "PUT", "Get", "PROPFIND"] {
                requests.push(request(&format!("{method} {spelling}?{query}"), "", ""));
            }
            requests.push(with_body(&format!("POST {spelling}"), FORM, &query));
            requests.push(with_body(&format!("GET {spelling}"), FORM, &query));
        }
        for form in forms(&client) {
            requests.push(with_body(&format!("POST {path}"), FORM, &form));
            requests.push(with_body(
                &format!("POST {path}?{form}"),
                FORM,
                &format!("client_id={client}&scope=openid"),
            ));
            if path == "/authorize" {
                requests.push(request(&format!("GET {path}?{form}"), "", ""));
                requests.push(request(&format!("HEAD {path}?{form}"), "", ""));
            }
        }
        for content_type in [
            "",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/json",
            "application/x-www-form-urlencoded; charset=utf-16",
            "application/x-www-form-urlencoded; charset=utf-7",
            "application/x-www-form-urlencoded, text/plain",
            "application/x-www-form-urlencoded\r\nContent-Type: application/json",
            "application/x-www-form-urlencoded\r\nContent-Encoding: gzip",
        ] {
            requests.push(with_body(&format!("POST {path}"), content_type, &query));
            requests.push(with_body(
                &format!("POST {path}"),
                content_type,
                "--x\r\nContent-Disposition: form-data; name=\"scope\"\r\n\r\nadmin\r\n--x--",
            ));
        }
    }
    let admin = r#"{"scope":"admin"}"#;
    for spelling in spellings("/register")
        .into_iter()
        .chain(spellings("/register").iter().map(|path| format!("{path}/c1")))
    {
        for method in ["POST", "PUT", "PATCH", "Post"] {
            requests.push(with_body(&format!("{method} {spelling}"), "application/json", admin));
        }
    }
    for body in registrations() {
        for line in
            ["POST /register".to_owned(), format!("PUT /register/{client}"), "PUT /register/other".to_owned()]
        {
            for content_type in
                ["application/json", "application/json; charset=utf-16", FORM, "text/json", ""]
            {
                requests.push(with_body(&line, content_type, &body));
            }
        }
    }
    for line in ["POST /register?scope=admin".to_owned(), format!("PUT /register/{client}?scope=admin")] {
        requests.push(with_body(&line, "application/json", r#"{"scope":"openid"}"#));
    }
    assert!(requests.len() >= 1000, "{}", requests.len());
    let count = requests.len();
    // A few at once: each has a connection of its own.
    let all =
        futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(&requests), 8, |request| {
            let (addr, upstream) = (gateway.addr, &upstream);
            async move {
                let closing = request.as_bytes();
                raw_until_closed(addr, closing).await;
                for seen in upstream.take() {
                    assert!(!leaked(&seen), "one of the requests around {request:?}: {seen:#?}");
                }
            }
        });
    all.await;
    // It still works, and nothing panicked.
    let answer = gateway.get(&format!("/authorize?client_id={client}&scope=openid")).await;
    assert_eq!(answer.status, 200, "after {count} requests: {answer:?}");
    let metrics = gateway.admin("/metrics").await.text();
    assert!(metrics.contains("scopeward_panics_total 0\n"), "{metrics}");
    gateway.stop().await;
}

/// Sends a request and closes the sending side, so that a request that promises more than it sends ends too.
async fn raw_until_closed(addr: std::net::SocketAddr, request: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    _ = stream.write_all(request).await;
    _ = stream.shutdown().await;
    let mut answer = Vec::new();
    _ = crate::harness::within("the connection ends", stream.read_to_end(&mut answer)).await;
}

#[tokio::test]
async fn malformed_http_is_refused_with_400() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream).await;
    for request in [
        "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/echo HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET /echo HTTP/1.1\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET /echo#x HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let bytes = raw(gateway.addr, request.as_bytes()).await;
        assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{request:?}: {}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(upstream.take().len(), 0);
    gateway.stop().await;
}
