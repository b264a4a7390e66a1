//! The tables of the file, one function each; `[[link]]` and `[defaults]` are in `link`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::check;
use super::failover;
use super::link;
use super::net::{duid, interface_name, listen_address};
use super::report::{ConfigErrors, ProblemKind, Report};
use super::section::{Located, Reader, Section};
use super::types::{
    Config, Control, Dataplane, Durability, FloodLimit, InterfaceName, Log, LogFormat, LogLevel,
    Mode, Server, Store,
};
use super::value::{boolean, duration, integer, integer_u32, path, power_of_two, size, word};

/// The longest file that is read; what is longer is no configuration.
const FILE_LEN_MAX: u64 = 16 << 20;

/// Has every table that may occur any number of times once, so that reading it asks for every key.
const EVERY_TABLE: &str = "
[defaults]
options = [{}]
[[link]]
prefix_pools = [{}]
options = [{}]
[[failover]]
";

/// `sun_path` without the final zero.
const SOCKET_PATH_LEN_MAX: usize = 107;

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let file = file.as_ref();
        let refuse = |what: String, hint: &str| {
            let mut report = Report::new(file, "");
            report.error(ProblemKind::File, None, "", what, hint);
            report.finish().map(|_| unreachable!("an error was just reported"))
        };
        let len = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if len > FILE_LEN_MAX {
            return refuse(format!("has {len} octets"), "this is not a configuration file");
        }
        let octets = match std::fs::read(file) {
            Ok(octets) => octets,
            Err(error) => return refuse(format!("cannot be read: {error}"), ""),
        };
        match String::from_utf8(octets) {
            Ok(text) => Self::parse(file, &text),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let newlines = error.as_bytes().iter().take(good).filter(|octet| **octet == b'\n');
                let line = newlines.count() + 1;
                refuse(format!("line {line} is not UTF-8"), "save the file as UTF-8")
            }
        }
    }

    /// Checks a configuration that has been read already; `file` is what messages call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: impl AsRef<Path>, text: &str) -> Result<Self, ConfigErrors> {
        let file = file.as_ref();
        let mut report = Report::new(file, text);
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        for error in syntax_errors {
            let what = error.message().replace('\n', ", ");
            report.error(ProblemKind::Syntax, error.span(), "", what, "");
        }
        let reader = Reader::new(report);
        let mut config = read(file, &reader, Section::root(&reader, document.get_ref()));
        reader.report_unknown(known_keys);
        config.warnings = reader.report.into_inner().finish()?;
        Ok(config)
    }

    /// Every key that a configuration can have, such as `link.relay.interface_ids`, in order.
    #[must_use]
    pub fn keys() -> Vec<String> {
        let known = known_keys();
        let is_table = |path: &str| known.contains_key(path);
        let mut keys = Vec::new();
        for (schema, names) in &known {
            for name in names {
                let path =
                    if schema.is_empty() { (*name).to_owned() } else { format!("{schema}.{name}") };
                if !is_table(&path) {
                    keys.push(path);
                }
            }
        }
        keys
    }
}

/// Every key, by the path of its table. Tables are keys of the table above them too.
fn known_keys() -> BTreeMap<String, BTreeSet<&'static str>> {
    let (document, _) = DeTable::parse_recoverable(EVERY_TABLE);
    let reader = Reader::new(Report::new(Path::new(""), EVERY_TABLE));
    read(Path::new(""), &reader, Section::root(&reader, document.get_ref()));
    reader.known()
}

fn read(file: &Path, reader: &Reader<'_>, mut root: Section<'_, '_>) -> Config {
    let server = read_server(root.table("server"));
    let store = read_store(reader, root.table("store"));
    let (dataplane, interfaces) = read_dataplane(reader, root.table("dataplane"));
    let control = read_control(reader, root.table("control"));
    let log = read_log(root.table("log"));
    let mut defaults = root.table("defaults");
    let terms = link::read_terms(reader, &mut defaults);
    defaults.finish();
    let has_links = root.has("link");
    let drafts: Vec<_> = root
        .tables("link", "name")
        .into_iter()
        .map(|section| link::read_link(reader, section, &terms))
        .collect();
    let relationships: Vec<_> = root
        .tables("failover", "name")
        .into_iter()
        .map(|section| failover::read_failover(reader, section))
        .collect();
    root.finish();
    if drafts.is_empty() && !has_links {
        let hint = "write `[[link]]`, below it `interface`, `prefixes` and `address_pools`";
        reader.error(ProblemKind::Missing, None, "link", "there is no link to serve", hint);
    }
    let interfaces = check::check_links(reader, &drafts, interfaces);
    let names: Vec<_> = drafts.iter().map(|draft| draft.name.clone()).collect();
    let links: Vec<_> = drafts.into_iter().map(|draft| draft.into_link(&terms)).collect();
    let failover = failover::check_failover(reader, relationships, &names, &links);
    let dataplane = Dataplane { interfaces, ..dataplane };
    let file = file.to_path_buf();
    Config { file, server, store, dataplane, control, log, links, failover, warnings: Vec::new() }
}

fn read_server(mut section: Section<'_, '_>) -> Server {
    let server = Server {
        duid: section.get("duid", duid).value(),
        preference: section
            .get_or("preference", 0, |v| Ok(u8::try_from(integer(v, 0..=255)?).unwrap_or(0)))
            .value,
        accept_unicast: section.get_or("accept_unicast", true, boolean).value,
        expected_bindings: section
            .get_or("expected_bindings", 65_536, |v| {
                Ok(usize::try_from(integer(v, 1..=1_000_000_000)?).unwrap_or(usize::MAX))
            })
            .value,
    };
    section.finish();
    server
}

fn read_store(reader: &Reader<'_>, mut section: Section<'_, '_>) -> Store {
    let durability = section.get_or("durability", Durability::PowerLoss, |v| {
        word(v, &[("power-loss", Durability::PowerLoss), ("process", Durability::Process)])
    });
    if durability.value == Durability::Process {
        let hint = "\"power-loss\" waits for the disk before it answers";
        let what = "leases given out in the last seconds before a power cut will be forgotten";
        reader.warning(durability.at, durability.key, what, hint);
    }
    let interval = Duration::from_millis(100)..=Duration::from_secs(3600);
    let store = Store {
        path: section.get_or("path", PathBuf::from("/var/lib/gemel"), |v| path(v, 4000)).value,
        durability: durability.value,
        segment_size: section
            .get_or("segment_size", 64 << 20, |v| size(v, 64 << 10..=1 << 30))
            .value,
        segments_max: section.get_or("segments_max", 16, |v| integer_u32(v, 3..=65_536)).value,
        checkpoint_leases: section
            .get_or("checkpoint_leases", 500_000, |v| integer_u32(v, 1..=1_000_000_000))
            .value,
        checkpoint_interval: section
            .get_or("checkpoint_interval", Duration::from_secs(30), |v| duration(v, interval))
            .value,
        map_size: section.get_or("map_size", 64 << 30, |v| size(v, 1 << 20..=16 << 40)).value,
    };
    section.finish();
    store
}

/// The interfaces come back apart, with their places, since the links have a say in them.
fn read_dataplane(
    reader: &Reader<'_>,
    mut section: Section<'_, '_>,
) -> (Dataplane, Vec<Located<InterfaceName>>) {
    let mode = section.get_or("mode", Mode::Auto, |v| {
        word(
            v,
            &[
                ("auto", Mode::Auto),
                ("zero-copy", Mode::ZeroCopy),
                ("native", Mode::Native),
                ("generic", Mode::Generic),
                ("socket", Mode::Socket),
            ],
        )
    });
    let interfaces = section.list("interfaces", interface_name).items;
    let cores = section.list("cores", |v| integer(v, 0..=1023));
    let cores = (!cores.items.is_empty()).then(|| {
        let cores = cores.values().into_iter();
        cores.map(|core| usize::try_from(core).unwrap_or(0)).collect()
    });
    let batch = section
        .get_or("batch", 64, |v| Ok(usize::try_from(integer(v, 1..=1024)?).unwrap_or(64)))
        .value;
    let mut ring = |key, default| section.get_or(key, default, |v| power_of_two(v, 64..=65_536));
    let (rx_ring, tx_ring) = (ring("rx_ring", 2048).value, ring("tx_ring", 2048).value);
    let fill_ring = ring("fill_ring", 4096).value;
    let completion_ring = ring("completion_ring", 4096).value;
    let needed = rx_ring + tx_ring;
    let default = needed.next_power_of_two().max(16_384);
    let frames = section.get_or("frames", default, |v| power_of_two(v, 128..=1 << 20));
    if frames.value < needed {
        let what = format!("{} frames are fewer than the entries of both rings", frames.value);
        let hint = format!("rx_ring + tx_ring is {needed}: write at least that");
        reader.error(ProblemKind::Conflict, frames.at, frames.key, what, hint);
    }
    let busy_poll = section
        .get("busy_poll", |v| match v.as_str() {
            Some("off") => Ok(None),
            _ => duration(v, Duration::from_micros(1)..=Duration::from_millis(100)).map(Some),
        })
        .value()
        .flatten();
    let flood_limit = read_flood_limit(section.table("flood_limit"));
    if let (Some(_), Mode::Socket) = (&flood_limit, mode.value) {
        let key = section.path_of("flood_limit");
        let what = "has no effect in mode \"socket\": the limit is kept by the XDP program";
        reader.warning(mode.at, key, what, "");
    }
    section.finish();
    let dataplane = Dataplane {
        mode: mode.value,
        interfaces: Vec::new(),
        cores,
        batch,
        rx_ring,
        tx_ring,
        fill_ring,
        completion_ring,
        frames: frames.value,
        busy_poll,
        flood_limit,
    };
    (dataplane, interfaces)
}

fn read_flood_limit(mut section: Section<'_, '_>) -> Option<FloodLimit> {
    let rate = section.get("rate", |v: &DeValue<'_>| integer_u32(v, 1..=1_000_000_000));
    if section.is_present() && !section.has("rate") {
        section.missing("rate", "write `rate = 1000`, in packets per second for each source");
    }
    let rate = rate.value();
    let default = rate.map_or(1, |rate| rate.saturating_mul(2));
    let burst = section.get_or("burst", default, |v| integer_u32(v, 1..=2_000_000_000)).value;
    section.finish();
    rate.map(|rate| FloodLimit { rate, burst })
}

fn read_control(reader: &Reader<'_>, mut section: Section<'_, '_>) -> Control {
    let socket = section
        .get_or("socket", PathBuf::from("/run/gemel/ctl.sock"), |v| path(v, SOCKET_PATH_LEN_MAX))
        .value;
    let default = Some((std::net::Ipv6Addr::LOCALHOST, 9547).into());
    let http = section.get_or("http", default, listen_address);
    if http.value.is_some_and(|address| !address.ip().is_loopback()) {
        let what = "whoever reaches this address can read metrics and status";
        reader.warning(http.at, http.key, what, "a loopback address keeps them on this host");
    }
    section.finish();
    Control { socket, http: http.value }
}

fn read_log(mut section: Section<'_, '_>) -> Log {
    const LEVELS: [(&str, LogLevel); 5] = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = Log {
        level: section.get_or("level", LogLevel::Info, |v| word(v, &LEVELS)).value,
        format: section.get_or("format", LogFormat::Text, |v| word(v, &FORMATS)).value,
    };
    section.finish();
    log
}
