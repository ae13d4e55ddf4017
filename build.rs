//! Compiles `proto/` into Rust and into a descriptor set for reflection. Does nothing else, and needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const ROOT: &str = "proto";
const FILES: [&str; 3] =
    ["scopeward/v1/scope_policy.proto", "scopeward/v1/audit.proto", "scopeward/v1/policy_status.proto"];
/// The codec of `src/rpc/codec.rs`, whose errors are ours.
const CODEC: &str = "crate::rpc::codec::MessageCodec";

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
    let described = compiler.file_descriptor_set();
    // The messages lie at the bottom of the crate, since the audit log stores them; the services belong to `rpc`.
    // The JSON mapping finds a message's description by its name, and maps are sorted so that equal messages have equal bytes.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names().btree_map(["."]);
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .compile_fds_with_config(described.clone(), config)?;
    let services = out.join("services");
    fs::create_dir_all(&services)?;
    tonic_prost_build::configure()
        .codec_path(CODEC)
        .extern_path(".scopeward.v1", "crate::proto::v1")
        .out_dir(services)
        .compile_fds_with_config(described, tonic_prost_build::Config::new())?;

    for generated in ["scopeward.v1.rs", "services/scopeward.v1.rs"] {
        let generated = out.join(generated);
        let text = fs::read_to_string(&generated)?;
        fs::write(&generated, unwrap_urls(&text))?;
    }
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
