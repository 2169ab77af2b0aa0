//! One end of a tunnel with a fixed key, for measuring the data plane without Python around it.
//!
//! `pair ROLE TAP BIND PEER [workers]`: ROLE is `server` or `client`, TAP an adapter of this network namespace (made
//! where it is not there), BIND and PEER are endpoints. Runs until its standard input ends, then prints its figures.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use bridged_worker::{Cipher, DataPlane, Framing, Key, KeyFormat, PeerSettings, Settings, TapPort};
use zeroize::Zeroizing;

const IFF_TAP: libc::c_short = 0x0002;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// csum, tso4, tso6, tso_ecn, uso4, uso6.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4 | 8 | 0x20 | 0x40;

fn open_queue(name: &str, many: bool) -> OwnedFd {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("/dev/net/tun");
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if many { IFF_MULTI_QUEUE } else { 0 };
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one ifreq, which has 40 bytes at most.
    assert_eq!(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) }, 0, "TUNSETIFF");
    // SAFETY: TUNSETOFFLOAD takes a number.
    assert_eq!(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETOFFLOAD as _, OFFLOADS) }, 0, "TUNSETOFFLOAD");
    device.into()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, tap, bind, peer, rest @ ..] = arguments.as_slice() else {
        println!("usage: pair server|client TAP BIND PEER [workers]");
        return;
    };
    let workers = rest.first().map_or(1, |text| text.parse().expect("workers"));
    let queues: Vec<OwnedFd> = (0..workers).map(|_| open_queue(tap, workers > 1)).collect();
    let port = TapPort {
        fds: queues.iter().map(AsRawFd::as_raw_fd).collect(),
        writer: None,
        name: tap.clone(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        virtio_header_size: 10,
        offloads: ["csum", "tso4", "tso6", "tso_ecn", "uso4", "uso6"].map(String::from).to_vec(),
    };
    let mut settings = Settings::new("pair", port, Some(bind.parse().expect("bind")));
    settings.workers = workers;
    let plane = DataPlane::new(settings).expect("a data plane");
    plane.start().expect("start");
    let peer_settings = PeerSettings {
        handle: 1,
        name: "far".into(),
        endpoint: peer.parse().expect("peer"),
        receive_peer_id: Some(7),
        transmit_peer_id: Some(7),
        framing: Framing::None,
        fragment: 0,
        ping: Some(10.0),
        ping_restart: None,
    };
    plane.add_peer(peer_settings).expect("add_peer");
    let half = |number: u8| (Zeroizing::new(vec![number; 32]), Zeroizing::new([number; 8]));
    let (first, second) = if role == "server" { (half(1), half(2)) } else { (half(2), half(1)) };
    let key = Key {
        key_id: 0,
        cipher: Cipher::Aes256Gcm,
        format: KeyFormat::Aead,
        send_key: first.0,
        send_iv: first.1,
        receive_key: second.0,
        receive_iv: second.1,
    };
    plane.install_key(1, key).expect("install_key");
    plane.use_key(1, 0).expect("use_key");
    println!("data plane runs");
    let mut input = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut input);
    println!("{:#?}", plane.snapshot());
    plane.stop();
    // An adapter that stays keeps its offloads, which another program may not understand.
    // SAFETY: TUNSETOFFLOAD takes a number.
    unsafe { libc::ioctl(queues[0].as_raw_fd(), TUNSETOFFLOAD as _, 0) };
}
