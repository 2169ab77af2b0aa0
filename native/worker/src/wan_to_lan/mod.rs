//! Packets from the peers to the LAN: receive, open, find the destination, join, write the TAP.
//!
//! In the order in which a packet passes: `receiver`, `opener`, `deliver`, `tap_writer`. `strangers` answers what
//! belongs to no peer.

pub mod deliver;
pub mod joiner;
pub mod opener;
pub mod receiver;
pub mod scene;
pub mod strangers;
pub mod tap_writer;
