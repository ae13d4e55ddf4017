//! The values of the chart: documented, in the schema, and settings of the server where they say so.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::{compare, read};
use crate::deploy::manifest::document;

/// A key of the values, with the comment above it.
struct Key {
    path: String,
    about: String,
    default: Value,
}

/// The documented values, in file order.
fn documented() -> Vec<Key> {
    let source = read("deploy/chart/values.yaml");
    let values = document(&source);
    let mut keys = Vec::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut about = None;
    for line in source.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(comment) = line.trim_start().strip_prefix("# -- ") {
            about = Some(comment.to_owned());
        } else if let Some((key, _)) =
            line.trim_start().split_once(':').filter(|_| !line.trim_start().starts_with(['#', '-']))
        {
            above.retain(|(depth, _)| *depth < indent);
            above.push((indent, key));
            if let Some(about) = about.take() {
                let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
                let default = path.iter().fold(&values, |value, key| &value[*key]).clone();
                keys.push(Key { path: path.join("."), about, default });
            }
        }
    }
    keys
}

#[test]
fn the_readme_of_the_chart_has_every_value() {
    let mut table = String::from("| value | default | what |\n| --- | --- | --- |\n");
    for Key { path, about, default } in documented() {
        writeln!(table, "| `{path}` | `{default}` | {about} |").unwrap();
    }
    let readme = read("deploy/chart/README.md");
    let (head, _) = readme.split_once("| value | default | what |\n").expect("the table of values");
    compare("deploy/chart/README.md", &format!("{head}{table}"));
}

/// Every key of the values is documented and in the schema, and the schema has no other.
#[test]
fn values_and_their_schema_have_the_same_keys() {
    let schema: Value = serde_json::from_str(&read("deploy/chart/values.schema.json")).unwrap();
    let documented: BTreeSet<String> = documented().into_iter().map(|key| key.path).collect();
    let mut known = BTreeSet::new();
    collect(&schema, "", &documented, &mut known);
    known.remove("global");
    assert_eq!(documented, known);
}

/// The keys of a schema, down to those that are documented as a whole.
fn collect(schema: &Value, path: &str, documented: &BTreeSet<String>, known: &mut BTreeSet<String>) {
    if documented.contains(path) || schema["properties"].is_null() {
        known.insert(path.to_owned());
        return;
    }
    assert_eq!(schema["additionalProperties"], false, "`{path}` takes keys that it does not know");
    for (key, schema) in schema["properties"].as_object().unwrap() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect(schema, &path, documented, known);
    }
}

/// `settings` has keys of settings of the server, and Helm makes their flags of them.
#[test]
fn settings_of_the_chart_are_settings_of_the_server() {
    let schema: Value = serde_json::from_str(&read("deploy/chart/values.schema.json")).unwrap();
    let reference = read("docs/reference/settings.md");
    for key in schema["properties"]["settings"]["properties"].as_object().unwrap().keys() {
        let row = reference.lines().find(|line| line.contains(&format!(" | `{key}` | ")));
        let row = row.unwrap_or_else(|| panic!("`{key}` is not a setting of the server"));
        // As `kebabcase` of Helm makes it.
        let flag = key.chars().fold(String::from("--"), |mut flag, letter| {
            if letter.is_ascii_uppercase() {
                flag.push('-');
            }
            flag.push(letter.to_ascii_lowercase());
            flag
        });
        assert!(row.starts_with(&format!("| `{flag}` |")), "{key}: {row}");
    }
}

#[test]
fn the_chart_is_for_this_version() {
    let chart = document(&read("deploy/chart/Chart.yaml"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
