//! The JSON Schema of a format, for editors and for programs.

use serde_json::{Map, Value, json};

use super::{Key, MappingRule, Section, ValueKind};
use crate::policy::finding::Code;
use crate::scope::MAX_TOKEN_BYTES;

/// The JSON Schema of a format.
#[must_use]
pub fn schema(title: &str, description: &str, file: &'static Section) -> Value {
    let mut definitions: Map<String, Value> = file
        .all()
        .into_iter()
        .skip(1)
        .map(|section| (definition(section.name), section_schema(section)))
        .collect();
    let scope = json!({
        "type": "string",
        "description": "A scope token (RFC 6749 section 3.3).",
        "minLength": 1,
        "maxLength": MAX_TOKEN_BYTES,
        "pattern": SCOPE_PATTERN,
    });
    definitions.insert("scope".to_owned(), scope);
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
    });
    if let (Some(root), Value::Object(first)) = (root.as_object_mut(), section_schema(file)) {
        root.extend(first.into_iter().filter(|(name, _)| name != "description"));
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// RFC 6749 appendix A.4.
pub(crate) const SCOPE_PATTERN: &str = r"^[\x21\x23-\x5B\x5D-\x7E]+$";

/// `client rule` is `clientRule` in the schema.
fn definition(name: &str) -> String {
    let mut words = name.split(' ');
    let mut made = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        made.push_str(&first.to_ascii_uppercase());
        made.push_str(rest);
    }
    made
}

fn section_schema(section: &Section) -> Value {
    let Section { name: _, text, rule, keys } = section;
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let mut made = Map::new();
    made.insert("description".to_owned(), plain(text).into());
    made.insert("type".to_owned(), "object".into());
    made.insert("properties".to_owned(), Value::Object(properties));
    let needed: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !needed.is_empty() {
        made.insert("required".to_owned(), json!(needed));
    }
    made.insert("additionalProperties".to_owned(), false.into());
    let each = |names: &[&str]| {
        Value::from(names.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>())
    };
    match rule {
        MappingRule::Plain => {}
        MappingRule::NotEmpty(_) => _ = made.insert("minProperties".to_owned(), 1.into()),
        MappingRule::OneOfAndAnyOf(one, any) => {
            made.insert("oneOf".to_owned(), each(one));
            made.insert("anyOf".to_owned(), each(any));
        }
        MappingRule::OrText => {
            let description = made.remove("description");
            return json!({ "description": description, "anyOf": [{ "type": "string" }, made] });
        }
    }
    Value::Object(made)
}

fn key_schema(key: &Key) -> Value {
    let reference = |section: &Section| json!({ "$ref": format!("#/$defs/{}", definition(section.name)) });
    let mut made = match key.kind {
        ValueKind::Scopes(least, most) => {
            let mut list =
                json!({ "type": "array", "items": { "$ref": "#/$defs/scope" }, "uniqueItems": true });
            if let (Some(list), Some(most)) = (list.as_object_mut(), most) {
                list.insert("maxItems".to_owned(), most.into());
            }
            at_least(list, "minItems", least)
        }
        ValueKind::Choice(names) => json!({ "enum": names }),
        ValueKind::ChoiceOrOne(names, section) => json!({ "anyOf": [{ "enum": names }, reference(section)] }),
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Number(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
        // The most is in bytes, which a schema cannot say.
        ValueKind::ScopeString => json!({ "type": "string" }),
        ValueKind::Text(least, _) => at_least(json!({ "type": "string" }), "minLength", least),
        ValueKind::Prose(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
        ValueKind::Host | ValueKind::Audience => json!({ "type": "string", "minLength": 1 }),
        ValueKind::Texts(least) => {
            at_least(json!({ "type": "array", "items": { "type": "string" } }), "minItems", least)
        }
        ValueKind::Audiences(least, most) => {
            let audience = json!({ "type": "string", "minLength": 1 });
            let list = json!({ "type": "array", "items": audience, "uniqueItems": true, "maxItems": most });
            at_least(list, "minItems", least)
        }
        ValueKind::WarningCodes => {
            let names: Vec<&str> = Code::warnings().map(Code::as_str).collect();
            json!({ "type": "array", "items": { "enum": names }, "uniqueItems": true })
        }
        ValueKind::ScopeTexts(most) => json!({
            "type": "object",
            "additionalProperties": { "type": "string", "minLength": 1, "maxLength": most },
        }),
        ValueKind::One(section) => reference(section),
        ValueKind::List(section, least) => {
            at_least(json!({ "type": "array", "items": reference(section) }), "minItems", least)
        }
        ValueKind::Each(section) => json!({ "type": "object", "additionalProperties": reference(section) }),
        ValueKind::Rows(least) => {
            at_least(json!({ "type": "array", "items": { "type": "array" } }), "minItems", least)
        }
    };
    if let Some(made) = made.as_object_mut() {
        made.insert("description".to_owned(), plain(key.text).into());
        if let Ok(default) = serde_json::from_str::<Value>(key.default) {
            made.insert("default".to_owned(), default);
        }
    }
    made
}

fn at_least(mut schema: Value, name: &str, least: usize) -> Value {
    if least > 0
        && let Some(schema) = schema.as_object_mut()
    {
        schema.insert(name.to_owned(), least.into());
    }
    schema
}

/// Editors show descriptions as plain text.
fn plain(markdown: &str) -> String {
    markdown.replace('`', "")
}
