//! Tables of contents, and the annotations with their positions.

use volio::layer::{Budget, Item, Limits, PlainFrame, Toc, TocReader};
use volio::oci::{Descriptor, Digest, media_type};

/// Reads the bytes as a table of contents, compressed or not, and as an annotation.
pub fn toc(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Toc::of(&layer(text, u64::MAX));
        let _ = Toc::of(&layer(text, 1000));
    }
    if let Ok(frame) = PlainFrame::new(0..bytes.len() as u64, bytes) {
        assert!(frame.is_at(&(0..bytes.len() as u64)));
    }
    read(bytes, bytes.len());
    read(&framed(bytes), bytes.len());
}

fn layer(position: &str, size: u64) -> Descriptor {
    let digest = Digest::of(position.as_bytes());
    let mut layer = Descriptor::new(media_type::LAYER_ZSTD, digest.clone(), size);
    layer.annotations.insert("io.volio.toc.digest".to_owned(), digest.to_string());
    layer.annotations.insert("io.volio.toc.position".to_owned(), position.to_owned());
    layer
}

/// Returns a zstd frame of uncompressed blocks, so that a change of the content is still a valid frame.
fn framed(plain: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    let blocks: Vec<&[u8]> = if plain.is_empty() { vec![plain] } else { plain.chunks(65_536).collect() };
    for (number, block) in blocks.iter().enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(number + 1 == blocks.len());
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

fn read(bytes: &[u8], plain_size: usize) {
    // The layer is large enough for any frame in the table of contents.
    let offset = 1 << 30;
    let position = format!("{offset}:{}:{plain_size}", bytes.len());
    let Ok(Some(toc)) = Toc::of(&layer(&position, offset + bytes.len() as u64 + 48)) else { return };
    let limits = Limits { max_entries: 10_000, max_names: 10_000_000, ..Limits::default() };
    let Ok(mut entries) = TocReader::within(&toc, bytes, Budget::new(limits)) else { return };
    while let Ok(Some(found)) = entries.next_entry() {
        if let Item::Entry(entry) = &found.item {
            assert_eq!(entry.impossible(), None);
        }
        let mut end = 0;
        while let Ok(Some(chunk)) = entries.next_chunk() {
            assert_eq!(chunk.offset, end, "a gap in a file");
            assert!(chunk.zeros || chunk.frame.start < chunk.frame.end && chunk.frame.end <= offset);
            end += chunk.size;
            let _ = chunk.verify_zeros();
            if let Ok(frame) = PlainFrame::new(chunk.frame.clone(), bytes) {
                let _ = frame.chunk(&chunk);
            }
        }
    }
}
