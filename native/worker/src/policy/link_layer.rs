//! The link layer of a tunnel, chosen here: every tunnel is a switch today.

use crate::tables::switch::Switch;

/// What finds the destination of a frame, as one thread sees it.
pub type LinkLayer = Switch;

/// The link layer of one thread; `seed` is random.
pub fn link_layer(seed: u64) -> LinkLayer {
    Switch::new(seed)
}
