//! The reference of a format, for people.

use std::fmt::Write;

use super::{MappingRule, Section, ValueKind, either};

/// The sections of a format as Markdown: a heading and a table of keys for each.
#[must_use]
pub fn markdown(file: &'static Section) -> String {
    let mut out = String::new();
    for Section { name, text, rule, keys } in file.all() {
        let (first, rest) = name.split_at(name.len().min(1));
        // Writing to a String does not fail.
        _ = write!(out, "## {}{rest}\n\n{text}", first.to_uppercase());
        match rule {
            MappingRule::Plain => {}
            MappingRule::NotEmpty(_) => out.push_str(" At least one member is there."),
            MappingRule::OneOfAndAnyOf(one, any) => {
                _ = write!(out, " It has either {}, and {}.", either(one), either(any));
            }
            MappingRule::OrText => {
                let first = keys.first().map_or("", |key| key.name);
                _ = write!(out, " A string alone stands for an entry with nothing but `{first}`.");
            }
        }
        out.push_str("\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in *keys {
            let default = match (key.required, key.default) {
                (true, _) => "required".to_owned(),
                (false, "") => String::new(),
                (false, default) => format!("`{}`", default.trim_matches('"')),
            };
            let text = key.text.replace('|', "\\|");
            _ = writeln!(out, "| `{}` | {} | {default} | {text} |", key.name, kind_text(&key.kind));
        }
        out.push('\n');
    }
    out
}

fn kind_text(kind: &ValueKind) -> String {
    let link = |section: &Section| format!("[{0}](#{1})", section.name, section.name.replace(' ', "-"));
    match kind {
        ValueKind::Scopes(0, None) => "list of scopes".to_owned(),
        ValueKind::Scopes(0, Some(most)) => format!("list of at most {most} scopes"),
        ValueKind::Scopes(_, None) => "list of scopes, not empty".to_owned(),
        ValueKind::Scopes(least, Some(most)) => format!("list of {least} to {most} scopes"),
        ValueKind::Choice(names) => {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
        ValueKind::ChoiceOrOne(names, section) => {
            format!("{}, or {}", kind_text(&ValueKind::Choice(names)), link(section))
        }
        ValueKind::Flag => "`true`, `false`".to_owned(),
        ValueKind::Number(most) => format!("0 to {most}"),
        ValueKind::Text(..) | ValueKind::ScopeString => "string".to_owned(),
        ValueKind::Prose(most) => format!("string of at most {most} characters"),
        ValueKind::Host => "host name".to_owned(),
        ValueKind::Audience => "audience".to_owned(),
        ValueKind::Texts(_) => "list of strings".to_owned(),
        ValueKind::Audiences(0, most) => format!("list of at most {most} audiences"),
        ValueKind::Audiences(least, most) => format!("list of {least} to {most} audiences"),
        ValueKind::WarningCodes => "list of [codes of warnings](findings/README.md#warnings)".to_owned(),
        ValueKind::ScopeTexts(most) => format!("mapping from scopes to strings of at most {most} characters"),
        ValueKind::One(section) => link(section),
        ValueKind::List(section, _) => format!("list of {}", link(section)),
        ValueKind::Each(section) => format!("mapping to {}", link(section)),
        ValueKind::Rows(_) => "list of rows, each a list of cells".to_owned(),
    }
}
