//! `export`: a policy as the static configuration of a server that will not ask.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};

use super::output::{notable, print, print_error};
use super::{Exit, input, report};
use crate::escape::shown;
use crate::export::{StaticServer, export};
use crate::policy::{AudiencePolicy, PolicySet};

/// Print the nearest static configuration of a policy, for a server that will not ask
///
/// One audience, as lists of scopes. What such a configuration cannot say is in it as comments, and on standard error.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Folders with a policy, and single files
    #[arg(value_name = "PATH", default_value = "policies")]
    paths: Vec<PathBuf>,
    /// For which server
    #[arg(long, value_name = "SERVER", value_enum)]
    format: ExportFormat,
    /// Which audience; if it is left out, the default one or the only one
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// Follow links out of the named folders, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ExportFormat {
    /// The embedded authorization server of `ToolHive`: YAML
    Toolhive,
    /// Keycloak: a script for kcadm.sh
    Keycloak,
    /// The OAuth provider of Better Auth: TypeScript
    BetterAuth,
    /// The auth server of the MCP Python SDK: Python
    McpSdk,
}

impl From<ExportFormat> for StaticServer {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Toolhive => Self::ToolHive,
            ExportFormat::Keycloak => Self::Keycloak,
            ExportFormat::BetterAuth => Self::BetterAuth,
            ExportFormat::McpSdk => Self::McpSdk,
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// If a path cannot be read, the policy is not valid, or it is not said which audience is meant.
pub(super) fn run(args: ExportArgs) -> anyhow::Result<Exit> {
    let ExportArgs { paths, format, audience, allow_outside_links } = args;
    let loaded = input::loader(paths, allow_outside_links)?.load()?;
    let set = loaded.outcome.map(|accepted| accepted.set).map_err(|findings| {
        print_error(&report::findings(&findings, &loaded.files));
        anyhow!("the policy is not valid, so nothing was exported")
    })?;
    let configuration = export(&set, wanted(&set, audience.as_deref())?, format.into());
    for departure in &configuration.departures {
        print_error(&format!("{}: {}: {}\n", notable("note"), departure.effect, departure.about));
    }
    print(&configuration.text)?;
    Ok(Exit::Yes)
}

fn wanted<'s>(set: &'s PolicySet, name: Option<&str>) -> anyhow::Result<&'s Arc<AudiencePolicy>> {
    const SHOWN: usize = 5;
    let names: Vec<_> =
        set.audiences().iter().take(SHOWN).map(|policy| format!("`{}`", shown(&policy.audience))).collect();
    let more = if set.audiences().len() > SHOWN { ", ..." } else { "" };
    let there = names.join(", ");
    match name {
        Some(name) => match set.audience(name) {
            Ok(Some(policy)) => Ok(policy),
            Ok(None) => bail!("`{}` is no audience of the policy; there are {there}{more}", shown(name)),
            Err(error) => bail!("`--audience {}`: {error}", shown(name)),
        },
        None => set.unnamed_audience().ok_or_else(|| {
            anyhow!(
                "the policy has several audiences and no default one; name one with --audience: {there}{more}"
            )
        }),
    }
}
