//! Running cargo.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Cargo itself, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    // What `cargo run` says of this program is not so of what is built next. A build script that
    // looks at it, such as ring's, would run again each time, and everything above it be built anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(tells_of_this_program) {
            command.env_remove(name);
        }
    }
    command
}

fn tells_of_this_program(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

/// Runs a command with its output on the terminal, and insists on success.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let status = command.status().with_context(|| format!("starting {}", words.join(" ")))?;
    if !status.success() {
        bail!("`{}` ended with {status}", words.join(" "));
    }
    Ok(())
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--quiet"])
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let dir = metadata["target_directory"].as_str().context("no target directory in metadata")?;
    Ok(PathBuf::from(dir))
}

/// Builds the server and the load generator as they are shipped; returns the folder they are in.
pub(crate) fn build_binaries() -> Result<PathBuf> {
    check(cargo().args(["build", "--release", "--package", "gemel", "--package", "gemel-bench"]))?;
    Ok(target_dir()?.join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_does_not_see_which_program_started_it() {
        assert!(tells_of_this_program("CARGO_PKG_NAME"));
        assert!(tells_of_this_program("CARGO_MANIFEST_DIR"));
        for kept in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!tells_of_this_program(kept), "{kept}");
        }
        let removed = cargo();
        let removed: Vec<_> = removed.get_envs().filter(|(_, value)| value.is_none()).collect();
        // Under cargo, which runs this test, there are some.
        assert!(removed.iter().any(|(name, _)| *name == "CARGO_PKG_NAME"), "{removed:?}");
    }
}
