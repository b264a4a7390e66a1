//! Packets per second through two AF_XDP sockets and the XDP programs, over a veth pair.
//!
//! One thread sends and counts what returns, the other sends back what it receives. On veth the
//! sender pays for the receiver's part of the kernel, so the figure says what the rings and this
//! machine can do, not what a network card would.
//!
//! ```text
//! ip link add gx0 numtxqueues 1 numrxqueues 1 type veth peer gx1 numtxqueues 1 numrxqueues 1
//! ip link set gx0 up; ip link set gx1 up
//! cargo run --release -p gemel-ebpf --example ring_rate -- gx0 gx1 [native|generic] [seconds]
//! ```

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig, interface_index};
use gemel_ebpf::{Capture, XdpClient, XdpMode};

const BATCH: usize = 64;
/// Packets under way at most: the receiver's rings hold them all.
const WINDOW: u64 = 1024;
const PACKET_LEN: usize = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [near, far, rest @ ..] = arguments.as_slice() else {
        return Err("usage: ring_rate INTERFACE PEER [native|generic] [SECONDS]".into());
    };
    let mode = match rest.first().map(String::as_str) {
        None | Some("native") => XdpMode::Native,
        Some("generic") => XdpMode::Generic,
        Some(other) => return Err(format!("no mode {other}").into()),
    };
    let seconds = rest.get(1).map_or(Ok(5), |s| s.parse())?;

    let (_near_program, near) = open(near, mode)?;
    let (_far_program, far) = open(far, mode)?;
    let stop = Arc::new(AtomicBool::new(false));
    let reflector = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || reflect(far, &stop))
    };
    let start = Instant::now();
    let (returned, near) = generate(near, Duration::from_secs(seconds));
    let elapsed = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let far = reflector.join().expect("the reflector does not panic");

    #[allow(clippy::cast_precision_loss)] // for people to read
    let rate = returned as f64 / elapsed.as_secs_f64() / 1e6;
    println!("{rate:.3} Mpps returned in {mode} mode, {PACKET_LEN}-byte packets, batch {BATCH}");
    for (name, socket) in [("near", &near), ("far", &far)] {
        println!("{name}: {:?}\n      {:?}", socket.counters(), socket.statistics()?);
    }
    Ok(())
}

fn open(name: &str, mode: XdpMode) -> Result<(XdpClient, Socket), Box<dyn Error>> {
    let ifindex = interface_index(name)?;
    let mut program = XdpClient::load(Capture { ports: [547, 0], any_address: true })?;
    program.attach(ifindex, mode)?;
    let umem = Umem::new(UmemConfig::default())?;
    let socket = Socket::bind(umem, &SocketConfig::new(ifindex, 0))?;
    program.set_socket(0, &socket)?;
    Ok((program, socket))
}

fn generate(mut socket: Socket, time: Duration) -> (u64, Socket) {
    let packet = packet();
    let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
    let (mut sent, mut returned) = (0, 0);
    let end = Instant::now() + time;
    // What is lost would shrink the window; after a silence it is opened anew.
    let mut heard = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return (returned, socket);
        }
        if now - heard > Duration::from_millis(100) {
            sent = returned;
            heard = now;
        }
        for _ in 0..BATCH {
            if sent >= returned + WINDOW {
                break;
            }
            let Some(mut frame) = socket.allocate() else { break };
            frame.set_range(0, packet.len()).expect("120 bytes fit");
            socket.data_mut(&mut frame).copy_from_slice(&packet);
            match socket.transmit(frame) {
                Ok(()) => sent += 1,
                Err(frame) => {
                    socket.free(frame);
                    break;
                }
            }
        }
        if let Err(error) = socket.flush() {
            eprintln!("{error}");
            return (returned, socket);
        }
        if socket.receive(&mut batch) > 0 {
            heard = now;
        }
        returned += batch.len() as u64;
        for frame in batch.drain(..) {
            socket.free(frame);
        }
        socket.reclaim();
        socket.refill();
    }
}

fn reflect(mut socket: Socket, stop: &AtomicBool) -> Socket {
    let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
    while !stop.load(Ordering::Relaxed) {
        socket.receive(&mut batch);
        for mut frame in batch.drain(..) {
            if let Some((macs, _)) = socket.data_mut(&mut frame).split_first_chunk_mut::<12>() {
                macs.rotate_left(6);
            }
            if let Err(frame) = socket.transmit(frame) {
                socket.free(frame);
            }
        }
        if let Err(error) = socket.flush() {
            eprintln!("{error}");
            return socket;
        }
        socket.reclaim();
        socket.refill();
    }
    socket
}

/// UDP to port 547 over IPv6, without a checksum: nobody reads it.
fn packet() -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    packet[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    packet[12..14].copy_from_slice(&[0x86, 0xdd]);
    packet[14] = 6 << 4;
    packet[19] = 66; // 120 - 14 - 40
    packet[20] = 17;
    packet[21] = 64;
    packet[22..24].copy_from_slice(&[0xfe, 0x80]);
    packet[38..40].copy_from_slice(&[0xfe, 0x80]);
    packet[54..58].copy_from_slice(&[2, 35, 2, 35]);
    packet[59] = 66;
    packet
}
