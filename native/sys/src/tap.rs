//! The TAP's own system calls; reading and plain writing are in `descriptor`.
//!
//! Source: Linux Documentation/networking/tuntap.rst, writev(2).

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;

use crate::{last_errno, Errno};

/// TUNGETIFF, but on the few architectures that number ioctls otherwise.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const IFREQ_OCTETS: usize = 40;
const IFNAME_OCTETS: usize = 16;

/// Most slices that the kernel takes in one write (UIO_MAXIOV).
pub const MAX_SLICES: usize = 1024;

/// The slices of one write.
///
/// Holds room for [`MAX_SLICES`] of them, made once. A `Gather` borrows nothing between writes.
pub struct Gather {
    vectors: Vec<libc::iovec>,
}

// SAFETY: between calls of `write` the vector is empty; its pointers never outlive a call.
unsafe impl Send for Gather {}

impl Default for Gather {
    fn default() -> Gather {
        Gather::new()
    }
}

impl Gather {
    /// With room for all slices.
    pub fn new() -> Gather {
        Gather { vectors: Vec::with_capacity(MAX_SLICES) }
    }

    /// Write `head` and then the slices as one frame; how many bytes.
    ///
    /// # Errors
    /// The errno; EMSGSIZE for more than [`MAX_SLICES`] - 1 slices.
    pub fn write<'a, Slices>(&mut self, descriptor: RawFd, head: &[u8], slices: Slices) -> Result<usize, Errno>
    where
        Slices: Iterator<Item = &'a [u8]>,
    {
        self.vectors.clear();
        self.vectors.push(vector(head));
        for slice in slices {
            if self.vectors.len() == MAX_SLICES {
                self.vectors.clear();
                return Err(libc::EMSGSIZE);
            }
            self.vectors.push(vector(slice));
        }
        // SAFETY: every vector describes bytes that are borrowed for the length of this call; the kernel only
        // reads them.
        let count = unsafe { libc::writev(descriptor, self.vectors.as_ptr(), self.vectors.len() as libc::c_int) };
        let number = if count < 0 { last_errno() } else { 0 };
        self.vectors.clear();
        if count < 0 {
            return Err(number);
        }
        Ok(count as usize)
    }
}

fn vector(octets: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() }
}

/// Whether there is no adapter behind the descriptor (any more).
pub fn is_gone(descriptor: RawFd) -> bool {
    let mut request = [0u64; IFREQ_OCTETS / 8];
    // SAFETY: TUNGETIFF writes one ifreq, which has 40 bytes at most, into `request`.
    let failed = unsafe { libc::ioctl(descriptor, TUNGETIFF as _, request.as_mut_ptr()) };
    failed < 0
}

/// The MTU of a network device now; None where there is none of that name in this network namespace.
pub fn mtu_of(name: &str) -> Option<u32> {
    let socket = UnixDatagram::unbound().ok()?;
    let mut request = [0u8; IFREQ_OCTETS];
    if name.len() >= IFNAME_OCTETS {
        return None;
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: SIOCGIFMTU reads and writes one ifreq, which has 40 bytes at most.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, request.as_mut_ptr()) } < 0 {
        return None;
    }
    request[IFNAME_OCTETS..].first_chunk().and_then(|mtu| u32::try_from(i32::from_ne_bytes(*mtu)).ok())
}

/// Frames that the kernel dropped because the adapter's queue was full, since the adapter was made; None where
/// there is no such adapter in the network namespace of the calling thread.
pub fn dropped_by_queue(name: &str) -> Option<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    for line in table.lines() {
        let Some((found, figures)) = line.split_once(':') else { continue };
        if found.trim() == name {
            return figures.split_whitespace().nth(11)?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_of_a_device_is_known_by_its_name() {
        assert!(mtu_of("lo").is_some_and(|mtu| mtu >= 1280));
        assert_eq!((mtu_of("no-such-device"), mtu_of("a name too long for one"), mtu_of("")), (None, None, None));
    }

    #[test]
    fn slices_arrive_as_one_frame() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut gather = Gather::new();
        let parts: [&[u8]; 3] = [b"bc", b"", b"def"];
        assert_eq!(gather.write(near.as_raw_fd(), b"a", parts.into_iter()), Ok(6));
        let mut buffer = [0; 16];
        assert_eq!(far.recv(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"abcdef");
        let many = std::iter::repeat_n(&b"x"[..], MAX_SLICES);
        assert_eq!(gather.write(near.as_raw_fd(), b"a", many), Err(libc::EMSGSIZE));
        assert_eq!(gather.write(-1, b"a", parts.into_iter()), Err(libc::EBADF));
    }

    #[test]
    fn what_is_no_adapter_counts_as_gone() {
        let (near, _far) = UnixDatagram::pair().unwrap();
        assert!(is_gone(near.as_raw_fd()));
        assert_eq!(dropped_by_queue("no such adapter"), None);
        assert!(dropped_by_queue("lo").is_some());
    }
}
