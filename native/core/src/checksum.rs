//! The Internet checksum, at the speed of memory, in safe Rust.
//!
//! Source: RFC 1071. A one's complement sum of 16-bit words is a number modulo 65535 and does not depend on byte
//! order but for a final swap, so bytes are added as little-endian numbers of 32 bits, many lanes at a time.
//! A partial sum ([`Sum`]) may be added to others as long as each part begins at an even offset.

/// A partial sum, modulo 65535, of little-endian words.
///
/// One of `n` bytes is below `n << 31`, so sums of everything that fits memory can be added without overflow.
pub type Sum = u64;

/// Bytes added in one step of the main loop: enough for compilers to use vector instructions, and no more, since
/// what remains goes more slowly.
const STEP: usize = 32;
const LANES: usize = STEP / 8;

/// Sum of `data`; an odd last byte is padded with zero. `data` must begin at an even offset of what is summed.
#[must_use]
#[inline]
pub fn sum(data: &[u8]) -> Sum {
    let steps = data.chunks_exact(STEP);
    let rest = steps.remainder();
    let mut lanes = [0; LANES];
    for step in steps {
        add_step(&mut lanes, step);
    }
    lanes.iter().sum::<u64>() + sum_short(rest)
}

/// Copy `source` to the beginning of `target` and return its [`sum`].
///
/// Copies no more than `target` holds (callers have checked that it holds all).
#[must_use]
#[inline]
pub fn copy_and_sum(source: &[u8], target: &mut [u8]) -> Sum {
    let length = source.len().min(target.len());
    let steps = source[..length].chunks_exact(STEP);
    let rest = steps.remainder();
    let mut rooms = target[..length].chunks_exact_mut(STEP);
    let mut lanes = [0; LANES];
    for (step, room) in steps.zip(&mut rooms) {
        room.copy_from_slice(step);
        add_step(&mut lanes, step);
    }
    rooms.into_remainder().copy_from_slice(rest);
    lanes.iter().sum::<u64>() + sum_short(rest)
}

#[inline(always)]
fn add_step(lanes: &mut [u64; LANES], step: &[u8]) {
    for (lane, octets) in lanes.iter_mut().zip(step.chunks_exact(8)) {
        *lane += halves(octets);
    }
}

/// Sum of fewer bytes than a step has (right for any number).
#[inline]
fn sum_short(data: &[u8]) -> Sum {
    let words = data.chunks_exact(8);
    let rest = words.remainder();
    words.map(halves).sum::<u64>() + halves(rest)
}

/// The two halves of a little-endian number of up to 8 bytes, added.
#[inline(always)]
fn halves(octets: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..octets.len()].copy_from_slice(octets);
    let word = u64::from_le_bytes(word);
    (word & 0xFFFF_FFFF) + (word >> 32)
}

/// Sum of one big-endian 16-bit number.
#[must_use]
#[inline]
pub fn word(value: u16) -> Sum {
    u64::from(value.swap_bytes())
}

/// What, added to a sum, takes `value` (a big-endian 16-bit number) out of it again.
#[must_use]
#[inline]
pub fn minus_word(value: u16) -> Sum {
    u64::from(!value.swap_bytes())
}

/// The sum as one 16-bit word, native to the field: write it with [`u16::to_le_bytes`]. Never 0 for a sum above 0.
#[must_use]
#[inline]
pub fn fold(total: Sum) -> u16 {
    let total = (total >> 32) + (total & 0xFFFF_FFFF);
    let total = (total >> 16) + (total & 0xFFFF);
    let total = (total >> 16) + (total & 0xFFFF);
    ((total >> 16) + (total & 0xFFFF)) as u16
}

/// The bytes of a checksum field for a sum taken without that field; 0 (not FFFF) where the sum is a zero.
#[must_use]
#[inline]
pub fn field(total: Sum) -> [u8; 2] {
    match fold(total) {
        0 => [0, 0],
        folded => (!folded).to_le_bytes(),
    }
}

/// As [`field`], for UDP, where 0 means "no checksum" and FFFF stands for it.
#[must_use]
#[inline]
pub fn udp_field(total: Sum) -> [u8; 2] {
    match field(total) {
        [0, 0] => [0xFF, 0xFF],
        octets => octets,
    }
}

/// The bytes of a sum that is not complemented, as `NEEDS_CSUM` wants them in the field; never 0.
#[must_use]
#[inline]
pub fn partial_field(total: Sum) -> [u8; 2] {
    match fold(total) {
        0 => [0xFF, 0xFF],
        folded => folded.to_le_bytes(),
    }
}

/// Whether words that include their checksum field sum up to it.
#[must_use]
#[inline]
pub fn is_valid(total: Sum) -> bool {
    matches!(fold(total), 0 | 0xFFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(data: &[u8]) -> u64 {
        data.chunks(2).map(|pair| u64::from(pair[0]) | pair.get(1).map_or(0, |&high| u64::from(high) << 8)).sum::<u64>()
            % 65535
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let total = sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(fold(total).to_le_bytes(), [0xdd, 0xf2]);
        assert_eq!(field(total), [0x22, 0x0d]);
    }

    #[test]
    fn a_sum_of_all_ones_does_not_overflow() {
        let data = vec![0xff; 1 << 20];
        assert_eq!(fold(sum(&data)), 0xFFFF);
        assert_eq!(field(sum(&data)), [0, 0]);
        assert_eq!(udp_field(sum(&data)), [0xFF, 0xFF]);
        assert!(is_valid(sum(&data)));
        assert_eq!(fold(u64::MAX), 0xFFFF);
    }

    proptest! {
        #[test]
        fn sum_is_that_of_the_words(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(u64::from(fold(sum(&data))) % 65535, slow(&data));
        }

        #[test]
        fn a_copy_is_whole_and_summed(data in proptest::collection::vec(any::<u8>(), 0..400), more in 0usize..70) {
            let mut target = vec![0x5a; data.len() + more];
            let total = copy_and_sum(&data, &mut target);
            prop_assert_eq!(total, sum(&data));
            prop_assert_eq!(&target[..data.len()], &data[..]);
            prop_assert!(target[data.len()..].iter().all(|&octet| octet == 0x5a));
        }

        #[test]
        fn parts_that_begin_at_even_offsets_add_up(data in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..150) {
            let at = (at * 2).min(data.len() & !1);
            prop_assert_eq!(slow(&data), (sum(&data[..at]) + sum(&data[at..])) % 65535);
        }

        #[test]
        fn a_word_can_be_taken_out(value: u16, rest: u32) {
            let total = u64::from(rest) + word(value) + minus_word(value);
            prop_assert_eq!(total % 65535, u64::from(rest) % 65535);
        }
    }
}
