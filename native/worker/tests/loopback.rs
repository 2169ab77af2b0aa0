//! Whole data planes on loopback: what one end's TAP gives comes out of the other's, in order, whatever happens
//! meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bridged_worker::{
    Cipher, DataPlane, Event, Framing, Key, KeyFormat, Mac, PeerSettings, Settings, Station, TapPort,
};
use zeroize::Zeroizing;

const WAIT: Duration = Duration::from_secs(10);
const BROADCAST: [u8; 6] = [0xff; 6];

/// The far end of a TAP made of a socket pair: a frame for each message.
struct Wire(OwnedFd);

impl Wire {
    fn pair() -> (Wire, OwnedFd) {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors, which are ours alone afterwards.
        let (far, near) = unsafe {
            assert_eq!(libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()), 0);
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        let size: libc::c_int = 8 << 20;
        for end in [&far, &near] {
            // SAFETY: an int and its size; flags are a number.
            unsafe {
                let at = std::ptr::from_ref(&size).cast();
                libc::setsockopt(end.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, at, 4);
                libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
            }
        }
        (Wire(far), near)
    }

    fn put(&self, frame: &[u8]) {
        let until = Instant::now() + WAIT;
        // SAFETY: the kernel reads `frame`.
        while unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) } < 0 {
            assert!(Instant::now() < until, "the TAP is not read");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn get(&self, wait: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let until = Instant::now() + wait;
        loop {
            // SAFETY: the kernel writes at most what `buffer` has.
            let octets = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if octets > 0 {
                buffer.truncate(octets as usize);
                return Some(buffer);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

struct End {
    plane: DataPlane,
    tap: Wire,
    _near: OwnedFd,
}

impl End {
    fn new() -> End {
        let (tap, near) = Wire::pair();
        let port = TapPort {
            fds: vec![near.as_raw_fd()],
            writer: None,
            name: "in-hand".into(),
            mac: [2, 0, 0, 0, 0, 0xff],
            mtu: 1500,
            virtio_header_size: 0,
            offloads: Vec::new(),
        };
        let plane = DataPlane::new(Settings::new("test", port, Some("127.0.0.1:0".parse().unwrap()))).unwrap();
        plane.start().unwrap();
        End { plane, tap, _near: near }
    }

    fn endpoint(&self) -> SocketAddr {
        self.plane.local_endpoint().unwrap().address
    }

    fn join(&self, handle: u64, endpoint: SocketAddr, is_server: bool) {
        let peer = PeerSettings {
            handle,
            name: format!("peer-{handle}"),
            endpoint: endpoint.into(),
            receive_peer_id: Some(handle as u32),
            transmit_peer_id: Some(handle as u32),
            framing: Framing::None,
            fragment: 0,
            ping: None,
            ping_restart: None,
        };
        self.plane.add_peer(peer).unwrap();
        self.plane.install_key(handle, key(0, is_server)).unwrap();
        self.plane.use_key(handle, 0).unwrap();
    }

    fn drops(&self) -> u64 {
        self.plane.snapshot().drops.values().sum()
    }
}

fn key(key_id: u8, is_server: bool) -> Key {
    let half = |number: u8| (Zeroizing::new(vec![number ^ key_id; 32]), Zeroizing::new([number ^ key_id; 8]));
    let (send, receive) = if is_server { (half(0x11), half(0x22)) } else { (half(0x22), half(0x11)) };
    Key {
        key_id,
        cipher: Cipher::Aes256Gcm,
        format: KeyFormat::Aead,
        send_key: send.0,
        send_iv: send.1,
        receive_key: receive.0,
        receive_iv: receive.1,
    }
}

fn frame(destination: [u8; 6], source: u8, number: u32) -> Vec<u8> {
    let mut octets = destination.to_vec();
    octets.extend([2, 0, 0, 0, 0, source, 0x88, 0xb5]);
    octets.extend(number.to_be_bytes());
    octets.resize(60 + (number as usize * 37) % 1400, number as u8);
    octets
}

fn joined() -> (End, End) {
    let (first, second) = (End::new(), End::new());
    first.join(1, second.endpoint(), true);
    second.join(1, first.endpoint(), false);
    (first, second)
}

/// Send `count` numbered frames while reading them at the other end; `meanwhile` is called on the way. They all arrive,
/// in order.
fn stream(from: &End, to: &End, count: u32, mut meanwhile: impl FnMut(u32)) {
    let mut received = 0;
    let take = |received: &mut u32, wait| {
        while let Some(octets) = to.tap.get(wait) {
            assert_eq!(octets, frame(BROADCAST, 1, *received), "frame {received}");
            *received += 1;
        }
    };
    for number in 0..count {
        meanwhile(number);
        from.tap.put(&frame(BROADCAST, 1, number));
        let until = Instant::now() + WAIT;
        // No more than a socket pair with a buffer of Linux's default size holds.
        while number + 1 - received > 80 {
            take(&mut received, Duration::ZERO);
            assert!(Instant::now() < until, "{received} received when {number} was sent");
        }
    }
    let until = Instant::now() + WAIT;
    while received < count && Instant::now() < until {
        take(&mut received, Duration::from_millis(20));
    }
    assert_eq!(received, count);
}

#[test]
fn frames_cross_both_ways_octet_for_octet_and_in_order() {
    let (first, second) = joined();
    stream(&first, &second, 5000, |_| {});
    let far = |number| frame([2, 0, 0, 0, 0, 1], 9, number);
    for number in 0..100 {
        second.tap.put(&far(number));
        assert_eq!(first.tap.get(WAIT).unwrap(), far(number));
    }
    assert_eq!((first.drops(), second.drops()), (0, 0));
    let snapshot = first.plane.snapshot();
    assert_eq!(snapshot.peers[0].counters.frames[&("transmit", "broadcast")], 5000);
    assert_eq!(snapshot.peers[0].counters.frames[&("receive", "unicast")], 100);
    assert_eq!(snapshot.fdb_entries, 2);
    assert!(snapshot.thread_cpu["tap-0"] > 0.0);
}

#[test]
fn keys_change_under_load_without_a_lost_or_reordered_frame() {
    let (first, second) = joined();
    let mut current = 0;
    stream(&first, &second, 6000, |number| {
        if number % 500 == 250 {
            let next = (current + 1) % 8;
            second.plane.install_key(1, key(next, false)).unwrap();
            first.plane.install_key(1, key(next, true)).unwrap();
            first.plane.use_key(1, next).unwrap();
            second.plane.use_key(1, next).unwrap();
            // The one before goes later: packets under it may be on their way.
            let last = (current + 7) % 8;
            first.plane.remove_key(1, last);
            second.plane.remove_key(1, last);
            current = next;
        }
    });
    assert_eq!((first.drops(), second.drops()), (0, 0));
}

#[test]
fn peers_come_and_go_and_change_under_load_without_a_lost_frame() {
    let (first, second) = joined();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    stream(&first, &second, 3000, |number| match number % 100 {
        10 => first.join(u64::from(number) + 7, silent.local_addr().unwrap(), true),
        60 => {
            first.plane.remove_peer(u64::from(number) - 43).unwrap();
        }
        _ => {}
    });
    let drops = first.plane.snapshot().drops;
    assert!(drops.keys().all(|reason| matches!(*reason, ("transmit", "no_key" | "no_peer"))), "{drops:?}");
    assert_eq!(second.drops(), 0);
}

#[test]
fn packet_ids_leave_in_order_and_once_although_two_threads_seal_under_one_key() {
    let (hub, spoke) = (End::new(), End::new());
    let raw = UdpSocket::bind("127.0.0.1:0").unwrap();
    raw.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    hub.join(1, spoke.endpoint(), true);
    spoke.join(1, hub.endpoint(), false);
    hub.join(2, raw.local_addr().unwrap(), true);
    let count = 4000;
    let arrived = AtomicU32::new(0);
    std::thread::scope(|scope| {
        // From the hub's TAP thread, and from its wire thread.
        for (source, tap) in [(1, &hub.tap), (2, &spoke.tap)] {
            let arrived = &arrived;
            scope.spawn(move || {
                let until = Instant::now() + WAIT;
                for number in 0..count {
                    tap.put(&frame(BROADCAST, source, number));
                    // No more than a receive buffer of Linux's default size holds is under way.
                    while number % 16 == 0 && arrived.load(Relaxed) + 32 < 2 * number && Instant::now() < until {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            });
        }
        let mut buffer = [0; 2000];
        let (mut seen, mut highest) = (0, 0);
        while let Ok(octets) = raw.recv(&mut buffer) {
            assert!(octets > 24 && buffer[0] == 9 << 3);
            let id = u32::from_be_bytes(buffer[4..8].try_into().unwrap());
            assert!(id > highest, "packet id {id} after {highest}");
            highest = id;
            seen += 1;
            arrived.store(seen as u32, Relaxed);
        }
        let sent = hub.plane.snapshot().peers[1].counters.wire_datagrams["transmit"];
        let relayed = hub.plane.snapshot().peers[0].counters.frames[&("receive", "broadcast")];
        assert_eq!((relayed, sent), (u64::from(count), 2 * u64::from(count)), "both threads sent");
        assert_eq!((seen, u64::from(highest)), (sent, sent), "no id was left out");
    });
}

#[test]
fn a_stopped_data_plane_is_quiet_and_stopping_again_does_nothing() {
    let (first, second) = joined();
    stream(&first, &second, 10, |_| {});
    second.plane.stop();
    second.plane.stop();
    assert_eq!(second.plane.local_endpoint(), None);
    assert_eq!(second.plane.event_fd(), -1);
    first.tap.put(&frame(BROADCAST, 1, 0));
    assert_eq!(second.tap.get(Duration::from_millis(100)), None);
    assert!(second.plane.snapshot().peers.is_empty());
}

#[test]
fn an_adapter_that_vanishes_is_told_once() {
    let end = End::new();
    drop(end.tap);
    let until = Instant::now() + WAIT;
    let mut events = Vec::new();
    while events.is_empty() && Instant::now() < until {
        events = end.plane.poll_events(9);
    }
    assert!(matches!(events.as_slice(), [Event::TapFailed { .. }]), "{events:?}");
}

#[test]
fn what_cannot_be_is_refused_with_its_code() {
    let end = End::new();
    end.join(1, "127.0.0.1:9".parse().unwrap(), true);
    let code = |result: Result<(), bridged_worker::Error>| result.unwrap_err().code();
    assert_eq!(code(end.plane.use_key(1, 5)), "unknown_key");
    assert_eq!(code(end.plane.use_key(2, 0)), "unknown_peer");
    assert_eq!(code(end.plane.send_payload(2, b"x")), "unknown_peer");
    assert_eq!(code(end.plane.install_station(Station::new(0, Mac::new([2; 6])), Some(2), true)), "unknown_peer");
    let mut settings = Settings::new("again", TapPort { fds: vec![-1], ..port() }, None);
    assert_eq!(DataPlane::new(settings.clone()).err().unwrap().code(), "system");
    settings.workers = 0;
    assert_eq!(DataPlane::new(settings.clone()).err().unwrap().code(), "bad_setting");
    settings = Settings { workers: 1, replay_window: 70_000, ..settings };
    assert_eq!(DataPlane::new(settings.clone()).err().unwrap().code(), "bad_setting");
    let (_tap, near) = Wire::pair();
    let tap = TapPort { fds: vec![near.as_raw_fd()], ..port() };
    let other = DataPlane::new(Settings::new("other", tap, Some(end.endpoint()))).unwrap();
    let error = other.start().unwrap_err();
    assert_eq!(error.code(), "bind_failed");
    assert!(error.to_string().contains(&end.endpoint().to_string()), "{error}");
}

fn port() -> TapPort {
    TapPort {
        fds: Vec::new(),
        writer: None,
        name: "none".into(),
        mac: [0; 6],
        mtu: 1500,
        virtio_header_size: 0,
        offloads: Vec::new(),
    }
}

#[test]
fn eight_peers_are_spread_evenly_over_the_workers_of_a_server() {
    // Those of a worker fit into a socket pair with a buffer of Linux's default size.
    let count = 20;
    for workers in [2usize, 4] {
        let taps: Vec<(Wire, OwnedFd)> = (0..workers).map(|_| Wire::pair()).collect();
        let fds = taps.iter().map(|(_, near)| near.as_raw_fd()).collect();
        let bind = Some("127.0.0.1:0".parse().unwrap());
        let settings = Settings { workers, ..Settings::new("spread", TapPort { fds, ..port() }, bind) };
        let plane = DataPlane::new(settings).unwrap();
        plane.start().unwrap();
        let (_, near) = Wire::pair();
        let idle = Settings::new("idle", TapPort { fds: vec![near.as_raw_fd()], ..port() }, None);
        assert!(!DataPlane::new(idle).unwrap().snapshot().offloads["udp_steering"]);
        assert!(plane.snapshot().offloads["udp_steering"]);
        let hub = End { plane, tap: Wire::pair().0, _near: Wire::pair().1 };
        let spokes: Vec<End> = (0..8).map(|_| End::new()).collect();
        for (handle, spoke) in (1u64..).zip(&spokes) {
            hub.join(handle, spoke.endpoint(), true);
            spoke.join(handle, hub.endpoint(), false);
            for number in 0..count {
                spoke.tap.put(&frame(BROADCAST, handle as u8, number));
            }
        }
        // A worker writes what it reads to its own queue.
        for (worker, (tap, _)) in taps.iter().enumerate() {
            let mut next = [0; 9];
            let mine: Vec<usize> = (1..9).filter(|id| id % workers == worker).collect();
            for _ in 0..count as usize * mine.len() {
                let octets = tap.get(WAIT).expect("a frame of a peer of this worker");
                let peer = usize::from(octets[11]);
                assert!(mine.contains(&peer), "peer {peer} at worker {worker} of {workers}");
                assert_eq!(octets, frame(BROADCAST, peer as u8, next[peer]));
                next[peer] += 1;
            }
            assert!(tap.get(Duration::from_millis(20)).is_none());
        }
    }
}
