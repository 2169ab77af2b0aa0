//! Peers over UDP: sockets, paths and their MTU, pinned sources, batches of datagrams in both directions.

pub mod batch_sender;
pub mod path;
pub mod pinned_sources;
pub mod receiver;
pub mod send_failure;
pub mod sockets;
