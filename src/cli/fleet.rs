//! `fleet status`: whether all replicas serve the same policy.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use futures_util::future::join_all;
use serde::Serialize;
use tonic::Response;

use super::Exit;
use super::output::{Format, bad, bold, good, notable, print, print_error};
use super::remote::address::ServerAddress;
use super::remote::{CredentialArgs, MAX_ANSWER_BYTES, ServerTarget, TimeoutArgs, connect, said};
use super::status::wait;
use crate::backoff::Backoff;
use crate::escape::{self, clean};
use crate::rpc::v1;
use crate::rpc::v1::policy_status_service_client::PolicyStatusServiceClient;
use crate::status::condition_type::CONDITION_TYPES;
use crate::status::kind;

/// Look at many servers at once
#[derive(Args, Debug)]
pub(super) struct FleetVerb {
    #[command(subcommand)]
    verb: FleetSubcommand,
}

#[derive(Debug, Subcommand)]
enum FleetSubcommand {
    Status(FleetStatusArgs),
}

/// Show whether all servers serve the same policy
///
/// Asks each server and prints one line for it: whether it is ready, the policy that serves, how long it has been behind the newest policy
/// of the others, and its conditions that call for attention.
///
/// Exits with 0 if all serve the same policy and are ready, 1 if they do not, 2 if a server does not answer. With --digest all must serve that
/// policy; with --wait they have until --timeout to do so.
#[derive(Args, Debug)]
struct FleetStatusArgs {
    /// The servers: HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH, or dns:///NAME:PORT for each address that the name has
    #[arg(value_name = "SERVER", required = true)]
    servers: Vec<FleetAddress>,
    /// Wait until all serve the policy of --digest; servers that are not there yet are waited for, too
    #[arg(long, requires = "digest")]
    wait: bool,
    /// The policy that shall serve, as `check` prints it: sha256:...
    #[arg(long, value_name = "DIGEST", value_parser = wait::digest)]
    digest: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    timeout: TimeoutArgs,
    /// How to print the answer
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// One server, or all that a name stands for.
#[derive(Clone, Debug)]
enum FleetAddress {
    One(ServerAddress),
    /// Host and port, as one text.
    Name(String),
}

impl FromStr for FleetAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix("dns:") else { return text.parse().map(Self::One) };
        let name = name.strip_prefix("///").unwrap_or(name);
        match name.parse::<ServerAddress>() {
            Ok(ServerAddress::Http(uri)) if !name.contains("://") && uri.port().is_some() => {
                Ok(Self::Name(name.to_owned()))
            }
            _ => Err("write it as dns:///NAME:PORT".to_owned()),
        }
    }
}

impl FleetAddress {
    /// The servers behind it; over TLS if there is a CA to verify them by.
    async fn resolve(&self, is_tls: bool) -> anyhow::Result<Vec<ServerAddress>> {
        let name = match self {
            Self::One(server) => return Ok(vec![server.clone()]),
            Self::Name(name) => name,
        };
        let found = tokio::net::lookup_host(name)
            .await
            .with_context(|| format!("could not resolve `{}`", clean(name)))?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort();
        addresses.dedup();
        let server = |address: SocketAddr| match is_tls {
            false => address.to_string().parse().map_err(|error: String| anyhow!(error)),
            true => Ok(ServerAddress::HttpsAt(format!("https://{name}").parse()?, address)),
        };
        addresses.into_iter().map(server).collect()
    }
}

/// Runs the verb.
///
/// # Errors
/// If a name cannot be resolved, or a file with credentials cannot be used.
pub(super) fn run(verb: FleetVerb) -> anyhow::Result<Exit> {
    let FleetSubcommand::Status(args) = verb.verb;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fleet = runtime.block_on(look(&args))?;
    print(&match args.output {
        Format::Text => fleet.text(),
        Format::Json => escape::json_pretty(&fleet.json())? + "\n",
    })?;
    let problem = fleet.problem(args.digest.as_deref());
    if let Some((exit, words)) = problem {
        let words = if args.wait { format!("{words}, after {}", args.timeout.shown()) } else { words };
        print_error(&format!("{}: {}\n", bad("error"), clean(&words)));
        return Ok(exit);
    }
    Ok(Exit::Yes)
}

/// Asks once, or until all serve what they shall or the time is over.
async fn look(args: &FleetStatusArgs) -> anyhow::Result<Fleet> {
    if !args.wait {
        return ask(args, args.timeout).await;
    }
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    let mut last = None;
    let waited = args.timeout.run(async {
        loop {
            // One that hangs must not use up the time of all.
            let fleet = ask(args, args.timeout.at_most(LONGEST_ANSWER)).await?;
            let is_there = fleet.problem(args.digest.as_deref()).is_none();
            last = Some(fleet);
            if is_there {
                return anyhow::Ok(());
            }
            tokio::time::sleep(backoff.failed()).await;
        }
    });
    waited.await.transpose()?;
    match last {
        Some(fleet) => Ok(fleet),
        None => ask(args, args.timeout).await,
    }
}

async fn ask(args: &FleetStatusArgs, limit: TimeoutArgs) -> anyhow::Result<Fleet> {
    let mut servers: Vec<ServerAddress> = Vec::new();
    for address in &args.servers {
        servers.extend(address.resolve(args.credentials.has_ca()).await?);
    }
    let replicas = join_all(servers.into_iter().map(|address| async {
        let target = ServerTarget { address, credentials: args.credentials.clone() };
        let status = limit.run(status_of(&target, limit)).await;
        Replica { server: target.to_string(), status: status.unwrap_or_else(|| Err(limit.error())) }
    }));
    Ok(Fleet { replicas: replicas.await })
}

async fn status_of(server: &ServerTarget, limit: TimeoutArgs) -> anyhow::Result<v1::PolicyStatus> {
    let mut client = PolicyStatusServiceClient::new(connect(server, limit).await?)
        .max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = client.get_policy_status(v1::GetPolicyStatusRequest {}).await.map(Response::into_inner);
    let answer = answer.map_err(|status| anyhow!("{}", said(&status)))?;
    answer.status.ok_or_else(|| anyhow!("the server answered without a status"))
}

/// What was heard of all servers.
#[derive(Debug)]
struct Fleet {
    replicas: Vec<Replica>,
}

#[derive(Debug)]
struct Replica {
    server: String,
    status: anyhow::Result<v1::PolicyStatus>,
}

impl Replica {
    fn active(&self) -> Option<&v1::PolicyVersion> {
        self.status.as_ref().ok()?.active.as_ref()
    }

    fn digest(&self) -> Option<&str> {
        self.active().map(|active| &*active.digest)
    }

    fn load_time(&self) -> Option<SystemTime> {
        SystemTime::try_from(self.status.as_ref().ok()?.load_time?).ok()
    }

    fn is_ready(&self) -> bool {
        let conditions = self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions.iter().any(|one| one.r#type == kind::READY && one.status == "True")
    }

    /// The conditions that call for attention: those that are there only while they are True, and others that are not True.
    fn troubles(&self) -> Vec<&v1::Condition> {
        let Ok(status) = &self.status else { return Vec::new() };
        let is_trouble = |one: &&v1::Condition| {
            let known = CONDITION_TYPES.iter().find(|known| known.kind == one.r#type);
            known.is_some_and(|known| known.is_only_true == (one.status == "True"))
        };
        status.conditions.iter().filter(is_trouble).collect()
    }
}

impl Fleet {
    /// The digest that was taken over last, and when it first was.
    fn newest(&self) -> Option<(&str, SystemTime)> {
        let newest = self
            .replicas
            .iter()
            .filter_map(|one| Some((one.digest()?, one.load_time()?)))
            .max_by_key(|(_, time)| *time)?
            .0;
        let serving = self.replicas.iter().filter(|one| one.digest() == Some(newest));
        Some((newest, serving.filter_map(Replica::load_time).min()?))
    }

    /// How long a server has been behind the newest policy of the others.
    fn lag(&self, replica: &Replica) -> Option<Duration> {
        let (newest, since) = self.newest()?;
        match replica.digest()? == newest {
            true => Some(Duration::ZERO),
            false => Some(SystemTime::now().duration_since(since).unwrap_or_default()),
        }
    }

    fn is_skewed(&self) -> bool {
        let mut digests: Vec<&str> = self.replicas.iter().filter_map(Replica::digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests.len() > 1
    }

    /// What keeps the answer from being yes, and the exit code that says so.
    fn problem(&self, wanted: Option<&str>) -> Option<(Exit, String)> {
        let count = |is: &dyn Fn(&Replica) -> bool| self.replicas.iter().filter(|one| is(one)).count();
        let of = self.replicas.len();
        if self.is_skewed() {
            return Some((Exit::No, "the servers serve different policies".to_owned()));
        }
        let others =
            wanted.map_or(0, |wanted| count(&|one| one.status.is_ok() && one.digest() != Some(wanted)));
        if others > 0 {
            return Some((
                Exit::No,
                format!("{others} of {of} servers do not serve {}", wanted.unwrap_or_default()),
            ));
        }
        let unready = count(&|one| one.status.is_ok() && !one.is_ready());
        if unready > 0 {
            return Some((Exit::No, format!("{unready} of {of} servers are not ready")));
        }
        let silent = count(&|one| one.status.is_err());
        (silent > 0).then(|| (Exit::CouldNotRun, format!("{silent} of {of} servers do not answer")))
    }

    fn text(&self) -> String {
        let width = self.replicas.iter().map(|one| one.server.chars().count()).max().unwrap_or(0).max(6);
        let mut text = format!(
            "{}\n",
            bold(&format!("  {:<width$}  generation  lag     digest / conditions", "server"))
        );
        for replica in &self.replicas {
            let server = format!("{:<width$}", clean(&replica.server));
            match &replica.status {
                Err(error) => {
                    text.push_str(&format!("{} {server}  {}\n", bad("✘"), clean(&error.to_string())))
                }
                Ok(_) => {
                    let generation = replica.active().map_or(0, |active| active.generation);
                    let lag = self.lag(replica).map_or("-".to_owned(), |lag| format!("{} s", lag.as_secs()));
                    let mark = match (replica.is_ready(), self.lag(replica)) {
                        (false, _) => bad("✘"),
                        (true, Some(Duration::ZERO)) => good("✔"),
                        (true, _) => notable("!"),
                    };
                    let digest = replica.digest().unwrap_or("none");
                    text.push_str(&format!(
                        "{mark} {server}  {generation:<10}  {lag:<6}  {}\n",
                        clean(digest)
                    ));
                    for v1::Condition { r#type, status, reason, message, .. } in replica.troubles() {
                        let line = format!("{type} {status} {reason}: {message}", type = r#type);
                        text.push_str(&format!(
                            "  {:<width$}  {:<10}  {:<6}  {}\n",
                            "",
                            "",
                            "",
                            clean(&line)
                        ));
                    }
                }
            }
        }
        text
    }

    fn json(&self) -> FleetJson {
        let replicas = self.replicas.iter().map(|replica| ReplicaJson {
            server: replica.server.clone(),
            error: replica.status.as_ref().err().map(ToString::to_string),
            ready: replica.is_ready(),
            generation: replica.active().map(|active| active.generation),
            digest: replica.digest().map(str::to_owned),
            load_time: replica
                .status
                .as_ref()
                .ok()
                .and_then(|status| status.load_time)
                .map(|time| time.to_string()),
            lag_seconds: self.lag(replica).map(|lag| lag.as_secs()),
            conditions: replica
                .troubles()
                .into_iter()
                .map(|one| ConditionJson {
                    r#type: one.r#type.clone(),
                    status: one.status.clone(),
                    reason: one.reason.clone(),
                    message: one.message.clone(),
                })
                .collect(),
        });
        FleetJson { skewed: self.is_skewed(), replicas: replicas.collect() }
    }
}

/// What `--output json` prints; the names are a contract.
#[derive(Serialize)]
struct FleetJson {
    /// Whether two servers serve different policies.
    skewed: bool,
    replicas: Vec<ReplicaJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaJson {
    server: String,
    /// Why it did not answer; `null` if it did.
    error: Option<String>,
    ready: bool,
    /// Counted by each server for itself.
    generation: Option<u64>,
    digest: Option<String>,
    load_time: Option<String>,
    /// How long another server has served a newer policy already.
    lag_seconds: Option<u64>,
    /// Those that call for attention.
    conditions: Vec<ConditionJson>,
}

#[derive(Serialize)]
struct ConditionJson {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// How long one server may take to answer while others are waited for.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
