//! What TLS is offered to anybody who asks, found out as a scanner does: by greetings made by hand, since no client library offers
//! what must be refused.

use std::net::SocketAddr;
use std::process::Command;

use scopeward::server::tls::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certs::Authority;
use crate::harness::{Wire, one_audience, within};
use crate::tools;

/// What comes back first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reply {
    /// The server agrees to a version and a suite.
    Hello { version: u16, suite: u16 },
    /// RFC 8446 section 6: its description.
    Alert(u8),
}

const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Bytes with their length in `width` bytes before them.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&bytes.len().to_be_bytes()[size_of::<usize>() - width..], bytes].concat()
}

fn words(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A ClientHello (RFC 5246 section 7.4.1.2, RFC 8446 section 4.1.2) with everything that a server may want, in a record.
fn client_hello(legacy_version: u16, versions: &[u16], suites: &[u16]) -> Vec<u8> {
    let extension = |kind: u16, content: Vec<u8>| [words(&[kind]), counted(2, &content)].concat();
    // x25519, with the base point, which is a valid share.
    let share = [words(&[0x001d]), counted(2, &[&[9][..], &[0; 31]].concat())].concat();
    let mut extensions = [
        extension(10, counted(2, &words(&[0x001d, 0x0017, 0x0018]))),
        extension(11, counted(1, &[0])),
        extension(13, counted(2, &words(&[0x0403, 0x0503, 0x0804, 0x0805, 0x0401, 0x0203, 0x0201]))),
        extension(16, counted(2, &counted(1, b"h2"))),
        extension(23, Vec::new()),
        extension(51, counted(2, &share)),
    ]
    .concat();
    if !versions.is_empty() {
        extensions.extend(extension(43, counted(1, &words(versions))));
    }
    let body = [
        words(&[legacy_version]),
        vec![7; 32],
        counted(1, &[]),
        counted(2, &words(suites)),
        counted(1, &[0]),
        counted(2, &extensions),
    ]
    .concat();
    let handshake = [&[1][..], &counted(3, &body)].concat();
    [&[22, 3, 1][..], &counted(2, &handshake)].concat()
}

async fn offer(addr: SocketAddr, legacy_version: u16, versions: &[u16], suites: &[u16]) -> Reply {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&client_hello(legacy_version, versions, suites)).await.unwrap();
    let mut head = [0; 5];
    within("a record", stream.read_exact(&mut head)).await.expect("an answer");
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut record).await.expect("a whole record");
    match head[0] {
        21 => Reply::Alert(record[1]),
        22 => {
            assert_eq!(record[0], 2, "a ServerHello");
            let word = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
            let suite_at = 4 + 2 + 32 + 1 + usize::from(record[4 + 2 + 32]);
            let mut version = word(4);
            let mut at = suite_at + 2 + 1 + 2;
            while at + 4 <= record.len() {
                if word(at) == 43 {
                    version = word(at + 4);
                }
                at += 4 + usize::from(word(at + 2));
            }
            Reply::Hello { version, suite: word(suite_at) }
        }
        other => panic!("a record of type {other}"),
    }
}

async fn wire() -> Wire {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new("CA").issue(&[]).write(folder.path(), "server");
    let tls = TlsFiles { certificate: files.chain, private_key: files.key, client_ca: None };
    let wire = Wire::start(None, |config| config.tls = Some(tls)).await;
    wire.serve(&one_audience("scopesSupported: [openid]"));
    wire
}

#[tokio::test]
async fn old_versions_are_refused() {
    let wire = wire().await;
    let every_suite: Vec<u16> = (0..4000).chain(0xc000..0xc100).chain(0x1301..0x1306).collect();
    for old in [0x0200, 0x0300, 0x0301, 0x0302] {
        assert_eq!(
            offer(wire.addr, old, &[], &every_suite).await,
            Reply::Alert(PROTOCOL_VERSION),
            "{old:#06x}"
        );
        let reply = offer(wire.addr, 0x0303, &[old], &every_suite).await;
        assert_eq!(reply, Reply::Alert(PROTOCOL_VERSION), "{old:#06x} in the extension");
    }
    wire.stop().await;
}

#[tokio::test]
async fn the_suites_that_are_accepted_are_these_alone() {
    let wire = wire().await;
    // ECDHE-ECDSA with AES-GCM and ChaCha20-Poly1305 for a key on P-256; the three of TLS 1.3.
    for (version, offered, expected) in
        [(0x0303, &[][..], [0xc02b, 0xc02c, 0xcca9]), (0x0304, &[0x0304], [0x1301, 0x1302, 0x1303])]
    {
        let mut accepted = Vec::new();
        for first in (0..=u16::MAX).step_by(4096) {
            let mut suites: Vec<u16> = (first..=first + 4095).collect();
            loop {
                match offer(wire.addr, 0x0303, offered, &suites).await {
                    Reply::Hello { version: agreed, suite } => {
                        assert_eq!(agreed, version);
                        accepted.push(suite);
                        suites.retain(|one| *one != suite);
                    }
                    reply => break assert_eq!(reply, Reply::Alert(HANDSHAKE_FAILURE), "from {first:#06x}"),
                }
            }
        }
        accepted.sort_unstable();
        assert_eq!(accepted, expected, "{version:#06x}");
    }
    wire.stop().await;
}

#[tokio::test]
async fn sslscan_finds_tls_1_2_and_1_3_and_nothing_weak() {
    if !tools::wanted("sslscan") {
        return;
    }
    let wire = wire().await;
    let mut command = Command::new("sslscan");
    command.args(["--xml=-", "--no-colour", &wire.addr.to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("sslscan runs");
    let report = String::from_utf8(output.stdout).unwrap();
    let lines = |with: &[&str]| -> Vec<String> {
        let is_one = |line: &&str| with.iter().all(|part| line.contains(part));
        report.lines().filter(is_one).map(str::to_owned).collect()
    };
    let versions = lines(&["<protocol ", "enabled=\"1\""]);
    let is_new = |line: &String| {
        line.contains("type=\"tls\"") && (line.contains("\"1.2\"") || line.contains("\"1.3\""))
    };
    assert!(versions.len() == 2 && versions.iter().all(is_new), "{report}");
    assert_eq!(lines(&["<protocol ", "enabled=\"0\""]).len(), 4, "{report}");
    let suites = lines(&["<cipher "]);
    assert_eq!(suites.len(), 6, "{report}");
    let is_weak =
        |line: &&String| !line.contains("strength=\"strong\"") && !line.contains("strength=\"acceptable\"");
    assert_eq!(suites.iter().find(is_weak), None, "{report}");
    assert!(!report.contains("vulnerable=\"1\""), "{report}");
    wire.stop().await;
}
