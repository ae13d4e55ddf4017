//! The floors of `ARCHITECTURE.md`: a file uses its own floor and what is below, so there are no circles.
//!
//! Reads what follows `crate::`. Tests may look from above and are left out.

use std::fs;
use std::path::Path;

/// Each module of the crate with its floor.
const FLOORS: [(&str, u32); 17] = [
    ("proto", 0),
    ("budget", 0),
    ("scope", 0),
    ("audience", 0),
    ("policy", 1),
    ("decision", 2),
    ("call", 2),
    ("report", 2),
    ("suite", 2),
    ("replay", 2),
    ("store", 3),
    ("status", 3),
    ("audit", 3),
    ("rpc", 4),
    ("server", 5),
    ("cli", 6),
    ("main", 6),
];

/// The floor whose modules do not know one another.
const STRANGERS: u32 = 3;

fn floor(module: &str) -> u32 {
    let known = FLOORS.iter().find(|(name, _)| *name == module);
    known.unwrap_or_else(|| panic!("`{module}` has no floor; give it one here and in ARCHITECTURE.md")).1
}

#[test]
fn no_file_uses_a_floor_above_its_own() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if own == "lib" {
            return;
        }
        for used in used(text) {
            seen += 1;
            let (here, there) = (floor(own), floor(&used));
            if there > here || (here == STRANGERS && there == STRANGERS && used != own) {
                wrong.push(format!("{} uses `{used}`", inside.display()));
            }
        }
    });
    assert!(seen > 50, "only {seen} uses were found, so the test looks at the wrong lines");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_ground_floors_have_no_world() {
    const WORLD: [&str; 7] = ["std::fs", "std::net", "std::thread", "std::env", "tokio", "tracing", "tonic"];
    const CLOCKS: [&str; 3] = ["SystemTime::now", "Instant::now", "Uuid::now"];
    let mut wrong = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if own == "lib" || floor(own) > 2 {
            return;
        }
        for line in text.lines() {
            let used = line.strip_prefix("use ").unwrap_or_default();
            if WORLD.iter().any(|world| used.starts_with(world))
                || CLOCKS.iter().any(|clock| line.contains(clock))
            {
                wrong.push(format!("{}: {line}", inside.display()));
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The modules that a file uses: `use crate::a::b` and `use crate::{a, b::c}`.
fn used(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("crate::").skip(1) {
        let names: Vec<&str> = match part.strip_prefix('{') {
            None => vec![part],
            Some(list) => list.split_once('}').map_or(list, |(list, _)| list).split(',').collect(),
        };
        for name in names {
            let name: String =
                name.trim().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
            // `crate::VERSION` and the like live in `lib.rs`, below everything.
            if name.starts_with(char::is_lowercase) {
                found.push(name);
            }
        }
    }
    found
}

/// Visits every source file, without the tests.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            files(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            visit(&path, text.split("\n#[cfg(test)]\nmod ").next().unwrap());
        }
    }
}
