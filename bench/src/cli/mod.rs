//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    diff::{DiffArgs, diff},
    os,
    report::Summary,
    view::{ViewArgs, view},
};

mod args;
mod bench;
mod churn;
mod failover;
mod find_max;
mod mix;
mod opened;
mod packets;
mod ramp;
mod setup;
mod soak;
mod stalls;
mod steady;
mod storm;

/// The run was good.
const OK: u8 = 0;
/// The server broke a rule, or the run could not be made.
const FAILED: u8 = 1;
/// An objective was missed.
const SLO_MISSED: u8 = 3;

/// Open-loop load generator for DHCPv6 servers.
///
/// Exit status: 0 good, 1 the server broke a rule (or the run could not be made), 2 wrong usage,
/// 3 an objective of --slo was missed, or a soak drifted.
#[derive(Debug, Parser)]
#[command(name = "gemel-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run at a fixed rate, or as fast as answered.
    #[command(alias = "run")]
    Steady(steady::SteadyArgs),
    /// Search for the highest rate within a loss limit.
    FindMax(find_max::FindMaxArgs),
    /// From a low rate to a high one, in steps or in a straight line: where does it break?
    Ramp(ramp::RampArgs),
    /// All clients begin at once, as after a power cut, and keep asking as RFC 8415 has it.
    ///
    /// SOLICIT is sent again after 1 s, then 2 s, up to SOL_MAX_RT, for ever; REQUEST up to ten times,
    /// after which the client begins again (RFC 8415 sections 7.6 and 15). A client takes the first
    /// ADVERTISE that comes.
    Avalanche(storm::AvalancheArgs),
    /// All clients that hold a lease renew it at once; before that they are given the leases.
    RenewStorm(storm::RenewStormArgs),
    /// All kinds of exchanges side by side, in given shares.
    Mix(mix::MixArgs),
    /// Clients come, stay for a while, release their leases and make room for new ones.
    Churn(churn::ChurnArgs),
    /// Like steady, with Rapid Commit: SOLICIT, REPLY.
    RapidCommit(steady::SteadyArgs),
    /// Like steady, for prefixes.
    Pd(steady::SteadyArgs),
    /// Like steady, through relay agents.
    Relay(steady::RelayArgs),
    /// One run at a fixed rate in the middle of which something happens to the servers.
    ///
    /// Clients behave as RFC 8415 has it, only faster: they send again, and turn from a server that
    /// does not answer to any other. By default they send again after 100 ms, turn to any server
    /// after 500 ms and give up after 10 s. SIGUSR1 and SIGUSR2 mark an event that somebody else
    /// brings about.
    Failover(failover::FailoverArgs),
    /// Packets per second: SOLICIT out, ADVERTISE (or the SOLICIT itself, from a reflector) back.
    Packets(packets::PacketsArgs),
    /// Answer every packet with itself, addresses swapped: the ceiling of this host's rings.
    Reflector(packets::ReflectorArgs),
    /// What the machine itself takes from a program: no latency measured on it can be better.
    Stalls(stalls::StallsArgs),
    /// A long run: do latency, loss and memory stay what they were?
    Soak(soak::SoakArgs),
    /// The report of stored runs again, several of them put together.
    View(ViewArgs),
    /// Two runs, or two sets of repetitions, side by side.
    Diff(DiffArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Marks mean something to some scenarios; they must not end the others.
    os::count_marks();
    let result = match command {
        Command::Steady(args) => steady::run(&args),
        Command::FindMax(args) => find_max::run(&args),
        Command::Ramp(args) => ramp::run(&args),
        Command::Avalanche(args) => storm::avalanche(&args),
        Command::RenewStorm(args) => storm::renew_storm(&args),
        Command::Mix(args) => mix::run(&args),
        Command::Churn(args) => churn::run(&args),
        Command::RapidCommit(args) => steady::rapid_commit(args),
        Command::Pd(args) => steady::pd(args),
        Command::Relay(args) => steady::relay(args),
        Command::Failover(args) => failover::run(args),
        Command::Packets(args) => packets::packets(&args),
        Command::Reflector(args) => packets::reflector(&args),
        Command::Stalls(args) => stalls::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::View(args) => {
            view(&args).map(|shown| shown.map_or(OK, |summary| status(&summary)))
        }
        Command::Diff(args) => diff(&args).map(|()| OK),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("gemel-bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The exit status of a run.
fn status(summary: &Summary) -> u8 {
    match (summary.passed, summary.objectives_met()) {
        (false, _) => FAILED,
        (true, false) => SLO_MISSED,
        (true, true) => OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn packets_takes_nothing_that_it_would_not_heed() {
        for option in
            ["--queues 0,1", "--slo p99<1s", "--out x", "--prometheus [::1]:0", "--grants x"]
        {
            let line = format!("gemel-bench packets -i eth1 {option}");
            let Command::Packets(args) = parse(&line).unwrap().command else { panic!("packets") };
            let error = packets::packets(&args).unwrap_err().to_string();
            assert!(error.ends_with(option.split(' ').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn usage_is_checked() {
        for good in [
            "gemel-bench run -i eth1 --rate 1000",
            "gemel-bench run -i eth1 --window 64 --ia both --json",
            "gemel-bench run -i eth1 --rate 5 --relay --link-address 2001:db8::1,2001:db8::2",
            "gemel-bench run -i eth1 --rate 5 --slo p99<2ms,loss<0.1%",
            "gemel-bench steady -i eth1 --rate 1000 --queues 0,1 --cores 0,1",
            "gemel-bench find-max -i eth1 --loss 2.5 --step-seconds 2",
            "gemel-bench find-max -i eth1 --preset kea --slo p99<5ms",
            "gemel-bench rapid-commit -i eth1 --rate 1000",
            "gemel-bench pd -i eth1 --window 10",
            "gemel-bench relay -i eth1 --rate 5 --depth 32 --links 500 --link-pattern 2001:db8:{link}::1",
            "gemel-bench ramp -i eth1 --from 100 --to 5000 --steps 4",
            "gemel-bench ramp -i eth1 --from 100 --to 5000 --continuous --seconds 30",
            "gemel-bench avalanche -i eth1 --clients 1000000 --within 5",
            "gemel-bench renew-storm -i eth1 --clients 1000 --within 0",
            "gemel-bench mix -i eth1 --rate 100 --shares new=1,renew=2",
            "gemel-bench churn -i eth1 --fill 1000 --hold 10",
            "gemel-bench packets -i eth1 --window 64 --mode xdp-native",
            "gemel-bench packets -i eth1 --rate 250000 --burst 500",
            "gemel-bench reflector -i eth1 --seconds 5",
            "gemel-bench soak -i eth1 --rate 1000 --interval 5",
            "gemel-bench run -i eth1 --rate 5 --retransmit --any-server 300",
            "gemel-bench find-max -i eth1 --slo reply.p99.9<2ms --prometheus [::1]:9547",
            "gemel-bench view out --html page.html --slo p99<1ms",
            "gemel-bench diff before after --json",
            "gemel-bench failover -i eth1 --at 5:reboot --at 8.5:date --mclt 60 --retransmit 50",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "gemel-bench run -i eth1",
            "gemel-bench run --rate 1000",
            "gemel-bench run -i eth1 --rate 1000 --queues 0,1 --queue 3",
            "gemel-bench run -i eth1 --rate 1000 --cores 0,1",
            "gemel-bench find-max -i eth1 --preset dnsmasq",
            "gemel-bench find-max -i eth1 --precision 0",
            "gemel-bench find-max -i eth1 --precision=-3",
            "gemel-bench find-max -i eth1 --precision NaN",
            "gemel-bench find-max -i eth1 --loss NaN",
            "gemel-bench find-max -i eth1 --p99-ms nan",
            "gemel-bench ramp -i eth1 --to 5 --loss NaN",
            "gemel-bench ramp -i eth1 --to 5 --p99-ms inf",
            "gemel-bench run -i eth1 --rate 5 --lag-limit NaN",
            "gemel-bench relay -i eth1 --rate 5 --depth 33",
            "gemel-bench mix -i eth1 --rate 100 --shares new=0",
            "gemel-bench ramp -i eth1 --from 5",
            "gemel-bench run -i eth1 --rate 1000 --window 5",
            "gemel-bench run -i eth1 --rate 0",
            "gemel-bench packets -i eth1 --rate 5 --window 5",
            "gemel-bench packets -i eth1 --burst 5",
            "gemel-bench run -i eth1 --window 0",
            "gemel-bench run -i eth1 --rate 5 --renew-share 1.5",
            "gemel-bench run -i eth1 --rate 5 --slo p99",
            "gemel-bench run -i eth1 --rate 5 --relay 33",
            "gemel-bench avalanche -i eth1 --within 3601",
            "gemel-bench avalanche -i eth1 --seconds 3601",
            "gemel-bench renew-storm -i eth1 --seconds 0",
            "gemel-bench soak -i eth1 --interval 1e-10",
            "gemel-bench soak -i eth1 --interval NaN",
            "gemel-bench view",
            "gemel-bench diff one",
            "gemel-bench failover -i eth1 --at reboot",
            "gemel-bench failover -i eth1 --returning 2",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        let Command::Steady(args) = parse("gemel-bench run -i e --rate 5 --relay").unwrap().command
        else {
            panic!("steady")
        };
        assert_eq!(args.common.relay, 1);
    }
}
