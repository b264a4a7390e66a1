//! A deterministic simulator of a failover pair (RFC 8156).
//!
//! Two whole servers, server rules, lease table and failover endpoint, in one thread and in virtual
//! time, with clients that speak DHCPv6 to them, a store that forgets what is not durable, and a
//! network that breaks, falls silent, delays, loses and doubles. One seed decides everything, so a
//! seed that fails fails again. What must never happen is watched from outside ([`Rule`]).
//!
//! [`World`] is also the stage for scenarios that are written by hand.
#![forbid(unsafe_code)]

mod check;
mod client;
mod clock;
mod crowd;
mod driver;
mod fault;
mod message;
mod node;
mod plan;
mod queue;
mod rng;
mod runner;
mod store;
mod wires;
mod world;

pub use check::{Rule, Violation};
pub use client::{ClientState, Held};
pub use clock::{Clock, MILLISECOND, Micros, SECOND};
pub use fault::Fault;
pub use node::{PRIMARY, SECONDARY};
pub use plan::{Break, Habits, Plan};
pub use rng::Rng;
pub use runner::{Outcome, Summary, run_plan, run_seed, run_seeds};
pub use world::{Stats, Trace, World};
