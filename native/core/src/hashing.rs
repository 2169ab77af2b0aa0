//! A hash for tables whose keys strangers choose: quick, and keyed with a secret so that collisions cannot be prepared.
//!
//! Folded multiplication (as wyhash and foldhash have it) with two secret numbers.

use std::hash::{BuildHasher, Hasher};

/// Mix one number with two secrets; all bits of the result depend on all bits of `value`.
#[inline]
pub(crate) fn mix(value: u64, seed: Seed) -> u64 {
    folded(value ^ seed.0, seed.1)
}

#[inline]
fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The secrets, made of 64 random bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(u64, u64);

impl Seed {
    pub(crate) fn new(random: u64) -> Self {
        let first = folded(random ^ 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93);
        let second = folded(first ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB);
        // An even multiplier would lose bits.
        Self(first, second | 1)
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { state: self.0, multiplier: self.1 }
    }
}

/// The state of one hash.
#[derive(Debug)]
pub(crate) struct Mixer {
    state: u64,
    multiplier: u64,
}

impl Hasher for Mixer {
    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.state = folded(self.state ^ value, self.multiplier);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write(&mut self, octets: &[u8]) {
        for part in octets.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_values_fall_into_different_places() {
        let seed = Seed::new(42);
        let mut seen = vec![0u32; 1024];
        for value in 0..4096u64 {
            seen[(mix(value, seed) & 1023) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count < 20), "{:?}", seen.iter().max());
    }

    #[test]
    fn the_seed_decides() {
        let same = (0..1000u64).filter(|&v| mix(v, Seed::new(1)) & 63 == mix(v, Seed::new(2)) & 63).count();
        assert!(same < 60, "{same}");
    }
}
