//! Open-loop load generator for DHCPv6 servers.
//!
//! Every exchange has a moment at which it is due, fixed before the run and independent of how the
//! server keeps up; latency counts from that moment, so a server that stalls cannot hide the
//! requests that it kept waiting. Every reply is checked and every grant is remembered: a lease
//! given to two clients, or a client moved off a lease that is still valid, makes the run a failure,
//! whichever servers are behind it.
//!
//! From the inside out: [`client`], [`message`] and [`relay`] say who asks and what is sent, [`oracle`]
//! judges what comes back, [`engine`] keeps the exchanges that are under way, [`schedule`] says when the
//! next one is due, [`port`] carries datagrams, [`generator`] is the loop that joins them, and
//! [`stats`], [`report`] and [`find_max`] make figures of it. [`events`] kill servers and cut cables in
//! the middle of a run, and [`failover`] says what came of it; [`scenario`] does so for all other scenarios.
//! [`record`] keeps the seconds of a run in a thread of its own, and [`prometheus`] shows them while it
//! lasts. [`stalls`] says what no run can be better than. [`stored`] reads runs again, [`view`] and [`diff`] show them.
#![deny(unsafe_code)]

pub mod cli;
pub mod client;
pub mod clock;
pub mod diff;
pub mod engine;
pub mod events;
pub mod failover;
pub mod find_max;
pub mod frame;
pub mod generator;
pub mod ledger;
pub mod machine;
pub mod message;
mod number;
pub mod oracle;
pub mod os;
pub mod packets;
pub mod port;
pub mod prometheus;
pub mod record;
pub mod reflector;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod slo;
pub mod stalls;
pub mod stats;
pub mod stored;
pub mod times;
pub mod view;
