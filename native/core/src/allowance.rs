//! A token bucket: a burst at once, then a rate for each second.

use crate::{Nanos, SECOND};

/// See the module. Full at first.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// In units of 1/SECOND tokens.
    tokens: u64,
    full: u64,
    per_second: u64,
    at: Nanos,
}

impl Allowance {
    /// `burst` tokens at most, `per_second` more each second.
    #[must_use]
    pub fn new(burst: u32, per_second: u32) -> Self {
        let full = u64::from(burst) * SECOND;
        Self { tokens: full, full, per_second: u64::from(per_second), at: 0 }
    }

    /// Take a token; false where there is none. A clock that steps back gives nothing.
    pub fn take(&mut self, now: Nanos) -> bool {
        let gained = now.saturating_sub(self.at).saturating_mul(self.per_second);
        self.tokens = self.tokens.saturating_add(gained).min(self.full);
        self.at = now;
        let has_one = self.tokens >= SECOND;
        if has_one {
            self.tokens -= SECOND;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut allowance = Allowance::new(3, 2);
        let passed = |allowance: &mut Allowance, now| (0..10).filter(|_| allowance.take(now)).count();
        assert_eq!(passed(&mut allowance, SECOND), 3);
        assert_eq!(passed(&mut allowance, SECOND + SECOND / 2 - 1), 0);
        assert_eq!(passed(&mut allowance, 2 * SECOND), 1 + 1);
        assert_eq!(passed(&mut allowance, u64::MAX), 3);
        assert_eq!(passed(&mut allowance, 0), 0);
    }
}
