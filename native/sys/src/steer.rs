//! Which of several sockets that share an address takes a datagram: a classic BPF program for the group.
//!
//! Source: socket(7), SO_ATTACH_REUSEPORT_CBPF; Linux Documentation/networking/filter.rst, net/core/sock_reuseport.c
//! (the program sees the UDP payload; a result that is no socket's number leaves the choice to the hash of addresses
//! and ports); docs/protocol/data.md#2.

use std::io;
use std::os::fd::AsRawFd;

use crate::udp::UdpSocket;

const OPCODE_DATA_V1: u32 = 6;
const OPCODE_DATA_V2: u32 = 9;
const PEER_ID_MASK: u32 = 0x00FF_FFFF;
/// No socket has this number.
const BY_HASH: u32 = u32::MAX;

/// Have the sockets of a group (`count`, numbered in the order in which they were bound) take datagrams by their
/// content: DATA_V2 by peer id modulo `count`, DATA_V1 by addresses and ports, all others, also those that are too
/// short, the first one. Any socket of the group can be used.
///
/// # Errors
/// ENOPROTOOPT, EINVAL, EPERM: this kernel, or a filter of system calls, refuses; the kernel's hash stays in use.
pub fn steer_by_peer_id(socket: &UdpSocket, count: usize) -> io::Result<()> {
    let count = u32::try_from(count.max(1)).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut program = program(count);
    let header = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let octets = std::mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads the `octets` bytes of `header`, and through it the `len` instructions of `program`.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&header).cast(),
            octets,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A load outside the datagram ends the program with 0.
fn program(count: u32) -> [libc::sock_filter; 10] {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_RSH, BPF_W,
    };
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt, jf, k };
    [
        step(BPF_LD | BPF_B | BPF_ABS, 0),
        step(BPF_ALU | BPF_RSH | BPF_K, 3),
        jump(OPCODE_DATA_V2, 0, 4),
        step(BPF_LD | BPF_W | BPF_ABS, 0),
        step(BPF_ALU | BPF_AND | BPF_K, PEER_ID_MASK),
        step(BPF_ALU | BPF_MOD | BPF_K, count),
        step(BPF_RET | BPF_A, 0),
        jump(OPCODE_DATA_V1, 0, 1),
        step(BPF_RET | BPF_K, BY_HASH),
        step(BPF_RET | BPF_K, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::address::Family;
    use crate::descriptor::{read, wait_readable};
    use crate::udp::Options;

    fn group(bind: &str, count: usize) -> (Vec<UdpSocket>, SocketAddr) {
        let mut endpoint: SocketAddr = bind.parse().unwrap();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let options = Options { bind: Some(endpoint), buffer: 1 << 20, share: true, busy_poll: 0 };
            let socket = UdpSocket::open(Family::of(&endpoint), &options).unwrap();
            endpoint = socket.local_endpoint().unwrap();
            sockets.push(socket);
        }
        (sockets, endpoint)
    }

    /// The datagrams that each socket took.
    fn taken(sockets: &[UdpSocket]) -> Vec<Vec<Vec<u8>>> {
        let drain = |socket: &UdpSocket| {
            let (mut found, mut buffer) = (Vec::new(), vec![0; 65_536]);
            while wait_readable(&[socket.as_raw_fd()], Some(20_000_000)) != 0 {
                let octets = read(socket.as_raw_fd(), &mut buffer).unwrap();
                found.push(buffer[..octets].to_vec());
            }
            found
        };
        sockets.iter().map(drain).collect()
    }

    fn data_v2(peer_id: u32) -> Vec<u8> {
        let mut packet = (0x4800_0000 | peer_id).to_be_bytes().to_vec();
        packet.extend([0x55; 60]);
        packet
    }

    #[test]
    fn eight_peers_on_one_flow_are_spread_over_two_and_four_sockets() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            for count in [2usize, 4] {
                let (sockets, to) = group(bind, count);
                steer_by_peer_id(&sockets[count - 1], count).unwrap();
                let near = std::net::UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
                for peer_id in 0..8 {
                    near.send_to(&data_v2(peer_id), to).unwrap();
                }
                for (number, packets) in taken(&sockets).iter().enumerate() {
                    let expected: Vec<_> = (0..8).filter(|id| *id as usize % count == number).map(data_v2).collect();
                    assert_eq!(packets, &expected, "socket {number} of {count}");
                }
            }
        }
    }

    #[test]
    fn an_ipv4_datagram_to_an_ipv6_socket_is_steered_as_well() {
        let (sockets, to) = group("[::]:0", 4);
        steer_by_peer_id(&sockets[0], 4).unwrap();
        let near = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for peer_id in 0..8 {
            near.send_to(&data_v2(peer_id), ("127.0.0.1", to.port())).unwrap();
        }
        assert!(taken(&sockets).iter().all(|packets| packets.len() == 2));
    }

    #[test]
    fn control_and_short_datagrams_go_to_the_first_socket_and_data_v1_stays_with_its_address() {
        let (sockets, to) = group("127.0.0.1:0", 4);
        steer_by_peer_id(&sockets[0], 4).unwrap();
        let mut v1_at = std::collections::HashSet::new();
        for _ in 0..16 {
            let near = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for first in [0x38, 0x20, 0x00, 0xff] {
                near.send_to(&[first, 1, 2, 3, 4, 5], to).unwrap();
            }
            near.send_to(&[0x48, 0, 0], to).unwrap();
            near.send_to(&[], to).unwrap();
            let found = taken(&sockets);
            assert_eq!(found[0].len(), 6);
            assert!(found[1..].iter().all(Vec::is_empty));
            for number in 0..4u8 {
                near.send_to(&[0x30, number, 9, 9, 9, 9], to).unwrap();
            }
            let found = taken(&sockets);
            let at: Vec<usize> = (0..4).filter(|number| !found[*number].is_empty()).collect();
            assert_eq!((at.len(), found[at[0]].len()), (1, 4), "one address, one socket");
            v1_at.insert(at[0]);
        }
        assert!(v1_at.len() > 1, "16 addresses, and all at socket {v1_at:?}");
    }

    #[test]
    fn a_run_of_datagrams_stays_together() {
        let (sockets, to) = group("127.0.0.1:0", 2);
        steer_by_peer_id(&sockets[0], 2).unwrap();
        let near =
            UdpSocket::open(Family::V4, &Options { bind: None, buffer: 1 << 20, share: false, busy_poll: 0 }).unwrap();
        let run = data_v2(5).repeat(10);
        let destination = crate::address::RawAddress::new(&to, Family::V4).unwrap();
        let message = crate::send::Outgoing {
            start: 0,
            length: run.len(),
            segment: 64,
            destination,
            pin: None,
            class: 0,
            hops: 0,
        };
        crate::send::DatagramSender::new().send(&near, &run, &message).unwrap();
        let found = taken(&sockets);
        assert!(found[0].is_empty());
        assert_eq!(found[1].concat(), run);
    }

    #[test]
    fn a_socket_that_shares_nothing_is_refused() {
        let options =
            Options { bind: Some("127.0.0.1:0".parse().unwrap()), buffer: 1 << 20, share: false, busy_poll: 0 };
        let alone = UdpSocket::open(Family::V4, &options).unwrap();
        assert!(steer_by_peer_id(&alone, 2).is_err());
    }
}
