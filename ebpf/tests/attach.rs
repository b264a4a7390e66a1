//! Attaching to real interfaces: a veth pair in a namespace of its own.

mod common;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{Lab, needs_root};
use gemel_ebpf::{Capture, Error, XdpClient, XdpMode, XdpServer};

#[test]
fn attaches_in_the_mode_asked_for_and_leaves_no_trace() {
    if needs_root("attaches_in_the_mode_asked_for_and_leaves_no_trace") {
        return;
    }
    let lab = Lab::veth();
    for (asked, obtained, shown) in [
        (XdpMode::Native, XdpMode::Native, "prog/xdp id"),
        (XdpMode::Generic, XdpMode::Generic, "xdpgeneric"),
        (XdpMode::Auto, XdpMode::Native, "prog/xdp id"),
    ] {
        let mut server = XdpServer::load().unwrap();
        let attachment = server.attach(lab.ifindex(0), asked).unwrap();
        assert_eq!(attachment.mode, obtained, "asked for {asked}");
        assert!(attachment.native_error.is_none());
        assert_eq!(server.ifindex(), Some(lab.ifindex(0)));
        let link = lab.show(0);
        assert!(link.contains(shown), "{asked}: {link}");
        assert!(link.contains(&format!("id {}", server.program_id())), "{asked}: {link}");

        server.detach();
        assert!(!lab.show(0).contains("xdp"), "{asked}: {}", lab.show(0));
        server.attach(lab.ifindex(0), asked).expect("it can be attached again");
        drop(server);
        assert!(!lab.show(0).contains("xdp"), "{asked}: {}", lab.show(0));
    }
}

#[test]
fn auto_falls_back_to_generic_and_says_why() {
    if needs_root("auto_falls_back_to_generic_and_says_why") {
        return;
    }
    let _lab = Lab::namespace();
    // The loopback driver has no native XDP.
    let mut server = XdpServer::load().unwrap();
    let attachment = server.attach(1, XdpMode::Auto).unwrap();
    assert_eq!(attachment.mode, XdpMode::Generic);
    let reason = attachment.native_error.expect("there is a reason").to_string();
    assert!(reason.contains("interface lo in native mode"), "{reason}");

    let mut second = XdpServer::load().unwrap();
    assert!(matches!(second.attach(1, XdpMode::Auto), Err(Error::Occupied { .. })));
    server.detach();
    assert!(matches!(second.attach(1, XdpMode::Native), Err(Error::Attach { .. })));
    assert!(second.ifindex().is_none());
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    if needs_root("what_is_in_the_way_is_named_and_left_alone") {
        return;
    }
    let lab = Lab::veth();
    let ifindex = lab.ifindex(0);
    let mut first = XdpServer::load().unwrap();
    let mut second = XdpClient::load(Capture::default()).unwrap();
    for (taken, wanted) in [
        (XdpMode::Native, XdpMode::Native),
        (XdpMode::Native, XdpMode::Generic),
        (XdpMode::Generic, XdpMode::Auto),
        (XdpMode::Generic, XdpMode::Native),
    ] {
        first.attach(ifindex, taken).unwrap();
        let error = second.attach(ifindex, wanted).unwrap_err();
        let text = error.to_string();
        let Error::Occupied { occupant, .. } = error else { panic!("{text}") };
        assert_eq!(occupant.program_id, first.program_id());
        assert_eq!(occupant.program_name, "gemel_server");
        assert!(occupant.link_id.is_some(), "{text}");
        let (pid, _) = occupant.process.expect("we hold it and may look");
        assert_eq!(pid, std::process::id(), "{text}");
        assert!(text.contains(&lab.ends[0]) && text.contains("stop that process"), "{text}");
        assert!(lab.show(0).contains(&format!("id {}", first.program_id())), "left alone");
        first.detach();
    }
    // One that no link holds is removed with `ip link`, as the error says.
    let twice = first
        .attach(ifindex, XdpMode::Generic)
        .and_then(|_| first.attach(ifindex, XdpMode::Generic));
    assert!(matches!(twice, Err(Error::Attached(name)) if name == lab.ends[0]));
    first.detach();
    let gone = second.attach(u32::MAX >> 1, XdpMode::Auto);
    assert!(matches!(gone, Err(Error::NoInterface(_))), "{gone:?}");
}

#[test]
fn a_program_that_ip_attached_is_removed_as_the_error_says() {
    if needs_root("a_program_that_ip_attached_is_removed_as_the_error_says") {
        return;
    }
    let lab = Lab::veth();
    let ifindex = lab.ifindex(0);
    let foreign = XdpClient::load(Capture::default()).unwrap();
    for (flag, keyword) in [(1 << 1, "xdpgeneric"), (1 << 2, "xdpdrv")] {
        let flags = libbpf_rs::XdpFlags::from_bits_truncate(flag);
        let foreign = libbpf_rs::Xdp::new(std::os::fd::AsFd::as_fd(&*foreign));
        foreign.attach(ifindex.try_into().unwrap(), flags).unwrap();

        let mut server = XdpServer::load().unwrap();
        let text = server.attach(ifindex, XdpMode::Auto).unwrap_err().to_string();
        assert!(text.contains("gemel_client"), "{text}");
        let command = text.split('`').nth(1).unwrap_or_else(|| panic!("no command: {text}"));
        assert!(command.contains(keyword), "{text}");
        common::ip(command.strip_prefix("ip ").unwrap());
        server.attach(ifindex, XdpMode::Auto).expect("the way is free");
    }
}

/// Run as a child by the test below: attaches, says so and waits to be killed.
#[test]
#[ignore = "a part of another test"]
fn child_that_attaches_and_waits() {
    let Ok(ifindex) = std::env::var("GEMEL_TEST_IFINDEX") else { return };
    let mut server = XdpServer::load().unwrap();
    server.attach(ifindex.parse().unwrap(), XdpMode::Native).unwrap();
    eprintln!("attached");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_no_trace() {
    if needs_root("a_killed_process_leaves_no_trace") {
        return;
    }
    let lab = Lab::veth();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child_that_attaches_and_waits"])
        .env("GEMEL_TEST_IFINDEX", lab.ifindex(0).to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("attached")), "the child gave up");
    assert!(lab.show(0).contains("prog/xdp"), "{}", lab.show(0));

    let mut second = XdpServer::load().unwrap();
    let error = second.attach(lab.ifindex(0), XdpMode::Auto).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", child.id())), "{error}");

    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel frees the link shortly after the last descriptor is closed.
    let deadline = Instant::now() + Duration::from_secs(5);
    while lab.show(0).contains("xdp") {
        assert!(Instant::now() < deadline, "still attached: {}", lab.show(0));
        std::thread::yield_now();
    }
    second.attach(lab.ifindex(0), XdpMode::Auto).unwrap();
}
