//! The configuration file of `serve` and `gateway`, and which of flags, environment, file and defaults each value comes from.
//!
//! The file is YAML with the keys of the settings. It is read into further flags, so that a value means the
//! same wherever it stands.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::settings::{FORWARD, ServeSetting, ServerVerb};
use crate::audit::joined::JoinedTarget;
use crate::cli::environment::{RefusedValue, refused, variable};
use crate::cli::report;
use crate::escape::shown;
use crate::policy::finding::{Code, Findings, Position};
use crate::policy::format::read::DocumentReader;
use crate::policy::yaml::{self, Node, NodeKind, Schema, Tree};
use crate::store::load::finding;
use crate::store::read::{ReadSettings, read_folder};

/// What a configuration file says.
#[derive(Debug)]
pub(in crate::cli) struct ConfigFile {
    verb: ServerVerb,
    settings: Vec<FileSetting>,
}

#[derive(Debug)]
struct FileSetting {
    setting: &'static ServeSetting,
    value: String,
    /// Where it stands, as `file:line:column`.
    place: String,
}

/// Why a configuration file cannot be used: a report for people.
#[derive(Debug, thiserror::Error)]
#[error("the configuration file is not valid")]
pub(in crate::cli) struct ConfigError {
    /// Every finding, with its excerpt.
    pub(in crate::cli) report: String,
}

impl ConfigFile {
    /// Reads a file; without one nothing is said.
    ///
    /// # Errors
    /// Those of [`ConfigFile::read`].
    pub(in crate::cli) fn of(path: Option<&Path>, verb: ServerVerb) -> anyhow::Result<Self> {
        path.map_or_else(|| Ok(Self { verb, settings: Vec::new() }), |path| Self::read(path, verb))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read, or has findings ([`ConfigError`]).
    pub(in crate::cli) fn read(path: &Path, verb: ServerVerb) -> anyhow::Result<Self> {
        if path.is_dir() {
            anyhow::bail!("the configuration `{}` is a folder, not a file", shown(&path.to_string_lossy()));
        }
        let snapshot = read_folder(&[path.to_owned()], None, &ReadSettings::default())?;
        let mut findings: Findings = snapshot.problems.iter().map(finding).collect();
        let mut settings = Vec::new();
        for file in &snapshot.files {
            let mut reader = DocumentReader::new(&file.path, None);
            settings.extend(read(&mut reader, verb, file.text()));
            findings.extend(reader.findings);
        }
        if findings.is_empty() {
            return Ok(Self { verb, settings });
        }
        Err(ConfigError { report: report::findings(&findings, &snapshot.files) }.into())
    }

    /// What neither a flag nor the environment overrides, as further flags.
    pub(in crate::cli) fn flags(&self, matches: &ArgMatches) -> Vec<OsString> {
        let open = self.settings.iter().filter(|FileSetting { setting, .. }| {
            let source = matches.value_source(setting.flag);
            !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        });
        open.filter_map(|FileSetting { setting, value, .. }| match (setting.is_switch(), &**value) {
            (true, "true") => Some(format!("--{}", setting.flag).into()),
            (true, _) => None,
            (false, value) => Some(format!("--{}={value}", setting.flag).into()),
        })
        .collect()
    }

    /// Every setting that has a value, on one line for the log.
    pub(in crate::cli) fn summary(&self, complete: &ArgMatches) -> String {
        let shown = self.verb.settings().into_iter().filter_map(|setting| {
            let value = value(setting, complete)?;
            Some(format!("{}={}", setting.key(), scalar(&value)))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// Every setting with its value and origin, itself a valid configuration file.
    ///
    /// `matches` are those before the file's own flags were added, `complete` those after.
    pub(in crate::cli) fn print(&self, matches: &ArgMatches, complete: &ArgMatches) -> String {
        let mut lines = Vec::new();
        for setting in self.verb.settings() {
            let in_file = || self.settings.iter().find(|known| known.setting.flag == setting.flag);
            let origin = match matches.value_source(setting.flag) {
                Some(ValueSource::CommandLine) => format!("flag --{}", setting.flag),
                Some(ValueSource::EnvVariable) => format!("environment {}", variable(setting.flag)),
                _ => in_file().map_or_else(|| "default".to_owned(), |known| known.place.clone()),
            };
            lines.push(match value(setting, complete) {
                Some(value) => (format!("{}: {}", setting.key(), scalar(&value)), origin),
                None => (format!("# {}:", setting.key()), "not set".to_owned()),
            });
        }
        let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or_default();
        lines.into_iter().map(|(setting, origin)| format!("{setting:width$}  # {origin}\n")).collect()
    }
}

/// The value that a setting has, as it was written, but for a password.
fn value(setting: &ServeSetting, complete: &ArgMatches) -> Option<String> {
    if setting.is_switch() {
        return Some(complete.get_flag(setting.flag).to_string());
    }
    let raw = complete.get_raw(setting.flag)?.map(|raw| raw.to_string_lossy());
    let text = raw.collect::<Vec<_>>().join(",");
    Some(if setting.flag == FORWARD { JoinedTarget::without_password(&text) } else { text })
}

/// Reads one file; what is wrong with it is in the findings of the reader.
fn read(reader: &mut DocumentReader<'_>, verb: ServerVerb, text: &str) -> Vec<FileSetting> {
    let root = match yaml::parse(text) {
        Ok(Tree { root: None, .. }) => return Vec::new(),
        Ok(Tree { root: Some(root), .. }) => root,
        Err(problem) => {
            let message = problem.message;
            reader.report(problem.code, problem.position, "", message, problem.suggestion);
            return Vec::new();
        }
    };
    let NodeKind::Mapping(entries) = &root.kind else {
        let message = format!("a configuration is a mapping, not {}", root.describe());
        reader.report(Code::WrongType, root.position, "", message, "write `listen: ADDR`");
        return Vec::new();
    };
    let known = verb.settings();
    let keys: Vec<String> = known.iter().map(|setting| setting.key()).collect();
    let mut settings = Vec::new();
    let mut seen: Vec<(&str, Position)> = Vec::new();
    for (name, value) in entries {
        let Some(text) = reader.known_key(name, "configuration", keys.iter().map(String::as_str)) else {
            continue;
        };
        let Some(setting) = known.iter().copied().find(|setting| setting.key() == text) else { continue };
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == text) {
            reader.duplicate_key(name, "configuration", *first);
            continue;
        }
        seen.push((text, name.position));
        let Some((value_text, schema)) = values(setting, value) else {
            let message = format!("`{text}` needs one value, not {}", value.describe());
            reader.report(Code::WrongType, value.position, "", message, "write one value");
            continue;
        };
        let value_text = &*value_text;
        if schema == Schema::Null {
            let message = format!("`{text}` has no value");
            let suggestion = "write one or leave the key out";
            reader.report(Code::WrongType, value.position, value_text, message, suggestion);
            continue;
        }
        if let Err(RefusedValue { reason, possible }) = check(setting, value_text) {
            let suggestion = match &*possible {
                _ if setting.is_switch() => "write true or false".to_owned(),
                [] => String::new(),
                possible => format!("one of: {}", possible.join(", ")),
            };
            let message = match &*reason {
                "" => format!("`{}` is no value of `{text}`", shown(value_text)),
                reason => format!("`{}` is no value of `{text}`: {reason}", shown(value_text)),
            };
            reader.report(Code::UnknownValue, value.position, value_text, message, suggestion);
            continue;
        }
        let Position { line, column, .. } = value.position;
        let place = format!("{}:{line}:{column}", shown(reader.file));
        settings.push(FileSetting { setting, value: value_text.to_owned(), place });
    }
    settings
}

/// The value of a setting, or the entries of a list as they would be given as one; nothing for what is neither.
fn values<'t>(setting: &ServeSetting, node: &'t Node<'_>) -> Option<(Cow<'t, str>, Schema)> {
    let scalar = |node: &'t Node<'_>| match &node.kind {
        NodeKind::Scalar { text, schema } => Some((Cow::Borrowed(&**text), *schema)),
        _ => None,
    };
    match &node.kind {
        NodeKind::Sequence(entries) if setting.takes_several() && !entries.is_empty() => {
            let entries: Option<Vec<_>> = entries.iter().map(|entry| Some(scalar(entry)?.0)).collect();
            Some((entries?.join(",").into(), Schema::String))
        }
        _ => scalar(node),
    }
}

/// Asks the flag itself whether it takes a value. A switch is `true` or `false` here, as YAML has it.
fn check(setting: &ServeSetting, value: &str) -> Result<(), RefusedValue> {
    if setting.is_switch() {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(RefusedValue { reason: String::new(), possible: Vec::new() }),
        };
    }
    refused(&setting.arg(), value)
}

/// A text as a YAML scalar: plain where that is safe, otherwise quoted as in JSON.
fn scalar(text: &str) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'_' | b':' | b'-');
    if !text.is_empty() && text.bytes().all(is_plain) && !text.ends_with(':') && !text.starts_with('-') {
        return text.to_owned();
    }
    // Printable text stays as it is; everything else is escaped, so that a terminal is safe from it.
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_flags_in_lower_camel_case() {
        let settings = ServerVerb::Serve.settings();
        let keys: Vec<_> = settings.iter().map(|setting| setting.key()).collect();
        assert!(keys.contains(&"listen".to_owned()));
        assert!(keys.contains(&"insecureAllowRemotePlaintext".to_owned()));
    }

    #[test]
    fn printed_values_read_back_as_themselves() {
        for text in
            ["", "127.0.0.1:50551", "a b", "-", "[::1]:1", "é\u{1b}\"\\", "x:", "# no", "info,h2=warn"]
        {
            let yaml = format!("k: {}  # origin\n", scalar(text));
            let root = yaml::parse(&yaml).unwrap().root.unwrap();
            let NodeKind::Mapping(entries) = root.kind else { panic!("a mapping") };
            assert_eq!(entries[0].1.text(), text, "{yaml}");
        }
    }
}
