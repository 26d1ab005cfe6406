//! Everything random in a run comes from one seed.

use std::sync::OnceLock;

/// splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True `n` times in 10,000.
    pub(super) fn chance(&mut self, n: u64) -> bool {
        n > 0 && self.below(10_000) < n
    }
}

pub(super) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Content that depends on `seed` in each 32 KiB; copied from a pool, as tests are not optimized.
pub(super) fn content(seed: u64, len: usize) -> Vec<u8> {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let mut random = Random(1);
        (0..40_000).flat_map(|_| random.next().to_le_bytes()).collect()
    });
    let mut random = Random(seed);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let n = (len - out.len()).min(32_768);
        let at = random.below((pool.len() - n) as u64) as usize;
        out.extend_from_slice(&pool[at..at + n]);
    }
    out
}
