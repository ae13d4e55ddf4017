//! The settings of `serve`: from flags, environment, a file and defaults, in this order, and which of
//! them each value comes from.
//!
//! The file is YAML with the flags as keys, in lowerCamelCase. It is read into further flags, so that
//! a value means the same wherever it stands.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::report;
use crate::escape::shown;
use crate::policy::finding::{Code, Findings, Position};
use crate::policy::format::read::DocumentReader;
use crate::policy::yaml::{self, NodeKind, Schema};
use crate::store::load::finding;
use crate::store::read::{ReadSettings, read_folder};

/// Flags that say something about the settings and are none.
const NO_SETTINGS: [&str; 4] = ["config", "print-config", "help", "version"];

/// What a configuration file says.
#[derive(Debug, Default)]
pub(in crate::cli) struct ConfigFile {
    settings: Vec<FileSetting>,
}

#[derive(Debug)]
struct FileSetting {
    long: String,
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
    /// Reads a file; `serve` is the command whose flags it may set.
    ///
    /// # Errors
    /// If the file cannot be read, or has findings ([`ConfigError`]).
    pub(in crate::cli) fn read(path: &Path, serve: &Command) -> anyhow::Result<Self> {
        if path.is_dir() {
            anyhow::bail!("the configuration `{}` is a folder, not a file", shown(&path.to_string_lossy()));
        }
        let snapshot = read_folder(&[path.to_owned()], None, &ReadSettings::default())?;
        let mut findings: Findings = snapshot.problems.iter().map(finding).collect();
        let mut settings = Vec::new();
        for file in &snapshot.files {
            let mut reader = DocumentReader::new(&file.path);
            settings.extend(read(&mut reader, &file.text, serve));
            findings.extend(reader.findings);
        }
        if findings.is_empty() {
            return Ok(Self { settings });
        }
        Err(ConfigError { report: report::findings(&findings, &snapshot.files) }.into())
    }

    /// The settings that neither a flag nor the environment overrides, as further flags.
    pub(in crate::cli) fn flags(&self, matches: &ArgMatches, serve: &Command) -> Vec<OsString> {
        let open = self.settings.iter().filter(|setting| {
            let arg = serve.get_arguments().find(|arg| arg.get_long() == Some(&setting.long));
            arg.is_some_and(|arg| !is_given(matches, arg))
        });
        open.filter_map(|setting| {
            let is_switch =
                serve.get_arguments().any(|arg| arg.get_long() == Some(&setting.long) && is_switch(arg));
            match (is_switch, &*setting.value) {
                (true, "true") => Some(format!("--{}", setting.long).into()),
                (true, _) => None,
                (false, value) => Some(format!("--{}={value}", setting.long).into()),
            }
        })
        .collect()
    }

    /// Every setting that has a value, on one line for the log.
    pub(in crate::cli) fn summary(serve: &Command, complete: &ArgMatches) -> String {
        let shown = settings(serve).filter_map(|arg| {
            let long = arg.get_long().unwrap_or_default();
            if is_switch(arg) {
                return Some(format!("{}={}", key(long), complete.get_flag(arg.get_id().as_str())));
            }
            let value = complete.get_raw(arg.get_id().as_str())?.next_back()?;
            Some(format!("{}={}", key(long), scalar(&value.to_string_lossy())))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// Every setting with its value and origin, itself a valid configuration file.
    ///
    /// `matches` are those before the file's own flags were added, `complete` those after.
    pub(in crate::cli) fn print(
        &self,
        serve: &Command,
        matches: &ArgMatches,
        complete: &ArgMatches,
    ) -> String {
        let mut lines = Vec::new();
        for arg in settings(serve) {
            let long = arg.get_long().unwrap_or_default();
            let value = complete.get_raw(arg.get_id().as_str()).and_then(|mut values| values.next_back());
            let value = value.map(|value| value.to_string_lossy().into_owned());
            let value = if is_switch(arg) {
                Some(if complete.get_flag(arg.get_id().as_str()) { "true" } else { "false" }.to_owned())
            } else {
                value
            };
            let in_file = || self.settings.iter().find(|setting| setting.long == long);
            let origin = match matches.value_source(arg.get_id().as_str()) {
                Some(ValueSource::CommandLine) => format!("flag --{long}"),
                Some(ValueSource::EnvVariable) => {
                    let name = arg.get_env().unwrap_or_default().to_string_lossy();
                    format!("environment {name}")
                }
                _ => in_file().map_or_else(|| "default".to_owned(), |setting| setting.place.clone()),
            };
            lines.push(match value {
                Some(value) => (format!("{}: {}", key(long), scalar(&value)), origin),
                None => (format!("# {}:", key(long)), "not set".to_owned()),
            });
        }
        let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or_default();
        lines.into_iter().map(|(setting, origin)| format!("{setting:width$}  # {origin}\n")).collect()
    }
}

/// Reads one file; what is wrong with it is in the findings of the reader.
fn read(reader: &mut DocumentReader<'_>, text: &str, serve: &Command) -> Vec<FileSetting> {
    let root = match yaml::parse(text) {
        Ok(None) => return Vec::new(),
        Ok(Some(root)) => root,
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
    let keys: Vec<String> = settings(serve).filter_map(Arg::get_long).map(key).collect();
    let mut settings = Vec::new();
    let mut seen: Vec<(&str, Position)> = Vec::new();
    for (name, value) in entries {
        let Some(text) = reader.known_key(name, "configuration", keys.iter().map(String::as_str)) else {
            continue;
        };
        let Some(arg) = settings_by_key(serve, text) else { continue };
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == text) {
            reader.duplicate_key(name, "configuration", *first);
            continue;
        }
        seen.push((text, name.position));
        let long = arg.get_long().unwrap_or_default().to_owned();
        let NodeKind::Scalar { text: value_text, schema } = &value.kind else {
            let message = format!("`{text}` needs one value, not {}", value.describe());
            reader.report(Code::WrongType, value.position, "", message, "write one value");
            continue;
        };
        if *schema == Schema::Null {
            let message = format!("`{text}` has no value");
            let suggestion = "write one or leave the key out";
            reader.report(Code::WrongType, value.position, value_text, message, suggestion);
            continue;
        }
        if let Err(message) = check(arg, value_text) {
            let possible: Vec<_> =
                arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            let suggestion = match &*possible {
                _ if is_switch(arg) => "write true or false".to_owned(),
                [] => String::new(),
                possible => format!("one of: {}", possible.join(", ")),
            };
            reader.report(Code::UnknownValue, value.position, value_text, message, suggestion);
            continue;
        }
        let Position { line, column, .. } = value.position;
        let place = format!("{}:{line}:{column}", shown(reader.file));
        settings.push(FileSetting { long, value: value_text.as_ref().to_owned(), place });
    }
    settings
}

/// Asks the flag itself whether it takes a value.
fn check(arg: &Arg, value: &str) -> Result<(), String> {
    if is_switch(arg) {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(format!("`{}` is neither true nor false", shown(value))),
        };
    }
    let flag = format!("--{}={value}", arg.get_long().unwrap_or_default());
    let alone = Command::new("serve").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    match alone.try_get_matches_from([flag]) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Err(first.strip_prefix("error: ").unwrap_or(first).to_owned())
        }
    }
}

fn settings(serve: &Command) -> impl Iterator<Item = &Arg> {
    serve.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long)))
}

fn settings_by_key<'c>(serve: &'c Command, name: &str) -> Option<&'c Arg> {
    settings(serve).find(|arg| arg.get_long().is_some_and(|long| key(long) == name))
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn is_given(matches: &ArgMatches, arg: &Arg) -> bool {
    let source = matches.value_source(arg.get_id().as_str());
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// `state-dir` as `stateDir`.
fn key(long: &str) -> String {
    let mut key = String::new();
    for (at, word) in long.split('-').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if at > 0 => key.push(first.to_ascii_uppercase()),
            Some(first) => key.push(first),
            None => {}
        }
        key.push_str(letters.as_str());
    }
    key
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
        assert_eq!(key("listen"), "listen");
        assert_eq!(key("insecure-allow-remote-plaintext"), "insecureAllowRemotePlaintext");
    }

    #[test]
    fn printed_values_read_back_as_themselves() {
        for text in
            ["", "127.0.0.1:50551", "a b", "-", "[::1]:1", "é\u{1b}\"\\", "x:", "# no", "info,h2=warn"]
        {
            let yaml = format!("k: {}  # origin\n", scalar(text));
            let root = yaml::parse(&yaml).unwrap().unwrap();
            let NodeKind::Mapping(entries) = root.kind else { panic!("a mapping") };
            assert_eq!(entries[0].1.text(), text, "{yaml}");
        }
    }
}
