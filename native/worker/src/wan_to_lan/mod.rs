//! Packets from the peers to the LAN: read the socket, open, find the destination, join, write the TAP.

pub mod receiver;
pub mod tap_writer;
