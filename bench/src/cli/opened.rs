//! The way to the server, opened as the command line has it.

use std::net::Ipv6Addr;

use anyhow::{Context, bail};

use super::args::CommonArgs;
use crate::{
    message::Traffic,
    os::{self, Interface},
    port::AnyPort,
};

/// Where packets go out, and what is in them.
pub(super) struct Opened {
    pub(super) interface: Interface,
    /// The address that packets go to.
    pub(super) server: Ipv6Addr,
    pub(super) traffic: Traffic,
    /// One for each queue.
    pub(super) ports: Vec<AnyPort>,
}

impl Opened {
    /// Opens the ports. A thread that serves one queue is bound to its core by this; with several
    /// queues each thread binds itself.
    pub(super) fn new(args: &CommonArgs) -> anyhow::Result<Self> {
        let interface = Interface::by_name(&args.interface)?;
        let (endpoint, traffic) = args.endpoint(&interface)?;
        let (queues, cores) = (args.queues(), args.cores());
        if !cores.is_empty() && cores.len() != queues.len() {
            bail!("{} queues need as many cores, not {}", queues.len(), cores.len());
        }
        if let ([core], [_]) = (cores.as_slice(), queues.as_slice()) {
            os::pin_to_core(*core).with_context(|| format!("cannot bind to core {core}"))?;
        }
        let ports = AnyPort::open(args.mode, &endpoint, &queues)?;
        Ok(Self { interface, server: endpoint.server, traffic, ports })
    }
}
