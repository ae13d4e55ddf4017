//! Compiles `proto/` into Rust and into a descriptor set for reflection. Does nothing else, and needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const ROOT: &str = "proto";
const FILES: [&str; 3] =
    ["scopeward/v1/scope_policy.proto", "scopeward/v1/audit.proto", "scopeward/v1/policy_status.proto"];
/// The codec of `src/rpc/codec.rs`, which knows the size limits of our messages.
const CODEC: &str = "crate::rpc::codec::LimitedCodec";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    // Source info carries the comments: wanted in rustdoc, dead weight in what reflection serves.
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(false).open_files(FILES)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // The JSON mapping finds a message's description by its name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .codec_path(CODEC)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;

    let generated = out.join("scopeward.v1.rs");
    let text = fs::read_to_string(&generated)?;
    fs::write(&generated, unwrap_urls(&text))?;
    Ok(())
}

/// Undoes the angle brackets that the generator puts around each URL of a comment: ours stand in backticks, where they are
/// text, and the closing bracket would land behind the closing backtick.
fn unwrap_urls(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    for line in text.lines() {
        let mut rest = line;
        if rest.trim_start().starts_with("///") {
            while let Some((before, url)) = rest.split_once("<http") {
                let end = url.find('>').unwrap_or(url.len());
                done.push_str(before);
                done.push_str("http");
                done.push_str(&url[..end]);
                rest = url.get(end + 1..).unwrap_or_default();
            }
        }
        done.push_str(rest);
        done.push('\n');
    }
    done
}
