//! `test`: does the policy answer as its tests say.
//!
//! Finds the suites next to the policy and stops at anything that is wrong with either, since a case
//! that is not run must not look like one that passed. Running and comparing is `suite`'s.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::output::{print, print_error};
use super::report::{self, counted};
use super::{Exit, input};
use crate::escape::{self, shown};
use crate::policy::PolicySet;
use crate::policy::finding::Findings;
use crate::store::load::finding;
use crate::store::read::{ReadSettings, Wanted, is_test_name, read_folder};
use crate::suite::{self, Suite, output};

/// Run policy tests
///
/// Runs the cases of every *_test.yaml and *_test.yml in the same folders as the policy. Exits with 0 if
/// all pass, 4 if one fails, 2 if they cannot be run: the policy or a test file is not valid, or there
/// is no case to run.
#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// Folders with a policy and its tests, and single files of both
    #[arg(value_name = "PATH", default_value = "policies")]
    paths: Vec<PathBuf>,
    /// Follow links out of the named folders, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
    /// Run only cases with this text in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Show which audiences and client rules the cases touched; JSON always has it
    #[arg(long)]
    coverage: bool,
    /// How to print the results
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: TestFormat,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum TestFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// JUnit XML, for CI servers
    Junit,
}

/// Runs the verb.
///
/// # Errors
/// If a path cannot be read, the policy or a test file is not valid, or there is nothing to run.
pub(super) fn run(args: TestArgs) -> anyhow::Result<Exit> {
    let TestArgs { paths, allow_outside_links, filter, coverage, output } = args;
    let started = SystemTime::now();
    let shown_paths = joined(&paths);
    let Named { policy, suites } = Named::new(paths)?;
    let policy = load_policy(policy, allow_outside_links)?;
    let suites = load_suites(&suites, &policy, allow_outside_links)?;
    if suites.is_empty() {
        bail!("no test file in {shown_paths}; its name ends in `_test.yaml`");
    }
    let report = suite::run(&policy, &suites, filter.as_deref());
    if report.results.is_empty() {
        let filter = filter.unwrap_or_default();
        let cases = counted(report.filtered, "case");
        bail!("none of {cases} has `{}` in its name, so nothing was tested", shown(&filter));
    }
    print(&match output {
        TestFormat::Text => output::text(&report, coverage),
        TestFormat::Json => escape::json_pretty(&output::json(&report))? + "\n",
        TestFormat::Junit => output::junit(&report, started),
    })?;
    Ok(if report.failed() == 0 { Exit::Yes } else { Exit::TestsFailed })
}

/// What the paths are to be read for.
struct Named {
    policy: Vec<PathBuf>,
    suites: Vec<PathBuf>,
}

impl Named {
    /// A folder has both, a file is what its name says.
    fn new(paths: Vec<PathBuf>) -> anyhow::Result<Self> {
        let is_suite = |path: &Path| path.file_name().is_some_and(is_test_name) && !path.is_dir();
        let suites = paths.iter().filter(|path| path.is_dir() || is_suite(path)).cloned().collect();
        let policy: Vec<_> = paths.into_iter().filter(|path| !is_suite(path)).collect();
        if policy.is_empty() {
            bail!("only test files are named; name the policy too, its folder or its files");
        }
        Ok(Self { policy, suites })
    }
}

fn load_policy(paths: Vec<PathBuf>, allow_outside_links: bool) -> anyhow::Result<PolicySet> {
    let shown_paths = joined(&paths);
    let loaded = input::loader(paths, allow_outside_links)?.load()?;
    loaded.outcome.map(|accepted| accepted.set).map_err(|findings| {
        print_error(&report::findings(&findings, &loaded.files));
        anyhow::anyhow!("the policy in {shown_paths} is not valid, so nothing was tested")
    })
}

fn load_suites(
    paths: &[PathBuf],
    policy: &PolicySet,
    allow_outside_links: bool,
) -> anyhow::Result<Vec<Suite>> {
    let settings = ReadSettings { wanted: Wanted::Tests, allow_outside_links, ..ReadSettings::default() };
    let snapshot = read_folder(paths, None, &settings)?;
    let suites: Vec<Suite> = snapshot.files.iter().map(|file| Suite::read(&file.path, file.text())).collect();
    let mut findings: Findings = snapshot.problems.iter().map(finding).collect();
    findings.extend(suites.iter().flat_map(|suite| suite.check(policy)));
    if !findings.is_empty() {
        print_error(&report::findings(&findings, &snapshot.files));
        bail!("the test files are not valid, so nothing was tested");
    }
    Ok(suites)
}

/// The paths in backticks.
fn joined(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| format!("`{}`", shown(&path.to_string_lossy()))).collect();
    shown.join(", ")
}
