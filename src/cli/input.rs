//! Policies as they are named on the command line: folders, files, manifests, `-`.

use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::Context;

use crate::store::load::{Loader, STANDARD_INPUT};
use crate::store::read::{MAX_FILE_BYTES, ReadSettings};

/// A loader for these paths; `-` among them is standard input, which is read here.
///
/// # Errors
/// If standard input cannot be read.
pub(super) fn loader(mut paths: Vec<PathBuf>, allow_outside_links: bool) -> anyhow::Result<Loader> {
    let count = paths.len();
    paths.retain(|path| path.as_os_str() != STANDARD_INPUT);
    let has_input = paths.len() < count;
    let settings = ReadSettings { allow_outside_links, ..ReadSettings::default() };
    let loader = Loader::new(paths, settings).for_authors();
    if !has_input {
        return Ok(loader);
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many.
    let mut input = io::stdin().lock().take(MAX_FILE_BYTES + 1);
    input.read_to_end(&mut bytes).context("could not read standard input")?;
    Ok(loader.with_input(bytes))
}
