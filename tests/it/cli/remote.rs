//! Verbs that ask a server: what they say of one that does not answer.

use std::net::TcpListener;

use super::*;

/// A server that takes connections and never says a word.
struct Silent {
    address: String,
    _listener: TcpListener,
}

impl Silent {
    fn start() -> Self {
        // The system takes connections for a listener that accepts none, and keeps them waiting.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap().to_string(), _listener: listener }
    }
}

#[test]
fn every_verb_says_how_long_it_waited_for_an_answer() {
    let place = Place::with(&[("new/mcp.yaml", "audiences: {mcp: {scopesSupported: [openid]}}")]);
    let silent = Silent::start();
    let verbs = [
        (&["expand", "--scope", "openid"][..], 2),
        (&["authorize", "--scope", "openid"], 2),
        (&["token", "--grant", "client-credentials"], 2),
        (&["describe"], 2),
        (&["describe", "--audience", MCP], 2),
        (&["status"], 2),
        (&["status", "--watch"], 2),
        (&["audit", "verify"], 2),
        // Worth trying again later, which has a code of its own there.
        (&["audit", "tail"], 6),
        (&["audit", "tail", "--after", "1"], 6),
        (&["audit", "tail", "--follow", "--retries", "0"], 6),
        (&["diff", "new"], 2),
    ];
    let (place, address) = (&place, &*silent.address);
    std::thread::scope(|scope| {
        let asked = verbs.map(|(verb, code)| {
            let flag = if verb == ["diff", "new"] { "--against" } else { "--server" };
            let args = [verb, &[flag, address, "--timeout", "200ms"]].concat();
            (verb, code, scope.spawn(move || place.run(&args)))
        });
        for (verb, code, ran) in asked {
            let ran = ran.join().unwrap();
            let expected = (code, "", "error: no answer within 200 ms\n");
            assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), expected, "{verb:?}");
        }
    });
    let ran = place.run(&["status", "--server", address, "--timeout", "1s"]);
    assert_eq!((ran.code, &*ran.stderr), (2, "error: no answer within 1 s\n"));
}
