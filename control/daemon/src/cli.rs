//! The command line of `gemel`.

use std::{
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigErrors, LogFormat},
    ctl,
    leases::{self, LeaseView},
    serve,
};

/// Where the configuration is looked for unless told otherwise.
const CONFIG_DEFAULT: &str = "/etc/gemel/gemel.toml";
/// Exit status for a configuration with errors, or a wrong command line.
const EXIT_USAGE: u8 = 2;

/// DHCPv6 server for ISP edge hosts.
#[derive(Debug, Parser)]
#[command(name = "gemel", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
    },
    /// Reports everything that is wrong with a configuration; exit status 0 if nothing is
    Check {
        /// The configuration file
        #[arg(value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
    },
    /// Lists the bindings in the store, whether a server runs or not
    Leases {
        /// The configuration file, which names the store
        #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
        /// The store's folder, in place of the configuration's
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Asks the running server
    Ctl {
        /// The configuration file, which names the control socket
        #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
        /// The control socket, in place of the configuration's
        #[arg(long, value_name = "SOCKET")]
        socket: Option<PathBuf>,
        /// JSON as the server sends it
        #[arg(long)]
        json: bool,
        /// What to ask
        #[arg(value_enum)]
        question: Question,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Question {
    /// State, interfaces, pools, store
    Status,
    /// Every counter, summed over the workers
    Counters,
    /// The bindings in memory
    Leases,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config } => serve(&config),
        Command::Check { config } => Ok(check(&config)),
        Command::Leases { config, store, json } => list_store(&config, store, json),
        Command::Ctl { config, socket, json, question } => ask(&config, socket, json, question),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> Result<ExitCode> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => return Ok(report(&errors)),
    };
    start_log(&config);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    serve::run(config)?;
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> ExitCode {
    match Config::load(path) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("{warning}");
            }
            println!("{}: no errors, {} warnings", path.display(), config.warnings.len());
            ExitCode::SUCCESS
        }
        Err(errors) => report(&errors),
    }
}

fn report(errors: &ConfigErrors) -> ExitCode {
    eprintln!("{errors}");
    ExitCode::from(EXIT_USAGE)
}

fn list_store(config: &Path, store: Option<PathBuf>, json: bool) -> Result<ExitCode> {
    let store = match store {
        Some(store) => store,
        None => match Config::load(config) {
            Ok(config) => config.store.path,
            Err(errors) => return Ok(report(&errors)),
        },
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if !json {
        writeln!(out, "{}", leases::TEXT_HEADER)?;
    }
    let mut result = Ok(());
    let mut reader = gemel_store::Reader::open(&store)
        .with_context(|| format!("cannot read the store in {}", store.display()))?;
    let outcome = reader
        .for_each(|record| {
            let view = LeaseView::from(&record.binding);
            result = if json {
                leases::write_json(&mut out, &view)
            } else {
                leases::write_text(&mut out, &view)
            };
            result.is_ok()
        })
        .context("the store could not be read to its end")?;
    result?;
    out.flush()?;
    if outcome.bad_count > 0 {
        eprintln!("gemel: {} records are unreadable", outcome.bad_count);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(config: &Path, socket: Option<PathBuf>, json: bool, question: Question) -> Result<ExitCode> {
    let socket = match socket {
        Some(socket) => socket,
        None => match Config::load(config) {
            Ok(config) => config.control.socket,
            Err(errors) => return Ok(report(&errors)),
        },
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let command = match question {
        Question::Status => "status",
        Question::Counters => "counters",
        Question::Leases => "leases",
    };
    if !json && matches!(question, Question::Leases) {
        writeln!(out, "{}", leases::TEXT_HEADER)?;
    }
    ctl::ask(&socket, command, |line| {
        if json {
            writeln!(out, "{line}")?;
        } else if matches!(question, Question::Leases) {
            leases::write_text(&mut out, &serde_json::from_str(line)?)?;
        } else {
            write_tree(&mut out, &serde_json::from_str(line)?, 0)?;
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a JSON value as indented lines of `key: value`.
fn write_tree(out: &mut dyn io::Write, value: &serde_json::Value, depth: usize) -> io::Result<()> {
    use serde_json::Value;
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        writeln!(out, "{indent}{key}:")?;
                        write_tree(out, value, depth + 1)?;
                    }
                    Value::String(text) => writeln!(out, "{indent}{key}: {text}")?,
                    other => writeln!(out, "{indent}{key}: {other}")?,
                }
            }
            Ok(())
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                write_tree(out, item, depth)?;
            }
            Ok(())
        }
        other => writeln!(out, "{indent}{other}"),
    }
}

fn start_log(config: &Config) {
    // The environment may ask for more, as is usual for programs with this kind of log.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(config.log.level.as_str()));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    match config.log.format {
        LogFormat::Text => log.with_ansi(ansi).with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
