//! Manifests of Kubernetes as JSON values.

use scopeward::policy::yaml::{self, Node, NodeKind, Schema};
use serde_json::{Map, Value};

/// The documents of a YAML text; no key is in a mapping twice.
pub(super) fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents.map(document).filter(|value| !value.is_null()).collect()
}

/// The one document of a YAML text.
pub(super) fn document(text: &str) -> Value {
    let tree = yaml::parse(text).unwrap_or_else(|problem| panic!("{problem:?} in\n{text}"));
    tree.root.as_ref().map_or(Value::Null, value)
}

fn value(node: &Node<'_>) -> Value {
    match &node.kind {
        NodeKind::Sequence(entries) => entries.iter().map(value).collect(),
        NodeKind::Mapping(entries) => {
            let mut mapping = Map::new();
            for (key, entry) in entries {
                let former = mapping.insert(key.text().to_owned(), value(entry));
                assert!(former.is_none(), "duplicate key `{}` in line {}", key.text(), key.position.line);
            }
            Value::Object(mapping)
        }
        NodeKind::Scalar { text, schema: Schema::String } => Value::String(text.to_string()),
        NodeKind::Scalar { schema: Schema::Null, .. } => Value::Null,
        NodeKind::Scalar { text, .. } => serde_json::from_str(text).expect("a boolean or a number of JSON"),
    }
}

/// The object of a kind and a name.
pub(super) fn find<'m>(manifests: &'m [Value], kind: &str, name: &str) -> Option<&'m Value> {
    manifests.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// The only object of a kind.
#[track_caller]
pub(super) fn only<'m>(manifests: &'m [Value], kind: &str) -> &'m Value {
    let mut found = manifests.iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "several {kind}s");
    object
}

/// The entries of a list; none if it is not there.
pub(super) fn entries(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A string.
#[track_caller]
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

/// The entry of a list that has this `name`.
pub(super) fn named<'v>(list: &'v Value, name: &str) -> Option<&'v Value> {
    entries(list).iter().find(|entry| entry["name"] == name)
}
