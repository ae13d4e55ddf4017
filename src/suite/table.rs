//! The table form of a test: many inputs under shared ones.
//!
//! A column names a place in the case (`scope`, `client.clientName`, `expect.decision`), a cell puts a
//! value there, `~` takes away what is shared. Each row becomes the tree of a case of its own, so that
//! the same reader reads both forms.

use std::borrow::Cow;

use super::keys::{CLIENT, EXPECT, TABLE};
use super::read::section;
use crate::decision::RequestKind;
use crate::escape::shown;
use crate::policy::finding::{Code, Position, nearest};
use crate::policy::format::advice::Expected;
use crate::policy::format::read::{DocumentReader, Fields, point};
use crate::policy::yaml::{MAX_NODES, Node, NodeKind, Schema};

/// Most rows of one table.
pub const MAX_ROWS: usize = 10_000;

/// One row, as the parts of a case.
pub(super) struct CaseRow<'t> {
    pub(super) name: Option<Node<'t>>,
    pub(super) position: Position,
    pub(super) call: Node<'t>,
    pub(super) expect: Node<'t>,
}

/// What a column may name.
pub(crate) fn columns(kind: RequestKind) -> Vec<String> {
    let own = section(kind);
    let mut names = vec!["name".to_owned()];
    names.extend(own.names().filter(|key| *key != "client").map(str::to_owned));
    names.extend(CLIENT.names().map(|key| format!("client.{key}")));
    names.extend(EXPECT.names().map(|key| format!("expect.{key}")));
    names
}

struct Column {
    name: String,
    position: Position,
}

/// The rows of a table as cases; what is wrong with the table itself is reported.
pub(super) fn rows<'t>(
    reader: &mut DocumentReader<'_>,
    table: &Node<'t>,
    kind: RequestKind,
    call: &Node<'t>,
    expect: Option<&Node<'t>>,
) -> Vec<CaseRow<'t>> {
    let fields = reader.fields(table, &TABLE);
    let columns = self::known(reader, &fields, kind);
    let rows = reader.entries(&fields, "rows");
    let Some(columns) = columns else { return Vec::new() };
    let shared = size(call) + expect.map_or(0, size);
    if rows.len() > MAX_ROWS || rows.len().saturating_mul(shared) > MAX_NODES {
        let message = format!("the table has {} rows, which is too much to spell out", rows.len());
        let suggestion = format!("at most {MAX_ROWS} rows, and little that is shared; split the table");
        reader.report(Code::ValueTooLarge, point(table), "", message, suggestion);
        return Vec::new();
    }
    let nothing = Node { kind: NodeKind::Mapping(Vec::new()), position: point(table) };
    rows.iter().filter_map(|row| self::row(reader, row, &columns, call, expect.unwrap_or(&nothing))).collect()
}

fn known(
    reader: &mut DocumentReader<'_>,
    fields: &Fields<'_, '_>,
    kind: RequestKind,
) -> Option<Vec<Option<Column>>> {
    let list = reader.list(fields, "columns")?;
    let names = columns(kind);
    let mut seen: Vec<String> = Vec::new();
    let mut columns = Vec::with_capacity(list.entries.len());
    for entry in list.entries {
        let name = entry.value.into_string();
        if !names.contains(&name) {
            let message = format!("unknown column `{}` of a `{}` table", shown(&name), kind.as_str());
            let suggestion = match nearest(&name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of: {}", names.join(", ")),
            };
            reader.report(Code::UnknownKey, entry.position, &name, message, suggestion);
            columns.push(None);
        } else if seen.contains(&name) {
            let message = format!("duplicate column `{name}`");
            reader.report(Code::DuplicateEntry, entry.position, &name, message, "remove it");
            columns.push(None);
        } else {
            seen.push(name.clone());
            columns.push(Some(Column { name, position: entry.position }));
        }
    }
    Some(columns)
}

fn row<'t>(
    reader: &mut DocumentReader<'_>,
    row: &Node<'t>,
    columns: &[Option<Column>],
    call: &Node<'t>,
    expect: &Node<'t>,
) -> Option<CaseRow<'t>> {
    let NodeKind::Sequence(cells) = &row.kind else {
        reader.wrong_type(row, "`rows`", "rows", Expected::Cells);
        return None;
    };
    if cells.len() != columns.len() {
        let message = format!("a row has {} cells, the table has {} columns", cells.len(), columns.len());
        let suggestion = "one cell for each column; `~` leaves one out";
        reader.report(Code::WrongType, row.position, "", message, suggestion);
        return None;
    }
    let mut made = CaseRow { name: None, position: point(row), call: call.clone(), expect: expect.clone() };
    for (column, cell) in columns.iter().zip(cells) {
        let Some(Column { name, position }) = column else { continue };
        if name == "name" {
            made.name = (!is_null(cell)).then(|| cell.clone());
        } else if let Some(key) = name.strip_prefix("expect.") {
            put(&mut made.expect, &[key], *position, cell);
        } else if let Some(key) = name.strip_prefix("client.") {
            put(&mut made.call, &["client", key], *position, cell);
        } else {
            put(&mut made.call, &[name], *position, cell);
        }
    }
    Some(made)
}

/// Puts a cell to its place. What is no mapping stays as it is and is reported when it is read.
fn put<'t>(node: &mut Node<'t>, path: &[&str], at: Position, cell: &Node<'t>) {
    let (NodeKind::Mapping(entries), [key, rest @ ..]) = (&mut node.kind, path) else { return };
    let found = entries.iter().position(|(name, _)| name.text() == *key);
    let name = || Node {
        kind: NodeKind::Scalar { text: Cow::Owned((*key).to_owned()), schema: Schema::String },
        position: at,
    };
    if rest.is_empty() {
        if let Some(found) = found {
            entries.remove(found);
        }
        if !is_null(cell) {
            entries.push((name(), cell.clone()));
        }
        return;
    }
    match found.and_then(|found| entries.get_mut(found)) {
        Some((_, inner)) => put(inner, rest, at, cell),
        None if is_null(cell) => {}
        None => {
            let mut inner = Node { kind: NodeKind::Mapping(Vec::new()), position: at };
            put(&mut inner, rest, at, cell);
            entries.push((name(), inner));
        }
    }
}

fn is_null(node: &Node<'_>) -> bool {
    matches!(node.kind, NodeKind::Scalar { schema: Schema::Null, .. })
}

fn size(node: &Node<'_>) -> usize {
    match &node.kind {
        NodeKind::Scalar { .. } => 1,
        NodeKind::Sequence(entries) => 1 + entries.iter().map(size).sum::<usize>(),
        NodeKind::Mapping(entries) => entries.iter().map(|(_, value)| 1 + size(value)).sum::<usize>() + 1,
    }
}
