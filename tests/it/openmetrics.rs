//! What `/metrics` shows is OpenMetrics 1.0, read by a parser that takes nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::Peekable;
use std::str::Chars;

/// One sample.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Every sample of a text that is valid; panics with the line that is not.
pub fn parse(text: &str) -> Vec<Sample> {
    let text = text.strip_suffix("# EOF\n").expect("the text ends with `# EOF`");
    let text = text.strip_suffix('\n').expect("each line ends");
    let mut samples: Vec<Sample> = Vec::new();
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let mut family = Family::default();
    for line in text.split('\n') {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut parts = rest.splitn(3, ' ');
            let (keyword, name, value) =
                (parts.next().unwrap(), parts.next().expect(line), parts.next().expect(line));
            if name != family.name {
                family.check();
                assert!(families.insert(name.to_owned()), "{line}: a family twice");
                family = Family { name: name.to_owned(), ..Family::default() };
            }
            assert_eq!(family.samples, 0, "{line}: metadata behind samples");
            assert!(is_name(name, true), "{line}: the name");
            let old = family.metadata.insert(keyword.to_owned(), value.to_owned());
            assert_eq!(old, None, "{line}: twice");
            match keyword {
                "HELP" => _ = unescape(&mut value.chars().peekable(), None, line),
                "TYPE" => assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}"),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}: no suffix of the name"),
                _ => panic!("{line}: unknown keyword"),
            }
            continue;
        }
        let sample = sample(line);
        let suffixes: &[&str] = match family.metadata.get("TYPE").map(String::as_str) {
            Some("counter") => &["_total"],
            Some("histogram") => &["_bucket", "_count", "_sum"],
            Some("info") => &["_info"],
            _ => &[""],
        };
        let suffix = sample.name.strip_prefix(&family.name).unwrap_or("nothing").to_owned();
        assert!(suffixes.contains(&&*suffix), "{line}: not of {}", family.name);
        assert!(series.insert(format!("{} {:?}", sample.name, sample.labels)), "{line}: a series twice");
        family.samples += 1;
        if family.metadata.get("TYPE").is_some_and(|kind| kind != "gauge") {
            assert!(sample.value >= 0.0, "{line}: negative, or no number");
        }
        if suffix == "_bucket" || suffix == "_count" {
            family.histogram(&sample, line);
        }
        samples.push(sample);
    }
    family.check();
    samples
}

#[derive(Default)]
struct Family {
    name: String,
    metadata: HashMap<String, String>,
    samples: usize,
    /// The last `le` and value of each histogram.
    buckets: HashMap<BTreeMap<String, String>, (f64, f64)>,
    counts: HashMap<BTreeMap<String, String>, f64>,
}

impl Family {
    fn histogram(&mut self, sample: &Sample, line: &str) {
        let mut labels = sample.labels.clone();
        match labels.remove("le") {
            Some(le) => {
                let le: f64 = if le == "+Inf" { f64::INFINITY } else { le.parse().expect(line) };
                let last = self.buckets.insert(labels, (le, sample.value));
                assert!(last.is_none_or(|last| last.0 < le && last.1 <= sample.value), "{line}: order");
            }
            None => _ = self.counts.insert(labels, sample.value),
        }
    }

    fn check(&self) {
        let Self { name, metadata, buckets, counts, .. } = self;
        if !name.is_empty() {
            assert!(metadata.contains_key("TYPE") && metadata.contains_key("HELP"), "{name}: {metadata:?}");
        }
        let ends: HashMap<_, _> = buckets
            .iter()
            .map(|(labels, (le, value))| {
                assert!(le.is_infinite(), "{name} has no +Inf");
                (labels.clone(), *value)
            })
            .collect();
        if !buckets.is_empty() {
            assert_eq!(&ends, counts, "{name}: the count is the last bucket");
        }
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || (colons && letter == ':');
    name.chars().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty()
}

/// A text with its escapes, up to `end`.
fn unescape(letters: &mut Peekable<Chars<'_>>, end: Option<char>, line: &str) -> String {
    let mut text = String::new();
    loop {
        match letters.next() {
            None => {
                assert_eq!(end, None, "{line}: the value does not end");
                return text;
            }
            letter if letter == end => return text,
            Some('\\') => text.push(match letters.next() {
                Some('n') => '\n',
                Some(letter @ ('\\' | '"')) => letter,
                other => panic!("{line}: escape {other:?}"),
            }),
            Some(letter) => text.push(letter),
        }
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect(line);
    let (name, rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}: the name");
    let mut letters = rest.chars().peekable();
    let mut labels = BTreeMap::new();
    if letters.next() == Some('{') {
        while letters.peek() != Some(&'}') {
            let mut label = String::new();
            while let Some(letter) = letters.next_if(|letter| *letter != '=') {
                label.push(letter);
            }
            assert!(is_name(&label, false), "{line}: label `{label}`");
            assert_eq!((letters.next(), letters.next()), (Some('='), Some('"')), "{line}");
            let value = unescape(&mut letters, Some('"'), line);
            assert_eq!(labels.insert(label, value), None, "{line}: a label twice");
            if letters.next_if_eq(&',').is_some() {
                assert_ne!(letters.peek(), Some(&'}'), "{line}: a comma at the end");
            }
        }
        assert_eq!((letters.next(), letters.next()), (Some('}'), Some(' ')), "{line}");
    }
    let value: String = letters.collect();
    Sample { name: name.to_owned(), labels, value: value.parse().expect(line) }
}
