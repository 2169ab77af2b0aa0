//! Whether a frame may pass, and where it goes: one stage for each direction, asked once for each frame.
//!
//! Guards and limits are here and nowhere else. A verdict may be remembered with the key that it depends on.

pub mod from_lan;
pub mod from_peer;
pub mod link_layer;
