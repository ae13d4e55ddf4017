//! The one spelling behind all spellings of a name that some parser takes for it.

use crate::strict_json::StrictJson;

/// Upper and lower case, and the letters that case mapping turns into ASCII ones (`ſ`, `K`, `ı`), become lower case; full-width
/// forms become ASCII. Texts with different results are different names to every parser that is known to fold names.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let narrow = |character: char| match character {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character),
        _ => character,
    };
    text.chars().map(narrow).flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// [`fold`] for names of members and parameters: what parsers cut off (all from a NUL or a `[` on) or replace (`.`, `-` and a
/// space become `_` in PHP, byte order marks and question marks disappear) is cut off and replaced.
pub(super) fn fold_name(name: &str) -> String {
    let cut = name.split('\0').next().unwrap_or_default();
    // A name that begins with a bracket is not an array.
    let cut = cut.find('[').filter(|at| *at > 0).and_then(|at| cut.get(..at)).unwrap_or(cut);
    let kept = |character: char| match character {
        '.' | '-' | ' ' => Some('_'),
        _ => (character.is_alphanumeric() || character == '_').then_some(character),
    };
    let folded: String = fold(cut.trim()).chars().filter_map(kept).collect();
    folded
}

/// A name of an object that is not one of `names` but that some parsers take for it, with that one.
pub(super) fn other_spelling<'j, 'n>(
    object: &'j StrictJson,
    names: &[&'n str],
) -> Option<(&'j str, &'n str)> {
    object.members()?.iter().find_map(|(name, _)| {
        let folded = fold_name(name);
        let meant = names.iter().find(|known| **known == folded && *known != name)?;
        Some((name.as_str(), *meant))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_folded_as_everything_else_is() {
        for character in '\0'..'\u{80}' {
            let all: String = character.to_uppercase().flat_map(char::to_lowercase).collect();
            assert_eq!(fold(&character.to_string()), all, "{character:?}");
        }
    }

    #[test]
    fn other_spellings_of_members_are_found() {
        let object = StrictJson::read(br#"{"a":1,"b":null,"Scope":"x"}"#).unwrap();
        assert_eq!(other_spelling(&object, &["a", "scope"]), Some(("Scope", "scope")));
        assert_eq!(other_spelling(&object, &["a", "b"]), None);
    }

    #[test]
    fn spellings_that_parsers_take_for_a_name_fold_to_it() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            assert_eq!(fold_name(name), expected, "{name:?}");
        }
        for name in [
            "scope",
            "SCOPE",
            "Scope",
            "\u{17f}cope",
            "\u{ff53}cope",
            "\u{feff}scope",
            " scope",
            "scope ",
            "scope\0x",
            "scope[]",
            "scope[0]",
            "?scope",
            "s\u{200b}cope",
            "scope\t",
        ] {
            check(name, "scope");
        }
        for name in ["client_id", "client.id", "client-id", "Client id", "client_\u{131}d"] {
            check(name, "client_id");
        }
        check("scopes", "scopes");
        check("[scope]", "scope");
        check("xscope", "xscope");
        check("", "");
    }
}
