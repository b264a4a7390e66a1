//! Configuration: a TOML file becomes a [`Config`] that cannot be wrong, or a list of everything
//! that is wrong with it, each with line, key and what to write instead.

mod prefix;
mod report;
mod types;

pub use prefix::Ipv6Prefix;
pub use report::{ConfigErrors, Problem, ProblemKind};
pub use types::{
    AddressPool, Config, Control, CustomOption, Dataplane, DomainName, Durability, FloodLimit,
    InterfaceName, Link, Log, LogFormat, LogLevel, Mode, PrefixPool, Relay, Server, Store,
};
