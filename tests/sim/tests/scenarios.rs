//! Stories of the pair that are written by hand, on the simulator's cluster. Its checkers watch
//! them as they watch the random runs.

use gemel_failover::{Command, ServerState as Is};
use gemel_lease::{AbsoluteTime, BindingStatus, IaKind, Lease, Responsiveness};
use gemel_sim::{MILLISECOND, Micros, PRIMARY, Plan, Rule, SECOND, SECONDARY, Trace, World};

/// A pair in NORMAL state.
fn pair(plan: Plan) -> World {
    let mut world = World::new(plan, Trace::Last(60));
    let bound = 2 * Micros::from(world.plan().mclt) + 60;
    assert!(world.run_while(bound * SECOND, World::is_normal), "{}", story(&world));
    run(&mut world, 5);
    world
}

fn story(world: &World) -> String {
    format!("{:?}\n{}", world.violation(), world.lines().join("\n"))
}

fn run(world: &mut World, secs: u64) {
    assert!(world.run(secs * SECOND), "{}", story(world));
}

fn until(world: &mut World, secs: u64, what: &str, enough: impl Fn(&World) -> bool) {
    assert!(world.run_while(secs * SECOND, enough), "waited for {what}: {}", story(world));
}

/// All is well again, and everything has to agree.
fn finish(mut world: World) {
    world.heal();
    world.converge();
    assert!(world.violation().is_none(), "{}", story(&world));
}

/// A client that has its leases.
fn bound_client(world: &mut World, kinds: &[IaKind]) -> (usize, Vec<Lease>) {
    let client = world.add_client(kinds.to_vec());
    world.start_client(client);
    let wanted = kinds.len();
    until(world, 20, "leases", |world| world.held(client).len() == wanted);
    let leases = world.held(client).iter().map(|held| held.lease).collect();
    (client, leases)
}

/// Seconds for which a client may still use its first lease.
fn left(world: &World, client: usize) -> u64 {
    let held = world.held(client).first().expect("a lease");
    held.until.saturating_sub(world.now()).div_ceil(SECOND)
}

/// The states in the order in which a server entered them, among others.
fn went_through(world: &World, node: usize, states: &[Is]) -> bool {
    let history = world.history(node);
    let mut at = history.iter();
    states.iter().all(|state| at.any(|it| it == state))
}

#[test]
fn figure_1_lifetimes_grow_when_the_partner_knows() {
    const DAY: u32 = 86_400;
    let mut plan = Plan::calm(1);
    (plan.mclt, plan.valid, plan.preferred) = (3600, 3 * DAY, 3 * DAY);
    plan.keepalive_secs = 60;
    let mut world = pair(plan);
    let (client, leases) = bound_client(&mut world, &[IaKind::Na]);
    assert!((3590..=3600).contains(&left(&world, client)), "the MCLT at first");
    run(&mut world, 10);
    let acked = |world: &World| {
        let binding = world.table(PRIMARY).unwrap().binding(leases[0]).unwrap();
        assert!(!binding.update_pending);
        let span = |time: AbsoluteTime| time.0 - binding.client_last_transaction_time.0;
        (span(binding.acked_partner_lifetime), span(binding.state_expiration_time))
    };
    assert_eq!(acked(&world), (1800 + 3 * DAY, 3600), "half an hour and three days");
    let known = world.table(SECONDARY).unwrap().binding(leases[0]).unwrap();
    assert_eq!(known.expiration_time.0 - known.partner_raw_clt_time.0, 1800 + 3 * DAY);
    // At T1 the client comes back and gets all that it is to have.
    run(&mut world, 1800);
    assert!(left(&world, client) > u64::from(3 * DAY) - 60, "{}", story(&world));
    assert_eq!(acked(&world), (3 * DAY / 2 + 3 * DAY, 3 * DAY), "one and a half, and three days");
    run(&mut world, u64::from(3 * DAY / 2));
    assert!(left(&world, client) > u64::from(3 * DAY) - 60);
    assert_eq!(acked(&world), (3 * DAY / 2 + 3 * DAY, 3 * DAY));
}

#[test]
fn figure_7_a_server_comes_back_to_one_in_partner_down() {
    for lost in [false, true] {
        let mut world = pair(Plan::calm(7));
        let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
        world.crash(SECONDARY, false);
        if lost {
            world.lose_disk(SECONDARY);
        }
        run(&mut world, 10);
        assert_eq!(world.state(PRIMARY), Some(Is::CommunicationsInterrupted));
        world.command(PRIMARY, Command::PartnerDown).unwrap();
        world.extend(client, false);
        run(&mut world, 5);
        assert!(left(&world, client) > 590, "no limit in PARTNER-DOWN state");
        world.boot(SECONDARY);
        until(&mut world, 200, "NORMAL", World::is_normal);
        let way = [Is::Recover, Is::RecoverWait, Is::RecoverDone, Is::Normal];
        assert!(went_through(&world, SECONDARY, &way), "{}", story(&world));
        assert!(went_through(&world, PRIMARY, &[Is::PartnerDown, Is::Normal]));
        for lease in leases {
            assert_eq!(world.lease_status(SECONDARY, lease), Some(BindingStatus::Active));
        }
        finish(world);
    }
}

#[test]
fn figure_8_the_connection_breaks_and_comes_back() {
    let mut world = pair(Plan::calm(8));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.break_connection();
    run(&mut world, 1);
    for node in [PRIMARY, SECONDARY] {
        assert!(went_through(&world, node, &[Is::Normal, Is::CommunicationsInterrupted]));
    }
    until(&mut world, 20, "NORMAL", World::is_normal);
    run(&mut world, 5);
    assert_eq!(world.responsiveness(PRIMARY), Some(Responsiveness::Responsive));
    assert_eq!(world.responsiveness(SECONDARY), Some(Responsiveness::RenewResponsive));
    let still: Vec<_> = world.held(client).iter().map(|held| held.lease).collect();
    assert_eq!(still, leases);
    finish(world);
}

#[test]
fn figure_9_two_in_partner_down_sort_it_out() {
    let mut world = pair(Plan::calm(9));
    let (_, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.expect_conflicts("this is what it is about");
    world.cut(PRIMARY, true);
    run(&mut world, 20);
    for node in [PRIMARY, SECONDARY] {
        world.command(node, Command::PartnerDown).unwrap();
    }
    // Long enough that each gives out the other's prefixes.
    let clients: Vec<_> = (0..20).map(|_| world.add_client(vec![IaKind::Pd])).collect();
    for client in clients {
        world.cut_client(client, client % 2, true);
        world.start_client(client);
    }
    run(&mut world, 150);
    world.join();
    until(&mut world, 60, "NORMAL", World::is_normal);
    let way = [Is::PartnerDown, Is::PotentialConflict, Is::ConflictDone, Is::Normal];
    assert!(went_through(&world, PRIMARY, &way), "{}", story(&world));
    let way = [Is::PartnerDown, Is::PotentialConflict, Is::Normal];
    assert!(went_through(&world, SECONDARY, &way), "{}", story(&world));
    for lease in leases {
        let there = [PRIMARY, SECONDARY].map(|node| world.lease_status(node, lease));
        assert_eq!(there[0], there[1]);
    }
    finish(world);
}

#[test]
fn a_server_may_be_killed_at_any_moment() {
    for node in [PRIMARY, SECONDARY] {
        for moment in 0..60 {
            let mut plan = Plan::calm(100 + moment);
            plan.commit_max = 20 * MILLISECOND;
            let mut world = pair(plan);
            let client = world.add_client(vec![IaKind::Na, IaKind::Pd]);
            world.start_client(client);
            world.run(moment * 4 * MILLISECOND);
            world.crash(node, moment % 2 == 0);
            run(&mut world, 3);
            world.boot(node);
            until(&mut world, 60, "NORMAL", World::is_normal);
            until(&mut world, 60, "leases", |world| world.held(client).len() == 2);
            finish(world);
        }
    }
}

#[test]
fn a_lost_disk_is_filled_by_the_partner() {
    for node in [PRIMARY, SECONDARY] {
        let mut world = pair(Plan::calm(20));
        let bound: Vec<_> =
            (0..8).map(|_| bound_client(&mut world, &[IaKind::Na, IaKind::Pd])).collect();
        run(&mut world, 5);
        world.crash(node, false);
        world.lose_disk(node);
        run(&mut world, 5);
        world.boot(node);
        until(&mut world, 200, "NORMAL", World::is_normal);
        assert!(went_through(&world, node, &[Is::Recover, Is::RecoverWait, Is::RecoverDone]));
        for (client, leases) in bound {
            let held: Vec<_> = world.held(client).iter().map(|held| held.lease).collect();
            assert_eq!(held, leases);
            for lease in leases {
                assert_eq!(world.lease_status(node, lease), Some(BindingStatus::Active));
            }
        }
        finish(world);
    }
}

#[test]
fn both_disks_are_lost() {
    let mut world = pair(Plan::calm(21));
    let (client, _) = bound_client(&mut world, &[IaKind::Na]);
    for node in [PRIMARY, SECONDARY] {
        world.crash(node, false);
        world.lose_disk(node);
    }
    world.boot(PRIMARY);
    world.boot(SECONDARY);
    until(&mut world, 200, "NORMAL", World::is_normal);
    // Nobody knew that it had a lease, but the wait was as long as that (section 8.6).
    let other = bound_client(&mut world, &[IaKind::Na]).1;
    assert!(world.held(client).iter().all(|held| !other.contains(&held.lease)));
    finish(world);
}

#[test]
fn clocks_that_differ_too_much_keep_the_servers_apart() {
    let mut world = pair(Plan::calm(22));
    world.set_clock(SECONDARY, 7_000_000);
    until(&mut world, 30, "COMMUNICATIONS-INTERRUPTED", |world| {
        [PRIMARY, SECONDARY]
            .iter()
            .all(|node| world.state(*node) == Some(Is::CommunicationsInterrupted))
    });
    let before = [PRIMARY, SECONDARY].map(|node| world.history(node));
    run(&mut world, 60);
    let after = [PRIMARY, SECONDARY].map(|node| world.history(node));
    assert_eq!(after, before, "nothing moves: {}", story(&world));
    bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.set_clock(SECONDARY, 4_000_000);
    until(&mut world, 60, "NORMAL", World::is_normal);
    finish(world);
}

#[test]
fn all_prefixes_are_the_survivors_after_the_mclt() {
    for survivor in [PRIMARY, SECONDARY] {
        let mut world = pair(Plan::calm(23));
        world.crash(1 - survivor, false);
        run(&mut world, 15);
        world.command(survivor, Command::PartnerDown).unwrap();
        let clients: Vec<_> = (0..16).map(|_| world.add_client(vec![IaKind::Pd])).collect();
        for client in &clients {
            world.start_client(*client);
        }
        run(&mut world, 40);
        let served = |world: &World| {
            clients.iter().filter(|client| !world.held(**client).is_empty()).count()
        };
        assert!(served(&world) < 16, "the other's prefixes are out of reach before the MCLT");
        until(&mut world, 120, "the other's prefixes", |world| served(world) == 16);
        world.boot(1 - survivor);
        until(&mut world, 200, "NORMAL", World::is_normal);
        finish(world);
    }
}

#[test]
fn addresses_of_the_partner_are_left_alone() {
    let mut world = pair(Plan::calm(24));
    world.crash(SECONDARY, false);
    run(&mut world, 15);
    world.command(PRIMARY, Command::PartnerDown).unwrap();
    let clients: Vec<_> = (0..20).map(|_| world.add_client(vec![IaKind::Na])).collect();
    for client in &clients {
        world.start_client(*client);
    }
    run(&mut world, 200);
    let held = clients.iter().flat_map(|client| world.held(*client));
    let odd = held.filter(|held| held.lease.bits() & 1 == 1).count();
    assert_eq!(odd, 16, "all of its own, and no others: {}", story(&world));
    world.boot(SECONDARY);
    finish(world);
}

#[test]
fn a_lease_is_released_at_the_other_server() {
    let mut world = pair(Plan::calm(25));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    run(&mut world, 2);
    world.crash(PRIMARY, true);
    until(&mut world, 30, "service", |world| {
        world.responsiveness(SECONDARY) == Some(Responsiveness::Responsive)
    });
    world.extend(client, true);
    until(&mut world, 10, "an answer", |world| left(world, client) > 50);
    run(&mut world, 5);
    world.release(client);
    run(&mut world, 5);
    for lease in &leases {
        assert_eq!(world.lease_status(SECONDARY, *lease), Some(BindingStatus::Released));
    }
    world.boot(PRIMARY);
    until(&mut world, 60, "NORMAL", World::is_normal);
    run(&mut world, 60);
    for lease in &leases {
        for node in [PRIMARY, SECONDARY] {
            let status = world.lease_status(node, *lease);
            let again = world.held(client).iter().any(|held| held.lease == *lease);
            assert!(status == Some(BindingStatus::Free) || again, "{status:?}: {}", story(&world));
        }
    }
    finish(world);
}

#[test]
fn a_suspended_server_leaves_the_clients_to_the_other() {
    let mut world = pair(Plan::calm(26));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.command(PRIMARY, Command::Suspend).unwrap();
    until(&mut world, 10, "service", |world| {
        world.responsiveness(SECONDARY) == Some(Responsiveness::Responsive)
    });
    world.extend(client, true);
    run(&mut world, 5);
    let held: Vec<_> = world.held(client).iter().map(|held| held.lease).collect();
    assert_eq!(held, leases);
    world.command(PRIMARY, Command::Resume).unwrap();
    until(&mut world, 60, "NORMAL", World::is_normal);
    finish(world);
}

/// The end of a lease by the tables of both servers.
fn ends(world: &World, lease: Lease) -> [u32; 2] {
    [PRIMARY, SECONDARY].map(|node| {
        let binding = world.table(node).unwrap().binding(lease).expect("a binding");
        assert_eq!(binding.status, BindingStatus::Active);
        binding.state_expiration_time.0
    })
}

#[test]
fn a_rebind_reaches_both_servers() {
    let mut world = pair(Plan::calm(30));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.extend(client, false);
    run(&mut world, 10);
    world.cut(PRIMARY, true);
    until(&mut world, 30, "both to serve", |world| {
        let alone = Some(Is::CommunicationsInterrupted);
        world.state(PRIMARY) == alone && world.state(SECONDARY) == alone
    });
    world.extend(client, true);
    run(&mut world, 5);
    let [long, short] = ends(&world, leases[0]);
    assert!(long > short, "what is acknowledged decides: {long} and {short}");
    world.join();
    until(&mut world, 30, "NORMAL", World::is_normal);
    run(&mut world, 10);
    for lease in leases {
        assert_eq!(ends(&world, lease), [long; 2], "the client may go by either");
    }
    finish(world);
}

#[test]
fn what_the_lost_disk_knew_is_waited_for() {
    let mut world = pair(Plan::calm(31));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na, IaKind::Pd]);
    world.extend(client, false);
    run(&mut world, 10);
    let [known, _] = ends(&world, leases[0]);
    world.cut(PRIMARY, true);
    run(&mut world, 100);
    // The partner never hears of this one.
    world.extend(client, false);
    run(&mut world, 2);
    let given = world.table(PRIMARY).unwrap().binding(leases[0]).unwrap().state_expiration_time.0;
    assert!(given > known + 50);
    world.crash(PRIMARY, true);
    world.lose_disk(PRIMARY);
    world.join();
    world.boot(PRIMARY);
    until(&mut world, 200, "NORMAL", World::is_normal);
    run(&mut world, 10);
    for lease in leases {
        for end in ends(&world, lease) {
            assert!(end >= given, "the client has it until {given}, they end it at {end}");
        }
    }
    finish(world);
}

#[test]
fn the_partner_hears_of_take_overs_before_it_serves() {
    let mut world = pair(Plan::calm(32));
    world.crash(PRIMARY, false);
    run(&mut world, 15);
    world.command(SECONDARY, Command::PartnerDown).unwrap();
    run(&mut world, 30);
    world.lose_disk(PRIMARY);
    world.boot(PRIMARY);
    // Its wait ends after that for the primary's prefixes does, and these are wanted.
    let clients: Vec<_> = (0..10).map(|_| world.add_client(vec![IaKind::Pd])).collect();
    for client in clients {
        world.start_client(client);
    }
    until(&mut world, 200, "NORMAL", World::is_normal);
    assert!(went_through(&world, PRIMARY, &[Is::RecoverWait, Is::RecoverDone, Is::Normal]));
    let prefix = |index: u16| {
        Lease::prefix(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x8000, index << 8, 0, 0, 0, 0), 56)
    };
    for lease in (0..16).map(prefix) {
        let at = [PRIMARY, SECONDARY].map(|node| world.is_available(node, lease));
        assert_ne!(at, [true; 2], "{lease}: {}", story(&world));
        let taken = world.lease_status(SECONDARY, lease) == Some(BindingStatus::Active);
        assert!(!taken || !at[PRIMARY], "{lease} is leased and available: {}", story(&world));
    }
    finish(world);
}

#[test]
fn recover_done_is_silent_while_the_partner_may_be_in_partner_down() {
    let mut world = pair(Plan::calm(33));
    let (client, leases) = bound_client(&mut world, &[IaKind::Na]);
    run(&mut world, 5);
    world.crash(SECONDARY, false);
    run(&mut world, 15);
    world.command(PRIMARY, Command::PartnerDown).unwrap();
    world.boot(SECONDARY);
    until(&mut world, 30, "RECOVER-WAIT", |world| world.state(SECONDARY) == Some(Is::RecoverWait));
    world.crash(PRIMARY, true);
    until(&mut world, 120, "RECOVER-DONE", |world| world.state(SECONDARY) == Some(Is::RecoverDone));
    run(&mut world, 10);
    assert_eq!(world.responsiveness(SECONDARY), Some(Responsiveness::Unresponsive));
    assert_eq!(world.lease_status(SECONDARY, leases[0]), Some(BindingStatus::Active));
    world.boot(PRIMARY);
    until(&mut world, 60, "NORMAL", World::is_normal);
    let _ = client;
    finish(world);
}

/// Section 8.4 is broken as well by servers that serve one after the other and have not met.
#[test]
fn who_serves_after_one_in_partner_down_is_noticed() {
    let mut world = pair(Plan::calm(23));
    world.crash(PRIMARY, false);
    run(&mut world, 10);
    world.command(SECONDARY, Command::PartnerDown).unwrap();
    run(&mut world, 10);
    world.crash(SECONDARY, false);
    world.boot(PRIMARY);
    assert!(!world.run(60 * SECOND), "not noticed: {}", story(&world));
    let found = world.violation().map(|violation| violation.rule);
    assert_eq!(found, Some(Rule::Exclusion), "{}", story(&world));
}
