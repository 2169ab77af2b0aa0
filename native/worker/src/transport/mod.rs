//! The path to a peer: sockets, addresses, path MTU. UDP today.

pub mod endpoint_text;
