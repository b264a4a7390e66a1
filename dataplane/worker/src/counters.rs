use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use gemel_server::DropReason;
use gemel_wire::MessageType;

use crate::admission::Change;

/// Message types that are counted one by one; others share the first place.
const TYPES: usize = 36;

/// Declares why a worker itself dropped a message.
macro_rules! shed_reasons {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// Why a message was dropped by the worker, before or after the server rules.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(usize)]
        pub enum Shed {
            $($(#[$meta])* $name,)*
        }

        impl Shed {
            /// All reasons, in order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

shed_reasons! {
    /// No buffer for a reply: more replies wait for the disk than frames were configured.
    NoReplyBuffer = "no_reply_buffer",
    /// The reply could not be addressed: the interface has no suitable source address.
    NotAddressable = "not_addressable",
    /// A held reply whose update could not be stored.
    NotStored = "not_stored",
    /// A message about bindings in the moment after the store failed, while updates on their way
    /// are sorted out.
    StoreSettling = "store_settling",
    /// A Solicit while more packets waited than can be served.
    SolicitBacklog = "solicit_backlog",
    /// A Solicit while half of the places for held replies were taken: the disk does not keep up.
    SolicitHeld = "solicit_held",
}

/// What one worker has done. The worker alone writes; anybody may read.
#[derive(Debug)]
pub struct WorkerCounters {
    received: [AtomicU64; TYPES],
    sent: [AtomicU64; TYPES],
    dropped: Box<[AtomicU64]>,
    shed: [AtomicU64; Shed::ALL.len()],
    held: AtomicU64,
    overload_entered: AtomicU64,
    overload_left: AtomicU64,
    batches: AtomicU64,
    port: Mutex<Vec<(&'static str, u64)>>,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            received: [const { AtomicU64::new(0) }; TYPES],
            sent: [const { AtomicU64::new(0) }; TYPES],
            dropped: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            shed: [const { AtomicU64::new(0) }; Shed::ALL.len()],
            held: AtomicU64::new(0),
            overload_entered: AtomicU64::new(0),
            overload_left: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            port: Mutex::default(),
        }
    }
}

/// There is one writer, so the sum needs no atomic read-modify-write.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn place(msg_type: MessageType) -> usize {
    let index = usize::from(msg_type.0);
    if index < TYPES { index } else { 0 }
}

impl WorkerCounters {
    pub(crate) fn received(&self, msg_type: MessageType) {
        bump(&self.received[place(msg_type)]);
    }

    pub(crate) fn sent(&self, msg_type: MessageType) {
        bump(&self.sent[place(msg_type)]);
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        if let Some(counter) = self.dropped.get(reason.index()) {
            bump(counter);
        }
    }

    pub(crate) fn shed(&self, reason: Shed) {
        bump(&self.shed[reason as usize]);
    }

    pub(crate) fn overload(&self, change: Change) {
        bump(match change {
            Change::Entered => &self.overload_entered,
            Change::Left => &self.overload_left,
        });
    }

    /// Solicits dropped because of overload, so far.
    #[must_use]
    pub fn solicits_shed(&self) -> u64 {
        [Shed::SolicitBacklog, Shed::SolicitHeld]
            .map(|reason| self.shed[reason as usize].load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    pub(crate) fn batch(&self) {
        bump(&self.batches);
    }

    pub(crate) fn set_held(&self, held: usize) {
        self.held.store(held as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_port(&self, visit: impl FnOnce(&mut dyn FnMut(&'static str, u64))) {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.clear();
        visit(&mut |name, value| port.push((name, value)));
    }

    /// Visits every counter: `(family, name, value)`. Families are `received` and `sent` (by
    /// message type), `dropped` (by the server rules), `shed` (by the worker), `port` (below the
    /// worker, brought up to date each second), `held` (replies that wait for the disk now),
    /// `overload` (times that the worker began to drop Solicits and served them again) and `batches`.
    pub fn visit(&self, visit: &mut dyn FnMut(&'static str, &'static str, u64)) {
        for (family, counters) in [("received", &self.received), ("sent", &self.sent)] {
            for (code, counter) in (0..).zip(counters) {
                let value = counter.load(Ordering::Relaxed);
                if let Some(name) = MessageType(code).name() {
                    visit(family, name, value);
                } else if code == 0 {
                    visit(family, "other", value);
                }
            }
        }
        for (reason, counter) in DropReason::ALL.iter().zip(&self.dropped) {
            visit("dropped", reason.as_str(), counter.load(Ordering::Relaxed));
        }
        for (reason, counter) in Shed::ALL.iter().zip(&self.shed) {
            visit("shed", reason.as_str(), counter.load(Ordering::Relaxed));
        }
        visit("held", "replies", self.held.load(Ordering::Relaxed));
        for (name, counter) in [("entered", &self.overload_entered), ("left", &self.overload_left)]
        {
            visit("overload", name, counter.load(Ordering::Relaxed));
        }
        visit("batches", "received", self.batches.load(Ordering::Relaxed));
        for (name, value) in self.port.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            visit("port", name, *value);
        }
    }
}
