//! The lab that Gemel is tested in, and the software that is tested there.
//!
//! A [`Lab`] is a set of network namespaces joined by veth pairs, made by `ip` and removed when it
//! is dropped. In it run the server ([`gemel`]) or a pair of them ([`mod@pair`]), real clients and
//! relays from Debian ([`clients`]), the load generator ([`mod@bench`]), a [`browser`] for its pages, and packet captures
//! ([`Capture`]).
//!
//! Everything here needs root and the programs that `cargo xtask setup` installs;
//! [`requirement`] decides whether a test that lacks them is skipped or fails.

#![forbid(unsafe_code)]

pub mod bench;
pub mod browser;
pub mod clients;
pub mod gemel;
pub mod kea;
mod lab;
pub mod pair;
mod process;
pub mod requirement;
pub mod wait;

pub use lab::capture::{Capture, Message, Trace};
pub use lab::link::{Interface, Link};
pub use lab::namespace::Namespace;
pub use lab::sandbox::Sandbox;
pub use lab::switch::Switch;
pub use lab::{Lab, run};
pub use process::Process;
