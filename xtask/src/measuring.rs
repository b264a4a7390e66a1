//! What all measurements have: the cores that they run on, and what they need before.

use anyhow::{Result, bail, ensure};
use gemel_tests::requirement;

use crate::cargo::build_binaries;
use crate::setup;

/// Where the programs of a measurement run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Cores {
    /// Core of the servers, with all their threads. Kea is not bound to a core, nor is the standby of
    /// a pair where one server is compared with others.
    #[arg(long, default_value_t = 1)]
    pub(crate) server_core: u32,
    /// Core of the generator.
    #[arg(long, default_value_t = 0)]
    pub(crate) generator_core: u32,
}

/// Looks whether the machine is fit to measure on, and builds what is measured.
pub(crate) fn prepare() -> Result<()> {
    if !requirement::is_root() {
        bail!("measurements make network namespaces and load XDP programs: run them as root");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores > 1, "measurements need two cores, one of them for the generator");
    setup::run()?;
    requirement::use_binaries_in(&build_binaries()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        cores: Cores,
    }

    #[test]
    fn server_and_generator_have_a_core_each() {
        let cores = |line: &[&str]| Line::parse_from(line).cores;
        let default = cores(&["x"]);
        assert_ne!(default.server_core, default.generator_core);
        let chosen = cores(&["x", "--server-core", "3", "--generator-core", "2"]);
        assert_eq!((chosen.server_core, chosen.generator_core), (3, 2));
    }
}
