//! What walking and extracting promise, on real directories.

mod roundtrip;

use super::*;
use std::io::Read;
use std::path::Path;

/// What is known about an entry, and its content if it is a file.
type Seen = (Entry, Vec<u8>);

fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(text).unwrap()
}

/// All that a walk over one directory finds.
fn walk(directory: &Path) -> Vec<Seen> {
    walk_with(&[SourceSpec::new(directory)], &WalkOptions::default()).unwrap().0
}

fn walk_with(sources: &[SourceSpec], options: &WalkOptions) -> crate::Result<(Vec<Seen>, Summary)> {
    let mut walk = Walk::new(sources, options)?;
    let mut seen = Vec::new();
    for found in &mut walk {
        let Found { entry, file } = found?;
        assert_eq!(file.is_some(), matches!(entry.kind, Kind::File { .. }), "{}", entry.path);
        let mut content = Vec::new();
        file.map(|mut file| file.read_to_end(&mut content).unwrap());
        seen.push((entry, content));
    }
    Ok((seen, walk.summary()))
}

/// Options for tests: nobody waits for the disk.
fn quick() -> ExtractOptions {
    ExtractOptions { sync: false, ..ExtractOptions::default() }
}

fn extract(seen: &[Seen], target: &Path) -> crate::Result<Extracted> {
    let mut extractor = Extractor::new(target, quick())?;
    for (entry, content) in seen {
        extractor.put(entry, &mut &content[..])?;
    }
    extractor.finish()
}
