//! Ethernet bridging over OpenVPN's wire format: everything that needs no I/O, no clock and no threads.
//!
//! Source: `docs/protocol/data.md`; `bridged/dataplane/portable` is the same in Python, to be read first.
//! Pure: bytes and times in, bytes and values out. Times are monotonic nanoseconds ([`Nanos`]) of any origin;
//! sizes are bytes. Nothing here allocates after it was made, unless its documentation says so.
//! Nothing here panics on any bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod allowance;
pub mod checksum;
pub mod coalesce;
pub mod fdb;
pub mod fragment;
pub mod framing;
mod hashing;
pub mod headers;
pub mod ipv4_cut;
pub mod layout;
pub mod limits;
pub mod local_cache;
pub mod moderation;
pub mod mss;
pub mod packet;
pub mod policer;
pub mod priority;
pub mod replay;
pub mod resets;
pub mod segment;
pub mod station;
pub mod stats;
pub mod too_big;
pub mod vnet;

/// Monotonic time in nanoseconds; only differences mean something.
pub type Nanos = u64;

/// One second in [`Nanos`].
pub const SECOND: Nanos = 1_000_000_000;
