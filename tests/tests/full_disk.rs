//! The disk fills up under load: nothing is handed out that was not stored, what needs no write is
//! still answered, and with room on the disk the server serves in full again.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::show_log;
use gemel_tests::bench::{Load, Pace, read_grants};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Lab, Link, Process, require, run, wait};

/// Size of the file system that the store lies on.
const DISK: &str = "size=96m";
/// Clients that hold a lease when the disk fills up.
const RESIDENTS: u32 = 500;
/// Clients that come for the first time, per second. Until the server notices the full disk they need
/// a few megabytes of [`DISK`].
const NEWCOMERS: f64 = 20_000.0;
/// How long the server may take to notice a full disk, or that there is room again.
const NOTICE: Duration = Duration::from_secs(60);

/// A file system in memory, taken away again at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        let path = at.to_str().context("a path in UTF-8")?;
        run("mount", &["-t", "tmpfs", "-o", DISK, "gemel-tests", path])?;
        Ok(Self(at.to_owned()))
    }

    /// Writes a file until there is no room left.
    fn fill(&self) -> Result<PathBuf> {
        use std::io::Write as _;
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path)?;
        let block = vec![0; 1 << 16];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Some(path) = self.0.to_str() {
            // The lab's folder cannot be removed then, and says so.
            let _ = run("umount", &["--lazy", path]);
        }
    }
}

fn wait_service(server: &Server, wanted: &str) -> Result<()> {
    wait::until(&format!("the service to be {wanted}"), NOTICE, || {
        Ok((server.status()?["service"] == wanted).then_some(()))
    })
}

#[test]
fn a_full_disk_stops_granting_and_nothing_else() -> Result<()> {
    require!(["mount", "umount"], ["gemel", "gemel-bench"]);
    let lab = Lab::new("disk")?;
    let server_ns = lab.namespace("server")?;
    let client_ns = lab.namespace("client")?;
    let (client, interface) =
        Link::default().connect((&client_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
    let disk = Tmpfs::mount(&lab.subdir("gemel")?.join("store"))?;
    let mut config =
        Config::new(Mode::Auto, vec![LinkConfig::new("access", 1).for_load(1).on(&interface)]);
    config.store = "checkpoint_interval = \"1s\"\nsegment_size = \"4MiB\"\n".to_owned();
    let mut server = Server::start(&lab, &server_ns, &config)?;
    let result = under_load(&lab, &client, &disk, &mut server);
    show_log(&server);
    // The process goes before the file system that it writes to.
    server.kill()?;
    result
}

/// Clients that come back again and again.
fn residents() -> Load {
    Load::new(Pace::Window(64), 2.0, RESIDENTS)
}

fn under_load(
    lab: &Lab,
    client: &gemel_tests::Interface,
    disk: &Tmpfs,
    server: &mut Server,
) -> Result<()> {
    // Some clients that hold leases when the disk fills up...
    let residents = Load { grants: Some(lab.dir().join("residents")), ..residents() };
    residents.run(client)?;

    // ...and newcomers without end, so that the store has to grow. Not at full speed: a fast machine
    // would fill the disk with leases before the filler does, and taking that away made no room.
    let mut newcomers = Load::new(Pace::Rate(NEWCOMERS), 600.0, 10_000_000);
    newcomers.seed = 2;
    newcomers.grants = Some(lab.dir().join("newcomers"));
    let commits = server.status()?["commits"].as_u64();
    let mut bench = Process::spawn("gemel-bench", newcomers.command(client)?)?;
    wait::until("the server to give leases to the load", NOTICE, || {
        if !bench.is_running()? {
            bail!("gemel-bench has ended:\n{}", bench.tail());
        }
        Ok((server.status()?["commits"].as_u64() > commits).then_some(()))
    })?;
    let filler = disk.fill()?;
    wait_service(server, "read-only")?;
    let error = server.status()?["store_error"].as_str().unwrap_or_default().to_owned();
    ensure!(!error.is_empty(), "a read-only server says why");
    bench.signal("INT")?;
    bench.wait_success(NOTICE)?;

    // Who holds a lease is answered; nobody is granted anything.
    let before = server.status()?;
    let summary = Load { seconds: 1.0, ..self::residents() }.run(client)?;
    let after = server.status()?;
    ensure!(before["service"] == "read-only" && after["service"] == "read-only");
    ensure!(before["journal_sequence"] == after["journal_sequence"], "a read-only server wrote");
    ensure!(before["bindings"] == after["bindings"], "a read-only server granted");
    ensure!(summary["exchanges"].as_u64() > Some(RESIDENTS.into()), "{summary}");

    fs::remove_file(filler)?;
    wait_service(server, "full")?;
    let mut granted = read_grants(&lab.dir().join("residents"))?;
    ensure!(granted.len() >= RESIDENTS as usize, "residents got {} leases", granted.len());
    granted.append(&mut read_grants(&lab.dir().join("newcomers"))?);
    server.kill()?;
    server.restart()?;
    let leases = server.leases()?;
    let found: HashMap<_, _> =
        leases.iter().map(|lease| ((lease.address, lease.prefix_len), lease)).collect();
    for lease in &granted {
        let stored = found.get(&(lease.address, lease.prefix_len));
        ensure!(stored == Some(&lease), "{lease:?} was given, {stored:?} is stored");
    }
    Ok(())
}
