//! Sending: one datagram, one run of equal datagrams (UDP_SEGMENT), or many of either in one call (sendmmsg).
//!
//! Source: sendmsg(2), sendmmsg(2), udp(7), ip(7), RFC 3542.

use std::os::fd::{AsRawFd, RawFd};

use crate::address::{Pin, RawAddress};
use crate::udp::UdpSocket;
use crate::{last_errno, Errno};

/// Datagrams in one UDP_SEGMENT send at most.
pub const MAX_SEGMENTS: usize = 64;
/// Bytes in one UDP_SEGMENT send at most: an IP packet, less its headers and the largest options.
pub const MAX_BATCH_OCTETS: usize = 65_000;
/// Messages in one call of [`DatagramSender::send_many`] at most; more take several system calls.
pub const MAX_MESSAGES: usize = 64;

const UDP_SEGMENT: libc::c_int = 103;
/// A segment size, an IPv6 pin, a traffic class and a hop limit, each with its header.
const CONTROL_OCTETS: usize = 112;

/// One message: `length` bytes at `start` of a buffer, to be cut into datagrams of `segment` bytes.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    /// Where it begins.
    pub start: usize,
    /// Bytes.
    pub length: usize,
    /// 0: one datagram.
    pub segment: usize,
    /// Where to.
    pub destination: RawAddress,
    /// Where from.
    pub pin: Option<Pin>,
    /// Byte for the IP header: TOS or traffic class; 0: as the socket has it.
    pub class: u8,
    /// Hop limit; 0: as the socket has it.
    pub hops: u8,
}

/// Control data of one message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_OCTETS]);

/// Scratch for the system calls, made once.
pub struct DatagramSender {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    addresses: Box<[RawAddress]>,
}

// SAFETY: the pointers inside are rewritten by every call before the kernel sees them, and are not used
// outside calls.
unsafe impl Send for DatagramSender {}

impl Default for DatagramSender {
    fn default() -> DatagramSender {
        DatagramSender::new()
    }
}

impl DatagramSender {
    /// With room for [`MAX_MESSAGES`].
    pub fn new() -> DatagramSender {
        // SAFETY: mmsghdr and iovec are plain data for which zero is a value (null pointers, no lengths).
        let (header, vector) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        DatagramSender {
            headers: vec![header; MAX_MESSAGES].into_boxed_slice(),
            vectors: vec![vector; MAX_MESSAGES].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_OCTETS]); MAX_MESSAGES].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; MAX_MESSAGES].into_boxed_slice(),
        }
    }

    /// Send one message.
    ///
    /// # Errors
    /// The errno; nothing was sent. EINVAL also where the message lies outside `buffer`.
    pub fn send(&mut self, socket: &UdpSocket, buffer: &[u8], message: &Outgoing) -> Result<(), Errno> {
        self.prepare(0, buffer, message)?;
        // SAFETY: `prepare` has pointed the header to bytes of `buffer` and of `self`, all alive and, where the
        // kernel could write (nowhere), ours alone.
        let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &self.headers[0].msg_hdr, libc::MSG_DONTWAIT) };
        if count < 0 {
            return Err(last_errno());
        }
        Ok(())
    }

    /// Send messages in order, as many as the kernel takes: their number, and the errno that the first one not
    /// taken met (0 where all were).
    pub fn send_many(&mut self, socket: &UdpSocket, buffer: &[u8], messages: &[Outgoing]) -> (usize, Errno) {
        let mut sent = 0;
        for part in messages.chunks(MAX_MESSAGES) {
            if let [only] = part {
                match self.send(socket, buffer, only) {
                    Ok(()) => sent += 1,
                    Err(number) => return (sent, number),
                }
                continue;
            }
            for (index, message) in part.iter().enumerate() {
                if let Err(number) = self.prepare(index, buffer, message) {
                    return (sent, number);
                }
            }
            let taken = self.submit(socket.as_raw_fd(), part.len());
            match taken {
                Ok(taken) => {
                    sent += taken;
                    if taken < part.len() {
                        // The call does not say why; asking for the one alone does.
                        return match self.send(socket, buffer, &part[taken]) {
                            Ok(()) => {
                                let (rest, number) = self.send_many(socket, buffer, &messages[sent + 1..]);
                                (sent + 1 + rest, number)
                            }
                            Err(number) => (sent, number),
                        };
                    }
                }
                Err(number) => return (sent, number),
            }
        }
        (sent, 0)
    }

    fn submit(&mut self, descriptor: RawFd, count: usize) -> Result<usize, Errno> {
        // SAFETY: as in `send`, for the first `count` headers; the kernel writes their `msg_len`.
        let taken = unsafe {
            libc::sendmmsg(descriptor, self.headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT as _)
        };
        if taken < 0 {
            return Err(last_errno());
        }
        Ok(taken as usize)
    }

    fn prepare(&mut self, index: usize, buffer: &[u8], message: &Outgoing) -> Result<(), Errno> {
        let end = message.start.checked_add(message.length).ok_or(libc::EINVAL)?;
        let octets = buffer.get(message.start..end).ok_or(libc::EINVAL)?;
        self.vectors[index] = libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
        self.addresses[index] = message.destination;
        let used = fill(&mut self.controls[index], message);
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = std::ptr::from_mut(&mut self.addresses[index]).cast();
        header.msg_namelen = message.destination.length();
        header.msg_iov = &mut self.vectors[index];
        header.msg_iovlen = 1;
        header.msg_control =
            if used == 0 { std::ptr::null_mut() } else { std::ptr::from_mut(&mut self.controls[index]).cast() };
        header.msg_controllen = used as _;
        header.msg_flags = 0;
        Ok(())
    }
}

/// Write the control messages; how many bytes.
fn fill(control: &mut Control, message: &Outgoing) -> usize {
    let mut at = 0;
    if message.segment > 0 {
        at = append(control, at, libc::SOL_UDP, UDP_SEGMENT, &(message.segment as u16).to_ne_bytes());
    }
    if message.class > 0 {
        // IPv4 wants its own, also where it is mapped on IPv6.
        let (level, kind) = match message.destination.is_ipv4() {
            true => (libc::IPPROTO_IP, libc::IP_TOS),
            false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        at = append(control, at, level, kind, &libc::c_int::from(message.class).to_ne_bytes());
    }
    if message.hops > 0 {
        let (level, kind) = match message.destination.is_ipv4() {
            true => (libc::IPPROTO_IP, libc::IP_TTL),
            false => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
        };
        at = append(control, at, level, kind, &libc::c_int::from(message.hops).to_ne_bytes());
    }
    match &message.pin {
        Some(Pin::V4(local)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(local);
            at = append(control, at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(Pin::V6(local, interface)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(local);
            info[16..].copy_from_slice(&interface.to_ne_bytes());
            at = append(control, at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    at
}

const HEADER_OCTETS: usize = std::mem::size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = std::mem::size_of::<usize>();

/// One control message at `at`, laid out as CMSG_LEN and CMSG_SPACE have it: a header of a size_t and two ints,
/// the data, and filling up to a whole number of machine words. Returns the end.
fn append(control: &mut Control, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
    let word = std::mem::size_of::<usize>();
    let octets = &mut control.0[at..];
    octets[..word].copy_from_slice(&(HEADER_OCTETS + data.len()).to_ne_bytes());
    octets[word..word + 4].copy_from_slice(&level.to_ne_bytes());
    octets[word + 4..word + 8].copy_from_slice(&kind.to_ne_bytes());
    octets[HEADER_OCTETS..HEADER_OCTETS + data.len()].copy_from_slice(data);
    at + HEADER_OCTETS + data.len().next_multiple_of(ALIGNMENT)
}

const _: () = assert!(HEADER_OCTETS == ALIGNMENT + 8);
const _: () = assert!(CONTROL_OCTETS >= 4 * HEADER_OCTETS + 3 * ALIGNMENT + 24);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::address::Family;
    use crate::descriptor::{read, wait_readable};
    use crate::udp::Options;

    fn open() -> (UdpSocket, SocketAddr) {
        let bind = Some("127.0.0.1:0".parse().unwrap());
        let options = Options { bind, buffer: 1 << 20, share: false, busy_poll: 0 };
        let socket = UdpSocket::open(Family::V4, &options).unwrap();
        let endpoint = socket.local_endpoint().unwrap();
        (socket, endpoint)
    }

    fn outgoing(start: usize, length: usize, segment: usize, to: &SocketAddr) -> Outgoing {
        let destination = RawAddress::new(to, Family::V4).unwrap();
        Outgoing { start, length, segment, destination, pin: None, class: 0, hops: 0 }
    }

    fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut buffer = vec![0; 65536];
        while wait_readable(&[socket.as_raw_fd()], Some(20_000_000)) != 0 {
            let octets = read(socket.as_raw_fd(), &mut buffer).unwrap();
            found.push(buffer[..octets].to_vec());
        }
        found
    }

    #[test]
    fn runs_and_single_datagrams_arrive_in_order() {
        let ((near, _), (far, to)) = (open(), open());
        let buffer: Vec<u8> = (0..100).collect();
        let messages = [outgoing(0, 10, 0, &to), outgoing(10, 25, 10, &to), outgoing(35, 5, 0, &to)];
        assert_eq!(DatagramSender::new().send_many(&near, &buffer, &messages), (3, 0));
        let octets: Vec<u8> = received(&far).concat();
        assert_eq!(octets, buffer[..40]);
    }

    #[test]
    fn an_error_names_the_message_that_met_it() {
        let ((near, _), (far, to)) = (open(), open());
        let buffer = vec![7; 70_000];
        let messages =
            [outgoing(0, 10, 0, &to), outgoing(0, 70_000, 0, &to), outgoing(5, 5, 0, &to), outgoing(0, 1, 0, &to)];
        assert_eq!(DatagramSender::new().send_many(&near, &buffer, &messages), (1, libc::EMSGSIZE));
        assert_eq!(received(&far).len(), 1);
        let outside = outgoing(69_999, 2, 0, &to);
        assert_eq!(DatagramSender::new().send(&near, &buffer, &outside), Err(libc::EINVAL));
    }

    #[test]
    fn a_pin_chooses_the_source_address() {
        let any = Some("0.0.0.0:0".parse().unwrap());
        let options = Options { bind: any, buffer: 1 << 20, share: false, busy_poll: 0 };
        let near = UdpSocket::open(Family::V4, &options).unwrap();
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut message = outgoing(0, 4, 2, &far.local_addr().unwrap());
        message.pin = Some(Pin::V4([127, 0, 0, 9]));
        DatagramSender::new().send(&near, b"abcd", &message).unwrap();
        let mut buffer = [0; 10];
        let (octets, source) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((octets, source.ip().to_string().as_str()), (2, "127.0.0.9"));
    }

    #[test]
    fn the_other_hop_limit_is_one_less_than_the_sockets_own() {
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let on: libc::c_int = 1;
        // SAFETY: an int and its size.
        unsafe {
            let at = std::ptr::from_ref(&on).cast();
            assert_eq!(libc::setsockopt(far.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, at, 4), 0);
        }
        let to = far.local_addr().unwrap();
        // Also where IPv4 goes out through an IPv6 socket.
        for (bind, family) in [("127.0.0.1:0", Family::V4), ("[::]:0", Family::V6)] {
            let options = Options { bind: Some(bind.parse().unwrap()), buffer: 1 << 20, share: false, busy_poll: 0 };
            let near = UdpSocket::open(family, &options).unwrap();
            let own = outgoing(0, 4, 0, &to);
            let own = Outgoing { destination: RawAddress::new(&to, family).unwrap(), ..own };
            let other = Outgoing { hops: near.other_hops(true), ..own };
            assert_eq!(DatagramSender::new().send_many(&near, b"abcd", &[own, other]), (2, 0));
            let found = [received_hops(&far), received_hops(&far)];
            assert!(found[1] > 0 && found[0] == found[1] + 1, "{found:?}");
        }
    }

    fn received_hops(socket: &std::net::UdpSocket) -> i32 {
        let (mut octets, mut control) = ([0u8; 16], [0u64; 8]);
        // SAFETY: the header points to the two buffers with their lengths; the kernel writes nowhere else.
        unsafe {
            let mut vector = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = std::mem::size_of_val(&control) as _;
            assert_eq!(libc::recvmsg(socket.as_raw_fd(), &mut header, 0), 4);
        }
        let octets = control.map(u64::to_ne_bytes).concat();
        i32::from_ne_bytes(octets[HEADER_OCTETS..HEADER_OCTETS + 4].try_into().unwrap())
    }
}
