//! A connected TCP socket that never waits.
//!
//! Source: tcp(7) (TCP_NODELAY, TCP_NOTSENT_LOWAT), sendmsg(2), recv(2), shutdown(2).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::descriptor::duplicate;
use crate::{last_errno, Errno};

const TCP_NOTSENT_LOWAT: libc::c_int = 25;
/// Since Linux 5.15.
const SO_BUF_LOCK: libc::c_int = 72;
/// Most pieces of one send (IOV_MAX).
pub const MAX_PIECES: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct StreamSocket(OwnedFd);

impl StreamSocket {
    /// Use a socket that somebody else has connected, through a descriptor of our own. Small packets leave at once, and
    /// the kernel takes at most `not_sent` bytes beyond what is on its way.
    ///
    /// # Errors
    /// What the kernel says: EBADF, ENOTSOCK, EMFILE; EPROTOTYPE where it is no stream.
    pub fn adopt(descriptor: RawFd, not_sent: u32) -> io::Result<StreamSocket> {
        let socket = StreamSocket(duplicate(descriptor)?);
        if socket.get(libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_STREAM {
            return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
        }
        // SAFETY: fcntl with these commands touches no memory.
        let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: as above.
        if flags < 0 || unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        socket.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        socket.set(libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT, not_sent as libc::c_int)?;
        Ok(socket)
    }

    /// Send pieces, MAX_PIECES at most, one behind the other; how many bytes of them were taken.
    ///
    /// # Errors
    /// EAGAIN: there is no room. Else the connection is over.
    pub fn send(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        // SAFETY: all zeros is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_ptr().cast::<libc::iovec>().cast_mut();
        message.msg_iovlen = pieces.len().min(MAX_PIECES) as _;
        // SAFETY: IoSlice has the layout of iovec; the kernel reads that many entries and what they name, all of which
        // outlive the call, and writes to none.
        let sent = unsafe { libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| last_errno())
    }

    /// Read once; how many bytes. 0: the far end has closed.
    ///
    /// # Errors
    /// EAGAIN: nothing waits. Else the connection is over.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
        let count = unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(count).map_err(|_| last_errno())
    }

    /// Undo small buffers: at least `receive` bytes, and from there on what the kernel finds right. Where it does not
    /// (before Linux 5.15), that size remains.
    pub fn grow(&self, receive: u32) {
        let octets = receive as libc::c_int;
        let _ = self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, octets);
        let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, octets);
        let _ = self.set(libc::SOL_SOCKET, SO_BUF_LOCK, 0);
    }

    /// Say that nothing more is sent.
    pub fn finish(&self) {
        // SAFETY: no memory is passed.
        unsafe { libc::shutdown(self.as_raw_fd(), libc::SHUT_WR) };
    }

    /// End both directions: whoever waits for it wakes up.
    pub fn break_off(&self) {
        // SAFETY: no memory is passed.
        unsafe { libc::shutdown(self.as_raw_fd(), libc::SHUT_RDWR) };
    }

    fn get(&self, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let at = std::ptr::from_mut(&mut value).cast();
        // SAFETY: the kernel writes at most `length` bytes, which `value` has.
        if unsafe { libc::getsockopt(self.as_raw_fd(), level, name, at, &raw mut length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(value)
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let at = std::ptr::from_ref(&value).cast();
        // SAFETY: `value` is `length` readable bytes for the length of the call.
        if unsafe { libc::setsockopt(self.as_raw_fd(), level, name, at, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for StreamSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn pair() -> (StreamSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (StreamSocket::adopt(near.as_raw_fd(), 128 * 1024).unwrap(), listener.accept().unwrap().0)
    }

    #[test]
    fn pieces_arrive_in_order_and_the_end_is_seen() {
        use std::io::{Read, Write};
        let (near, mut far) = pair();
        assert_eq!(near.send(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")]), Ok(5));
        let mut found = [0; 5];
        far.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"abcde");
        assert_eq!(near.receive(&mut found), Err(libc::EAGAIN));
        far.write_all(b"xy").unwrap();
        drop(far);
        let mut all: Vec<u8> = Vec::new();
        for _ in 0..1000 {
            match near.receive(&mut found) {
                Ok(0) => break,
                Ok(count) => all.extend(&found[..count]),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        assert_eq!(all, b"xy");
    }

    #[test]
    fn what_takes_nothing_says_so_and_is_no_signal() {
        let (near, far) = pair();
        let much = vec![0; 1 << 20];
        let mut sent = 0;
        loop {
            match near.send(&[IoSlice::new(&much)]) {
                Ok(count) => sent += count,
                Err(number) => {
                    assert_eq!(number, libc::EAGAIN);
                    break;
                }
            }
        }
        assert!(sent > 0);
        near.break_off();
        assert_eq!(near.send(&[IoSlice::new(b"x")]), Err(libc::EPIPE));
        drop(far);
    }

    #[test]
    fn other_sockets_are_refused() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(StreamSocket::adopt(udp.as_raw_fd(), 1).is_err());
        assert!(StreamSocket::adopt(-1, 1).is_err());
    }
}
