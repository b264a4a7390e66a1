//! Pairs of real drivers on loopback, each with its own table and control thread.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread::JoinHandle,
};

use crossbeam::channel::bounded;
use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientKey, IaKind, Lease, PairPolicy, PoolId, PoolSet,
    Responsiveness, TableConfig, Terms,
};
use gemel_store::StoreError;
use gemel_wire::{Duid, IaId};
use gemel_worker::submit::{self, Submitter};
use parking_lot::RwLock;
use tempfile::TempDir;

use super::*;
use crate::{
    ca,
    config::Config,
    control::{Control, Journal},
    interfaces::Interface,
    pair::{Pair, Parts},
};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const TERMS: Terms = Terms::unlimited(1800, 3600);

/// A journal that fails when it is told to.
struct Memory {
    broken: Arc<AtomicBool>,
}

impl Memory {
    fn result(&self) -> Result<(), StoreError> {
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::NoSpace {
            path: "journal".into(),
            needed: 1,
            source: std::io::ErrorKind::StorageFull.into(),
        })
    }
}

impl Journal for Memory {
    fn append(&mut self, _: &[u8]) -> Result<(), StoreError> {
        self.result()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.result()
    }

    fn retry(&mut self) -> Result<(), StoreError> {
        self.result()
    }
}

/// One server of a pair, without packets.
struct Server {
    pair: Option<Pair>,
    policy: Arc<PairPolicy>,
    table: Arc<LeaseTable>,
    worker: Option<Submitter>,
    control: Option<JoinHandle<Memory>>,
    broken: Arc<AtomicBool>,
    service: Arc<ServiceState>,
}

impl Server {
    /// As the daemon puts itself together.
    fn start(config: &Config, table: Option<Arc<LeaseTable>>) -> Self {
        let (pools, _) = config.server_config(Duid::new(&[0, 3, 0, 1, 2]).unwrap());
        let count = u16::try_from(pools.len()).unwrap();
        let table = table.unwrap_or_else(|| {
            let table_config = TableConfig { expected_bindings: 64, ..TableConfig::default() };
            Arc::new(LeaseTable::new(&table_config, PoolSet::new(pools).unwrap()))
        });
        let (submissions, taken) = bounded(64);
        let resolvers = Arc::new(RwLock::new(Vec::new()));
        let service = Arc::new(ServiceState::default());
        let policy = Arc::new(PairPolicy::new());
        // One relationship has all pools; of several, each has one.
        let several = config.failover.len() > 1;
        let pools = match several {
            true => (0..count).map(|pool| vec![PoolId(pool)]).collect(),
            false => vec![(0..count).map(PoolId).collect()],
        };
        let others = config.failover.iter().skip(1).map(|_| Arc::new(PairPolicy::new()));
        let policies = std::iter::once(Arc::clone(&policy)).chain(others).collect();
        let parts = Parts {
            table: Arc::clone(&table),
            pool_names: (0..count).map(|pool| format!("pool {pool}")).collect(),
            pools,
            policies,
            submissions: submissions.clone(),
            resolvers: Arc::clone(&resolvers),
            service: Arc::clone(&service),
            store_is_new: false,
        };
        let (pair, tap) = Pair::start(config, parts).unwrap();
        let (worker, resolver) = submit::connect(1, submissions).unwrap();
        resolvers.write().push(Some(resolver));
        let broken = Arc::new(AtomicBool::new(false));
        let journal = Memory { broken: Arc::clone(&broken) };
        let status = Arc::default();
        let control = Control::new(
            journal,
            Arc::clone(&table),
            taken,
            Arc::clone(&resolvers),
            Arc::clone(&service),
            status,
            Some(tap),
        );
        let control = std::thread::spawn(move || control.run());
        Self {
            pair: Some(pair),
            policy,
            table,
            worker: Some(worker),
            control: Some(control),
            broken,
            service,
        }
    }

    fn view(&self) -> RelationshipView {
        self.views().remove(0)
    }

    fn views(&self) -> Vec<RelationshipView> {
        self.handle().views()
    }

    fn handle(&self) -> &crate::pair::PairHandle {
        self.pair.as_ref().unwrap().handle()
    }

    /// What a worker does for a client.
    fn grant(&mut self, client: &[u8], pool: u16) -> Lease {
        let worker = self.worker.as_mut().unwrap();
        let (batch, _) = worker.open();
        let kind = if pool == 0 { IaKind::Na } else { IaKind::Pd };
        let mut guard = self.table.lock(ClientKey { duid: client, kind, iaid: IaId(1) });
        let terms = Terms { mclt: self.policy.load().mclt, ..TERMS };
        let lease = guard.grant(PoolId(pool), None, &terms, wall_clock(), batch).unwrap().lease;
        drop(guard);
        // The batch leaves when a buffer comes back.
        while !worker.open().0.is_empty() {
            worker.submit().unwrap();
            while worker.resolved().is_some() {}
        }
        lease
    }

    /// What a worker without packets does in its turns.
    fn idle(&mut self) {
        let worker = self.worker.as_mut().unwrap();
        while worker.resolved().is_some() {}
        worker.acknowledge(self.service.load());
    }

    fn binding(&self, lease: Lease) -> Option<Binding> {
        self.table.binding(lease)
    }

    fn stop(&mut self) {
        if let Some(pair) = self.pair.take() {
            pair.stop();
        }
        self.worker = None;
        if let Some(control) = self.control.take() {
            control.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A place for two servers.
struct Place {
    folder: TempDir,
    port: u16,
    tls: bool,
    more: &'static str,
}

impl Place {
    fn new(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if tls {
            ca::init(folder.path()).unwrap();
            ca::issue(folder.path(), "one", 9).unwrap();
            ca::issue(folder.path(), "two", 9).unwrap();
        }
        let port = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port();
        Self { folder, port, tls, more: "" }
    }

    fn config(&self, role: Role) -> Config {
        let (own, partner, name, partner_name) = match role {
            Role::Primary => ("127.0.0.1", "127.0.0.2", "one", "two"),
            Role::Secondary => ("127.0.0.2", "127.0.0.1", "two", "one"),
        };
        let (folder, port, more) = (self.folder.path().display(), self.port, self.more);
        let tls = if self.tls {
            format!(
                "[failover.tls]\nca = \"{folder}/ca.pem\"\ncertificate = \"{folder}/{name}.pem\"\n\
                 key = \"{folder}/{name}.key\"\npartner_name = \"{partner_name}\"\n"
            )
        } else {
            "tls = \"off\"\n".to_owned()
        };
        let role = crate::pair::view::role(role);
        let text = format!(
            "[store]\npath = \"{folder}/{name}\"\n[[link]]\ninterface = \"eth1\"\n\
             prefixes = \"2001:db8:1::/64\"\naddress_pools = \"2001:db8:1::1000-2001:db8:1::1fff\"\n\
             prefix_pools = [{{ prefix = \"2001:db8:8000::/48\", delegated_length = 56 }}]\n\
             [[failover]]\nname = \"pair\"\nrole = \"{role}\"\npartner = \"{partner}\"\n\
             local = \"{own}\"\nport = {port}\nlinks = \"eth1\"\nmclt = 1800\nstartup_time = 1\n\
             keepalive_time = 1\nreconnect_interval = \"100ms\"\n{more}{tls}"
        );
        let config = Config::parse("test.toml", &text).unwrap();
        std::fs::create_dir_all(&config.store.path).unwrap();
        config
    }

    fn start(&self, role: Role) -> Server {
        Server::start(&self.config(role), None)
    }

    /// The same server with the same bindings, as after a restart.
    fn restart(&self, role: Role, before: &Server) -> Server {
        Server::start(&self.config(role), Some(Arc::clone(&before.table)))
    }
}

#[track_caller]
fn wait(what: &str, servers: &[&Server], mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            let views: Vec<_> = servers.iter().map(|server| server.view()).collect();
            panic!("{what}: {views:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a state allows counts when the state is on the disk.
#[track_caller]
fn answers(server: &Server, responsiveness: Responsiveness) {
    wait("its rules", &[server], || server.policy.load().responsiveness == responsiveness);
}

#[track_caller]
fn both_normal(one: &Server, two: &Server) {
    wait("NORMAL", &[one, two], || one.view().state == "NORMAL" && two.view().state == "NORMAL");
}

/// A lease that one server has given is there on the other, and both know that.
#[track_caller]
fn replicated(from: &Server, to: &Server, lease: Lease) {
    wait("replicated", &[from, to], || {
        let is_active = |binding: &Binding| binding.status == BindingStatus::Active;
        let there = to.binding(lease).is_some_and(|binding| is_active(&binding));
        let here = from.binding(lease).is_some_and(|binding| !binding.update_pending);
        there && here
    });
}

#[test]
fn a_pair_replicates_over_tls() {
    let place = Place::new(true);
    let mut one = place.start(Role::Primary);
    assert_eq!(one.policy.load().responsiveness, Responsiveness::Unresponsive);
    let mut two = place.start(Role::Secondary);
    both_normal(&one, &two);
    answers(&one, Responsiveness::Responsive);
    answers(&two, Responsiveness::RenewResponsive);
    let leases: Vec<_> = (0..200_u16)
        .map(|i| one.grant(&[[0, 1, 2, 3].as_slice(), &i.to_be_bytes()].concat(), i % 2))
        .collect();
    let other = two.grant(b"of the secondary", 0);
    for lease in leases {
        replicated(&one, &two, lease);
    }
    replicated(&two, &one, other);
    // Both have the whole of the lease, with what the MCLT rule needs.
    let (here, there) = (one.binding(other).unwrap(), two.binding(other).unwrap());
    assert_eq!(here.state_expiration_time, there.state_expiration_time);
    assert_eq!(here.expiration_time, there.acked_partner_lifetime);
    assert!(here.expiration_time > AbsoluteTime::ZERO);

    wait("seen by the operator", &[&one, &two], || one.view().updates.acked >= 200);
    let (view, other) = (one.view(), two.view());
    assert!(view.communications_ok && other.communications_ok);
    assert_eq!((view.role, other.role), ("primary", "secondary"));
    assert_eq!((view.tls.as_str(), other.tls.as_str()), ("two", "one"));
    assert_eq!(view.partner_state, Some("NORMAL"));
    assert!(view.partner_certificate_expires.is_some() && view.certificate_expires.is_some());
    assert!(view.warnings[0].contains("expires in 8 days"), "{:?}", view.warnings);
    assert_eq!(other.listening, Some(format!("127.0.0.2:{}", place.port)));
    // Nothing that came from the partner is told to it again.
    assert!(view.updates.received < 10 && other.updates.sent < 10, "{view:?} {other:?}");
    // The secondary has its share of the prefixes.
    wait("balance", &[&one, &two], || one.view().balance[0].secondary > 20);
    assert_eq!(one.view().balance.len(), 1, "addresses need no balance");

    let metrics = metrics(one.handle());
    for line in [
        "failover_state{relationship=\"pair\",state=\"NORMAL\"} 1",
        "failover_state{relationship=\"pair\",state=\"STARTUP\"} 0",
        "failover_communications_ok{relationship=\"pair\"} 1.0",
        "failover_unacked_updates{relationship=\"pair\"} ",
        "failover_clock_skew_seconds{relationship=\"pair\"} ",
        "failover_certificate_expiry_seconds{relationship=\"pair\"} ",
        "failover_updates_total{relationship=\"pair\",direction=\"sent\",result=\"acked\"} ",
        "failover_conflicts_total{relationship=\"pair\"} 0",
        "failover_alarms_total{relationship=\"pair\"} 0",
        "failover_connections_refused_total{reason=\"stranger\"} 0",
        "failover_free_prefixes{relationship=\"pair\",pool=\"pool 1\",owner=\"secondary\"} ",
    ] {
        assert!(metrics.lines().any(|each| each.starts_with(line)), "{line} not in\n{metrics}");
    }
}

fn metrics(pair: &crate::pair::PairHandle) -> String {
    use prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, text::encode},
        registry::Registry,
    };
    #[derive(Debug)]
    struct Metrics(crate::pair::PairHandle);
    impl Collector for Metrics {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
            crate::pair::metrics::encode(&self.0, &mut encoder)
        }
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(pair.clone())));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn a_restart_is_a_goodbye_and_a_return() {
    let place = Place::new(false);
    let mut one = place.start(Role::Primary);
    let mut two = place.start(Role::Secondary);
    both_normal(&one, &two);
    let before = one.grant(b"before", 0);
    replicated(&one, &two, before);

    // The primary goes: the secondary serves at once, not after a timeout.
    let begun = Instant::now();
    one.stop();
    wait("COMMUNICATIONS-INTERRUPTED", &[&two], || {
        two.view().state == "COMMUNICATIONS-INTERRUPTED"
    });
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    answers(&two, Responsiveness::Responsive);
    let alone = two.grant(b"alone", 0);
    assert!(two.binding(alone).unwrap().update_pending);

    let one = place.restart(Role::Primary, &one);
    both_normal(&one, &two);
    replicated(&two, &one, alone);
    assert_eq!(one.view().alarms, 0, "{:?}", one.view());

    // The secondary goes and comes, too.
    two.stop();
    wait("COMMUNICATIONS-INTERRUPTED", &[&one], || {
        one.view().state == "COMMUNICATIONS-INTERRUPTED"
    });
    let two = place.restart(Role::Secondary, &two);
    both_normal(&one, &two);
}

#[test]
fn a_server_that_has_lost_everything_fetches_it() {
    let place = Place::new(false);
    let mut one = place.start(Role::Primary);
    let mut two = place.start(Role::Secondary);
    both_normal(&one, &two);
    let leases: Vec<_> = (0..100_u8).map(|i| one.grant(&[i; 9], 0)).collect();
    for lease in &leases {
        replicated(&one, &two, *lease);
    }
    two.stop();
    std::fs::remove_dir_all(place.folder.path().join("two")).unwrap();
    let two = place.start(Role::Secondary);
    // The MCLT has to pass before it serves; it has the leases long before that.
    wait("RECOVER-WAIT", &[&one, &two], || two.view().state == "RECOVER-WAIT");
    assert!(two.view().remaining_seconds["recover_wait"] > 1700);
    for lease in leases {
        assert_eq!(two.binding(lease).unwrap().status, BindingStatus::Active);
    }
    assert_eq!(two.policy.load().responsiveness, Responsiveness::Unresponsive);
}

/// One secondary for two primaries (RFC 8156 section 4.1): each hears of its own leases only.
#[test]
fn a_secondary_of_two_primaries() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port();
    let link = |name: &str| {
        let number = if name == "a" { 1 } else { 2 };
        format!(
            "[[link]]\ninterface = \"{name}\"\nprefixes = \"2001:db8:{number}::/64\"\n\
             address_pools = \"2001:db8:{number}::1000-2001:db8:{number}::1fff\"\n"
        )
    };
    let relationship = |name: &str, role: &str, partner: &str, local: &str| {
        format!(
            "[[failover]]\nname = \"with-{name}\"\nrole = \"{role}\"\npartner = \"{partner}\"\n\
             local = \"{local}\"\nport = {port}\nlinks = \"{name}\"\nmclt = 1800\n\
             startup_time = 1\nreconnect_interval = \"100ms\"\ntls = \"off\"\n"
        )
    };
    let config = |own: &str, text: String| {
        let store = folder.path().join(own);
        std::fs::create_dir_all(&store).unwrap();
        let text = format!("[store]\npath = \"{}\"\n{text}", store.display());
        Config::parse("test.toml", &text).unwrap()
    };
    let primary = |name: &str, local: &str| {
        let relationship = relationship(name, "primary", "127.0.0.2", local);
        Server::start(&config(name, format!("{}{relationship}", link(name))), None)
    };
    let mut one = primary("a", "127.0.0.1");
    let mut two = primary("b", "127.0.0.3");
    let both = [("a", "127.0.0.1"), ("b", "127.0.0.3")]
        .map(|(name, partner)| relationship(name, "secondary", partner, "127.0.0.2"));
    let text = format!("{}{}{}", link("a"), link("b"), both.concat());
    let three = Server::start(&config("c", text), None);
    wait("NORMAL", &[&one, &two, &three], || {
        let views = [one.views(), two.views(), three.views()].concat();
        views.len() == 4 && views.iter().all(|view| view.state == "NORMAL")
    });
    let lease = one.grant(b"first", 0);
    let other = two.grant(b"second", 0);
    replicated(&one, &three, lease);
    replicated(&two, &three, other);
    wait("counted", &[&one, &two, &three], || {
        // Twice where the look through the table at NORMAL comes across it, too.
        three.views().iter().all(|view| (1..=2).contains(&view.updates.accepted))
    });
    assert!(one.binding(other).is_none() && two.binding(lease).is_none());
    // One of them goes; nothing happens to the other.
    one.stop();
    wait("COMMUNICATIONS-INTERRUPTED", &[&two, &three], || {
        three.views()[0].state == "COMMUNICATIONS-INTERRUPTED"
    });
    assert_eq!(three.views()[1].state, "NORMAL");
    let error = three.handle().operate(None, Command::PartnerDown).unwrap_err();
    assert!(error.contains("which relationship? there are with-a, with-b"), "{error}");
    three.handle().operate(Some("with-a"), Command::PartnerDown).unwrap();
    assert_eq!(three.views()[0].state, "PARTNER-DOWN");
}

#[test]
fn the_operator_says_that_the_partner_is_down() {
    let place = Place::new(false);
    let one = place.start(Role::Primary);
    let mut two = place.start(Role::Secondary);
    both_normal(&one, &two);
    let error = one.handle().operate(Some("other"), Command::PartnerDown).unwrap_err();
    assert!(error.contains("there is no relationship \"other\", only pair"), "{error}");
    one.handle().operate(None, Command::Resync).unwrap();
    one.handle().operate(Some("pair"), Command::Disconnect).unwrap();
    wait("a new connection", &[&one, &two], || {
        one.view().connections == 2 && one.view().state == "NORMAL"
    });
    two.stop();
    wait("COMMUNICATIONS-INTERRUPTED", &[&one], || {
        one.view().state == "COMMUNICATIONS-INTERRUPTED"
    });
    one.handle().operate(None, Command::PartnerDown).unwrap();
    assert_eq!(one.view().state, "PARTNER-DOWN");
    wait("PARTNER-DOWN on the disk", &[&one], || !one.view().limited);
    let error = one.handle().operate(None, Command::PartnerDown).unwrap_err();
    assert!(error.contains("PARTNER-DOWN"), "{error}");
    // It is on the disk.
    let text = std::fs::read_to_string(place.folder.path().join("one/failover/pair.json")).unwrap();
    assert!(text.contains("\"partner-down\""), "{text}");
}

#[test]
fn out_of_service_until_every_reason_is_gone() {
    let place = Place::new(false);
    let mut one = place.start(Role::Primary);
    let two = place.start(Role::Secondary);
    both_normal(&one, &two);
    let look = |one: &mut Server, carrier: bool| {
        let interface = Interface { up: true, carrier, ..Interface::default() };
        let seen = HashMap::from([("eth1".to_owned(), interface)]);
        one.pair.as_mut().unwrap().look_at_links(&seen);
    };
    look(&mut one, true);
    look(&mut one, false);
    wait("the partner serves", &[&one, &two], || {
        one.view().suspended_by == ["link-loss"] && two.view().state == "COMMUNICATIONS-INTERRUPTED"
    });
    assert_eq!(one.policy.load().responsiveness, Responsiveness::Unresponsive);
    answers(&two, Responsiveness::Responsive);
    one.handle().drain(None, true).unwrap();
    look(&mut one, true);
    wait("drained", &[&one, &two], || one.view().suspended_by == ["drain"]);
    assert_eq!(one.view().state, "STARTUP");
    // Once more changes nothing.
    one.handle().drain(Some("pair"), true).unwrap();
    one.handle().drain(None, false).unwrap();
    both_normal(&one, &two);
    assert!(one.view().suspended_by.is_empty());
}

#[test]
fn a_server_that_stays_on_link_loss_stays() {
    let place = Place { more: "service_on_link_loss = \"stay\"\n", ..Place::new(false) };
    let mut one = place.start(Role::Primary);
    let two = place.start(Role::Secondary);
    both_normal(&one, &two);
    one.pair.as_mut().unwrap().look_at_links(&HashMap::new());
    // The answer shows that what came before it has been looked at.
    one.handle().operate(None, Command::Resync).unwrap();
    assert!(one.view().suspended_by.is_empty());
    assert_eq!(one.view().state, "NORMAL");
}

#[test]
fn a_store_that_fails_hands_over() {
    let place = Place::new(false);
    let mut one = place.start(Role::Primary);
    let two = place.start(Role::Secondary);
    both_normal(&one, &two);
    one.broken.store(true, Ordering::Release);
    let lease = one.grant(b"not stored", 0);
    let deadline = Instant::now() + PATIENCE;
    while one.view().suspended_by != ["store"] {
        one.idle();
        assert!(Instant::now() < deadline, "{:?}", one.view());
        std::thread::sleep(Duration::from_millis(2));
    }
    wait("the partner serves", &[&one, &two], || two.view().state == "COMMUNICATIONS-INTERRUPTED");
    one.broken.store(false, Ordering::Release);
    both_normal(&one, &two);
    // What was in memory alone is stored by now, and told.
    replicated(&one, &two, lease);
}

#[test]
fn a_state_that_cannot_be_written_is_not_told() {
    let place = Place::new(false);
    let config = place.config(Role::Primary);
    let folder = config.store.path.join("failover");
    let one = place.start(Role::Primary);
    let two = place.start(Role::Secondary);
    both_normal(&one, &two);
    wait("heard of it", &[&one, &two], || two.view().partner_state == Some("NORMAL"));
    // A file in place of the folder, since those who may do everything run the tests, too. The
    // server writes meanwhile, and makes the folder when it is gone.
    let aside = tempfile::tempdir().unwrap();
    for round in 0.. {
        let _ = std::fs::rename(&folder, aside.path().join(round.to_string()));
        if std::fs::write(&folder, "").is_ok() {
            break;
        }
    }
    one.handle().operate(None, Command::Disconnect).unwrap();
    wait("an alarm", &[&one, &two], || {
        let view = one.view();
        view.alarms > 0 && view.warnings.iter().any(|text| text.contains("failover/pair.json"))
    });
    wait("a new connection", &[&one, &two], || one.view().connections > 1);
    assert_ne!(two.view().partner_state, Some("COMMUNICATIONS-INTERRUPTED"));
    std::fs::remove_file(&folder).unwrap();
    wait("written", &[&one, &two], || one.view().warnings.is_empty());
    assert!(folder.join("pair.json").exists());
    both_normal(&one, &two);
}

#[test]
fn an_unreadable_state_keeps_the_server_from_starting() {
    let place = Place::new(false);
    let config = place.config(Role::Primary);
    let file = config.store.path.join("failover/pair.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{\"state\":").unwrap();
    let (pools, _) = config.server_config(Duid::new(&[0, 3, 0, 1, 2]).unwrap());
    let table = Arc::new(LeaseTable::new(&TableConfig::default(), PoolSet::new(pools).unwrap()));
    let parts = Parts {
        table,
        pool_names: Vec::new(),
        pools: vec![vec![PoolId(0)]],
        policies: vec![Arc::default()],
        submissions: bounded(1).0,
        resolvers: Arc::default(),
        service: Arc::default(),
        store_is_new: false,
    };
    let error = Pair::start(&config, parts).unwrap_err();
    assert!(format!("{error:#}").contains("remove the file"), "{error:#}");
}
