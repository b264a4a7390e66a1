//! The program of the load generator.

use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use libbpf_rs::{
    MapCore, MapFlags, MapHandle,
    skel::{OpenSkel, SkelBuilder},
};

use crate::{Error, XdpProgram, program::handle, skel::client::ClientSkelBuilder};

/// Which UDP packets over IPv6 a load generator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Destination ports; 0 where one is enough.
    pub ports: [u16; 2],
    /// Whatever the destination address; else only the own addresses.
    pub any_address: bool,
}

/// Steers what a load generator wants to its AF_XDP sockets, and everything else to the kernel.
///
/// Has the methods of [`XdpProgram`].
#[derive(Debug)]
pub struct XdpClient {
    program: XdpProgram,
    captures: MapHandle,
}

impl XdpClient {
    /// Loads the program into the kernel, without sockets or own addresses.
    ///
    /// # Errors
    /// [`Error::Permission`] without the rights to do so.
    pub fn load(capture: Capture) -> Result<Self, Error> {
        let mut object = MaybeUninit::uninit();
        let skel = ClientSkelBuilder::default()
            .open(&mut object)
            .and_then(OpenSkel::load)
            .map_err(|e| Error::bpf("load the client's XDP program", e))?;
        let client = Self {
            program: XdpProgram::new(
                &skel.progs.gemel_client,
                handle(&skel.maps.sockets)?,
                handle(&skel.maps.own_addresses)?,
                handle(&skel.maps.counters)?,
            )?,
            captures: handle(&skel.maps.captures)?,
        };
        client.set_capture(capture)?;
        Ok(client)
    }

    /// Changes what is wanted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_capture(&self, capture: Capture) -> Result<(), Error> {
        self.captures
            .update(&0_u32.to_ne_bytes(), &encode(capture), MapFlags::ANY)
            .map_err(|e| Error::bpf("set what the client captures", e))
    }
}

impl Deref for XdpClient {
    type Target = XdpProgram;

    fn deref(&self) -> &XdpProgram {
        &self.program
    }
}

impl DerefMut for XdpClient {
    fn deref_mut(&mut self) -> &mut XdpProgram {
        &mut self.program
    }
}

/// A `struct capture` of src/bpf/client.bpf.c.
fn encode(capture: Capture) -> [u8; 8] {
    let [a, b] = capture.ports.map(u16::to_be_bytes);
    let [c, d, e, f] = u32::from(capture.any_address).to_ne_bytes();
    [a[0], a[1], b[0], b[1], c, d, e, f]
}
