//! For tests: a file against a schema, what holds for every table, a generated file against its source.

use serde_json::{Map, Value};

use super::Section;
use super::schema::SCOPE_PATTERN;
use crate::policy::yaml::{self, Node, NodeKind, Schema};
use crate::scope::check_token;

/// Checks a YAML text against the part of JSON Schema that the generated schemas use; the error is
/// the place and what does not hold there.
pub(crate) fn conforms(schema: &Value, text: &str) -> Result<(), String> {
    let tree = yaml::parse(text).map_err(|problem| problem.message)?.root.ok_or("no content")?;
    holds(schema, schema, &value(&tree), "")
}

fn value(node: &Node<'_>) -> Value {
    match &node.kind {
        NodeKind::Scalar { text, schema: Schema::String } => text.as_ref().into(),
        NodeKind::Scalar { schema: Schema::Null, .. } => Value::Null,
        NodeKind::Scalar { text, schema: Schema::Boolean } => text.eq_ignore_ascii_case("true").into(),
        NodeKind::Scalar { text, schema: Schema::Number } => {
            serde_json::from_str(text).unwrap_or(Value::Null)
        }
        NodeKind::Sequence(entries) => entries.iter().map(value).collect(),
        NodeKind::Mapping(entries) => entries
            .iter()
            .map(|(key, inner)| (key.text().to_owned(), value(inner)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

fn holds(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = schema.as_object().unwrap_or_else(|| panic!("{schema} is no schema"));
    for (keyword, wanted) in schema {
        let count = || wanted.as_u64().unwrap_or_else(|| panic!("{keyword} {wanted}"));
        let each = |schemas: &Value| -> Vec<_> {
            schemas.as_array().unwrap().iter().map(|schema| holds(root, schema, value, place)).collect()
        };
        let fine = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" => true,
            "$ref" => {
                let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root.pointer(path).unwrap_or_else(|| panic!("{path} is not defined"));
                holds(root, target, value, place)?;
                true
            }
            "type" => match wanted.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                other => panic!("type {other}"),
            },
            "enum" => wanted.as_array().unwrap().contains(value),
            "required" => {
                wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "minProperties" => value.as_object().is_none_or(|members| members.len() as u64 >= count()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= count()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= count()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= count()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= count()),
            "minimum" => value.as_i64().is_none_or(|number| number >= wanted.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|number| number <= wanted.as_i64().unwrap()),
            "uniqueItems" => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
            }
            "pattern" => {
                assert_eq!(wanted, SCOPE_PATTERN);
                value.as_str().is_none_or(|text| check_token(text).is_ok())
            }
            "items" => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    holds(root, wanted, item, &format!("{place}/{at}"))?;
                }
                true
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = wanted.get(name) {
                        holds(root, schema, inner, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    let known = schema.get("properties").is_some_and(|known| known.get(name).is_some());
                    match wanted {
                        _ if known => {}
                        Value::Bool(false) => return Err(format!("{place}/{name} is not known")),
                        schema => holds(root, schema, inner, &format!("{place}/{name}"))?,
                    }
                }
                true
            }
            "oneOf" => each(wanted).iter().filter(|one| one.is_ok()).count() == 1,
            "anyOf" => each(wanted).iter().any(Result::is_ok),
            other => panic!("the keyword {other} is not known here"),
        };
        if !fine {
            return Err(format!("{place}: {value} is not {keyword} {wanted}"));
        }
    }
    Ok(())
}

/// What holds for every table: a text for each key, defaults that are JSON, no two keys or sections of
/// one name.
#[track_caller]
pub(crate) fn check_table(file: &'static Section) {
    let sections = file.all();
    for (at, section) in sections.iter().enumerate() {
        assert!(sections.iter().skip(at + 1).all(|other| other.name != section.name), "{}", section.name);
        for (at, key) in section.keys.iter().enumerate() {
            assert!(section.keys.iter().skip(at + 1).all(|other| other.name != key.name), "{}", key.name);
            assert!(key.text.ends_with('.') && !key.text.contains('\n'), "{}", key.text);
            assert!(!key.hint.is_empty() && !key.hint.ends_with('.'), "{}", key.hint);
            let default = serde_json::from_str::<Value>(key.default);
            assert!(key.default.is_empty() || default.is_ok(), "{}", key.default);
        }
    }
}

/// A generated file of the repository is what its source says. With `SCOPEWARD_BLESS=1` it is written.
#[track_caller]
pub(crate) fn file_is(path: &str, expected: &str) {
    let full = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("SCOPEWARD_BLESS").is_some() {
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(&full, expected).unwrap();
    }
    let found = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is stale; run the tests with SCOPEWARD_BLESS=1 and look at the difference"
    );
}
