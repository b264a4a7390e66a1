//! The control socket: `gemel ctl` asks, the server answers.
//!
//! A client connects to the unix socket and sends one line with a command; the server answers with
//! lines of JSON and closes the connection.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gemel_failover::Command;
use tracing::warn;

use crate::{
    leases::{self, LeaseView},
    status::Shared,
};

/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to ask or to read.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest command line, in octets.
const COMMAND_MAX: u64 = 256;

/// The listening socket; its file goes when it is dropped.
pub struct CtlSocket {
    path: PathBuf,
}

impl CtlSocket {
    /// Listens at `path`, which nobody but the server's user may use.
    ///
    /// # Errors
    /// If another server listens there, or the folder cannot be written to.
    pub fn open(path: &Path, shared: Arc<Shared>) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                bail!(
                    "another server listens at {}; stop it or set control.socket",
                    path.display()
                );
            }
            fs::remove_file(path)
                .with_context(|| format!("cannot remove the old socket {}", path.display()))?;
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        std::thread::Builder::new()
            .name("gemel ctl".to_owned())
            .spawn(move || accept(&listener, &shared))
            .context("cannot start the control socket's thread")?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for CtlSocket {
    fn drop(&mut self) {
        // Gone already if somebody tidied up; nothing depends on it.
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                warn!(reason = %error, "control connection failed");
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let shared = Arc::clone(shared);
        let counted = Arc::clone(&open);
        let spawned = std::thread::Builder::new().name("gemel ctl".to_owned()).spawn(move || {
            // A client that hangs up early is no concern of the server's.
            let _ = serve(stream, &shared);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            open.fetch_sub(1, Ordering::Relaxed);
            warn!(reason = %error, "no thread for a control connection");
        }
    }
}

fn serve(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut command = String::new();
    BufReader::new(&stream).take(COMMAND_MAX).read_line(&mut command)?;
    let mut out = BufWriter::new(&stream);
    match command.trim() {
        "status" => {
            serde_json::to_writer(&mut out, &shared.status())?;
            out.write_all(b"\n")?;
        }
        "counters" => {
            serde_json::to_writer(&mut out, &shared.counters())?;
            out.write_all(b"\n")?;
        }
        "histogram" | "histogram reset" => {
            for view in shared.stages.views(command.trim().ends_with("reset")) {
                serde_json::to_writer(&mut out, &view)?;
                out.write_all(b"\n")?;
            }
        }
        "leases" => {
            // Copied out stripe by stripe, so that a slow reader never holds a lock of the table.
            let mut result = Ok(());
            shared.table.for_each_stripe(|bindings| {
                for binding in bindings {
                    if result.is_ok() {
                        result = leases::write_json(&mut out, &LeaseView::from(binding));
                    }
                }
            });
            result?;
        }
        other => match operate(other, shared) {
            Ok(answer) => {
                serde_json::to_writer(&mut out, &answer)?;
                out.write_all(b"\n")?;
            }
            Err(error) => {
                serde_json::to_writer(&mut out, &serde_json::json!({ "error": error }))?;
                out.write_all(b"\n")?;
            }
        },
    }
    out.flush()
}

/// The commands about the pair.
fn operate(command: &str, shared: &Shared) -> Result<serde_json::Value, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(pair) = &shared.pair else {
        return Err(match words.first() {
            Some(&("failover" | "drain" | "undrain")) => {
                "there is no failover relationship: the configuration has no [[failover]]".into()
            }
            _ => unknown(command),
        });
    };
    let done = match words[..] {
        ["failover", "status"] => {
            return serde_json::to_value(pair.views()).map_err(|error| error.to_string());
        }
        ["failover", "partner-down", ref name @ ..] => {
            pair.operate(one(name)?, Command::PartnerDown)
        }
        ["failover", "resync", ref name @ ..] => pair.operate(one(name)?, Command::Resync),
        ["failover", "disconnect", ref name @ ..] => pair.operate(one(name)?, Command::Disconnect),
        ["drain", ref name @ ..] => pair.drain(one(name)?, true),
        ["undrain", ref name @ ..] => pair.drain(one(name)?, false),
        _ => return Err(unknown(command)),
    };
    done.map(|()| serde_json::json!({ "done": command }))
}

/// One name, or none.
fn one<'w>(words: &[&'w str]) -> Result<Option<&'w str>, String> {
    match words {
        [] => Ok(None),
        [name] => Ok(Some(name)),
        _ => Err("one relationship at a time".to_owned()),
    }
}

fn unknown(command: &str) -> String {
    format!(
        "unknown command {command:?}; known: status, counters, leases, histogram, histogram \
         reset, failover status, failover \
         partner-down, failover resync, failover disconnect, drain, undrain"
    )
}

/// Asks a running server; hands each line of the answer to `each`.
///
/// # Errors
/// If no server listens, or it refuses the command.
pub fn ask(socket: &Path, command: &str, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "no server answers at {}; is it running? (--socket names another)",
            socket.display()
        )
    })?;
    writeln!(stream, "{command}")?;
    for line in BufReader::new(stream).lines() {
        let line = line.context("the server hung up")?;
        if line.starts_with("{\"error\"") {
            let error: serde_json::Value = serde_json::from_str(&line)?;
            bail!("the server says: {}", error["error"].as_str().unwrap_or(&line));
        }
        each(&line)?;
    }
    Ok(())
}
