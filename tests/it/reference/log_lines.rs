//! `docs/reference/log.md`, from the log macros in the source: level, message, fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The levels that are shown, the most severe first.
const LEVELS: [&str; 3] = ["error", "warn", "info"];

#[test]
fn the_reference_of_the_log_is_what_the_source_logs() {
    let mut lines = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&source, &mut |text| {
        // Tests stand at the foot of a file.
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
        for (rank, level) in LEVELS.iter().enumerate() {
            for (at, _) in text.match_indices(&format!("{level}!(")) {
                let before = text[..at].chars().next_back().unwrap_or(' ');
                if !before.is_alphanumeric() && before != '_' {
                    lines.insert((rank, logged(&text[at + level.len() + 2..])));
                }
            }
        }
    });
    assert!(lines.len() > 30, "{lines:#?}");
    let mut page = String::from(
        "# Log lines\n\nGenerated from the source. After a change there, run `SCOPEWARD_BLESS=1 cargo test --test it reference`.\n\n\
         The log goes to standard error, as text or as JSON (`--log-format`). What is logged by default is `info` and above; \
         `--log` takes a filter. Text in braces stands for what differs from line to line. Messages may change between versions; \
         alert on [metrics](metrics.md) and [conditions](conditions.md).\n\n\
         `--log-decisions denied` or `all` adds a line `decided` for each decision, and for each check of a batch: `asked` are the \
         requested scopes (not there if the scope was omitted), `effective` those of the answer, `added` those with their origin, and \
         `refused` those with their reason; `caller` is the name in the access file. What others chose is escaped, a list ends after \
         1,000 bytes with the number of what is left, and no header is shown but the trace id. A field that says nothing is left out. \
         A line tells what was decided: whether the answer left is in the metrics, and the record that counts is the audit. As every \
         line it is dropped, and counted, rather than waited for. The first line, `starting`, has the version and every setting; a \
         setting is never a secret.\n\n| level | message | fields |\n| --- | --- | --- |\n",
    );
    for (rank, (message, fields)) in lines {
        let level = LEVELS[rank].to_uppercase();
        page.push_str(&format!("| {level} | {message} | {fields} |\n"));
    }
    super::compare("docs/reference/log.md", &page);
}

/// Message and fields of a macro call, from behind its opening parenthesis.
fn logged(text: &str) -> (String, String) {
    let mut parts = vec![String::new()];
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_string => {
                escaped = true;
                continue;
            }
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    let parts: Vec<String> =
        parts.iter().map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let message =
        parts.iter().find(|part| part.starts_with('"')).unwrap_or_else(|| panic!("no text: {text:.80}"));
    let fields: Vec<String> = parts
        .iter()
        .take_while(|part| !part.starts_with('"'))
        .map(|field| {
            let name = field.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
            format!("`{}`", name.rsplit('.').next().unwrap())
        })
        .collect();
    (message.trim_matches('"').replace('|', "\\|"), fields.join(", "))
}

fn read(folder: &Path, take: &mut dyn FnMut(&str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read(&path, take);
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            take(&fs::read_to_string(&path).unwrap());
        }
    }
}
