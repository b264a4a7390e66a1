//! Frames from one AF_XDP socket to another, over a veth pair, through the XDP programs.

mod common;

use std::time::{Duration, Instant};

use af_xdp::{BindMode, BusyPoll, Frame, Socket, SocketConfig};
use common::{Lab, Packet, needs_root};
use gemel_ebpf::{Capture, XdpClient, XdpMode, XdpServer};

/// More than go into the rings at once, so that every slot and frame is used many times.
const FRAMES: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(30);

/// The packet number `n`, of a length and with contents that depend on it.
fn payload(n: u32) -> Vec<u8> {
    let len = 4 + (n as usize * 7) % 1200;
    let fill = (0..len - 4).map(|i| u8::try_from((n as usize * 31 + i) % 251).unwrap());
    n.to_be_bytes().into_iter().chain(fill).collect()
}

fn put(socket: &mut Socket, packet: &[u8]) -> bool {
    let Some(mut frame) = socket.allocate() else { return false };
    frame.set_range(64, packet.len()).unwrap();
    socket.data_mut(&mut frame).copy_from_slice(packet);
    match socket.transmit(frame) {
        Ok(()) => true,
        Err(frame) => {
            socket.free(frame);
            false
        }
    }
}

/// Sends packets one way, has each sent back by its receiver, and checks all that returns.
fn round_trip(mode: XdpMode, queues: u32, tune: impl Fn(SocketConfig) -> SocketConfig) {
    let lab = Lab::veth_with_queues(queues);
    let queue = queues - 1;
    let mut server = XdpServer::load().unwrap();
    let mut client = XdpClient::load(Capture { ports: [547, 0], any_address: true }).unwrap();
    assert_eq!(server.attach(lab.ifindex(0), mode).unwrap().mode, mode);
    assert_eq!(client.attach(lab.ifindex(1), mode).unwrap().mode, mode);
    let bind = |end| common::bind(&tune(common::small_config(lab.ifindex(end), queue)));
    let (mut near, mut far) = (bind(1), bind(0));
    assert!(!near.is_zero_copy(), "veth has no zero-copy mode");
    client.set_socket(queue, &near).unwrap();
    server.set_socket(queue, &far).unwrap();
    let free_before = (near.umem().free_frames(), far.umem().free_frames());

    let packet = |n| Vec::from(&Packet::to("ff02::1:2", 547).payload(&payload(n)));
    let mut batch: Vec<Frame> = Vec::with_capacity(64);
    let (mut sent, mut returned) = (0, 0);
    let start = Instant::now();
    while returned < FRAMES {
        assert!(
            start.elapsed() < LIMIT,
            "{sent} sent, {returned} back: {:?} {:?}",
            near.statistics(),
            far.statistics()
        );
        while sent < FRAMES && sent - returned < 256 && put(&mut near, &packet(sent)) {
            sent += 1;
        }
        near.flush().unwrap();

        far.receive(&mut batch);
        for frame in batch.drain(..) {
            far.transmit(frame).expect("the ring holds all that can be under way");
        }
        far.flush().unwrap();

        near.receive(&mut batch);
        for frame in batch.drain(..) {
            assert_eq!(near.data(&frame), packet(returned), "packet {returned}");
            returned += 1;
            near.free(frame);
        }
        for socket in [&mut near, &mut far] {
            socket.reclaim();
            socket.refill();
        }
    }
    // Every frame comes back to the pool: none was lost on the way.
    while near.pending_tx() + far.pending_tx() > 0 {
        assert!(start.elapsed() < LIMIT, "frames that are never completed");
        near.reclaim();
        far.reclaim();
    }
    near.refill();
    far.refill();
    assert_eq!((near.umem().free_frames(), far.umem().free_frames()), free_before);

    for socket in [&near, &far] {
        let counters = socket.counters();
        assert_eq!(counters.rx_frames, u64::from(FRAMES), "{counters:?}");
        assert_eq!(counters.tx_completed, u64::from(FRAMES), "{counters:?}");
        assert_eq!((counters.rx_invalid, counters.tx_invalid), (0, 0), "{counters:?}");
        let statistics = socket.statistics().unwrap();
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (0, 0), "{statistics:?}");
    }
    assert_eq!(server.counters().unwrap().redirected, u64::from(FRAMES));
    assert_eq!(client.counters().unwrap().redirected, u64::from(FRAMES));
}

#[test]
fn frames_return_intact_and_in_order_in_native_mode() {
    if !needs_root("frames_return_intact_and_in_order_in_native_mode") {
        round_trip(XdpMode::Native, 1, |config| config);
    }
}

#[test]
fn frames_return_intact_and_in_order_in_generic_mode() {
    if !needs_root("frames_return_intact_and_in_order_in_generic_mode") {
        round_trip(XdpMode::Generic, 1, |config| config);
    }
}

#[test]
fn each_queue_has_a_socket_of_its_own() {
    if !needs_root("each_queue_has_a_socket_of_its_own") {
        round_trip(XdpMode::Native, 2, |config| config);
    }
}

#[test]
fn frames_return_without_need_wakeup_and_budget_and_with_busy_polling() {
    if !needs_root("frames_return_without_need_wakeup_and_budget_and_with_busy_polling") {
        round_trip(XdpMode::Native, 1, |config| SocketConfig {
            mode: BindMode::Copy,
            need_wakeup: false,
            tx_budget: None,
            busy_poll: Some(BusyPoll { micros: 20, budget: 64 }),
            ..config
        });
    }
}

#[test]
fn busy_polling_is_not_claimed_where_the_driver_does_not_take_part() {
    if needs_root("busy_polling_is_not_claimed_where_the_driver_does_not_take_part") {
        return;
    }
    let lab = Lab::veth();
    let config = SocketConfig {
        busy_poll: Some(BusyPoll { micros: 20, budget: 64 }),
        ..common::small_config(lab.ifindex(0), 0)
    };
    assert!(!common::bind(&config).busy_poll_works());
}

#[test]
fn an_interface_that_is_down_or_gone_is_an_error_and_comes_back() {
    if needs_root("an_interface_that_is_down_or_gone_is_an_error_and_comes_back") {
        return;
    }
    let lab = Lab::veth();
    let mut server = XdpServer::load().unwrap();
    server.attach(lab.ifindex(0), XdpMode::Native).unwrap();
    let mut socket = common::socket(lab.ifindex(1), 0);
    let mut receiver = common::socket(lab.ifindex(0), 0);
    server.set_socket(0, &receiver).unwrap();
    let packet = Vec::from(&Packet::to("ff02::1:2", 547));

    common::ip(&format!("link set {} down", lab.ends[1]));
    assert!(put(&mut socket, &packet));
    assert!(socket.flush().is_err(), "down");
    assert_eq!(socket.take_error().unwrap().map(|e| e.kind()), None, "it may come up again");
    common::ip(&format!("link set {} up", lab.ends[1]));
    socket.flush().unwrap();
    assert!(receiver.poll(Some(LIMIT)).unwrap(), "what was queued leaves now");

    assert!(server.is_attached());
    common::ip(&format!("link del {}", lab.ends[0]));
    let error = socket.take_error().unwrap().expect("the socket is dead");
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkDown);
    assert!(put(&mut socket, &packet));
    assert!(socket.flush().is_err(), "gone");
    assert!(!server.is_attached());

    // A new interface takes the same program.
    let again = Lab::veth();
    server.attach(again.ifindex(0), XdpMode::Native).unwrap();
    assert!(server.is_attached());
}

#[test]
fn a_full_ring_gives_the_frame_back_and_an_empty_frame_is_freed() {
    if needs_root("a_full_ring_gives_the_frame_back_and_an_empty_frame_is_freed") {
        return;
    }
    let lab = Lab::veth();
    let mut socket = common::socket(lab.ifindex(0), 0);
    let free = socket.umem().free_frames();
    let empty = socket.allocate().unwrap();
    socket.transmit(empty).unwrap();
    assert_eq!(socket.counters().tx_empty, 1);
    assert_eq!((socket.pending_tx(), socket.umem().free_frames()), (0, free));

    let packet = Vec::from(&Packet::to("ff02::1:2", 547));
    let queued = (0..).take_while(|_| put(&mut socket, &packet)).count();
    assert_eq!(queued, 512, "the size of the ring");
    assert_eq!(socket.pending_tx(), 512);
    let deadline = Instant::now() + LIMIT;
    while socket.pending_tx() > 0 {
        assert!(Instant::now() < deadline, "{:?}", socket.counters());
        socket.flush().unwrap();
        socket.reclaim();
    }
    assert_eq!(socket.umem().free_frames(), free);
}

#[test]
fn a_waiting_receiver_is_woken_by_a_packet_and_by_its_timeout() {
    if needs_root("a_waiting_receiver_is_woken_by_a_packet_and_by_its_timeout") {
        return;
    }
    let lab = Lab::veth();
    let mut server = XdpServer::load().unwrap();
    server.attach(lab.ifindex(0), XdpMode::Native).unwrap();
    let mut receiver = common::socket(lab.ifindex(0), 0);
    let mut sender = common::socket(lab.ifindex(1), 0);
    server.set_socket(0, &receiver).unwrap();
    assert!(!receiver.poll(Some(Duration::from_millis(20))).unwrap());
    let waiting = std::thread::spawn(move || {
        let woken = receiver.poll(Some(LIMIT)).unwrap();
        let mut batch = Vec::with_capacity(1);
        (woken, receiver.receive(&mut batch), receiver.receive(&mut batch))
    });
    let packet = Vec::from(&Packet::to("ff02::1:2", 547));
    assert!(put(&mut sender, &packet));
    sender.flush().unwrap();
    assert_eq!(waiting.join().unwrap(), (true, 1, 0), "one packet, and no room for another");
}

#[test]
fn a_held_queue_and_a_missing_one_are_named() {
    use af_xdp::{Error, Umem, UmemConfig, interface_index};
    if needs_root("a_held_queue_and_a_missing_one_are_named") {
        return;
    }
    let lab = Lab::veth();
    let ifindex = lab.ifindex(0);
    let bind = |config: SocketConfig| {
        let umem = Umem::new(UmemConfig { frame_count: 4096, ..UmemConfig::default() }).unwrap();
        Socket::bind(umem, &config)
    };
    let held = bind(SocketConfig::new(ifindex, 0)).unwrap();
    let start = Instant::now();
    let busy = bind(SocketConfig::new(ifindex, 0)).unwrap_err();
    assert!(matches!(busy, Error::QueueBusy { queue_id: 0, .. }), "{busy}");
    assert!(start.elapsed() >= Duration::from_secs(1), "it tries for a while");

    // The queue is let go of while the next one is trying.
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    });
    drop(bind(SocketConfig::new(ifindex, 0)).unwrap());
    late.join().unwrap();

    let missing = bind(SocketConfig::new(ifindex, 99)).unwrap_err();
    assert!(matches!(missing, Error::NoQueue { queue_id: 99, .. }), "{missing}");
    let zero_copy = SocketConfig { mode: BindMode::ZeroCopy, ..SocketConfig::new(ifindex, 0) };
    let refused = bind(zero_copy).unwrap_err();
    assert!(matches!(refused, Error::NoZeroCopy { .. }), "{refused}");
    assert!(matches!(interface_index("gx-none"), Err(Error::NoInterface(_))));
    assert_eq!(interface_index(&lab.ends[0]).unwrap(), ifindex);
}
