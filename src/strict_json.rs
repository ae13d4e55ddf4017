//! JSON of others, read so that every parser reads the same: one value in UTF-8, no member twice, nothing behind it.
//!
//! `serde_json` alone takes the last of two equal members, as some servers do; others take the first.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Number;

use crate::escape;

/// A JSON value; members keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum StrictJson {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; one beyond 64 bits as the nearest of double precision.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Self>),
    /// An object, each name once.
    Object(Vec<(String, Self)>),
}

/// Why a text is not strict JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StrictJsonError(#[from] serde_json::Error);

impl StrictJson {
    /// Reads a text.
    ///
    /// # Errors
    /// If it is not UTF-8 or not one JSON value, has a member twice or text behind it, or is nested deeper than 128 levels.
    pub fn read(text: &[u8]) -> Result<Self, StrictJsonError> {
        Ok(serde_json::from_slice(text)?)
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The members, if it is an object.
    #[must_use]
    pub fn members(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// A member of an object by its name; `null` is like none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let (_, value) = self.members()?.iter().find(|(known, _)| known == name)?;
        (*value != Self::Null).then_some(value)
    }

    /// Sets a member of an object, in its place or at the end; `None` removes it.
    pub fn set(&mut self, name: &str, value: Option<Self>) {
        let Self::Object(members) = self else { return };
        match (members.iter().position(|(known, _)| known == name), value) {
            (Some(at), None) => _ = members.remove(at),
            (Some(at), Some(value)) => {
                if let Some((_, place)) = members.get_mut(at) {
                    *place = value;
                }
            }
            (None, Some(value)) => members.push((name.to_owned(), value)),
            (None, None) => {}
        }
    }

    /// The text, on one line.
    #[must_use]
    pub fn write(&self) -> String {
        // What was read has a JSON form.
        escape::json(self).unwrap_or_default()
    }
}

impl From<&str> for StrictJson {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for StrictJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(members) => {
                serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
            }
        }
    }
}

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = StrictJson;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<StrictJson, E> {
        Ok(StrictJson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<StrictJson, E> {
        Ok(StrictJson::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<StrictJson, E> {
        Ok(StrictJson::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<StrictJson, E> {
        Ok(StrictJson::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<StrictJson, E> {
        Number::from_f64(value).map(StrictJson::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<StrictJson, E> {
        Ok(StrictJson::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<StrictJson, E> {
        Ok(StrictJson::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<StrictJson, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = entries.next_element()? {
            values.push(value);
        }
        Ok(StrictJson::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<StrictJson, A::Error> {
        let mut members: Vec<(String, StrictJson)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("duplicate member `{}`", escape::shown(&name))));
            }
            members.push((name, entries.next_value()?));
        }
        Ok(StrictJson::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_reading_and_is_written_in_its_order() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let read = StrictJson::read(text.as_bytes()).ok();
            assert_eq!(read.as_ref().map(StrictJson::write).as_deref(), expected, "{text:?}");
        }
        check(
            r#" {"b": [1, -2, 1.5, true, null], "a": {"x": ""}} "#,
            Some(r#"{"b":[1,-2,1.5,true,null],"a":{"x":""}}"#),
        );
        check(r#"{"\u0073cope":"a"}"#, Some(r#"{"scope":"a"}"#));
        check("18446744073709551615", Some("18446744073709551615"));
        for text in [
            "",
            "{",
            "{}{}",
            "{} x",
            "{}\0",
            "\u{feff}{}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"[{"a":1,"a":2}]"#,
            r#"{"a":1,}"#,
            "{'a':1}",
            r#""\ud800""#,
            "01",
            "1e999",
            "NaN",
        ] {
            check(text, None);
        }
        check(&format!("{}{}", "[".repeat(200), "]".repeat(200)), None);
        assert!(StrictJson::read(b"\"\xff\"").is_err() && StrictJson::read(b"\xff\xfe{\0}\0").is_err());
    }

    #[test]
    fn members_are_set_in_place() {
        let mut object = StrictJson::read(br#"{"a":1,"b":null,"Scope":"x"}"#).unwrap();
        assert_eq!(object.get("b"), None);
        object.set("a", Some("y".into()));
        object.set("b", None);
        object.set("c", Some(StrictJson::Bool(true)));
        object.set("d", None);
        assert_eq!(object.write(), r#"{"a":"y","Scope":"x","c":true}"#);
    }
}
