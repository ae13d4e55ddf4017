//! Tests that need more than Rust: they run where `TEST_TOOLS` names their tool, or says `all` and not `-` with that name.
//!
//! `.ci/install` installs every tool, and `.ci/run` uses all. A tool that was named and is not there is a failure.

use std::env;

/// Whether tests with `tool` shall run: `prometheus`, `helm`, `chromium` and so on. One that shall not says so.
pub fn wanted(tool: &str) -> bool {
    let named = env::var("TEST_TOOLS").unwrap_or_default();
    let is_named = |wanted: &str| named.split(',').any(|name| name == wanted);
    let is_wanted = is_named(tool) || is_named("all") && !is_named(&format!("-{tool}"));
    if !is_wanted {
        println!("skipped: needs {tool}, see TEST_TOOLS in CONTRIBUTING.md");
    }
    is_wanted
}
