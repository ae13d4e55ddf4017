//! Policies as they are named on the command line: folders, files, manifests, `-`.

use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};

use crate::escape::shown;
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
    Ok(loader.with_input(standard_input()?))
}

fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many.
    let mut input = io::stdin().lock().take(MAX_FILE_BYTES + 1);
    input.read_to_end(&mut bytes).context("could not read standard input")?;
    Ok(bytes)
}

/// A file that is read in the place of another one.
#[derive(Clone, Debug)]
pub(super) struct Replacement {
    old: PathBuf,
    new: PathBuf,
}

impl FromStr for Replacement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => {
                Ok(Self { old: old.into(), new: new.into() })
            }
            _ => Err("write `OLD=NEW`: a file of the policy, and the one that stands in for it".to_owned()),
        }
    }
}

/// Lets files stand in for files of the folders; `-` is standard input, which is read here.
///
/// # Errors
/// If a file is replaced twice, is not a file of the policy, or cannot be read.
pub(super) fn replaced(mut loader: Loader, replacements: Vec<Replacement>) -> anyhow::Result<Loader> {
    let mut is_input_read = loader.has_input();
    for (at, Replacement { old, new }) in replacements.iter().enumerate() {
        if replacements.iter().take(at).any(|other| other.old == *old) {
            bail!("`{}` is replaced twice", shown(&old.to_string_lossy()));
        }
        let is_input = new.as_os_str() == STANDARD_INPUT;
        if is_input && std::mem::replace(&mut is_input_read, true) {
            bail!("standard input can be read once");
        }
        if is_input {
            loader = loader.with_input(standard_input()?);
        }
        loader = loader.with_replacement(old.clone(), (!is_input).then_some(new.as_path()))?;
    }
    if let Some(old) = loader.not_replaced()? {
        let old = shown(&old.to_string_lossy());
        let source = loader.source();
        bail!(
            "`{old}` is not a policy file in `{}`, so nothing can stand in for it; name a further file as a path",
            shown(source)
        );
    }
    Ok(loader)
}
