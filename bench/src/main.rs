//! `gemel-bench`: see the library for what it does.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gemel_bench::cli::main()
}
