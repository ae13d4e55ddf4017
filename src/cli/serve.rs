//! `serve`: answers questions over gRPC from the policy in a folder, until it is told to stop.
//!
//! Takes the settings apart, starts what they name in the order in which it can fail, and puts it
//! together. What the parts do is theirs.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use self::settings::{ALL, BLOCKING, DENIED, JSON, ServeSetting, ServerVerb};
use super::joined;
use super::output::{bad, print, print_error};
use super::value::switch;
use super::{Exit, report};
use crate::audit::jsonl::JsonlTarget;
use crate::escape::clean;
use crate::rpc::decision_line::LoggedDecisions;
use crate::server::access::AccessError;
use crate::server::app::{App, AppError};
use crate::server::config::{AuditSettings, Config, PeerLimits, ServerSettings};
use crate::server::gateway::settings::GatewaySettings;
use crate::server::listen::{ListenAddr, ListenerProtocol};
use crate::server::log::{Log, log_panics};
use crate::server::memory;
use crate::server::metrics::ProcessCounters;
use crate::server::recorder;
use crate::server::reload::StartError;
use crate::server::service_manager::{NotifySocket, ServiceManager};
use crate::server::shutdown::Stopped;
use crate::server::signals::shutdown_within;
use crate::server::supervisor::{Part, Roster};
use crate::server::tls::TlsFiles;
use crate::server::traces::settings::TraceSettings;

pub(super) mod config_file;
pub(super) mod settings;

/// What a server is told, whatever it serves; the flags are the rows of [`settings::SETTINGS`].
#[derive(Debug)]
pub(super) struct ServeArgs {
    /// The configuration file.
    pub(super) config: Option<PathBuf>,
    /// Print the settings instead of serving.
    pub(super) print_config: bool,
    policies: PathBuf,
    state_dir: PathBuf,
    pub(super) listen: Vec<ListenAddr>,
    http_listen: Vec<ListenAddr>,
    listen_unix_mode: u32,
    pub(super) tls_cert_file: Option<PathBuf>,
    pub(super) tls_private_key_file: Option<PathBuf>,
    pub(super) tls_client_ca_file: Option<PathBuf>,
    access_file: Option<PathBuf>,
    admin_listen: SocketAddr,
    console: bool,
    debounce: Duration,
    removal_quiet: Duration,
    rescan_interval: Duration,
    shutdown_timeout: Duration,
    audit_mode: recorder::AuditMode,
    audit_retention: Duration,
    audit_max_size: u64,
    audit_denials_per_second: u32,
    set_aside_broken_audit: bool,
    audit_jsonl: Option<PathBuf>,
    audit_forward: Option<String>,
    audit_forward_password_file: Option<PathBuf>,
    allow_outside_links: bool,
    start_from_last_good: bool,
    shadow: Option<PathBuf>,
    metrics_per_audience: bool,
    log_decisions: LoggedDecisions,
    limits: PeerLimits,
    insecure_allow_remote_plaintext: bool,
    log_as_json: bool,
    log: Option<String>,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        with_settings(command.about("Serve decisions over gRPC").long_about(ABOUT), ServerVerb::Serve)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::take(&mut GivenFlags(matches.clone()), ServerVerb::Serve)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags of a verb that runs a server.
pub(super) fn with_settings(command: Command, verb: ServerVerb) -> Command {
    let file = Arg::new(CONFIG).long(CONFIG).value_name("FILE").value_parser(ValueParser::path_buf());
    let print = Arg::new(PRINT_CONFIG).long(PRINT_CONFIG).action(ArgAction::SetTrue);
    command
        .arg(file.help("Read settings from this YAML file"))
        .arg(print.value_parser(switch).help("Print each setting and where it comes from, and exit"))
        .args(verb.settings().into_iter().map(ServeSetting::arg))
}

impl ServeArgs {
    /// Each setting that the verb shares with others, once.
    pub(super) fn take(given: &mut GivenFlags, verb: ServerVerb) -> Result<Self, clap::Error> {
        Ok(Self {
            config: given.optional(CONFIG)?,
            print_config: given.value(PRINT_CONFIG)?,
            policies: given.value("policies")?,
            state_dir: given.value("state-dir")?,
            listen: given.values("listen")?,
            http_listen: match verb {
                ServerVerb::Serve => given.values("http-listen")?,
                ServerVerb::Gateway => Vec::new(),
            },
            listen_unix_mode: given.value("listen-unix-mode")?,
            tls_cert_file: given.optional("tls-cert-file")?,
            tls_private_key_file: given.optional("tls-private-key-file")?,
            tls_client_ca_file: given.optional("tls-client-ca-file")?,
            access_file: given.optional("access-file")?,
            admin_listen: given.value("admin-listen")?,
            console: given.value("console")?,
            debounce: given.value("debounce")?,
            removal_quiet: given.value("removal-quiet")?,
            rescan_interval: given.value("rescan-interval")?,
            shutdown_timeout: given.value("shutdown-timeout")?,
            audit_mode: match &*given.value::<String>("audit-mode")? {
                BLOCKING => recorder::AuditMode::Blocking,
                _ => recorder::AuditMode::Batch,
            },
            audit_retention: given.value("audit-retention")?,
            audit_max_size: given.value("audit-max-size")?,
            audit_denials_per_second: given.count("audit-denials-per-second")?,
            set_aside_broken_audit: given.value("set-aside-broken-audit")?,
            audit_jsonl: given.optional("audit-jsonl")?,
            audit_forward: given.optional("audit-forward")?,
            audit_forward_password_file: given.optional("audit-forward-password-file")?,
            allow_outside_links: given.value("allow-outside-links")?,
            start_from_last_good: given.value("start-from-last-good")?,
            shadow: given.optional("shadow")?,
            metrics_per_audience: given.value("metrics-per-audience")?,
            log_decisions: match &*given.value::<String>("log-decisions")? {
                DENIED => LoggedDecisions::Denied,
                ALL => LoggedDecisions::All,
                _ => LoggedDecisions::None,
            },
            limits: PeerLimits {
                max_calls: given.count("max-calls")?,
                max_streams: match verb {
                    ServerVerb::Serve => given.count("max-streams")?,
                    ServerVerb::Gateway => PeerLimits::default().max_streams,
                },
                max_bytes_in_flight: given.count("max-bytes-in-flight")?,
                max_connections: given.count("max-connections")?,
                request_timeout: given.value("request-timeout")?,
                max_connection_age: given.value("max-connection-age")?,
                ..PeerLimits::default()
            },
            insecure_allow_remote_plaintext: given.value("insecure-allow-remote-plaintext")?,
            log_as_json: given.value::<String>("log-format")? == JSON,
            log: given.optional("log")?,
        })
    }
}

/// What was given, taken out by flag.
pub(super) struct GivenFlags(pub(super) ArgMatches);

impl GivenFlags {
    pub(super) fn optional<T: Any + Clone + Send + Sync>(
        &mut self,
        flag: &str,
    ) -> Result<Option<T>, clap::Error> {
        let wrong = |error| clap::Error::raw(ErrorKind::InvalidValue, format!("--{flag}: {error}\n"));
        self.0.try_remove_one(flag).map_err(wrong)
    }

    /// Of a setting that has a default.
    pub(super) fn value<T: Any + Clone + Send + Sync>(&mut self, flag: &str) -> Result<T, clap::Error> {
        let missing =
            || clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("--{flag} has no value\n"));
        self.optional(flag)?.ok_or_else(missing)
    }

    /// All values of a setting that takes several.
    pub(super) fn values<T: Any + Clone + Send + Sync>(&mut self, flag: &str) -> Result<Vec<T>, clap::Error> {
        let wrong = |error| clap::Error::raw(ErrorKind::InvalidValue, format!("--{flag}: {error}\n"));
        let values = self.0.try_remove_many(flag).map_err(wrong)?;
        Ok(values.map(Iterator::collect).unwrap_or_default())
    }

    /// A number in the width that it is used with.
    pub(super) fn count<T: TryFrom<u64>>(&mut self, flag: &str) -> Result<T, clap::Error> {
        let wide = || clap::Error::raw(ErrorKind::InvalidValue, format!("--{flag} is too large\n"));
        T::try_from(self.value::<u64>(flag)?).map_err(|_| wide())
    }
}

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
const ABOUT: &str = "Serve decisions over gRPC\n\n\
    Exits with 0 after SIGTERM or SIGINT; with 1 if the policy is not valid, a part of the server ended \
    unexpectedly, or the shutdown had to abandon something; with 2 if it cannot start. Settings come from \
    flags, the environment, the file of --config (the flags as keys, in lowerCamelCase) and the defaults, in \
    this order. With OTEL_EXPORTER_OTLP_ENDPOINT in the environment spans are sent there (OTLP over gRPC), \
    by the standard variables of OpenTelemetry.";

/// Runs a server until the process is told to stop: a gateway, or decisions over gRPC. `settings` are those that count, for the
/// log, and `warnings` what is wrong with the environment.
///
/// # Errors
/// If the server cannot start.
pub(super) fn run(
    args: ServeArgs,
    gateway: Option<GatewaySettings>,
    settings: &str,
    warnings: &[String],
) -> anyhow::Result<Exit> {
    memory::keep_little();
    let log = Log::to_stderr().context("could not start the log")?;
    let process = ProcessCounters { log_lines_dropped: log.dropped(), ..ProcessCounters::default() };
    log_to(&log, args.log_as_json, args.log.as_deref())?;
    log_panics(process.panics.clone());
    info!(version = env!("CARGO_PKG_VERSION"), settings, "starting");
    for warning in warnings {
        warn!(warning, "environment");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(start(args, gateway, &log, process));
    // What still runs on it was abandoned, or waits for a disk: it ends with the process.
    runtime.shutdown_background();
    log.flush(LAST_LINES);
    exit
}

/// Sends what is logged to the log.
fn log_to(log: &Log, as_json: bool, filter: Option<&str>) -> anyhow::Result<()> {
    let inherited = std::env::var("RUST_LOG").ok();
    let filter =
        filter.or(inherited.as_deref()).filter(|filter| !filter.is_empty()).unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log filter `{filter}`"))?;
    // What goes wrong with a line must not be printed on standard error by others.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).log_internal_errors(false);
    if as_json {
        builder.json().init();
    } else {
        let is_terminal = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        builder.with_ansi(is_terminal).init();
    }
    Ok(())
}

async fn start(
    args: ServeArgs,
    gateway: Option<GatewaySettings>,
    log: &Log,
    process: ProcessCounters,
) -> anyhow::Result<Exit> {
    let ServeArgs {
        config: _,
        print_config: _,
        policies,
        state_dir,
        listen,
        http_listen,
        listen_unix_mode,
        tls_cert_file,
        tls_private_key_file,
        tls_client_ca_file,
        access_file,
        admin_listen,
        console,
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
        audit_forward,
        audit_forward_password_file,
        allow_outside_links,
        start_from_last_good,
        shadow,
        metrics_per_audience,
        log_decisions,
        limits,
        insecure_allow_remote_plaintext,
        log_as_json: _,
        log: _,
    } = args;
    let (traces, ignored) = TraceSettings::from_variables(|name| std::env::var_os(name))?;
    for warning in ignored {
        warn!(warning, "environment");
    }
    let roster = Roster::default();
    let shutdown =
        shutdown_within(shutdown_timeout, roster.clone(), log.clone()).context("could not catch signals")?;
    let jsonl = audit_jsonl
        .map(|path| if path.as_os_str() == "-" { JsonlTarget::Stdout } else { JsonlTarget::File(path) });
    let forward = audit_forward.map(|url| joined::target(&url, audit_forward_password_file)).transpose()?;
    let lines_on_stdout = jsonl.as_ref().is_some_and(JsonlTarget::is_stdout);
    let settings = ServerSettings {
        server: Config {
            listen,
            http_listen,
            listen_unix_mode,
            tls: tls_files(tls_cert_file, tls_private_key_file, tls_client_ca_file)?,
            insecure_allow_remote_plaintext,
            shutdown_timeout,
            limits,
            ..Config::default()
        },
        admin_listen,
        console,
        policies,
        state_dir,
        debounce,
        removal_quiet,
        rescan_interval,
        access_file,
        credentials_interval: ServerSettings::default().credentials_interval,
        allow_outside_links,
        start_from_last_good,
        shadow,
        traces,
        metrics_per_audience,
        log_decisions,
        audit: AuditSettings {
            mode: audit_mode,
            retention: Some(audit_retention),
            max_bytes: Some(audit_max_size),
            denials_per_second: audit_denials_per_second,
            set_aside_broken: set_aside_broken_audit,
            jsonl,
            forward,
        },
        process,
        service_manager: service_manager(),
        roster,
        gateway,
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
        Err(AppError::Access(AccessError::Invalid { findings })) => {
            print_error(&report::findings(&findings, &[]));
            print_error(&format!("{}: the access file is not valid\n", bad("error")));
            return Ok(Exit::No);
        }
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

/// The service manager that the environment names (sd_notify(3), sd_watchdog_enabled(3)).
fn service_manager() -> Option<ServiceManager> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let socket = NotifySocket::parse(&name);
    let socket = socket.inspect_err(|error| warn!(%error, "NOTIFY_SOCKET is no socket")).ok()?;
    let number = |variable: &str| std::env::var(variable).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog = number("WATCHDOG_USEC").filter(|most| is_ours && *most > 0);
    Some(ServiceManager { socket, watchdog: watchdog.map(Duration::from_micros) })
}

/// The files of TLS that belong together.
fn tls_files(
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> anyhow::Result<Option<TlsFiles>> {
    match (certificate, private_key, client_ca) {
        (Some(certificate), Some(private_key), client_ca) => {
            Ok(Some(TlsFiles { certificate, private_key, client_ca }))
        }
        (None, None, None) => Ok(None),
        _ => bail!(
            "TLS needs both --tls-cert-file and --tls-private-key-file, with or without --tls-client-ca-file"
        ),
    }
}

/// Says that questions are answered from now on: the addresses are bound, so a call that comes at once
/// waits for its answer. On standard output, or on standard error if the former carries audit lines.
fn announce(app: &App, log: &Log, lines_on_stdout: bool) {
    let urls = app
        .gateway_urls()
        .map_or_else(String::new, |(public, upstream)| format!(" public={public} upstream={upstream}"));
    let of = |protocol: ListenerProtocol| {
        let named = move |address| format!("{}={address}", protocol.as_str());
        app.addresses_of(protocol).into_iter().map(named)
    };
    let addresses: Vec<_> = of(ListenerProtocol::Grpc).chain(of(ListenerProtocol::Http)).collect();
    let (addresses, admin) = (addresses.join(" "), app.admin_addr());
    let (digest, audiences) = app.policy();
    let ready =
        format!("scopeward ready: {addresses}{urls} admin={admin} digest={digest} audiences={audiences}\n");
    if lines_on_stdout {
        log.print(&ready);
    } else if let Err(error) = print(&ready) {
        warn!(%error, "the ready line could not be written");
    }
}

/// What to do where a server has to run before the policy is fixed.
const START_FROM_LAST_GOOD: &str = "with `--start-from-last-good` a server serves the policy that it accepted last, if it kept one in its state directory";

/// Prints why there is nothing to serve. A policy that is not valid is an answer, not a failure to run.
fn not_started(error: StartError) -> anyhow::Result<Exit> {
    let (findings, files) = match &error {
        StartError::Read(_) => bail!("{error}; {START_FROM_LAST_GOOD}"),
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
    if matches!(error, StartError::Invalid { .. }) {
        print_error(&format!("{START_FROM_LAST_GOOD}\n"));
    }
    Ok(Exit::No)
}

/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_millis(250);

/// What a library says of its connection, the server says in its own words.
const DEFAULT_FILTER: &str = "info,async_nats=off";

#[cfg(test)]
mod tests {
    use super::*;

    /// What `serve` alone means.
    fn defaults() -> (ServeArgs, GivenFlags) {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let mut given = GivenFlags(command.try_get_matches_from(["serve"]).unwrap());
        (ServeArgs::take(&mut given, ServerVerb::Serve).unwrap(), given)
    }

    #[test]
    fn every_setting_is_taken() {
        let (_, GivenFlags(left)) = defaults();
        assert_eq!(left.ids().map(clap::Id::as_str).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn the_defaults_are_those_of_the_server() {
        let (args, _) = defaults();
        let ServerSettings {
            server,
            admin_listen,
            console,
            policies,
            state_dir,
            debounce,
            removal_quiet,
            rescan_interval,
            access_file,
            credentials_interval: _,
            allow_outside_links,
            start_from_last_good,
            shadow,
            traces,
            metrics_per_audience,
            log_decisions,
            audit,
            process: _,
            service_manager: _,
            roster: _,
            gateway: _,
        } = ServerSettings::default();
        assert_eq!((args.listen, args.http_listen), (server.listen, server.http_listen));
        assert_eq!((args.listen_unix_mode, args.admin_listen), (server.listen_unix_mode, admin_listen));
        assert_eq!(args.console, console);
        assert_eq!((args.policies, args.state_dir), (policies, state_dir));
        assert_eq!((args.debounce, args.removal_quiet), (debounce, removal_quiet));
        assert_eq!((args.rescan_interval, args.shutdown_timeout), (rescan_interval, server.shutdown_timeout));
        assert_eq!(
            (args.allow_outside_links, args.start_from_last_good, args.insecure_allow_remote_plaintext),
            (allow_outside_links, start_from_last_good, server.insecure_allow_remote_plaintext)
        );
        assert_eq!(format!("{:?}", args.limits), format!("{:?}", server.limits));
        assert_eq!((args.access_file, args.tls_cert_file), (access_file, None));
        assert_eq!(args.audit_mode, audit.mode);
        assert_eq!(
            (Some(args.audit_retention), Some(args.audit_max_size), args.audit_denials_per_second),
            (audit.retention, audit.max_bytes, audit.denials_per_second)
        );
        assert_eq!((args.set_aside_broken_audit, args.audit_jsonl), (audit.set_aside_broken, None));
        assert_eq!(args.shadow, shadow);
        assert!(traces.is_none());
        assert_eq!((args.metrics_per_audience, args.log_decisions), (metrics_per_audience, log_decisions));
    }
}
