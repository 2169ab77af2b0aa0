//! The ciphers of data keys. Each seals and opens one packet in place; `keys.rs` has packet ids, limits and counts.

pub mod aead;
pub mod cbc;
pub mod epoch;
pub mod epoch_key;

use bridged_core::replay::{ReplayError, ReplayWindow};

/// An authentic packet: its id, the highest id before it, and where its payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub id: u64,
    pub highest: u64,
    pub at: usize,
    pub length: usize,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealed {
    /// Authentic and new.
    Fresh(Text),
    /// Authentic, and seen before or too old.
    Refused(ReplayError),
    /// Authentic, and one of our own.
    Reflected,
    /// Not authentic.
    Forged,
    /// Of an epoch that is over.
    Past,
    /// Of an epoch that is not known yet.
    Unknown,
}

/// Opens packets with one header length.
pub trait Opener {
    /// What it locks while the packets of one batch are opened.
    type Turn<'a>
    where
        Self: 'a;

    /// Begin a batch.
    fn begin(&self) -> Self::Turn<'_>;

    /// Bytes of the longest packet without a payload.
    fn least(&self, header: usize) -> usize;

    /// Open the packet of `length` bytes at the start of `packet`, which has [`super::keys::SPARE_OCTETS`] more, and
    /// begins with a header of so many bytes. Its id is recorded if it is new; formats without windows of their own
    /// use `window`.
    fn open_one(
        &self,
        turn: &mut Self::Turn<'_>,
        window: &mut ReplayWindow,
        packet: &mut [u8],
        header: usize,
        length: usize,
    ) -> Unsealed;
}

/// An authentic packet, if its id is new; records the id.
#[inline]
fn accept(window: &mut ReplayWindow, id: u32, at: usize, length: usize) -> Unsealed {
    let (id, highest) = (u64::from(id), window.highest());
    match window.accept(id) {
        Ok(()) => Unsealed::Fresh(Text { id, highest, at, length }),
        Err(refusal) => Unsealed::Refused(refusal),
    }
}
