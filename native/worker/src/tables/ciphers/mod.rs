//! The ciphers of data keys. Each seals and opens one packet in place; `keys.rs` has packet ids, replay and limits.

pub mod aead;
pub mod cbc;

/// An authentic packet: its id, and where its payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    pub id: u32,
    pub at: usize,
    pub length: usize,
}

/// Opens packets with one header length.
pub trait Opener {
    /// Bytes of the longest packet without a payload.
    fn least(&self, header: usize) -> usize;

    /// Open the packet of `length` bytes at the start of `packet`, which has [`super::keys::SPARE_OCTETS`] more, and
    /// begins with a header of so many bytes. None: it is not authentic.
    fn open_one(&self, packet: &mut [u8], header: usize, length: usize) -> Option<Text>;
}
