//! Buffers whose pages are all allocated at the start.
//!
//! Source: calloc(3), getrusage(2) (minor page faults).

use std::hint::black_box;

/// The smallest page of the processors we know.
const PAGE_OCTETS: usize = 4096;

/// Zeroes, with every page given by the kernel already: else a rare burst takes a few more for good, and memory seems
/// to leak for hours; and the first burst waits for them.
pub fn resident(octets: usize) -> Box<[u8]> {
    let mut buffer = vec![0; octets].into_boxed_slice();
    take_pages(&mut buffer);
    buffer
}

/// Have the kernel give all pages that these zeroes lie in.
pub fn take_pages(zeroes: &mut [u8]) {
    let last = zeroes.len().saturating_sub(1);
    for at in (0..zeroes.len()).step_by(PAGE_OCTETS).chain([last]) {
        if let Some(octet) = zeroes.get_mut(at) {
            // The compiler may not see that it was zero before.
            *black_box(octet) = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_faults() -> libc::c_long {
        // SAFETY: rusage is plain data, and the kernel writes no more than it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
            usage.ru_minflt
        }
    }

    #[test]
    fn writing_to_it_later_asks_for_no_page() {
        const OCTETS: usize = 8 << 20;
        let pages = (OCTETS / PAGE_OCTETS) as libc::c_long;
        let mut lazy = black_box(vec![0u8; OCTETS]);
        let before = page_faults();
        lazy.fill(1);
        black_box(&lazy);
        assert!(page_faults() - before > 0, "those of the usual kind come when they are written to");
        let mut buffer = black_box(resident(OCTETS));
        assert!(buffer.iter().all(|octet| *octet == 0));
        let before = page_faults();
        buffer.fill(1);
        black_box(&buffer);
        assert!(page_faults() - before < pages / 100);
    }
}
