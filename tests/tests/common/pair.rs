//! What the tests of a failover pair share.
//!
//! `GEMEL_FAILOVER_RATE` sets the load in exchanges per second (300 by default).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use gemel_tests::bench::Disturbed;
use gemel_tests::gemel::Binding;
use gemel_tests::pair::{Options, Pair, Relationship, Role};
use gemel_tests::wait;
use serde_json::Value;

/// How long a server may take to notice what became of its partner: some keepalive times on a busy
/// machine.
pub(crate) const NOTICE: Duration = Duration::from_secs(20);

/// A takeover that takes longer than this is none, whatever else the machine does, in ms.
const TAKEOVER_MS_MAX: f64 = 8000.0;

/// A lease that ends within so many seconds may be gone when the servers are asked.
const SOON_SECS: u64 = 10;

/// Only one pair with its load at a time: two of them on a small machine take each other's silence
/// for an outage.
static ALONE: Mutex<()> = Mutex::new(());

/// Starts a pair, waits for NORMAL, and runs the test; shows both logs where it fails.
pub(crate) fn with_pair(
    name: &str,
    options: &Options,
    test: impl FnOnce(&mut Pair) -> Result<()>,
) -> Result<()> {
    with_pair_apart(name, options, |pair| {
        pair.wait_normal()?;
        test(pair)
    })
}

/// The same without waiting for NORMAL.
pub(crate) fn with_pair_apart(
    name: &str,
    options: &Options,
    test: impl FnOnce(&mut Pair) -> Result<()>,
) -> Result<()> {
    // A test that failed while it held the lock left nothing behind that would matter.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pair = Pair::start_apart(name, options)?;
    let result = test(&mut pair);
    // The test harness shows it when the test fails.
    println!("{}", pair.log());
    result
}

/// The load of every test.
pub(crate) fn load(seconds: f64) -> Result<Disturbed> {
    let rate = match std::env::var("GEMEL_FAILOVER_RATE") {
        Ok(text) => text.parse().with_context(|| format!("GEMEL_FAILOVER_RATE={text}"))?,
        Err(_) => 300.0,
    };
    Ok(Disturbed::new(rate, seconds))
}

/// Puts a load on the pair, does `meanwhile`, and when both are over insists that no rule was
/// broken, nothing was lost, both servers are in NORMAL state with equal databases, and every lease
/// that a client holds is in them. Returns the generator's summary.
pub(crate) fn under_load(
    pair: &mut Pair,
    mut load: Disturbed,
    meanwhile: impl FnOnce(&mut Pair) -> Result<()>,
) -> Result<Value> {
    let grants = pair.lab.dir().join("grants");
    load.grants = Some(grants.clone());
    let bench = load.start(&pair.client)?;
    meanwhile(pair).context("in the middle of the load")?;
    let summary = load.finish(bench)?;
    print_summary(&summary);
    let report = &summary["failover"];
    for count in ["duplicates", "renumbered", "forgotten", "lost"] {
        ensure!(report[count] == 0, "{} {count}: {report}", report[count]);
    }
    let refused: u64 = summary["counters"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("refused"))
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    ensure!(refused == 0, "{refused} exchanges were refused: {}", summary["counters"]);
    let bindings = pair.wait_equal()?;
    assert_granted(&grants, &bindings)?;
    println!("both servers have the same {} bindings", bindings.len());
    Ok(summary)
}

fn print_summary(summary: &Value) {
    println!("exchanges {}, counters {}", summary["exchanges"], summary["counters"]);
    println!("servers {}, pairs {}", summary["servers"], summary["pairs"]);
    for event in summary["failover"]["events"].as_array().into_iter().flatten() {
        println!("event {event}");
    }
}

/// Every lease that a client of the load holds has to be in the servers' databases.
fn assert_granted(file: &Path, bindings: &[Binding]) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let known: HashMap<&str, &Binding> =
        bindings.iter().map(|binding| (binding.lease.as_str(), binding)).collect();
    let mut compared = 0;
    for line in std::fs::read_to_string(file)?.lines() {
        let grant: Value = serde_json::from_str(line)?;
        if grant["valid_until"].as_u64().is_some_and(|until| until < now + SOON_SECS) {
            continue;
        }
        let lease = grant["lease"].as_str().with_context(|| format!("no lease in {line}"))?;
        let Some(binding) = known.get(lease) else { bail!("the servers have lost {line}") };
        let same = binding.status == "active"
            && Some(binding.duid.replace(':', "").as_str()) == grant["duid"].as_str()
            && Some(binding.iaid) == grant["iaid"].as_u64();
        ensure!(same, "a client holds {line}, the servers have {binding:?}");
        compared += 1;
    }
    println!("{compared} leases of clients compared");
    Ok(())
}

/// Insists that another server took over at the n-th event, in reasonable time.
pub(crate) fn assert_takeover(summary: &Value, event: usize) -> Result<f64> {
    let event = &summary["failover"]["events"][event];
    let ms = event["takeover_ms"].as_f64().with_context(|| format!("nobody took over: {event}"))?;
    ensure!(ms <= TAKEOVER_MS_MAX, "the takeover took {ms} ms: {event}");
    Ok(ms)
}

/// Waits until the process of a server is gone, by a command of the load.
pub(crate) fn wait_gone(pair: &mut Pair, role: Role) -> Result<()> {
    let process = pair.server_mut(role).process();
    wait::until("the server to be killed", NOTICE, || Ok((!process.is_running()?).then_some(())))
}

/// Waits until a server has lost its partner.
pub(crate) fn wait_alone(pair: &Pair, role: Role) -> Result<Relationship> {
    let alone = |found: &Relationship| !found.connected && found.state != "normal";
    pair.wait_relationship(role, "without its partner", NOTICE, alone)
}

/// Waits until a server has given `more` leases since now.
pub(crate) fn wait_grants(pair: &Pair, role: Role, more: usize) -> Result<()> {
    let server = pair.server(role);
    let before = server.bindings()?.len();
    wait::until(&format!("the {} to give leases", role.as_str()), NOTICE, || {
        Ok((server.bindings()?.len() >= before + more).then_some(()))
    })
}
