//! The layers of `ARCHITECTURE.md`: a file uses its own layer and those below, so there are no cycles.
//!
//! Reads what follows `crate::`. Tests may look from above and are left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Modules of layer 3 that do not know one another; `server` wires them.
const INDEPENDENT: [&str; 3] = ["store", "status", "audit"];

/// Each module of the crate with its layer, from the table in `ARCHITECTURE.md`: a row with an empty
/// first cell continues the layer above it.
fn layers() -> BTreeMap<String, u32> {
    let text = include_str!("../../ARCHITECTURE.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| layer |")).skip(2);
    let mut layers = BTreeMap::new();
    let mut layer = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if let Some(number) = cells[1].split(' ').next().filter(|number| !number.is_empty()) {
            layer = number.parse().expect("a row starts with the number of its layer");
        }
        for name in cells[2].split('`').skip(1).step_by(2) {
            if !name.contains('/') {
                assert_eq!(layers.insert(name.to_owned(), layer), None, "`{name}` has two layers");
            }
        }
    }
    layers
}

#[test]
fn no_file_uses_a_layer_above_its_own() {
    let layers = layers();
    let layer = |module: &str| {
        *layers.get(module).unwrap_or_else(|| panic!("`{module}` has no layer in ARCHITECTURE.md"))
    };
    let mut wrong = Vec::new();
    let mut seen = 0;
    files(&mut |inside, own, text| {
        for used in used(text) {
            seen += 1;
            let sideways = layer(own) == 3 && INDEPENDENT.contains(&&*used) && used != own;
            if layer(&used) > layer(own) || sideways {
                wrong.push(format!("{} uses `{used}`", inside.display()));
            }
        }
    });
    assert!(seen > 50, "only {seen} uses were found, so the test looks at the wrong lines");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_names_each_module_and_no_other() {
    let mut named: Vec<String> = layers().into_keys().collect();
    let mut there = Vec::new();
    files(&mut |_, own, _| there.push(own.to_owned()));
    there.sort();
    there.dedup();
    named.sort();
    assert_eq!(named, there);
}

#[test]
fn the_tests_that_prove_the_invariants_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let invariants = page.split("## Invariants").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests/it"] {
        all_files(&root.join(folder), &mut |_, text| sources.push_str(text));
    }
    // Names of tests are sentences; names of other things are shorter.
    let named: Vec<&str> =
        invariants.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for point in invariants.split("\n- ").skip(1).filter(|point| !point.contains("The lints say so")) {
        assert!(named.iter().any(|name| point.contains(name)), "no test is named: {point}");
    }
}

#[test]
fn layers_0_to_2_have_no_world() {
    const WORLD: [&str; 7] = ["std::fs", "std::net", "std::thread", "std::env", "tokio", "tracing", "tonic"];
    const CLOCKS: [&str; 3] = ["SystemTime::now", "Instant::now", "Uuid::now"];
    let layers = layers();
    let mut wrong = Vec::new();
    files(&mut |inside, own, text| {
        if layers.get(own).is_some_and(|layer| *layer > 2) {
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

#[test]
fn a_type_name_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    files(&mut |inside, _, text| {
        // What is indented is the associated type of a trait, or local to a function.
        for line in text.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
            let mut words = line.split(' ').skip_while(|word| word.starts_with("pub")).skip_while(|word| {
                // `pub(in path)` is two words.
                word.ends_with(')')
            });
            if let Some("struct" | "enum" | "trait" | "type") = words.next() {
                let name = words.next().unwrap_or_default();
                let name = name.split(|char: char| !char.is_alphanumeric()).next().unwrap_or_default();
                places.entry(name.to_owned()).or_default().push(inside.display().to_string());
            }
        }
    });
    assert!(
        places.len() > 200,
        "only {} types were found, so the test looks at the wrong lines",
        places.len()
    );
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn one_file_has_unsafe_code() {
    let mut there = Vec::new();
    files(&mut |inside, _, text| {
        if text.contains("unsafe {") || text.contains("unsafe_code") {
            there.push(inside.display().to_string());
        }
    });
    assert_eq!(there, ["server/memory.rs"]);
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

/// Visits every source file but `lib.rs`, without the tests: its path in `src`, its module, its text.
fn files(visit: &mut dyn FnMut(&Path, &str, &str)) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    all_files(&src, &mut |path, text| {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let is_test = inside.iter().any(|part| matches!(part.to_str(), Some("tests" | "tests.rs")));
        if module != "lib" && !is_test {
            visit(inside, module, text.split("\n#[cfg(test)]\nmod ").next().unwrap());
        }
    });
}

fn all_files(folder: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn json_is_written_in_one_place() {
    let mut wrong = Vec::new();
    files(&mut |inside, own, text| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if own != "escape" && code.contains("serde_json::to_string") {
            wrong.push(inside.display().to_string());
        }
    });
    assert_eq!(wrong, [""; 0], "`escape::json` also makes what it writes safe to show");
}
