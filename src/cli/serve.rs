//! `serve`: answers questions over gRPC from the policy in a folder, until it is told to stop.
//!
//! Takes the settings apart, starts what they name in the order in which it can fail, and puts it
//! together. What the parts do is theirs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::output::{print, print_error};
use super::value::{duration, positive_duration, size};
use super::{Exit, report};
use crate::policy::finding::Finding;
use crate::rpc::policy_status::PolicyStatus;
use crate::rpc::v1::policy_status_service_server::PolicyStatusServiceServer;
use crate::server::config::Config;
use crate::server::lifecycle::Lifecycle;
use crate::server::metrics::Metrics;
use crate::server::reload::{Reloader, StartError};
use crate::server::{Listeners, Services, admin, run as serve, shutdown_signal};
use crate::status::Board;
use crate::store::load::Loader;
use crate::store::read::{ReadSettings, SourceFile};
use crate::store::{Current, Keeper};

pub(super) mod settings;

/// Serve decisions over gRPC
///
/// Exits with 0 after SIGTERM or SIGINT, 1 if the policy is not valid, 2 if it cannot start. Settings
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
    /// How long a policy that takes something away must be quiet before it serves
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    removal_quiet: Duration,
    /// How often the files are looked at even if nothing says that they changed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    rescan_interval: Duration,
    /// Whether an answer that adds scopes waits until its audit record is durable
    #[arg(long, value_enum, default_value_t)]
    audit_mode: AuditMode,
    /// How long audit records are kept
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = positive_duration)]
    audit_retention: Duration,
    /// How large the audit log may get
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    audit_max_size: u64,
    /// Also write audit records as JSON lines to this file; - is standard output
    #[arg(long, value_name = "PATH")]
    audit_jsonl: Option<PathBuf>,
    /// Start from the last good policy if the one in the folder is not valid
    #[arg(long)]
    start_from_last_good: bool,
    /// Allow addresses that other machines can reach although nothing is encrypted
    #[arg(long)]
    insecure_allow_remote_plaintext: bool,
    /// How to write the log, which goes to standard error
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What to log, such as info or scopeward=debug; if it is not given, RUST_LOG counts, then info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum AuditMode {
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

/// Runs the verb until the process is told to stop.
///
/// # Errors
/// If the server cannot start, or ends by itself.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    log_to_stderr(args.log_format, args.log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(start(args))
}

fn log_to_stderr(format: LogFormat, filter: Option<&str>) -> anyhow::Result<()> {
    let inherited = std::env::var("RUST_LOG").ok();
    let filter = filter.or(inherited.as_deref()).filter(|filter| !filter.is_empty()).unwrap_or("info");
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log filter `{filter}`"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => {
            let is_terminal = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
            builder.with_ansi(is_terminal).init();
        }
    }
    Ok(())
}

async fn start(args: ServeArgs) -> anyhow::Result<Exit> {
    let ServeArgs {
        config: _,
        print_config: _,
        policies,
        state_dir,
        listen,
        admin_listen,
        // They gain their meaning with the watcher and the audit log.
        debounce: _,
        audit_mode: _,
        audit_retention: _,
        audit_max_size: _,
        audit_jsonl: _,
        removal_quiet,
        rescan_interval,
        start_from_last_good,
        insecure_allow_remote_plaintext,
        log_format: _,
        log: _,
    } = args;
    let shutdown = shutdown_signal().context("could not catch signals")?;
    let config = Config { listen, insecure_allow_remote_plaintext, ..Config::default() };
    let listeners = Listeners::bind(&config).await?;
    let admin_listener = bind_admin(admin_listen, insecure_allow_remote_plaintext).await?;

    let lifecycle = Lifecycle::new();
    let current = Current::default();
    let loader = Loader::new(vec![policies], ReadSettings::default());
    let board = Arc::new(Board::new(Arc::clone(loader.source()), start_from_last_good, SystemTime::now()));
    let metrics = Metrics::new(Arc::clone(&board), |_| {});
    let mut reloader = Reloader::new(
        loader,
        Keeper::new(Arc::clone(&current), removal_quiet),
        Arc::clone(&board),
        metrics.clone(),
        Box::new(|_| {}),
        state_dir,
        start_from_last_good,
    );
    let (reloader, started) = spawn_blocking(move || {
        let started = reloader.start();
        (reloader, started)
    })
    .await?;
    if let Err(error) = started {
        return not_started(error);
    }
    lifecycle.serve();
    let addresses = (listeners.grpc_addr(), admin_listener.local_addr()?);
    announce(addresses, &current)?;

    let status = PolicyStatus::new(Arc::clone(&board), lifecycle.draining().clone());
    let services = Services::new(&lifecycle).with(PolicyStatusServiceServer::new(status));
    let stop = CancellationToken::new();
    let mut admin = tokio::spawn(admin::serve(
        admin_listener,
        Arc::clone(&board),
        metrics,
        stop.clone().cancelled_owned(),
    ));
    let mut reloads = tokio::spawn(reload(reloader, rescan_interval, stop.clone()));
    // A part that ends by itself takes the process with it: half a server is worse than none.
    let mut ended_early = None;
    let until_stopped = async {
        tokio::select! {
            () = shutdown => {}
            ended = &mut admin => ended_early = Some(("the admin endpoint", flat(ended))),
            ended = &mut reloads => ended_early = Some(("the reload task", flat(ended))),
        }
        board.drain(SystemTime::now());
    };
    let drained = serve(config, services, listeners, until_stopped).await;
    stop.cancel();
    if let Some((part, ended)) = ended_early {
        return Err(ended.err().unwrap_or_else(|| anyhow!("it stopped")).context(format!("{part} ended")));
    }
    flat(admin.await).context("the admin endpoint ended")?;
    flat(reloads.await).context("the reload task ended")?;
    info!(cut_connections = drained?.cut_connections, "stopped");
    Ok(Exit::Yes)
}

fn flat<E>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> anyhow::Result<()>
where
    anyhow::Error: From<E>,
{
    Ok(ended??)
}

async fn bind_admin(addr: SocketAddr, allow_remote: bool) -> anyhow::Result<TcpListener> {
    if !allow_remote && !addr.ip().to_canonical().is_loopback() {
        bail!(
            "`--admin-listen` {addr} can be reached from other machines in plaintext; listen on a loopback \
             address, or allow it with `--insecure-allow-remote-plaintext`"
        );
    }
    TcpListener::bind(addr).await.with_context(|| format!("could not listen on {addr}"))
}

/// Says on standard output that questions are answered from now on.
fn announce((grpc, admin): (SocketAddr, SocketAddr), current: &Current) -> anyhow::Result<()> {
    let active = current.load_full().context("no policy is loaded")?;
    let audiences = active.set.audiences().len();
    let digest = active.set.digest();
    print(&format!("scopeward ready: grpc={grpc} admin={admin} digest={digest} audiences={audiences}\n"))?;
    Ok(())
}

/// Prints why there is nothing to serve. A policy that is not valid is an answer, not a failure to run.
fn not_started(error: StartError) -> anyhow::Result<Exit> {
    let show = |findings: &[Finding], files: &[SourceFile]| {
        if !findings.is_empty() {
            print_error(&report::findings(findings, files));
        }
    };
    match &error {
        StartError::Read(_) => return Err(error.into()),
        StartError::Invalid { findings, files } => show(findings, files),
        StartError::NoLastGood { findings, files, .. } => show(findings, files),
    }
    print_error(&format!("{}: {error}\n", super::output::bad("error")));
    Ok(Exit::No)
}

/// Looks at the policy files on SIGHUP, every `rescan`, and when the last look asked for another one.
async fn reload(mut reloader: Reloader, rescan: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut wait = rescan;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            _ = hangup.recv() => info!("SIGHUP received, looking at the policy"),
        }
        let (back, again) = spawn_blocking(move || {
            let again = reloader.look();
            (reloader, again)
        })
        .await?;
        reloader = back;
        wait = again
            .map(|again| again.duration_since(SystemTime::now()).unwrap_or_default())
            .map_or(rescan, |again| again.min(rescan));
    }
}
