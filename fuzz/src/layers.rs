//! Layers: their compression and their archives.

use std::io::{self, Read};
use volio::layer::{Budget, Item, LayerReader, LayerWriter, Limits, decompress};
use volio::tree::{Content, Entry};

/// The number of bytes of a file that are read. A sparse file may be huge.
const MAX_READ: u64 = 1 << 20;

/// Returns an archive with correct checksums, which fuzzing would not find.
pub fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// Reads an archive, as it is and with repaired checksums. Entries that can be read are written and read again.
pub fn archive(bytes: &[u8]) {
    let _ = read(bytes);
    let Ok(entries) = read(&repaired(bytes)) else { return };
    for (entry, content) in entries {
        let mut writer = LayerWriter::new(Vec::new());
        // Some entries can be read and not written: names of extended attributes need not be UTF-8.
        if content.len() as u64 == MAX_READ || writer.append(&entry, content.as_slice(), |_| {}).is_err() {
            continue;
        }
        let (archive, _) = writer.finish().unwrap();
        let again = read(&archive).unwrap();
        assert_eq!(again, vec![(entry, content)]);
    }
}

fn read(bytes: &[u8]) -> volio::Result<Vec<(Entry, Vec<u8>)>> {
    let limits = Limits { max_entries: 10_000, max_names: 10_000_000, ..Limits::default() };
    let mut layer = LayerReader::within(bytes, Budget::new(limits));
    let mut entries = Vec::new();
    while let Some(item) = layer.next_item()? {
        let mut content = Vec::new();
        let mut reader = layer.content();
        reader
            .by_ref()
            .take(MAX_READ)
            .read_to_end(&mut content)
            .map_err(|e| volio::Error::io("cannot read", e))?;
        let _ = reader.skip_hole();
        drop(reader);
        if let Item::Entry(entry) = item {
            assert_eq!(entry.impossible(), None);
            entries.push((entry, content));
        }
    }
    Ok(entries)
}

/// Decompresses a blob, by the compression that its first bytes indicate.
pub fn compressed(bytes: &[u8]) {
    if let Ok(mut plain) = decompress(bytes) {
        let _ = io::copy(&mut plain.by_ref().take(16 << 20), &mut io::sink());
    }
    let _ = decompress(bytes).map(|plain| {
        let mut layer = LayerReader::new(plain.take(16 << 20));
        while let Ok(Some(_)) = layer.next_item() {}
    });
}
