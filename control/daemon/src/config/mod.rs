//! Configuration: a TOML file becomes a [`Config`] that cannot be wrong, or a list of everything
//! that is wrong with it, each with line, key and what to write instead.

mod check;
mod failover;
mod link;
mod net;
mod pair;
mod prefix;
mod read;
mod report;
mod section;
mod server;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use prefix::Ipv6Prefix;
pub use report::{ConfigErrors, Problem, ProblemKind};
pub use types::{
    AddressPool, Config, Control, CustomOption, Dataplane, DomainName, Durability, Failover,
    FailoverTls, FloodLimit, InterfaceName, Link, Log, LogFormat, LogLevel, Mode, PrefixPool,
    Relay, Server, Store,
};
