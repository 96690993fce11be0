//! Digests that are computed together, against those of the crate `sha2`.

use volio::oci::{Digest, PairedSha256};

/// Hashes three messages, in slices of any sizes: alone, the first two together, and all three together. The first byte is
/// the number of slices; the sizes follow, and then the messages.
pub fn sha256(bytes: &[u8]) {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let (sizes, messages) = bytes.split_at(bytes.len().min(3 * usize::from(*count)));
    let (sizes, _) = sizes.as_chunks::<3>();
    // The messages have about as many bytes as 6, 3 and 2, so that either the long one or the others end first.
    let (long, rest) = messages.split_at(messages.len() / 11 * 6);
    let (middle, short) = rest.split_at(rest.len() / 5 * 3);
    let messages = [long, middle, short];
    let expected = messages.map(Digest::of);

    let mut digests: [[PairedSha256; 3]; 3] = Default::default();
    let [alone, two, three] = &mut digests;
    let mut left = messages;
    for sizes in sizes.iter().map(|sizes| sizes.map(usize::from)).chain([[usize::MAX; 3]]) {
        let mut parts = [&[][..]; 3];
        for ((part, left), size) in parts.iter_mut().zip(&mut left).zip(sizes) {
            // Sizes of one byte are multiplied, so that they are more than a few blocks.
            (*part, *left) = left.split_at(size.saturating_mul(5).min(left.len()));
        }
        alone.iter_mut().zip(parts).for_each(|(digest, part)| digest.update(part));
        let [one, other, third] = two;
        PairedSha256::update_two(one, parts[0], other, parts[1]);
        third.update(parts[2]);
        let [one, other, third] = three;
        PairedSha256::update_three([(one, parts[0]), (other, parts[1]), (third, parts[2])]);
    }
    for digests in digests {
        assert_eq!(digests.map(|digest| Digest::Sha256(digest.finish())), expected);
    }
}
