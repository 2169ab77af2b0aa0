//! Every system call of the native data plane, as safe functions, and every `unsafe` block.
//!
//! Source: the Linux manual pages named in each module. No policy: what to do about an error is the caller's
//! business; errors are errno values ([`Errno`]) where they are met for each packet, `io::Error` elsewhere.
//! Nothing here allocates after it was made.
#![deny(missing_docs)]

pub mod address;
pub mod descriptor;
pub mod epoll;
pub mod memory;
pub mod receive;
pub mod send;
pub mod steer;
pub mod stream;
pub mod tap;
pub mod thread;
pub mod udp;

/// An errno value: what the kernel said, as it said it.
pub type Errno = i32;

pub use libc::{
    EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBADF, EBADFD, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE,
    ENETDOWN, ENETUNREACH, ENOBUFS, ENODEV, ENOMEM, ENOTCONN, ENXIO, EPERM,
};

/// The errno of the system call that failed last on this thread.
pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
