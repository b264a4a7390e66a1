//! The command line of `gemel`.

use std::{
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::{
    ca,
    config::{Config, ConfigErrors, LogFormat},
    ctl,
    histogram::{self, HistogramArgs},
    leases::{self, LeaseView},
    pair, serve, tune,
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
        /// Prints what has to be equal on both servers of a pair: compare with `diff`
        #[arg(long)]
        partner: bool,
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
        #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT, global = true)]
        config: PathBuf,
        /// The control socket, in place of the configuration's
        #[arg(long, value_name = "SOCKET", global = true)]
        socket: Option<PathBuf>,
        /// JSON as the server sends it
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        question: Question,
    },
    /// Looks at this host for what matters to the server, and says what to change; changes nothing
    Tune {
        /// The configuration file [default: /etc/gemel/gemel.toml, unless --interface is given]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Looks at this interface in place of those of the configuration; may be given several times
        #[arg(long, value_name = "IF")]
        interface: Vec<String>,
        /// One JSON array with all checks
        #[arg(long)]
        json: bool,
    },
    /// Makes certificates for the servers of a pair
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
}

#[derive(Debug, Subcommand)]
enum Question {
    /// State, interfaces, pools, store, failover
    Status,
    /// Every counter, summed over the workers
    Counters,
    /// The bindings in memory
    Leases,
    /// Where the time of packets goes: percentiles of each stage
    Histogram(HistogramArgs),
    /// The pair: its state, and commands to it
    Failover {
        #[command(subcommand)]
        command: FailoverCommand,
    },
    /// Takes this server out of service, so that its partner serves, until `--undo` or a restart
    Drain {
        /// The relationship; all of them by default
        #[arg(value_name = "NAME")]
        relationship: Option<String>,
        /// Takes service up again
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Subcommand)]
enum FailoverCommand {
    /// State of each relationship, its partner, updates, balance, certificates
    Status,
    /// Says that the partner is down and serves nobody, so that this server may use all leases
    PartnerDown {
        /// The relationship; needed if there are several
        #[arg(value_name = "NAME")]
        relationship: Option<String>,
        /// You have made sure that the partner does not run
        #[arg(long)]
        confirm: bool,
    },
    /// Asks the partner for all that it knows, once more
    Resync {
        /// The relationship; needed if there are several
        #[arg(value_name = "NAME")]
        relationship: Option<String>,
    },
    /// Drops the connection; a new one is made
    Disconnect {
        /// The relationship; needed if there are several
        #[arg(value_name = "NAME")]
        relationship: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Makes a certificate authority
    Init {
        /// The folder for its files, which is made
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Issues the certificate and key of one server
    Issue {
        /// The folder of the authority
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The server's name, which is `partner_name` in the other server's configuration
        #[arg(long)]
        name: String,
        /// How long it is valid
        #[arg(long, default_value_t = ca::DAYS_DEFAULT)]
        days: u32,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config } => serve(&config),
        Command::Check { config, partner: false } => Ok(check(&config)),
        Command::Check { config, partner: true } => Ok(show_partner_text(&config)),
        Command::Leases { config, store, json } => list_store(&config, store, json),
        Command::Ctl { config, socket, json, question } => ask(&config, socket, json, &question),
        Command::Tune { config, interface, json } => look_at_host(config, &interface, json),
        Command::Ca { command } => make_certificates(&command),
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
            // Only what can be read on this host: the files of certificates.
            let mut unusable = false;
            for failover in &config.failover {
                match pair::open_tls(failover) {
                    Ok(Some(tls)) => {
                        if let Some(warning) = tls.expiry_warning(SystemTime::now()) {
                            eprintln!("{}: failover[{}]: {warning}", path.display(), failover.name);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        eprintln!("{}: {error:#}", path.display());
                        unusable = true;
                    }
                }
            }
            if unusable {
                return ExitCode::from(EXIT_USAGE);
            }
            println!("{}: no errors, {} warnings", path.display(), config.warnings.len());
            ExitCode::SUCCESS
        }
        Err(errors) => report(&errors),
    }
}

fn show_partner_text(path: &Path) -> ExitCode {
    match Config::load(path) {
        Ok(config) => {
            if config.failover.is_empty() {
                eprintln!("{}: there is no [[failover]]", path.display());
            }
            for failover in &config.failover {
                print!("{}", config.partner_text(failover));
            }
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

fn ask(
    config: &Path,
    socket: Option<PathBuf>,
    json: bool,
    question: &Question,
) -> Result<ExitCode> {
    if let Question::Failover { command: FailoverCommand::PartnerDown { confirm: false, .. } } =
        question
    {
        eprintln!(
            "gemel: partner-down tells this server that its partner serves nobody, now and until it \
             has been in contact again. If the partner does serve, both give the same leases to \
             different clients. Make sure that it is off, then run the command again with --confirm."
        );
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let socket = match socket {
        Some(socket) => socket,
        None => match Config::load(config) {
            Ok(config) => config.control.socket,
            Err(errors) => return Ok(report(&errors)),
        },
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let named = |command: &str, name: &Option<String>| {
        name.as_ref().map_or_else(|| command.to_owned(), |name| format!("{command} {name}"))
    };
    let command = match question {
        Question::Status => "status".to_owned(),
        Question::Counters => "counters".to_owned(),
        Question::Leases => "leases".to_owned(),
        Question::Histogram(args) => args.command(),
        Question::Failover { command } => match command {
            FailoverCommand::Status => "failover status".to_owned(),
            FailoverCommand::PartnerDown { relationship, .. } => {
                named("failover partner-down", relationship)
            }
            FailoverCommand::Resync { relationship } => named("failover resync", relationship),
            FailoverCommand::Disconnect { relationship } => {
                named("failover disconnect", relationship)
            }
        },
        Question::Drain { relationship, undo: false } => named("drain", relationship),
        Question::Drain { relationship, undo: true } => named("undrain", relationship),
    };
    if !json && matches!(question, Question::Leases) {
        writeln!(out, "{}", leases::TEXT_HEADER)?;
    }
    if let Question::Histogram(args) = question {
        let mut views = Vec::new();
        ctl::ask(&socket, &command, |line| {
            views.push(serde_json::from_str(line)?);
            Ok(())
        })?;
        histogram::write(&mut out, &views, args, json)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    ctl::ask(&socket, &command, |line| {
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

fn look_at_host(config: Option<PathBuf>, interfaces: &[String], json: bool) -> Result<ExitCode> {
    let path = match config {
        None if !interfaces.is_empty() => None,
        config => Some(config.unwrap_or_else(|| PathBuf::from(CONFIG_DEFAULT))),
    };
    let config = match path.map(|path| Config::load(&path)).transpose() {
        Ok(config) => config,
        Err(errors) => return Ok(report(&errors)),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let fine = tune::run(&mut out, config.as_ref(), interfaces, json)?;
    out.flush()?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make_certificates(command: &CaCommand) -> Result<ExitCode> {
    match command {
        CaCommand::Init { folder } => {
            let certificate = ca::init(folder)?;
            println!("made {}; keep the key beside it to yourself", certificate.display());
        }
        CaCommand::Issue { folder, name, days } => {
            let (certificate, key) = ca::issue(folder, name, *days)?;
            println!("issued {} with {}", certificate.display(), key.display());
        }
    }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_lines() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        for line in [
            "gemel serve --config a.toml",
            "gemel check a.toml --partner",
            "gemel ctl --socket /s --json status",
            "gemel ctl status --socket /s --json",
            "gemel ctl leases",
            "gemel ctl histogram",
            "gemel ctl histogram --stage sync --worker 0 --hgrm --reset",
            "gemel ctl failover status --json",
            "gemel ctl failover partner-down pair --confirm",
            "gemel ctl failover resync",
            "gemel ctl failover disconnect pair",
            "gemel tune --interface eth1 --interface eth2 --json",
            "gemel tune --config a.toml",
            "gemel ctl drain",
            "gemel ctl drain pair --undo",
            "gemel ca init /root/ca",
            "gemel ca issue /root/ca --name one.example.net --days 30",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for line in [
            "gemel ctl",
            "gemel ctl histogram --hgrm",
            "gemel ctl histogram --stage x",
            "gemel ctl failover",
            "gemel ctl rest",
            "gemel ca issue /root/ca",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_is_sent_without_the_confirmation() {
        let question = Question::Failover {
            command: FailoverCommand::PartnerDown { relationship: None, confirm: false },
        };
        // There is no such socket, and it is not looked for.
        let socket = Some(PathBuf::from("/nowhere/ctl.sock"));
        let code = ask(Path::new("/nowhere"), socket, false, &question).unwrap();
        assert_eq!(code, ExitCode::from(EXIT_USAGE));
    }
}
