//! Descriptors: duplicates, eventfd, poll.
//!
//! Source: fcntl(2), eventfd(2), ppoll(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{last_errno, Errno};

/// A descriptor of our own for what is behind `descriptor`; closed on exec.
///
/// # Errors
/// EBADF where it is not open; EMFILE.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory; a bad descriptor is an error.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A counter that can be waited for.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// At zero, non-blocking, closed on exec.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no memory is passed.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Make it readable. Cannot fail but by overflow, where it is readable already.
    pub fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is 8 readable bytes for the length of the call.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Make it unreadable.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: `count` is 8 writable bytes for the length of the call.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Wait until one of up to 8 descriptors is readable, has failed, or hung up; returns which ones, as bits in the
/// order given. Negative descriptors are passed over. `timeout`: nanoseconds; None: for ever. An interrupted
/// wait counts as nothing ready.
pub fn wait_readable(descriptors: &[RawFd], timeout: Option<u64>) -> u8 {
    wait(descriptors, libc::POLLIN, timeout)
}

/// As [`wait_readable`], for one descriptor that is to take output.
pub fn wait_writable(descriptor: BorrowedFd<'_>, timeout: u64) -> bool {
    wait(&[descriptor.as_raw_fd()], libc::POLLOUT, Some(timeout)) != 0
}

/// As [`wait_readable`], or until the first descriptor takes output; its input does not count.
pub fn wait_writable_or_readable(descriptors: &[RawFd], timeout: Option<u64>) -> u8 {
    let mut polled = entries(descriptors, libc::POLLIN);
    polled[0].events = libc::POLLOUT;
    poll(&mut polled, timeout)
}

fn wait(descriptors: &[RawFd], events: libc::c_short, timeout: Option<u64>) -> u8 {
    poll(&mut entries(descriptors, events), timeout)
}

fn entries(descriptors: &[RawFd], events: libc::c_short) -> [libc::pollfd; 8] {
    let mut polled = [libc::pollfd { fd: -1, events, revents: 0 }; 8];
    for (entry, descriptor) in polled.iter_mut().zip(descriptors) {
        entry.fd = *descriptor;
    }
    polled
}

fn poll(polled: &mut [libc::pollfd; 8], timeout: Option<u64>) -> u8 {
    let limit = timeout.map(|nanoseconds| libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    });
    let limit_at = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = polled.iter().rposition(|entry| entry.fd >= 0).map_or(0, |last| last + 1);
    // SAFETY: `polled` has at least `count` entries, and `limit` outlives the call.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), count as libc::nfds_t, limit_at, std::ptr::null()) };
    if ready <= 0 {
        return 0;
    }
    let mut bits = 0;
    for (index, entry) in polled[..count].iter().enumerate() {
        if entry.revents != 0 {
            bits |= 1 << index;
        }
    }
    bits
}

/// Read once; how many bytes.
///
/// # Errors
/// The errno.
pub fn read(descriptor: RawFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let count = unsafe { libc::read(descriptor, buffer.as_mut_ptr().cast(), buffer.len()) };
    if count < 0 {
        return Err(last_errno());
    }
    Ok(count as usize)
}

/// Write once; how many bytes.
///
/// # Errors
/// The errno.
pub fn write(descriptor: RawFd, octets: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads at most `octets.len()` bytes of `octets`.
    let count = unsafe { libc::write(descriptor, octets.as_ptr().cast(), octets.len()) };
    if count < 0 {
        return Err(last_errno());
    }
    Ok(count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eventfd_is_readable_from_signal_to_clear() {
        let event = EventFd::new().unwrap();
        assert_eq!(wait_readable(&[event.as_raw_fd()], Some(0)), 0);
        event.signal();
        event.signal();
        assert_eq!(wait_readable(&[-1, event.as_raw_fd()], Some(0)), 0b10);
        event.clear();
        assert_eq!(wait_readable(&[event.as_raw_fd()], Some(1_000_000)), 0);
    }

    #[test]
    fn a_duplicate_outlives_the_original() {
        let event = EventFd::new().unwrap();
        let copy = duplicate(event.as_raw_fd()).unwrap();
        event.signal();
        drop(event);
        assert_eq!(wait_readable(&[copy.as_raw_fd()], Some(0)), 1);
        assert!(duplicate(-1).is_err());
    }
}
