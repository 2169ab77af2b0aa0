//! Many descriptors to wait on at once.
//!
//! Source: epoll(7).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Most events of one call.
pub const EVENTS: usize = 64;

/// A set of descriptors, each with a number of the caller's. It can be waited on itself.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// What one descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The caller's number.
    pub token: u64,
    /// There is something to read, or it has failed, or hung up.
    pub reads: bool,
    /// It takes output.
    pub writes: bool,
}

impl Epoll {
    /// An empty one, closed on exec.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Wait for input of a descriptor.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC; EPERM where it cannot be waited on.
    pub fn add(&self, descriptor: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, token, false)
    }

    /// Wait for input, and for room to write or not.
    ///
    /// # Errors
    /// ENOENT: it is not in the set.
    pub fn change(&self, descriptor: RawFd, token: u64, writes: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, token, writes)
    }

    /// Wait for it no more; ignored where it is not in the set.
    pub fn remove(&self, descriptor: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, descriptor, 0, false);
    }

    /// What is ready now, EVENTS at most.
    pub fn ready(&self, found: &mut Vec<Ready>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: the kernel writes at most EVENTS entries, which `events` has.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as libc::c_int, 0) };
        for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
            let bits = event.events;
            let writes = bits & libc::EPOLLOUT as u32 != 0;
            found.push(Ready { token: event.u64, reads: bits & !(libc::EPOLLOUT as u32) != 0, writes });
        }
    }

    fn control(&self, verb: libc::c_int, descriptor: RawFd, token: u64, writes: bool) -> io::Result<()> {
        let out = if writes { libc::EPOLLOUT as u32 } else { 0 };
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32 | out, u64: token };
        // SAFETY: `event` is readable for the length of the call; a bad descriptor is an error.
        let failed = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, descriptor, &raw mut event) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_ready_is_named_by_its_number() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        let ready = || {
            let mut found = Vec::new();
            epoll.ready(&mut found);
            found
        };
        epoll.add(near.as_raw_fd(), 7).unwrap();
        assert_eq!(ready(), []);
        far.write_all(b"x").unwrap();
        assert_eq!(ready(), [Ready { token: 7, reads: true, writes: false }]);
        epoll.change(near.as_raw_fd(), 7, true).unwrap();
        assert_eq!(ready(), [Ready { token: 7, reads: true, writes: true }]);
        epoll.remove(near.as_raw_fd());
        epoll.remove(near.as_raw_fd());
        assert_eq!(ready(), []);
    }
}
