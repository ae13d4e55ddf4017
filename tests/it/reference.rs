//! Pages of `docs/reference/`, generated from the comments of `proto/` and from tables of the program, and compared with
//! what is checked in.
//!
//! With `SCOPEWARD_BLESS=1` in the environment the pages are written instead.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, ServiceDescriptorProto,
};

mod log_lines;
mod metrics;

const FILES: [&str; 3] =
    ["scopeward/v1/scope_policy.proto", "scopeward/v1/audit.proto", "scopeward/v1/policy_status.proto"];
const PAGE: &str = "docs/reference/api.md";

/// Numbers of fields in `descriptor.proto`, of which the paths of comments are made.
mod part {
    pub(super) const FILE_MESSAGE: i32 = 4;
    pub(super) const FILE_ENUM: i32 = 5;
    pub(super) const FILE_SERVICE: i32 = 6;
    pub(super) const FILE_SYNTAX: i32 = 12;
    pub(super) const MESSAGE_FIELD: i32 = 2;
    pub(super) const MESSAGE_ONEOF: i32 = 8;
    pub(super) const ENUM_VALUE: i32 = 2;
    pub(super) const SERVICE_METHOD: i32 = 2;
}

#[test]
fn the_api_reference_is_what_the_protos_say() {
    compare(PAGE, &generate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")));
}

#[test]
fn the_reference_of_the_program_is_what_its_tables_say() {
    let pages = scopeward::cli::reference::pages();
    for (path, page) in &pages {
        compare(path, page);
        let bare: Vec<_> =
            page.lines().filter(|line| line.starts_with('|') && line.contains("|  |")).collect();
        assert!(bare.is_empty(), "{path}: cells without text: {bare:#?}");
    }
}

/// A page is as it should be, or is written if that was asked for.
#[track_caller]
fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if env::var_os("SCOPEWARD_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, page).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some((at, (new, old))) =
        page.lines().zip(kept.lines()).enumerate().find(|(_, (new, old))| new != old)
    {
        panic!("{name}:{}: is `{old}`, should be `{new}`; {HOW}", at + 1);
    }
    assert_eq!(page.lines().count(), kept.lines().count(), "{name}: {HOW}");
}

const HOW: &str = "run `SCOPEWARD_BLESS=1 cargo test --test it reference`";

#[test]
fn every_part_of_the_api_is_described() {
    let page = generate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"));
    let bare =
        page.lines().filter(|line| line.ends_with("|  |") || line.ends_with("| |")).collect::<Vec<_>>();
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

fn generate(proto: &Path) -> String {
    let mut compiler = protox::Compiler::new([proto]).unwrap();
    compiler.include_source_info(true).include_imports(false).open_files(FILES).unwrap();
    let files = compiler.file_descriptor_set().file;
    let files = FILES.map(|name| files.iter().find(|file| file.name() == name).unwrap());
    let mut page = Page::default();
    page.line("# API reference");
    page.line("");
    page.line(&format!("Generated from `proto/`. To change it, change the comments there and {HOW}."));
    page.line("");
    page.line(
        "Scopes travel as the OAuth wire string. A denial is an answer and has gRPC code OK. Fields are optional as \
         proto3 has it; those marked *optional* tell unset from empty.",
    );
    for file in files {
        page.file(&Described::new(file));
    }
    page.text
}

/// A file, and its comments by the path of what they describe.
struct Described<'f> {
    file: &'f FileDescriptorProto,
    comments: HashMap<&'f [i32], &'f str>,
}

impl<'f> Described<'f> {
    fn new(file: &'f FileDescriptorProto) -> Self {
        let locations = &file.source_code_info.as_ref().unwrap().location;
        let comments =
            locations.iter().map(|location| (&*location.path, location.leading_comments())).collect();
        Self { file, comments }
    }

    /// The paragraphs of a comment; none if there is no comment.
    fn paragraphs(&self, path: &[i32]) -> Vec<String> {
        let comment = self.comments.get(path).copied().unwrap_or_default();
        let lines: Vec<&str> = comment.lines().map(str::trim).collect();
        lines
            .split(|line| line.is_empty())
            .filter(|paragraph| !paragraph.is_empty())
            .map(|paragraph| paragraph.join(" "))
            .collect()
    }
}

/// The page as it grows.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    fn heading(&mut self, level: usize, title: &str) {
        self.line("");
        self.line(&format!("{} {title}", "#".repeat(level)));
    }

    fn prose(&mut self, described: &Described<'_>, path: &[i32]) {
        let paragraphs = described.paragraphs(path);
        assert!(!paragraphs.is_empty(), "{}: {path:?} has no comment", described.file.name());
        for paragraph in paragraphs {
            self.line("");
            self.line(&paragraph);
        }
    }

    fn file(&mut self, described: &Described<'_>) {
        let file = described.file;
        self.heading(2, &format!("`{}`", file.name()));
        self.prose(described, &[part::FILE_SYNTAX]);
        for (at, service) in (0..).zip(&file.service) {
            self.service(described, service, at);
        }
        for (at, message) in (0..).zip(&file.message_type) {
            self.message(described, message, at);
        }
        for (at, kind) in (0..).zip(&file.enum_type) {
            self.kind(described, kind, at);
        }
    }

    fn service(&mut self, described: &Described<'_>, service: &ServiceDescriptorProto, at: i32) {
        let path = [part::FILE_SERVICE, at];
        self.heading(3, service.name());
        self.prose(described, &path);
        for (at, method) in (0..).zip(&service.method) {
            self.heading(4, method.name());
            self.line("");
            let stream = if method.server_streaming() { "stream of " } else { "" };
            let (takes, gives) = (link(method.input_type()), link(method.output_type()));
            self.line(&format!("Takes {takes}, returns {stream}{gives}."));
            self.prose(described, &[path[0], path[1], part::SERVICE_METHOD, at]);
        }
    }

    fn message(&mut self, described: &Described<'_>, message: &DescriptorProto, at: i32) {
        let path = [part::FILE_MESSAGE, at];
        self.heading(3, message.name());
        self.prose(described, &path);
        if message.field.is_empty() {
            return;
        }
        self.line("");
        self.line("| no. | field | type | meaning |");
        self.line("| --- | --- | --- | --- |");
        for (at, field) in (0..).zip(&message.field) {
            let mut meaning = described.paragraphs(&[path[0], path[1], part::MESSAGE_FIELD, at]).join(" ");
            if let Some(index) = field.oneof_index
                && !field.proto3_optional()
            {
                let oneof = message.oneof_decl.get(usize::try_from(index).unwrap()).unwrap();
                let about = described.paragraphs(&[path[0], path[1], part::MESSAGE_ONEOF, index]).join(" ");
                meaning = format!("{meaning} One of `{}`: {about}", oneof.name());
            }
            self.line(&format!(
                "| {} | `{}` | {} | {} |",
                field.number(),
                field.name(),
                type_of(field),
                cell(&meaning)
            ));
        }
    }

    fn kind(&mut self, described: &Described<'_>, kind: &EnumDescriptorProto, at: i32) {
        let path = [part::FILE_ENUM, at];
        self.heading(3, kind.name());
        self.prose(described, &path);
        self.line("");
        self.line("| no. | value | meaning |");
        self.line("| --- | --- | --- |");
        for (at, value) in (0..).zip(&kind.value) {
            let meaning = described.paragraphs(&[path[0], path[1], part::ENUM_VALUE, at]).join(" ");
            self.line(&format!("| {} | `{}` | {} |", value.number(), value.name(), cell(&meaning)));
        }
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        other => panic!("{}: {other:?} has no name here yet", field.name()),
    };
    match field.label() {
        Label::Repeated => format!("repeated {name}"),
        _ if field.proto3_optional() => format!("optional {name}"),
        _ => name,
    }
}

/// A type of ours as a link to its heading, any other by its full name.
fn link(type_name: &str) -> String {
    let full = type_name.trim_start_matches('.');
    match full.strip_prefix("scopeward.v1.") {
        Some(name) => format!("[{name}](#{})", name.to_lowercase()),
        None => format!("`{full}`"),
    }
}

/// Text within one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
