//! What is answered while the lease table is still being filled after a start.

mod support;

use std::{collections::HashMap, sync::Mutex};

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, ClientKey, IaKind, Lease, LeaseTable, Record,
};
use gemel_server::{DropReason, Outcome, Recall, Service};
use gemel_wire::{IaId, MessageType};
use support::*;

/// The store, as a map.
#[derive(Debug, Default)]
struct Stored {
    records: HashMap<Lease, Record>,
    asked: Mutex<Vec<Lease>>,
}

impl Stored {
    fn with(bindings: &[Binding]) -> Self {
        let records = bindings
            .iter()
            .zip(1..)
            .map(|(binding, stamp)| (binding.lease, Record { binding: binding.clone(), stamp }))
            .collect();
        Self { records, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<Lease> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Recall for Stored {
    fn recall(&self, table: &LeaseTable, key: ClientKey<'_>, lease: Lease) {
        self.asked.lock().unwrap().push(lease);
        if let Some(record) = self.records.get(&lease)
            && record.binding.client_key() == key
        {
            table.restore(record.clone());
        }
    }
}

fn address(n: u16) -> Lease {
    Lease::address(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x1000 + n))
}

fn bound(duid: &[u8], lease: Lease) -> Binding {
    Binding {
        lease,
        kind: IaKind::Na,
        status: BindingStatus::Active,
        duid: ClientDuid::new(duid),
        iaid: IaId(1),
        preferred_lifetime: 100,
        valid_lifetime: 200,
        client_last_transaction_time: NOW,
        state_expiration_time: NOW.plus(200),
        ..Binding::EMPTY
    }
}

fn warming(lab: &mut Lab, stored: &Stored, payload: &[u8]) -> Result<Answer, DropReason> {
    lab.updates.clear();
    let mut reply = vec![0; lab.room];
    let outcome = lab.server.handle_warming(
        &lab.inbound(payload),
        lab.now,
        lab.service,
        stored,
        &mut reply,
        &mut lab.updates,
    );
    match outcome {
        Outcome::Reply(info) => {
            assert_eq!(info.held, !lab.updates.is_empty());
            Ok(Answer::read(&reply[..info.len]))
        }
        Outcome::Drop(reason) => {
            assert!(lab.updates.is_empty(), "a message that is dropped changes nothing");
            Err(reason)
        }
    }
}

#[test]
fn renew_and_rebind_extend_what_the_store_has() {
    for msg_type in [MessageType::RENEW, MessageType::REBIND] {
        let mut lab = Lab::new();
        let lease = address(1);
        let stored = Stored::with(&[bound(CLIENT, lease)]);
        lab.now = NOW.plus(100);
        let message = Build::valid(msg_type).na(1, &[lease]).done();
        let answer = warming(&mut lab, &stored, &message).unwrap();
        assert_eq!((answer.msg_type, answer.ias.len()), (MessageType::REPLY, 1));
        assert_eq!(answer.ias[0].leases.len(), 1);
        assert_eq!(answer.ias[0].leases[0].0, lease);
        let binding = lab.binding(lease).unwrap();
        assert!(binding.state_expiration_time > NOW.plus(200), "its lifetimes began anew");
        assert_eq!(lab.updates.len(), 1);
        let update = lab.updates.iter().next().unwrap().unwrap();
        assert!(update.stamp > 1, "later than what is stored");
        // The second time it is in the table.
        assert_eq!(stored.asked(), [lease]);
        warming(&mut lab, &stored, &message).unwrap();
        assert_eq!(stored.asked(), []);
        // The older record comes once more, with all others, and changes nothing.
        let before = lab.binding(lease);
        lab.server.table().restore(stored.records[&lease].clone());
        assert_eq!(lab.binding(lease), before);
    }
}

#[test]
fn what_is_not_the_clients_is_neither_given_nor_called_lost() {
    let (own, others, ended) = (address(1), address(2), address(3));
    let mut over = bound(CLIENT, ended);
    over.status = BindingStatus::Free;
    let stored = Stored::with(&[bound(CLIENT, own), bound(b"somebody else", others), over]);
    for msg_type in [MessageType::RENEW, MessageType::REBIND] {
        let mut lab = Lab::new();
        for named in [others, ended, address(4)] {
            let message = Build::valid(msg_type).na(1, &[named]).done();
            assert_eq!(warming(&mut lab, &stored, &message), Err(DropReason::Warming), "{named}");
        }
        assert!(lab.server.table().is_empty());
        let message = Build::valid(msg_type).na(1, &[own, others]).na(2, &[address(4)]).done();
        let answer = warming(&mut lab, &stored, &message).unwrap();
        assert_eq!(answer.ias.len(), 1, "an IA that is left out stays as it is");
        let told: Vec<_> = answer.ias[0].leases.iter().map(|lease| lease.0).collect();
        assert_eq!(told, [own]);
        assert_eq!((answer.ias[0].status, lab.server.table().len()), (None, 1));
    }
}

#[test]
fn what_needs_the_whole_table_is_dropped_and_what_needs_none_of_it_is_answered() {
    let mut lab = Lab::new();
    let lease = address(1);
    let stored = Stored::with(&[bound(CLIENT, lease)]);
    for msg_type in
        [MessageType::SOLICIT, MessageType::REQUEST, MessageType::RELEASE, MessageType::DECLINE]
    {
        let message = Build::valid(msg_type).na(1, &[lease]).done();
        assert_eq!(warming(&mut lab, &stored, &message), Err(DropReason::Warming), "{msg_type:?}");
    }
    let message = Build::valid(MessageType::CONFIRM).na(1, &[lease]).done();
    assert_eq!(warming(&mut lab, &stored, &message).unwrap().msg_type, MessageType::REPLY);
    let message = Build::valid(MessageType::INFORMATION_REQUEST).done();
    assert_eq!(warming(&mut lab, &stored, &message).unwrap().msg_type, MessageType::REPLY);
    assert_eq!(stored.asked(), []);
    assert!(lab.server.table().is_empty());
}

#[test]
fn only_so_many_leases_of_a_message_are_looked_up_and_none_of_other_links() {
    let mut lab = Lab::new();
    let stored = Stored::default();
    let leases: Vec<Lease> = (0..60).map(address).collect();
    let message = Build::valid(MessageType::RENEW).na(1, &leases).done();
    assert_eq!(warming(&mut lab, &stored, &message), Err(DropReason::Warming));
    assert_eq!(stored.asked(), leases[..32]);
    let elsewhere = Lease::address("2001:db8:b::1000".parse().unwrap());
    let message = Build::valid(MessageType::RENEW).na(1, &[elsewhere]).done();
    assert_eq!(warming(&mut lab, &stored, &message), Err(DropReason::Warming));
    assert_eq!(stored.asked(), []);
}

#[test]
fn a_store_that_cannot_write_leaves_what_remains() {
    let mut lab = Lab::new();
    let lease = address(1);
    let stored = Stored::with(&[bound(CLIENT, lease)]);
    lab.service = Service::ReadOnly;
    lab.now = AbsoluteTime(NOW.0 + 150);
    let message = Build::valid(MessageType::RENEW).na(1, &[lease]).done();
    let answer = warming(&mut lab, &stored, &message).unwrap();
    assert_eq!(answer.ias[0].leases, [(lease, 0, 50)]);
    assert!(lab.updates.is_empty());
}
