//! `serve`: answers questions over gRPC from the policy in a folder, until it is told to stop.
//!
//! Takes the settings apart, starts what they name in the order in which it can fail, and puts it
//! together. What the parts do is theirs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::output::{bad, print, print_error};
use super::value::{duration, positive_duration, size};
use super::{Exit, report};
use crate::audit::LEAST_STORE_BYTES;
use crate::audit::jsonl::JsonlTarget;
use crate::escape::clean;
use crate::server::app::{App, AppError};
use crate::server::config::{AuditSettings, Config, ServerSettings};
use crate::server::log::{Log, log_panics};
use crate::server::metrics::ProcessCounters;
use crate::server::recorder;
use crate::server::reload::StartError;
use crate::server::shutdown::Stopped;
use crate::server::signals::shutdown_within;
use crate::server::supervisor::{Part, Roster};

mod limits;
pub(super) mod settings;

/// Serve decisions over gRPC
///
/// Exits with 0 after SIGTERM or SIGINT; with 1 if the policy is not valid, a part of the server ended
/// unexpectedly, or the shutdown had to abandon something; with 2 if it cannot start. Settings
/// come from flags, the environment, the file of `--config` (the flags as keys, in lowerCamelCase) and
/// the defaults, in this order.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Read settings from this YAML file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print each setting and where it comes from, and exit
    #[arg(long)]
    pub(super) print_config: bool,
    /// Policy folder
    #[arg(long, value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// Folder for what must survive a restart: the last good policy, the audit log
    #[arg(long, value_name = "DIR", default_value = ".scopeward")]
    state_dir: PathBuf,
    /// Where to serve gRPC; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50551")]
    listen: SocketAddr,
    /// Where to serve /livez, /readyz, /metrics and /status.json; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50552")]
    admin_listen: SocketAddr,
    /// How long files must be quiet before they are read
    #[arg(long, value_name = "TIME", default_value = "150ms", value_parser = duration)]
    debounce: Duration,
    /// How long a policy that removes something must not be written before it serves
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    removal_quiet: Duration,
    /// How often the files are looked at even if nothing says that they changed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    rescan_interval: Duration,
    /// How long a shutdown may take before what is left is abandoned
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = positive_duration)]
    shutdown_timeout: Duration,
    /// Whether an answer that adds scopes waits until its audit record is durable
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    audit_mode: AuditModeFlag,
    /// How long audit records are kept
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = positive_duration)]
    audit_retention: Duration,
    /// How large the audit log may get, at least 16MiB; the oldest records are deleted
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = store_size)]
    audit_max_size: u64,
    /// How many denials are recorded in a second (in a burst ten times that); more are counted in gaps
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    audit_denials_per_second: u32,
    /// If the audit store is broken, move it to audit-broken-<time> and open a new log
    #[arg(long)]
    set_aside_broken_audit: bool,
    /// Also write audit records as JSON lines to this file; - is standard output
    #[arg(long, value_name = "PATH")]
    audit_jsonl: Option<PathBuf>,
    /// Follow links out of the policy directory, and show no text of what they lead to
    #[arg(long)]
    allow_outside_links: bool,
    /// Start from the last good policy if the one in the folder is not valid
    #[arg(long)]
    start_from_last_good: bool,
    #[command(flatten)]
    limits: limits::LimitArgs,
    /// Allow addresses that other machines can reach although nothing is encrypted
    #[arg(long)]
    insecure_allow_remote_plaintext: bool,
    /// How to write the log, which goes to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What to log, such as info or scopeward=debug; if it is not given, RUST_LOG counts, then info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum AuditModeFlag {
    /// It waits
    #[default]
    Blocking,
    /// Nothing waits
    Batch,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// An object on a line
    Json,
}

/// A size that an audit log can have.
fn store_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < LEAST_STORE_BYTES => {
            Err(format!("it must be at least {}MiB", LEAST_STORE_BYTES >> 20))
        }
        bytes => Ok(bytes),
    }
}

/// Runs the verb until the process is told to stop. `settings` are those that count, for the log.
///
/// # Errors
/// If the server cannot start.
pub(super) fn run(args: ServeArgs, settings: &str) -> anyhow::Result<Exit> {
    let log = Log::to_stderr().context("could not start the log")?;
    let process = ProcessCounters { log_lines_dropped: log.dropped(), ..ProcessCounters::default() };
    log_to(&log, args.log_format, args.log.as_deref())?;
    log_panics(process.panics.clone());
    info!(version = env!("CARGO_PKG_VERSION"), settings, "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(start(args, &log, process));
    // What still runs on it was abandoned, or waits for a disk: it ends with the process.
    runtime.shutdown_background();
    log.flush(LAST_LINES);
    exit
}

/// Sends what is logged to the log.
fn log_to(log: &Log, format: LogFormat, filter: Option<&str>) -> anyhow::Result<()> {
    let inherited = std::env::var("RUST_LOG").ok();
    let filter = filter.or(inherited.as_deref()).filter(|filter| !filter.is_empty()).unwrap_or("info");
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log filter `{filter}`"))?;
    // What goes wrong with a line must not be printed on standard error by others.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).log_internal_errors(false);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => {
            let is_terminal = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
            builder.with_ansi(is_terminal).init();
        }
    }
    Ok(())
}

async fn start(args: ServeArgs, log: &Log, process: ProcessCounters) -> anyhow::Result<Exit> {
    let ServeArgs {
        config: _,
        print_config: _,
        policies,
        state_dir,
        listen,
        admin_listen,
        debounce,
        removal_quiet,
        rescan_interval,
        shutdown_timeout,
        audit_mode,
        audit_retention,
        audit_max_size,
        audit_denials_per_second,
        set_aside_broken_audit,
        audit_jsonl,
        allow_outside_links,
        start_from_last_good,
        limits,
        insecure_allow_remote_plaintext,
        log_format: _,
        log: _,
    } = args;
    let roster = Roster::default();
    let shutdown =
        shutdown_within(shutdown_timeout, roster.clone(), log.clone()).context("could not catch signals")?;
    let jsonl = audit_jsonl
        .map(|path| if path.as_os_str() == "-" { JsonlTarget::Stdout } else { JsonlTarget::File(path) });
    let lines_on_stdout = jsonl.as_ref().is_some_and(JsonlTarget::is_stdout);
    let settings = ServerSettings {
        server: Config {
            listen,
            insecure_allow_remote_plaintext,
            shutdown_timeout,
            limits: limits.limits(),
            ..Config::default()
        },
        admin_listen,
        policies,
        state_dir,
        debounce,
        removal_quiet,
        rescan_interval,
        allow_outside_links,
        start_from_last_good,
        audit: AuditSettings {
            mode: match audit_mode {
                AuditModeFlag::Blocking => recorder::AuditMode::Blocking,
                AuditModeFlag::Batch => recorder::AuditMode::Batch,
            },
            retention: Some(audit_retention),
            max_bytes: Some(audit_max_size),
            denials_per_second: audit_denials_per_second,
            set_aside_broken: set_aside_broken_audit,
            jsonl,
        },
        process,
        roster,
    };
    tokio::pin!(shutdown);
    let started = tokio::select! {
        started = App::start(settings) => started,
        _ = &mut shutdown => {
            info!("stopped before it was ready");
            return Ok(Exit::Yes);
        }
    };
    let app = match started {
        Ok(app) => app,
        Err(AppError::Policy(error)) => return not_started(error),
        Err(error) => return Err(error.into()),
    };
    announce(&app, log, lines_on_stdout);
    let mut heard = true;
    let ran = app.run(async { heard = shutdown.await }).await;
    let (failure, abandoned) = match ran {
        Ok(Stopped { abandoned }) if heard => (None, abandoned),
        Ok(Stopped { abandoned }) => (Some(format!("{} ended unexpectedly", Part::Signals)), abandoned),
        Err(error) => {
            let message = error.to_string();
            let abandoned =
                if let AppError::Ended { abandoned, .. } = error { abandoned } else { Vec::new() };
            (Some(message), abandoned)
        }
    };
    // Through the log: nobody may be reading standard error.
    let abandoned = abandoned.iter().map(|left| format!("abandoned {left}"));
    let problems: Vec<String> = failure.into_iter().chain(abandoned).collect();
    for problem in &problems {
        log.print(&format!("scopeward: {}\n", clean(problem)));
    }
    info!("stopped");
    Ok(if problems.is_empty() { Exit::Yes } else { Exit::No })
}

/// Says that questions are answered from now on: the addresses are bound, so a call that comes at once
/// waits for its answer. On standard output, or on standard error if the former carries audit lines.
fn announce(app: &App, log: &Log, lines_on_stdout: bool) {
    let (grpc, admin) = (app.grpc_addr(), app.admin_addr());
    let (digest, audiences) = app.policy();
    let ready = format!("scopeward ready: grpc={grpc} admin={admin} digest={digest} audiences={audiences}\n");
    if lines_on_stdout {
        log.print(&ready);
    } else if let Err(error) = print(&ready) {
        warn!(%error, "the ready line could not be written");
    }
}

/// Prints why there is nothing to serve. A policy that is not valid is an answer, not a failure to run.
fn not_started(error: StartError) -> anyhow::Result<Exit> {
    let (findings, files) = match &error {
        StartError::Read(_) => return Err(error.into()),
        StartError::Invalid { findings, files } | StartError::NoLastGood { findings, files, .. } => {
            (findings, files)
        }
    };
    if findings.is_empty() {
        // Neither the policy nor the last good one could be read: nothing was judged.
        return Err(error.into());
    }
    print_error(&report::findings(findings, files));
    print_error(&format!("{}: {error}\n", bad("error")));
    Ok(Exit::No)
}

/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_millis(250);
