//! What an errno of the socket means.

use bridged_sys::{
    Errno, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINVAL, EMSGSIZE, ENETDOWN, ENETUNREACH,
    ENOBUFS, ENODEV, ENOMEM, EPERM,
};

use crate::control::counters::Reason;

/// Why a datagram was lost.
pub fn drop_reason(number: Errno) -> Reason {
    match number {
        EAGAIN | ENOBUFS | ENOMEM => Reason::UdpSendFull,
        EMSGSIZE => Reason::Emsgsize,
        ENETUNREACH | EHOSTUNREACH | ENETDOWN | EADDRNOTAVAIL | EAFNOSUPPORT | ENODEV => Reason::Unreachable,
        ECONNREFUSED | EPERM => Reason::Refused,
        _ => Reason::IoError,
    }
}

/// The pinned source may be the cause: its address went away with its link or lease.
pub fn may_be_pinned_source(number: Errno) -> bool {
    matches!(number, EINVAL | EADDRNOTAVAIL | ENETUNREACH)
}

/// The kernel's words without their number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
