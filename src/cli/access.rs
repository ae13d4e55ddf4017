//! `access new-token`: a secret for a caller, and the hash of it for the access file.

use anyhow::anyhow;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use rustls::crypto::ring;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Exit;
use super::output::{Format, print};
use crate::{escape, hex};

/// Make what the access file needs
#[derive(Args, Debug)]
pub(super) struct AccessVerb {
    #[command(subcommand)]
    verb: AccessSubcommand,
}

#[derive(Debug, Subcommand)]
enum AccessSubcommand {
    NewToken(NewTokenArgs),
}

/// Print a new token, and its hash for `tokenSha256` of the access file
///
/// The token goes to the caller, into a file for --token-file; the access file has the hash alone.
#[derive(Args, Debug)]
struct NewTokenArgs {
    /// How to print both
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Runs the verb.
///
/// # Errors
/// If the system has no random numbers.
pub(super) fn run(args: AccessVerb) -> anyhow::Result<Exit> {
    let AccessSubcommand::NewToken(NewTokenArgs { output }) = args.verb;
    let mut secret = [0; SECRET_BYTES];
    let random = ring::default_provider().secure_random;
    random.fill(&mut secret).map_err(|_| anyhow!("the system has no random numbers"))?;
    let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
    let hash = hex::encode(&Sha256::digest(token.as_bytes()));
    print(&match output {
        Format::Text => format!("token        {token}\ntokenSha256  {hash}\n"),
        Format::Json => escape::json_pretty(&json!({"token": token, "tokenSha256": hash}))? + "\n",
    })?;
    Ok(Exit::Yes)
}

const SECRET_BYTES: usize = 32;
/// By which scanners of repositories can know a token.
const PREFIX: &str = "swt_";
