//! The binary: hands the arguments to the command line and its answer to the system.

use std::process::ExitCode;

fn main() -> ExitCode {
    scopeward::cli::run(std::env::args_os())
}
