//! Namespaces, links, switches, captures and sandboxes, with one owner that removes them.

pub(crate) mod capture;
pub(crate) mod link;
pub(crate) mod namespace;
pub(crate) mod sandbox;
pub(crate) mod switch;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};

use namespace::Namespace;

/// Every namespace of every lab begins with this, then the maker's process id.
const PREFIX: &str = "gml-";

/// A private network of namespaces, with a temporary folder for configs, captures and state.
///
/// A namespace is removed when the lab and the last handle to it are dropped. What a killed run
/// left behind is removed when the next lab is made.
#[derive(Debug)]
pub struct Lab {
    number: u32,
    dir: PathBuf,
    namespaces: Mutex<Vec<Namespace>>,
    /// None when the folder is to be kept.
    _guard: Option<tempfile::TempDir>,
}

impl Lab {
    /// Makes an empty lab. `GEMEL_LAB_KEEP=1` in the environment keeps its folder.
    ///
    /// # Errors
    /// When the temporary folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let guard = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{name}-"))
            .tempdir()
            .context("making the lab's folder")?;
        // Clients that drop their privileges still have to reach their files in here.
        set_mode(guard.path(), 0o755)?;
        let dir = guard.path().to_owned();
        let guard = if std::env::var_os("GEMEL_LAB_KEEP").is_some() {
            eprintln!("the lab's folder is kept: {}", guard.keep().display());
            None
        } else {
            Some(guard)
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, dir, namespaces: Mutex::default(), _guard: guard })
    }

    /// The lab's folder, removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a namespace; `role` ends its name.
    ///
    /// # Errors
    /// When `ip` fails, for example without root.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        let name = format!("{PREFIX}{}-{}-{role}", std::process::id(), self.number);
        let namespace = Namespace::new(name)?;
        // The list is only ever added to, so a panic elsewhere leaves it usable.
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// Writes `contents` to a file of the lab's folder and returns its path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &str, contents: &str) -> Result<PathBuf> {
        let path = self.dir.join(file);
        std::fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Writes an executable file to the lab's folder and returns its path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_script(&self, file: &str, contents: &str) -> Result<PathBuf> {
        let path = self.write(file, contents)?;
        set_mode(&path, 0o755)?;
        Ok(path)
    }

    /// Makes a folder in the lab's folder, if it is not there, and returns its path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has its standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(&mut command)
}

/// Runs `command` to its end and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes the namespaces of labs whose process is gone.
fn sweep() {
    let Ok(list) = run("ip", &["netns", "list"]) else { return };
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            namespace::remove(name);
        }
    }
}

/// The process id in the name of a lab's namespace.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_owner_of_a_namespace() {
        assert_eq!(owner("gml-1234-0-client"), Some(1234));
        assert_eq!(owner("gml-x-0"), None);
        assert_eq!(owner("other-1234-0"), None);
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_words() {
        let error = run("sh", &["-c", "echo because >&2; exit 1"]).unwrap_err();
        assert!(error.to_string().contains("because"), "{error}");
    }

    #[test]
    fn the_folder_goes_with_the_lab() {
        let lab = Lab::new("unit").unwrap();
        let file = lab.write("a.conf", "x = 1\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x = 1\n");
        drop(lab);
        assert!(!file.exists() || std::env::var_os("GEMEL_LAB_KEEP").is_some());
    }
}
