//! Receiving: several reads in one call (recvmmsg), each with many datagrams of one source (UDP_GRO).
//!
//! Source: recvmmsg(2), udp(7), ip(7), ipv6(7), socket(7) (SO_RXQ_OVFL).

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::address::{Pin, RawAddress};
use crate::memory::take_pages;
use crate::udp::UdpSocket;
use crate::{last_errno, Errno};

/// The largest UDP payload is a little less.
pub const MAX_DATAGRAM_OCTETS: usize = 65_536;
/// Bytes behind each read that belong to the caller.
pub const SPARE_OCTETS: usize = 64;

/// What a read of one packet takes of its place, mostly.
const USUAL_OCTETS: usize = 2048;

const UDP_GRO: libc::c_int = 104;
const CONTROL_OCTETS: usize = 192;
const SLOT_OCTETS: usize = MAX_DATAGRAM_OCTETS + SPARE_OCTETS;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_OCTETS]);

/// What one read gave: `length` bytes, which are datagrams of `segment` bytes each (the last may be shorter).
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Bytes in all.
    pub length: usize,
    /// Bytes of each datagram; 0 only for an empty one.
    pub segment: usize,
    /// Where they came from; None where the kernel did not say.
    pub source: Option<SocketAddr>,
    /// Where they were sent to.
    pub pin: Option<Pin>,
    /// Datagrams dropped so far because the socket's buffer was full, modulo 2^32.
    pub overflow: Option<u32>,
}

/// Buffers for some reads, made once.
pub struct Receiver {
    buffer: Box<[u8]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    addresses: Box<[RawAddress]>,
    count: usize,
}

// SAFETY: the pointers inside lead to memory that the value owns, are rewritten by every call before the
// kernel sees them, and are not used outside calls.
unsafe impl Send for Receiver {}

impl Receiver {
    /// For `slots` reads at once, of 64 KiB each. The first `whole` have all their memory from the start, the others
    /// what a single packet takes.
    pub fn new(slots: usize, whole: usize) -> Receiver {
        // SAFETY: mmsghdr and iovec are plain data for which zero is a value (null pointers, no lengths).
        let (header, vector) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut buffer = vec![0; slots * SLOT_OCTETS].into_boxed_slice();
        for (index, slot) in buffer.chunks_mut(SLOT_OCTETS).enumerate() {
            take_pages(if index < whole { slot } else { &mut slot[..USUAL_OCTETS] });
        }
        Receiver {
            buffer,
            headers: vec![header; slots].into_boxed_slice(),
            vectors: vec![vector; slots].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_OCTETS]); slots].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; slots].into_boxed_slice(),
            count: 0,
        }
    }

    /// Reads it has room for.
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Read what waits, without blocking, up to `limit` times; how often there was something.
    ///
    /// # Errors
    /// The errno: EAGAIN where nothing waits, or an ICMP error of an earlier datagram.
    pub fn receive(&mut self, socket: &UdpSocket, limit: usize) -> Result<usize, Errno> {
        self.count = 0;
        let limit = limit.min(self.slots());
        for index in 0..limit {
            self.prepare(index);
        }
        // SAFETY: the first `limit` headers point to memory that `self` owns, each to its own part, with the
        // lengths that it has; the kernel writes nowhere else.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                limit as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(last_errno());
        }
        self.count = count as usize;
        Ok(self.count)
    }

    /// What the read of this index gave.
    ///
    /// # Panics
    /// Where the last `receive` had fewer.
    pub fn message(&self, index: usize) -> Message {
        assert!(index < self.count);
        let header = &self.headers[index];
        let length = (header.msg_len as usize).min(MAX_DATAGRAM_OCTETS);
        let mut message =
            Message { length, segment: length, source: self.addresses[index].to_endpoint(), pin: None, overflow: None };
        #[allow(clippy::unnecessary_cast)] // its type is another one with musl
        let used = (header.msg_hdr.msg_controllen as usize).min(CONTROL_OCTETS);
        read_control(&self.controls[index].0[..used], &mut message);
        message
    }

    /// The bytes of all reads; that of index `i` begins at `i * stride()` and may be overwritten up to
    /// [`SPARE_OCTETS`] behind its end.
    pub fn octets(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// From one read to the next.
    pub fn stride(&self) -> usize {
        SLOT_OCTETS
    }

    fn prepare(&mut self, index: usize) {
        let slot = &mut self.buffer[index * SLOT_OCTETS..][..MAX_DATAGRAM_OCTETS];
        self.vectors[index] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = std::ptr::from_mut(&mut self.addresses[index]).cast();
        header.msg_namelen = RawAddress::OCTETS;
        header.msg_iov = &mut self.vectors[index];
        header.msg_iovlen = 1;
        header.msg_control = std::ptr::from_mut(&mut self.controls[index]).cast();
        header.msg_controllen = CONTROL_OCTETS as _;
        header.msg_flags = 0;
    }
}

/// Take the control messages apart (cmsg(3)): each has a header of a size_t and two ints, its length includes that,
/// and the next one begins at a whole number of machine words.
fn read_control(mut octets: &[u8], message: &mut Message) {
    const WORD: usize = std::mem::size_of::<usize>();
    const HEADER: usize = WORD + 8;
    while octets.len() >= HEADER {
        let length = usize::from_ne_bytes(word(&octets[..WORD]));
        if length < HEADER || length > octets.len() {
            return;
        }
        let level = libc::c_int::from_ne_bytes(word(&octets[WORD..WORD + 4]));
        let kind = libc::c_int::from_ne_bytes(word(&octets[WORD + 4..WORD + 8]));
        let data = &octets[HEADER..length];
        match (level, kind, data.len()) {
            (libc::SOL_UDP, UDP_GRO, 4..) => {
                let size = libc::c_int::from_ne_bytes(word(&data[..4]));
                if size > 0 {
                    message.segment = (size as usize).min(message.length);
                }
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 4..) => {
                message.overflow = Some(u32::from_ne_bytes(word(&data[..4])));
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO, 12..) => {
                message.pin = Some(Pin::V4(word(&data[4..8])));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20..) => {
                let local: [u8; 16] = word(&data[..16]);
                let interface = u32::from_ne_bytes(word(&data[16..20]));
                let is_link_local = local[0] == 0xfe && local[1] == 0x80;
                message.pin = Some(Pin::V6(local, if is_link_local { interface } else { 0 }));
            }
            _ => {}
        }
        let next = length.next_multiple_of(WORD).min(octets.len());
        octets = &octets[next..];
    }
}

/// A slice of known length as an array.
fn word<const OCTETS: usize>(octets: &[u8]) -> [u8; OCTETS] {
    let mut array = [0; OCTETS];
    array.copy_from_slice(octets);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Family;
    use crate::descriptor::wait_readable;
    use crate::send::{DatagramSender, Outgoing};
    use crate::udp::Options;

    fn open(bind: &str) -> UdpSocket {
        let options = Options { bind: Some(bind.parse().unwrap()), buffer: 1 << 20, share: false, busy_poll: 0 };
        UdpSocket::open(Family::of(&bind.parse().unwrap()), &options).unwrap()
    }

    fn send(near: &UdpSocket, to: &SocketAddr, octets: &[u8], segment: usize) {
        let destination = RawAddress::new(to, near.family()).unwrap();
        let message = Outgoing { start: 0, length: octets.len(), segment, destination, pin: None, class: 0, hops: 0 };
        DatagramSender::new().send(near, octets, &message).unwrap();
    }

    #[test]
    fn reads_tell_source_size_and_local_address() {
        let (near, far) = (open("127.0.0.1:0"), open("0.0.0.0:0"));
        let port = far.local_endpoint().unwrap().port();
        let to = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        let octets: Vec<u8> = (0..250).collect();
        send(&near, &to, &octets, 100);
        send(&near, &to, b"", 0);
        assert_eq!(wait_readable(&[far.as_raw_fd()], Some(1_000_000_000)), 1);
        let mut receiver = Receiver::new(8, 8);
        let count = receiver.receive(&far, 8).unwrap();
        let mut total = Vec::new();
        for index in 0..count {
            let message = receiver.message(index);
            assert_eq!(message.source, near.local_endpoint());
            assert_eq!(message.pin, Some(Pin::V4([127, 0, 0, 1])));
            if message.length > 100 {
                assert_eq!(message.segment, 100);
            }
            let start = index * receiver.stride();
            total.extend_from_slice(&receiver.octets()[start..start + message.length]);
        }
        assert_eq!(total, octets);
        assert_eq!(receiver.receive(&far, 8), Err(libc::EAGAIN));
    }

    #[test]
    fn an_ipv6_socket_for_any_address_hears_ipv4_as_ipv4() {
        let (near, far) = (open("127.0.0.1:0"), open("[::]:0"));
        let port = far.local_endpoint().unwrap().port();
        send(&near, &SocketAddr::new("127.0.0.1".parse().unwrap(), port), b"x", 0);
        wait_readable(&[far.as_raw_fd()], Some(1_000_000_000));
        let mut receiver = Receiver::new(1, 0);
        assert_eq!(receiver.receive(&far, 1), Ok(1));
        let message = receiver.message(0);
        assert_eq!(message.source, near.local_endpoint());
        assert!(matches!(message.pin, Some(Pin::V6(..))));
    }

    #[test]
    fn broken_control_data_is_passed_over() {
        let mut message = Message { length: 9, segment: 9, source: None, pin: None, overflow: None };
        for length in [0usize, 3, 15, 17, 4000] {
            let mut octets = [0xffu8; 24];
            octets[..std::mem::size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            read_control(&octets, &mut message);
            read_control(&octets[..length.min(7)], &mut message);
        }
        assert_eq!((message.segment, message.pin, message.overflow), (9, None, None));
    }
}
