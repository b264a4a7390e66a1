//! What an end-to-end test needs, and what happens without it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// Environment variable that turns a skipped test into a failed one.
pub const REQUIRE: &str = "GEMEL_REQUIRE_E2E";

/// Environment variable that skips every end-to-end test.
pub const SKIP: &str = "GEMEL_SKIP_E2E";

/// Environment variable with the folder of the `gemel` and `gemel-bench` binaries.
pub const BIN_DIR: &str = "GEMEL_BIN_DIR";

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Where a program of the system is; also looks into the sbin folders.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// See [`use_binaries_in`].
static BINARIES: OnceLock<PathBuf> = OnceLock::new();

/// Makes [`binary`] look into this folder and nowhere else; only the first call has an effect.
pub fn use_binaries_in(dir: &Path) {
    BINARIES.get_or_init(|| dir.to_owned());
}

/// Where one of the project's own binaries is: in the folder of [`use_binaries_in`], else in
/// `GEMEL_BIN_DIR`, else beside the running test.
///
/// # Errors
/// When it is in neither place; the error says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let set = BINARIES.get().cloned().or_else(|| std::env::var_os(BIN_DIR).map(PathBuf::from));
    let dirs = match set {
        Some(dir) => vec![dir],
        None => {
            let exe = std::env::current_exe().context("finding this test's own binary")?;
            // target/debug/deps/test-123 or target/debug/xtask; the release build comes first.
            let profile = exe
                .ancestors()
                .skip(1)
                .find(|dir| !dir.ends_with("deps"))
                .map(Path::to_owned)
                .unwrap_or_default();
            vec![profile.parent().unwrap_or(&profile).join("release"), profile]
        }
    };
    dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file()).with_context(|| {
        format!(
            "no {name} in {dirs:?}: build it with `cargo build --release -p {name}` or set {BIN_DIR}"
        )
    })
}

/// The first thing that is missing for a test that needs root and these programs.
#[must_use]
pub fn missing(programs: &[&str], binaries: &[&str]) -> Option<String> {
    if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
        return Some(format!("{SKIP} not to be 1"));
    }
    if !is_root() {
        return Some("root, for network namespaces".to_owned());
    }
    let basics = ["ip", "ethtool", "unshare", "sysctl"];
    if let Some(name) = basics.iter().chain(programs).find(|name| find_program(name).is_none()) {
        return Some(format!("the program {name} (`cargo xtask setup` installs it)"));
    }
    binaries.iter().find_map(|name| binary(name).err()).map(|error| error.to_string())
}

/// Whether a test must be skipped; prints why. Use it through [`require!`](crate::require).
///
/// # Panics
/// With `GEMEL_REQUIRE_E2E=1` in the environment, where something missing is a failure.
#[must_use]
pub fn skip(test: &str, programs: &[&str], binaries: &[&str]) -> bool {
    let Some(what) = missing(programs, binaries) else { return false };
    assert!(
        std::env::var_os(REQUIRE).is_none_or(|value| value != "1"),
        "{test} needs {what}, and {REQUIRE}=1 forbids skipping it"
    );
    let line = format!("SKIPPED: {test} needs {what}\n");
    // Not `eprintln!`, which the test harness swallows when the test passes. A closed standard
    // error is no reason to fail.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    true
}

/// Ends the test, loudly and passing, unless the machine has what it needs:
/// `require!(["dhclient", "tshark"], ["gemel"])`.
#[macro_export]
macro_rules! require {
    ([$($program:expr),* $(,)?], [$($binary:expr),* $(,)?]) => {
        if $crate::requirement::skip(
            ::std::thread::current().name().unwrap_or("a test"),
            &[$($program),*],
            &[$($binary),*],
        ) {
            return Ok(());
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }

    #[test]
    fn says_how_to_get_a_missing_binary() {
        let error = binary("no-such-binary").unwrap_err();
        assert!(error.to_string().contains("cargo build"), "{error}");
    }
}
