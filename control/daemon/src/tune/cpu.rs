//! Checks of cores, scheduler and clock.

use super::{
    Check, Wanted,
    host::{Host, chosen, list, show_list},
};

const CPU: &str = "cpu";
/// Clock sources that are read without a system call.
const FAST_CLOCKS: [&str; 4] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

pub(super) fn look(host: &Host, wanted: &Wanted, checks: &mut Vec<Check>) {
    checks.push(governor(host));
    checks.push(cores(host, wanted));
    checks.extend(isolation(host, wanted));
    checks.extend(siblings(host, wanted));
    checks.push(slices(host));
    checks.push(clock(host));
    checks.push(huge_pages(host));
}

fn governor(host: &Host) -> Check {
    let governors: Vec<String> = host
        .cpus()
        .iter()
        .filter_map(|cpu| {
            host.text(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
        })
        .collect();
    match governors.iter().find(|governor| *governor != "performance") {
        None if governors.is_empty() => {
            Check::ok(CPU, "governor", "the kernel scales no frequencies here")
        }
        None => Check::ok(CPU, "governor", "performance"),
        Some(other) => Check::ok(CPU, "governor", other)
            .advise(
                "performance",
                "a core that was slowed down answers late until it is fast again",
            )
            .with_command(
                "for g in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do echo \
                 performance > $g; done",
            ),
    }
}

fn cores(host: &Host, wanted: &Wanted) -> Check {
    let online = host.cpus();
    let Some(cores) = &wanted.cores else {
        let check = Check::ok(CPU, "worker_cores", "not pinned");
        if online.len() < 3 {
            return check;
        }
        let best = online[1..].to_vec();
        return check
            .advise(show_list(&best), "a worker that the scheduler moves starts with cold caches")
            .with_command(format!("set dataplane.cores = [{}]", show_list(&best)));
    };
    let check = Check::ok(CPU, "worker_cores", show_list(cores));
    if let Some(absent) = cores.iter().find(|core| !online.contains(core)) {
        return check
            .refuse(format!("of {}", show_list(&online)), "a worker cannot be pinned there")
            .with_command(format!("take {absent} out of dataplane.cores"));
    }
    if online.len() > 1 && online.iter().all(|core| cores.contains(core)) {
        return check.advise(
            format!("all but core {}", online[0]),
            "the control thread, whose sync every REPLY waits for, needs a core too",
        );
    }
    check
}

/// Whether the kernel keeps everybody else off the workers' cores.
fn isolation(host: &Host, wanted: &Wanted) -> Option<Check> {
    let cores = wanted.cores.as_ref()?;
    let read = |name: &str| {
        list(&host.text(&format!("/sys/devices/system/cpu/{name}")).unwrap_or_default())
    };
    let (isolated, quiet) = (read("isolated"), read("nohz_full"));
    let measured = format!("isolcpus={} nohz_full={}", show_list(&isolated), show_list(&quiet));
    let check = Check::ok(CPU, "isolation", measured);
    if cores.iter().all(|core| isolated.contains(core) && quiet.contains(core)) {
        return Some(check);
    }
    let all = show_list(cores);
    let line = format!("isolcpus=managed_irq,domain,{all} nohz_full={all} rcu_nocbs={all}");
    Some(
        check
            .advise(
                line.clone(),
                "other threads and the timer interrupt hold up a worker now and then (the tail of \
                 the latency)",
            )
            .with_command(format!("add to the kernel command line and restart the host: {line}")),
    )
}

/// Two workers on one physical core.
fn siblings(host: &Host, wanted: &Wanted) -> Option<Check> {
    let cores = wanted.cores.as_ref()?;
    let twins = cores.iter().find_map(|core| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        let twins: Vec<usize> =
            list(&host.text(&path)?).into_iter().filter(|cpu| cores.contains(cpu)).collect();
        (twins.len() > 1).then_some(twins)
    });
    Some(match twins {
        None => Check::ok(CPU, "hyperthreads", "no two workers share a core"),
        Some(twins) => {
            Check::ok(CPU, "hyperthreads", format!("cores {} are one", show_list(&twins)))
                .advise("one of them", "two workers that share a core run at about half speed")
                .with_command(format!("take {} out of dataplane.cores", show_list(&twins[1..])))
        }
    })
}

/// The workers ask for short time slices, which the kernel grants from 6.12 on.
fn slices(host: &Host) -> Check {
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let base = host.number("/sys/kernel/debug/sched/base_slice_ns");
    let slice = base.map(|ns| format!(", base slice {ns} ns")).unwrap_or_default();
    let check = Check::ok(CPU, "time_slices", format!("Linux {release}{slice}"));
    if version >= (6, 12) || base.is_some_and(|ns| ns <= 1_000_000) {
        check
    } else {
        check
            .advise(
                "Linux 6.12 or later, or a base slice of 1 ms",
                "where a worker shares its core it waits for whole slices of others",
            )
            .with_command("echo 1000000 > /sys/kernel/debug/sched/base_slice_ns")
    }
}

fn clock(host: &Host) -> Check {
    let folder = "/sys/devices/system/clocksource/clocksource0";
    let Some(now) = host.text(&format!("{folder}/current_clocksource")) else {
        return Check::unknown(CPU, "clock_source", "not readable");
    };
    if FAST_CLOCKS.contains(&now.as_str()) {
        return Check::ok(CPU, "clock_source", now);
    }
    let available = host.text(&format!("{folder}/available_clocksource")).unwrap_or_default();
    let best = FAST_CLOCKS.iter().find(|fast| available.split_whitespace().any(|a| a == **fast));
    let check = Check::ok(CPU, "clock_source", now).advise(
        best.copied().unwrap_or("tsc"),
        "each look at the clock is a system call: some per batch of packets",
    );
    match best {
        Some(best) => check.with_command(format!("echo {best} > {folder}/current_clocksource")),
        None => check,
    }
}

fn huge_pages(host: &Host) -> Check {
    let folder = "/sys/kernel/mm/transparent_hugepage";
    let Some(enabled) = host.text(&format!("{folder}/enabled")) else {
        return Check::ok(CPU, "huge_pages", "the kernel has none");
    };
    let defrag = host.text(&format!("{folder}/defrag")).unwrap_or_default();
    let measured = format!("{}, defrag {}", chosen(&enabled), chosen(&defrag));
    let check = Check::ok(CPU, "huge_pages", measured);
    if chosen(&enabled) == "always" && chosen(&defrag) == "always" {
        return check
            .advise(
                "defrag madvise",
                "a page fault of the lease table may wait until memory has been moved together",
            )
            .with_command(format!("echo madvise > {folder}/defrag"));
    }
    check
}
