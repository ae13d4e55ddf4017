//! The command of the README for `grpcurl`, which knows nothing of us but what reflection says.

use super::*;
use crate::tools::wanted;

#[test]
fn the_command_of_the_readme_is_answered() {
    if !wanted("grpcurl") {
        return;
    }
    let readme = include_str!("../../../README.md");
    let (_, command) = readme.split_once("\n$ grpcurl ").expect("a command of grpcurl");
    let (command, _) = command.split_once("\n```").unwrap();
    let place = Place::with_examples();
    let server = Server::start(&place);
    let address = server.url.strip_prefix("http://").unwrap();
    let command = format!("PATH=$PATH:$HOME/go/bin grpcurl {}", command.replace("127.0.0.1:50551", address));
    assert!(command.contains(address), "{command}");
    let answered = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    let answer: Value = serde_json::from_slice(&answered.stdout).unwrap();
    assert_eq!(
        (&answer["decision"], &answer["scope"]),
        (&"DECISION_ALLOW".into(), &"openid offline_access".into())
    );
}
