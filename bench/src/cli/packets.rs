//! Packet rates: the reflector, and what measures it.

use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use gemel_ebpf::XdpMode;
use serde_json::json;

use super::{OK, args::CommonArgs, args::rate, opened::Opened};
use crate::{
    clock::Clock,
    number::{low32, whole},
    os::{self, Interface},
    packets::{self, Flow, Pace},
    port::AnyPort,
    reflector::Reflector,
};

#[derive(Clone, Debug, Args)]
pub(super) struct PacketsArgs {
    /// Packets outstanding (closed loop).
    #[arg(long, value_name = "W", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: u32,
    /// Packets per second, whatever comes back (open loop).
    #[arg(long, value_name = "R", conflicts_with = "window", value_parser = rate)]
    rate: Option<f64>,
    /// With --rate: so many packets at once, then a pause [default: those of a millisecond].
    #[arg(long, value_name = "N", requires = "rate",
          value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    burst: Option<u32>,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = rate)]
    seconds: f64,
    #[command(flatten)]
    common: CommonArgs,
}

impl PacketsArgs {
    fn pace(&self) -> Pace {
        let Some(rate) = self.rate else { return Pace::Window(self.window) };
        let packets = self.burst.unwrap_or_else(|| low32(whole(rate / 1000.0).max(1)));
        Pace::Bursts { packets, every: whole(f64::from(packets) / rate * 1e9).max(1) }
    }
}

pub(super) fn packets(args: &PacketsArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    if let Some(option) = unused(common) {
        bail!("packets counts packets on one queue and judges nothing: no {option}");
    }
    let Opened { interface, traffic, mut ports, .. } = Opened::new(common)?;
    let flow = Flow {
        pace: args.pace(),
        clients: common.clients,
        seed: common.seed,
        duration: whole(args.seconds * 1e9),
    };
    let stop = os::stop_on_interrupt();
    let clock = Clock::start();
    let [port] = ports.as_mut_slice() else { bail!("packets goes with one queue") };
    let report = match port {
        AnyPort::Xdp(port) => packets::run(&mut **port, &traffic, &flow, &clock, stop),
        AnyPort::Socket(port) => packets::run(&mut **port, &traffic, &flow, &clock, stop),
    };
    let info = port.info();
    let report = report.with_context(|| format!("sending on {} broke off", interface.name))?;
    println!(
        "{:.0} packets/s in {:.2} s ({}): {} sent, {} ADVERTISE, {} reflected, {} other, {} lost, {} not \
         sent in time",
        report.packets_per_s,
        report.seconds,
        info.mode,
        report.sent,
        report.advertises,
        report.reflected,
        report.other,
        report.lost,
        report.not_sent
    );
    if common.json {
        let mut value = serde_json::to_value(report)?;
        value["mode"] = info.mode.into();
        println!("{value}");
    }
    Ok(OK)
}

/// An option that was given and would do nothing.
fn unused(common: &CommonArgs) -> Option<&'static str> {
    let given = [
        ("--queues", !common.queues.is_empty()),
        ("--slo", common.slo.is_some()),
        ("--out", common.out.is_some()),
        ("--prometheus", common.prometheus.is_some()),
        ("--grants", common.grants.is_some()),
    ];
    given.into_iter().find_map(|(option, given)| given.then_some(option))
}

/// How a reflector receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum ReflectorMode {
    /// The faster one.
    Auto,
    /// The XDP program in the driver.
    XdpNative,
    /// The XDP program in the kernel's stack.
    XdpGeneric,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ReflectorArgs {
    /// Interface.
    #[arg(long, short, value_name = "IF")]
    interface: String,
    /// How packets go.
    #[arg(long, value_enum, default_value_t = ReflectorMode::Auto)]
    mode: ReflectorMode,
    /// Queue of the interface.
    #[arg(long, value_name = "Q", default_value_t = 0)]
    queue: u32,
    /// Bind the reflector to this core.
    #[arg(long, value_name = "C")]
    core: Option<u32>,
    /// End after this time; without it, at SIGINT.
    #[arg(long, value_name = "S", value_parser = rate)]
    seconds: Option<f64>,
    /// Print what was reflected as JSON on the last line.
    #[arg(long)]
    json: bool,
    /// No progress line.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn reflector(args: &ReflectorArgs) -> anyhow::Result<u8> {
    let interface = Interface::by_name(&args.interface)?;
    if let Some(core) = args.core {
        os::pin_to_core(core).with_context(|| format!("cannot bind to core {core}"))?;
    }
    let by_speed = os::modes_by_speed(&interface);
    let modes: &[XdpMode] = match args.mode {
        ReflectorMode::Auto => &by_speed,
        ReflectorMode::XdpNative => &[XdpMode::Native],
        ReflectorMode::XdpGeneric => &[XdpMode::Generic],
    };
    let mut reflector = Reflector::open(&interface, args.queue, modes)?;
    // Whoever started it waits for this line.
    println!("reflecting on {} queue {} ({})", interface.name, args.queue, reflector.mode());
    let stop = os::stop_on_interrupt();
    let clock = Clock::start();
    let mut before = 0;
    let reflected = reflector.run(
        &clock,
        args.seconds.map(|seconds| whole(seconds * 1e9)),
        stop,
        &mut |reflected| {
            if !args.quiet && reflected.packets != before {
                eprintln!("{:>12} packets/s", reflected.packets - before);
            }
            before = reflected.packets;
        },
    );
    let reflected =
        reflected.with_context(|| format!("reflecting on {} broke off", interface.name))?;
    println!(
        "{} packets reflected, {} others, {} without room to send{}",
        reflected.packets,
        reflected.other,
        reflected.tx_full,
        if stop.load(Ordering::Relaxed) { " (interrupted)" } else { "" }
    );
    if args.json {
        println!(
            "{}",
            json!({
                "packets": reflected.packets,
                "other": reflected.other,
                "tx_full": reflected.tx_full,
                "mode": reflector.mode(),
            })
        );
    }
    Ok(OK)
}
