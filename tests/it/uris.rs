//! What holds a client rule is read alike by the URI parsers that authorization servers and browsers use.
//!
//! `tests/uri/parsers.tsv` has what each parser reads in each spelling; `SCOPEWARD_URI_PARSERS=1 cargo test --test it uris`
//! runs those that are installed again and compares.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;

use scopeward::decision::Client;
use scopeward::decision::client::holds;
use scopeward::policy::{ClientCondition, ClientSource, RedirectCondition};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/uri")
}

/// One spelling and what each parser reads in it: scheme, host and port, comparable; `None` where it refuses the text.
struct Row {
    spelling: String,
    readings: Vec<(String, Option<[String; 3]>)>,
}

fn rows() -> Vec<Row> {
    let table = std::fs::read_to_string(folder().join("parsers.tsv")).unwrap();
    let mut lines = table.lines();
    let parsers: Vec<&str> = lines.next().unwrap().split('\t').skip(1).collect();
    let row = |line: &str| {
        let mut cells = line.split('\t');
        let spelling = serde_json::from_str(&format!("\"{}\"", cells.next().unwrap())).unwrap();
        let readings = parsers.iter().zip(cells).map(|(parser, cell)| ((*parser).to_owned(), reading(cell)));
        Row { spelling, readings: readings.collect() }
    };
    lines.map(row).collect()
}

fn reading(cell: &str) -> Option<[String; 3]> {
    let parts: Vec<&str> = cell.split(' ').collect();
    let [scheme, host, port] = parts[..] else { return None };
    let scheme = scheme.to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = bare.parse::<Ipv6Addr>().map_or(host.to_ascii_lowercase(), |address| address.to_string());
    let default = match &*scheme {
        "https" => 443,
        "http" => 80,
        "ftp" => 21,
        _ => 0,
    };
    let port = if port == "-" { default } else { port.parse::<u32>().unwrap() };
    Some([scheme, host, port.to_string()])
}

/// Whether a rule holds: by the host of the client id, by a loopback redirect URI, by this very redirect URI.
fn verdicts(spelling: &str) -> [bool; 3] {
    let uris = [spelling.to_owned()];
    let by_id = Client { client_id: spelling, source: Some(ClientSource::Cimd), ..Client::default() };
    let by_redirect = Client { redirect_uris: (&uris).into(), ..Client::default() };
    let host = ClientCondition { client_id_host: Some("claude.ai".into()), ..ClientCondition::default() };
    let redirect = |redirect| ClientCondition { redirect_uri: Some(redirect), ..ClientCondition::default() };
    [
        holds(&host, &by_id),
        holds(&redirect(RedirectCondition::Loopback), &by_redirect),
        holds(&redirect(RedirectCondition::Exact(spelling.into())), &by_redirect),
    ]
}

#[test]
fn a_uri_that_parsers_read_differently_holds_no_rule() {
    let rows = rows();
    assert!(rows.len() > 150, "{} spellings", rows.len());
    let mut held = [0; 3];
    for Row { spelling, readings } in &rows {
        let verdicts = verdicts(spelling);
        for (count, verdict) in held.iter_mut().zip(verdicts) {
            *count += usize::from(verdict);
        }
        let mut read: Vec<&[String; 3]> =
            readings.iter().filter_map(|(_, reading)| reading.as_ref()).collect();
        read.dedup();
        if verdicts.contains(&true) {
            assert_eq!(read.len(), 1, "{spelling:?} holds {verdicts:?} and is read as {readings:?}");
        }
        let [scheme, host, port] =
            read.first().map_or(["", "", ""], |parts| [&*parts[0], &*parts[1], &*parts[2]]);
        if verdicts[0] {
            assert_eq!((scheme, host, port), ("https", "claude.ai", "443"), "{spelling:?}");
        }
        if verdicts[1] {
            let is_loopback = host == "localhost" || host == "::1" || host.starts_with("127.");
            assert!(is_loopback && scheme == "http", "{spelling:?} is read as {read:?}");
        }
    }
    // The plain spellings do hold rules.
    assert!(held[0] >= 10 && held[1] >= 8 && held[2] >= 30, "{held:?}");
}

#[test]
fn the_table_is_what_the_parsers_read() {
    if std::env::var_os("SCOPEWARD_URI_PARSERS").is_none() {
        return;
    }
    let ran = Command::new("python3").arg(folder().join("compare.py")).output().expect("python3 runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let table = std::fs::read_to_string(folder().join("parsers.tsv")).unwrap();
    assert!(
        String::from_utf8_lossy(&ran.stdout) == table,
        "python3 tests/uri/compare.py prints another table"
    );
}
