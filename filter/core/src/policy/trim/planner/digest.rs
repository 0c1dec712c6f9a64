//! Digests of the fronts of a request: by them a later request is known as its continuation.

/// Digests of the first 0, 1, 2, … items of a list.
pub(super) fn chain(items: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut digests = vec![0];
    let mut so_far = 0;
    for item in items {
        so_far = mixed(so_far ^ mixed(item));
        digests.push(so_far);
    }
    digests
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014), one step on, so that zero moves too.
fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
