//! What both directions look up: peers and their endpoints, keys, stations and the switch.

mod ciphers;
pub mod early_packets;
pub mod endpoints;
pub mod keys;
pub mod packet_ids;
pub mod peer_table;
pub mod peers;
pub mod released;
pub mod stations;
pub mod switch;
