//! The `gemel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gemel::cli::main()
}
