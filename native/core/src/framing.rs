//! Compression framing: what stands around a payload that is never compressed.
//!
//! Source: `docs/protocol/data.md#4-2`.

use crate::fragment::FRAGMENT_HEADER;

/// In front of a payload that LZO framing left as it is.
const LZO_PLAIN: u8 = 0xfa;
/// In place of the first byte of a payload, which stands at its end then.
const SWAPPED: u8 = 0xfb;
/// First byte of the second version's framing. Payloads that begin with anything else have none.
const V2_MARK: u8 = 0x50;
/// Behind it: the payload is plain. OpenVPN means the same by `V2_PLAIN_OPENVPN`.
const V2_PLAIN: u8 = 0;
const V2_PLAIN_OPENVPN: u8 = 0x0a;
/// First bytes of compressed payloads: LZO and LZ4; and LZ4, LZO and Snappy behind `V2_MARK`.
const LZO_PACKED: u8 = 0x66;
const LZ4_PACKED: u8 = 0x69;
const V2_LZ4_PACKED: u8 = 1;
const V2_SNAPPY_PACKED: u8 = 3;

/// The most bytes that [`Framing::front`] says.
pub const FRONT_MOST: usize = 1;
/// The most bytes that framing adds to a payload.
pub const ADDED_MOST: usize = 2;
/// Bytes in front of a payload that [`Framing::lend`] uses.
const LENT_FRONT: usize = FRAGMENT_HEADER + ADDED_MOST;

/// The kinds of framing, by the directives of OpenVPN that bring them about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// None at all.
    #[default]
    None,
    /// `comp-lzo`: a byte in front.
    CompLzo,
    /// `compress`: another first byte, and the first one at the end.
    Stub,
    /// `compress stub-v2`: two bytes in front of the few payloads that begin with a certain byte.
    StubV2,
}

/// Why a payload has no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unframed {
    /// The peer compresses.
    Compressed,
    /// It is framed in another way, or not at all.
    Mismatch,
}

impl Framing {
    /// By its name in the contract.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "comp-lzo" => Some(Self::CompLzo),
            "stub" => Some(Self::Stub),
            "stub-v2" => Some(Self::StubV2),
            _ => None,
        }
    }

    /// Bytes in front of every payload.
    #[must_use]
    #[inline]
    pub const fn front(self) -> usize {
        match self {
            Self::CompLzo => FRONT_MOST,
            Self::None | Self::Stub | Self::StubV2 => 0,
        }
    }

    /// The most bytes that it adds to a payload.
    #[must_use]
    #[inline]
    pub const fn most(self) -> usize {
        match self {
            Self::None => 0,
            Self::CompLzo | Self::Stub => 1,
            Self::StubV2 => ADDED_MOST,
        }
    }

    /// Bytes that it adds to this payload.
    #[must_use]
    #[inline]
    pub fn added(self, payload: &[u8]) -> usize {
        match self {
            Self::None => 0,
            Self::CompLzo | Self::Stub => 1,
            Self::StubV2 if payload.first() == Some(&V2_MARK) => ADDED_MOST,
            Self::StubV2 => 0,
        }
    }

    /// Frame the payload of `length` bytes that stands behind `front()` bytes of `room`; how many bytes that added. The
    /// framed payload begins where `room` does. Without room for it nothing is done.
    #[inline]
    pub fn wrap(self, room: &mut [u8], length: usize) -> usize {
        match self {
            Self::None => 0,
            Self::CompLzo => match room.first_mut() {
                Some(first) => {
                    *first = LZO_PLAIN;
                    1
                }
                None => 0,
            },
            Self::Stub => match room.get_mut(..=length) {
                Some([first, .., last]) => {
                    *last = std::mem::replace(first, SWAPPED);
                    1
                }
                _ => 0,
            },
            Self::StubV2 => {
                if room.first() != Some(&V2_MARK) || room.len() < length + ADDED_MOST {
                    return 0;
                }
                room.copy_within(..length, ADDED_MOST);
                room[..ADDED_MOST].copy_from_slice(&[V2_MARK, V2_PLAIN]);
                ADDED_MOST
            }
        }
    }

    /// Lend the framed form of the payload at `start` of `octets`, behind `header` zeros (4 at most), without a copy of
    /// it: six bytes in front of it and one behind are used meanwhile, and put back. None: they are not there.
    #[inline]
    pub fn lend<R>(
        self,
        octets: &mut [u8],
        start: usize,
        length: usize,
        header: usize,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        if self == Self::None && header == 0 {
            return octets.get(start..start + length).map(take);
        }
        let begin = start.checked_sub(LENT_FRONT)?;
        let around = octets.get_mut(begin..=start + length)?;
        let front: [u8; LENT_FRONT] = *around.first_chunk()?;
        let (first, end) = (*around.get(LENT_FRONT)?, LENT_FRONT + length);
        let behind = around[end];
        let (from, to) = match self {
            Self::CompLzo => {
                around[LENT_FRONT - 1] = LZO_PLAIN;
                (LENT_FRONT - 1, end)
            }
            Self::Stub => {
                around[LENT_FRONT] = SWAPPED;
                around[end] = first;
                (LENT_FRONT, end + 1)
            }
            Self::StubV2 if first == V2_MARK => {
                around[FRAGMENT_HEADER..LENT_FRONT].copy_from_slice(&[V2_MARK, V2_PLAIN]);
                (FRAGMENT_HEADER, end)
            }
            Self::None | Self::StubV2 => (LENT_FRONT, end),
        };
        let from = from - header.min(FRAGMENT_HEADER);
        around[from..from + header.min(FRAGMENT_HEADER)].fill(0);
        let result = take(&around[from..to]);
        around[..LENT_FRONT].copy_from_slice(&front);
        (around[LENT_FRONT], around[end]) = (first, behind);
        Some(result)
    }

    /// Take the framing off a payload, in place; how many bytes to skip at its start, and how many remain.
    ///
    /// # Errors
    /// See [`Unframed`].
    #[inline]
    pub fn unwrap(self, payload: &mut [u8]) -> Result<(usize, usize), Unframed> {
        let length = payload.len();
        match (self, payload) {
            (Self::None, _) => Ok((0, length)),
            (Self::CompLzo, [LZO_PLAIN, ..]) => Ok((1, length - 1)),
            (Self::Stub, [first @ SWAPPED, .., last]) => {
                *first = *last;
                Ok((0, length - 1))
            }
            (Self::CompLzo | Self::Stub, [LZO_PACKED | LZ4_PACKED, ..])
            | (Self::StubV2, [V2_MARK, V2_LZ4_PACKED..=V2_SNAPPY_PACKED, ..]) => Err(Unframed::Compressed),
            (Self::StubV2, [V2_MARK, V2_PLAIN | V2_PLAIN_OPENVPN, ..]) => Ok((ADDED_MOST, length - ADDED_MOST)),
            (Self::CompLzo | Self::Stub, _) => Err(Unframed::Mismatch),
            // Also of a server with `compress migrate`, which pushes this framing and frames nothing itself.
            (Self::StubV2, _) => Ok((0, length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Framing; 4] = [Framing::None, Framing::CompLzo, Framing::Stub, Framing::StubV2];

    fn framed(framing: Framing, payload: &[u8]) -> Vec<u8> {
        let mut room = vec![0; framing.front()];
        room.extend_from_slice(payload);
        room.extend([0; ADDED_MOST]);
        let added = framing.wrap(&mut room, payload.len());
        assert_eq!(added, framing.added(payload));
        assert!(added <= framing.most() && framing.front() <= FRONT_MOST);
        room.truncate(payload.len() + added);
        room
    }

    #[test]
    fn what_is_framed_is_what_openvpn_sends_and_comes_back() {
        let known: [(Framing, &[u8], &[u8]); 6] = [
            (Framing::None, b"abc", b"abc"),
            (Framing::CompLzo, b"abc", b"\xfaabc"),
            (Framing::Stub, b"abc", b"\xfbbca"),
            (Framing::Stub, b"a", b"\xfba"),
            (Framing::StubV2, b"abc", b"abc"),
            (Framing::StubV2, b"Pbc", b"P\0Pbc"),
        ];
        for (framing, payload, wanted) in known {
            let mut found = framed(framing, payload);
            assert_eq!(found, wanted);
            let (skip, length) = framing.unwrap(&mut found).unwrap();
            assert_eq!(&found[skip..skip + length], payload);
        }
        assert_eq!(Framing::StubV2.unwrap(&mut b"P\x0aPbc".to_vec()), Ok((2, 3)));
        assert_eq!(Framing::StubV2.unwrap(&mut b"P\x04Pbc".to_vec()), Ok((0, 5)));
    }

    #[test]
    fn lending_changes_nothing_and_shows_what_wrapping_writes() {
        for framing in ALL {
            for payload in [&b"abcdef"[..], b"Pbcdef", b"a"] {
                let mut octets = [&b"xyz0123"[..], payload, b"uvw"].concat();
                let before = octets.clone();
                for header in [0, FRAGMENT_HEADER] {
                    let lent = framing.lend(&mut octets, 7, payload.len(), header, <[u8]>::to_vec);
                    assert_eq!(lent, Some([&vec![0; header], &framed(framing, payload)[..]].concat()));
                    assert_eq!(octets, before);
                }
            }
            let header = if framing == Framing::None { FRAGMENT_HEADER } else { 0 };
            assert_eq!(framing.lend(&mut [1; 16], 5, 4, header, <[u8]>::len), None);
            assert_eq!(framing.lend(&mut [1; 16], 8, 8, header, <[u8]>::len), None);
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_told_apart() {
        use Unframed::{Compressed, Mismatch};
        let known: [(Framing, &[u8], Unframed); 8] = [
            (Framing::CompLzo, b"\x66abc", Compressed),
            (Framing::CompLzo, b"\xfbabc", Mismatch),
            (Framing::CompLzo, b"", Mismatch),
            (Framing::Stub, b"\x69abc", Compressed),
            (Framing::Stub, b"\x66abc", Compressed),
            (Framing::Stub, b"\xfb", Mismatch),
            (Framing::StubV2, b"P\x01abc", Compressed),
            (Framing::StubV2, b"P\x03abc", Compressed),
        ];
        for (framing, payload, wanted) in known {
            assert_eq!(framing.unwrap(&mut payload.to_vec()), Err(wanted), "{framing:?} {payload:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        assert_eq!(["none", "comp-lzo", "stub", "stub-v2"].map(|name| Framing::parse(name).unwrap()), ALL);
        assert_eq!(Framing::parse("lzo"), None);
    }
}
