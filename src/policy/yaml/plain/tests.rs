//! Whatever is read here, the parser of the whole language reads the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{MAX_DEPTH as DEEPEST, parse_all};
use super::*;

/// Compares both; returns whether the text is read here.
#[track_caller]
fn compared(text: &str) -> bool {
    let Some(read) = parse(text) else { return false };
    let whole = parse_all(text).unwrap_or_else(|problem| panic!("{problem:?}\n{text:?}"));
    assert_eq!(whole.aliases.0.len(), 0, "{text:?}");
    assert_eq!(read.root, whole.root, "{text:?}");
    true
}

#[track_caller]
fn read_here(text: &str) {
    assert!(compared(text), "{text:?}");
}

#[track_caller]
fn left(text: &str) {
    assert!(parse(text).is_none(), "{text:?}");
}

#[test]
fn what_policies_are_written_in_is_read_here() {
    read_here("a: b");
    read_here("\n# comment\n\n---\n  # comment\na: b # comment\n\n");
    read_here("  a: b\n  c: d\n   \n# end");
    read_here("a:\n  b:\n  - c\n  -   d # e\n  f:\n    - g\n  h: [i, 'j',\"k l\"]  # m\nn: []\n");
    read_here("a:   # b\n\n      # c\n   d: e\n\n   f: g\n");
    read_here("a:\n- b: c\n  d:\n  - e\n  f: g\n-  h: i\n   j: k\nl: m\n");
    read_here("'a b': \"c d\"\n\"https://x:1/y\": 'z'\nk: a:b#c, [d]\nl: \u{e9}t\u{e9} # \u{2028a}\u{e9}\n");
    read_here("a: ~\nb: null\nc: true\nd: 12\ne: 1e3\n");
    read_here(include_str!("../../../../policies/guardrails.yaml"));
}

#[test]
fn everything_else_is_left_to_the_parser_of_the_whole_language() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "a",
        "- a\n",
        "a:\n",
        "a: b\nc:\n",
        "a:\n- \n",
        "a:\n-\n  b: c\n",
        "a:\n- - b\n",
        "? a\n: b\n",
        "a: &b c\n",
        "a: *b\n",
        "a: !c d\n",
        "a: |\n  b\n",
        "a: >\n  b\n",
        "a: {b: c}\n",
        "a: [b, [c]]\n",
        "a: [b, {c: d}]\n",
        "a: [b,\n  c]\n",
        "a: [b, ]\n",
        "a: [b: c]\n",
        "a: [b, c:]\n",
        "a: [b c #d\n]\n",
        "a: \"b\\n\"\n",
        "a: 'b''c'\n",
        "a: \"b\n  c\"\n",
        "a: b\n  c\n",
        "a: 'b'\n  c\n",
        "a:\n  b\n",
        "a:\n- b\n  c\n",
        "a: b: c\n",
        "a: b:\n",
        "a: b\n c: d\n",
        "a:\n    b: c\n  d: e\n",
        "a:\tb\n",
        "\ta: b\n",
        "a: b\r\nc: d\r\n",
        "\u{feff}a: b\n",
        "a: b\n---\nc: d\n",
        "a: b\n...\n",
        "%YAML 1.2\n---\na: b\n",
        "a: b\n- c\n",
        "a:\n- b\nc: d\n- e\n",
        "\u{e9}: b\n",
        "a: [\u{e9}]\n",
        "a : b\n",
        "a#: b\n",
        "a: 'b'c\n",
        "a: 'b'#c\n",
        "a: [b]#c\n",
        "a: [b]: c\n",
        "- a: b\n",
        "a: @b\n",
        "a: -b\n",
        "a: b\n...: c\n",
    ] {
        left(text);
    }
    let deep = |depth: usize| -> String {
        (0..depth)
            .map(|level| format!("{}a:{}\n", " ".repeat(level), if level + 1 == depth { " b" } else { "" }))
            .collect()
    };
    read_here(&deep(MAX_DEPTH));
    left(&deep(MAX_DEPTH + 1));
    const { assert!(MAX_DEPTH + 1 < DEEPEST, "a list in brackets is one level more") };
    read_here(&format!("{}: b\n", "a".repeat(MAX_KEY_BYTES)));
    left(&format!("{}: b\n", "a".repeat(MAX_KEY_BYTES + 1)));
}

#[test]
fn what_is_over_a_limit_is_left() {
    let list = |count: usize| format!("a:\n{}", "- b\n".repeat(count));
    assert!(parse(&list(MAX_ENTRIES)).is_some());
    left(&list(MAX_ENTRIES + 1));
    left(&format!("a: [{}b]", "b,".repeat(MAX_ENTRIES)));
    left(&"a: b\n".repeat(MAX_ENTRIES + 1));
    let nodes = |entries: usize| {
        format!("{}z: [{}b]\n", "a: [b, b, b, b, b, b]\n".repeat(MAX_ENTRIES / 2), "b,".repeat(entries))
    };
    // Eight nodes for each of the lists, and their mapping.
    let rest = MAX_NODES - (MAX_ENTRIES / 2 * 8 + 1) - 2;
    assert!(parse(&nodes(rest - 1)).is_some());
    left(&nodes(rest));
    assert!(parse_all(&nodes(rest)).is_err(), "both count the same");
}

/// Random bytes that a text is made by; all zeros when they are used up, for which each choice ends.
struct Tape<'b>(std::slice::Iter<'b, u8>);

impl Tape<'_> {
    fn below(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % count)
    }

    fn one<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    fn rarely(&mut self, one_in: usize) -> bool {
        self.below(one_in) == one_in - 1
    }

    fn spaces(&mut self, least: usize) -> String {
        " ".repeat(least + if self.rarely(6) { self.below(4) } else { 0 })
    }

    fn scalar(&mut self) -> String {
        const PLAIN: &[&str] = &[
            "a",
            "openid",
            "https://x.example/y",
            "a:b",
            "a#b",
            "a b  c",
            "~",
            "null",
            "true",
            "12",
            ".5",
            "x,y",
            "[",
            "a]",
            "{a",
            "\u{e9}\u{10000}",
            "a\u{a0}",
            "-1",
            "-",
            "- b",
            "?",
            "*x",
            "&y z",
            "!t u",
            "|",
            ">",
            "%",
            "@",
            "`",
            "a: b",
            "a:",
            ":b",
            "a #b",
            "...",
            "---",
            "<<",
            "=",
            "0x1F",
            "",
        ];
        const QUOTED: &[&str] =
            &["", "a", "a b ", " # ", ": ", "\u{e9}", "[,]", "''", "\\n", "\\\"", "\t", "12"];
        match self.below(8) {
            0..=3 => self.one(&PLAIN[..8]).to_owned(),
            4 => self.one(PLAIN).to_owned(),
            5 => format!("'{}'", self.one(QUOTED)),
            6 => format!("\"{}\"", self.one(QUOTED)),
            _ => {
                let entries: Vec<String> = (0..self.below(4)).map(|_| self.flow_entry()).collect();
                let separator = self.one(&[", ", ",", " , ", ",  "]);
                format!("[{}{}{}]", self.spaces(0), entries.join(separator), self.spaces(0))
            }
        }
    }

    fn flow_entry(&mut self) -> String {
        match self.below(12) {
            11 => self.one(&["[a]", "{a: b}", "a: b", "", "'a''b'", "\"\\x\"", "\u{e9}", "a #"]).to_owned(),
            10 => format!("\"{}\"", self.one(&["a", "", " , ", "]"])),
            9 => format!("'{}'", self.one(&["a", "", " , ", "]"])),
            _ => self.one(&["a", "openid", "a:b", "b c", "1", "~", "a#b", "x/y?z"]).to_owned(),
        }
    }

    /// The end of a line, and lines without content.
    fn end(&mut self, text: &mut String) {
        if self.rarely(5) {
            text.push_str(self.one(&[" # c", "  #", " ", "#x", " # \u{e9}: -"]));
        }
        text.push_str(if self.rarely(60) { "\r\n" } else { "\n" });
        while self.rarely(6) {
            text.push_str(self.one(&["\n", "# c\n", "   # c\n", "  \n", "\n", " \t\n"]));
        }
    }

    fn mapping(&mut self, text: &mut String, indent: usize, depth: usize) {
        for at in 0..=self.below(4) {
            if at > 0 {
                let off = if self.rarely(40) { self.below(3) } else { 0 };
                text.push_str(&" ".repeat(indent + off));
            }
            match self.below(10) {
                9 => text.push_str(&self.scalar()),
                8 => text.push_str(self.one(&["'k'", "\"k l\"", "k l", "https://k:1/", "a.b"])),
                _ => text.push_str(self.one(&["audiences", "k", "scopesSupported", "name"])),
            }
            text.push_str(if self.rarely(50) { " :" } else { ":" });
            self.value(text, indent, depth);
        }
    }

    fn value(&mut self, text: &mut String, indent: usize, depth: usize) {
        let kind = if depth > 5 { 0 } else { self.below(6) };
        match kind {
            4 => {
                self.end(text);
                let inner = indent + 1 + self.below(4);
                text.push_str(&" ".repeat(inner));
                self.mapping(text, inner, depth + 1);
            }
            5 => {
                self.end(text);
                let inner = indent + self.below(4);
                for _ in 0..=self.below(4) {
                    text.push_str(&" ".repeat(inner));
                    text.push('-');
                    let spaces = self.spaces(1);
                    text.push_str(&spaces);
                    if self.rarely(3) && depth < 5 {
                        self.mapping(text, inner + 1 + spaces.len(), depth + 1);
                    } else {
                        text.push_str(&self.scalar());
                        self.end(text);
                    }
                }
            }
            _ => {
                text.push_str(&self.spaces(1));
                text.push_str(&self.scalar());
                self.end(text);
            }
        }
    }

    fn document(mut self) -> String {
        let mut text = self
            .one(&["", "", "", "", "---\n", "# c\n", "\n", "# c\n---\n", "--- # c\n", "%YAML 1.2\n---\n"])
            .to_owned();
        let indent = if self.rarely(10) { self.below(3) } else { 0 };
        text.push_str(&" ".repeat(indent));
        self.mapping(&mut text, indent, 0);
        match self.below(12) {
            11 => _ = text.pop(),
            10 => text.push_str(self.one(&["...\n", "---\n", "# c", "   ", "- a\n", "a\n"])),
            _ => {}
        }
        text
    }
}

/// Texts of people.
const WRITTEN: &[&str] = &[
    crate::policy::sample::FULL,
    include_str!("../../../../policies/guardrails.yaml"),
    include_str!("../../../../policies/shop.yaml"),
    include_str!("../../../../policies/mcp-server.yaml"),
];

fn damaged(text: String, edits: &[(Index, u8, usize)]) -> String {
    let mut bytes = text.into_bytes();
    for (at, byte, kind) in edits {
        let at = at.index(bytes.len() + 1);
        match kind {
            0 => bytes.insert(at, *byte),
            1 if at < bytes.len() => bytes[at] = *byte,
            2 if at < bytes.len() => _ = bytes.remove(at),
            3 => bytes.truncate(at),
            _ => {
                let piece = bytes[at..bytes.len().min(at + usize::from(*byte) % 24)].to_vec();
                bytes.extend(piece);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How many texts are compared; a large number is a proof that takes minutes.
fn cases() -> u32 {
    std::env::var("TEST_YAML_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000)
}

#[test]
fn both_read_the_same() {
    let byte = select(b"\n\n  \t:-?,[]{}#&*!|>'\"%@`\\~<.0ax\0\r\xc3\xa9".to_vec());
    let edit = (any::<Index>(), byte, select(vec![0, 0, 0, 1, 1, 2, 2, 3, 4]));
    let drawn = vec(any::<u8>(), 0..160).prop_map(|bytes| Tape(bytes.iter()).document());
    let sources = prop_oneof![9 => drawn, 1 => select(WRITTEN).prop_map(str::to_owned)];
    let texts = (sources, prop_oneof![2 => Just(Vec::new()), 3 => vec(edit, 1..4)]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let counts = std::cell::Cell::new((0, 0));
    let outcome = runner.run(&texts, |(text, edits)| {
        let (here, all) = counts.get();
        let is_here = compared(&damaged(text, &edits));
        counts.set((here + u32::from(is_here), all + 1));
        Ok(())
    });
    outcome.unwrap();
    let (here, all) = counts.get();
    println!("{here} of {all} texts are read here, and alike by both");
    assert!(here > all / 8 && here < all, "{here} of {all}");
}
