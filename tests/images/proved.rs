//! An indexed layer is extracted while it is read. With any damage at any place, nothing reaches the target
//! that its table of contents has not proved, and the end is an integrity error.

use super::damage::holds_only_what_is_in;
use super::{make_tree, pack, unpack};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use volio::error::Kind;
use volio::layer::{Toc, TocReader};
use volio::oci::{Descriptor, Index, Manifest};
use volio::transport::layout::Layout;
use volio::transport::{Source, fetch};

/// A tree and its image in a layout.
struct Image {
    directory: TempDir,
    layer: Descriptor,
    /// The blob of the layer.
    good: Vec<u8>,
}

impl Image {
    fn new(make: impl Fn(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
        fs::create_dir(&tree).unwrap();
        make(&tree);
        pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
        let layout = Layout::open(&layout, Some("v1"), None).unwrap();
        let index = Index::parse(&layout.resolve().unwrap()).unwrap();
        let manifest = Manifest::parse(&fetch(&layout, &index.manifests[0]).unwrap()).unwrap();
        let layer = manifest.layers[0].clone();
        let mut image = Self { directory, layer, good: Vec::new() };
        image.good = fs::read(image.blob()).unwrap();
        image
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    fn blob(&self) -> PathBuf {
        self.directory.path().join("layout/blobs/sha256").join(self.layer.digest.hex())
    }

    /// Returns the ranges of the frames with content, in order.
    fn frames(&self) -> Vec<Range<u64>> {
        let toc = Toc::of(&self.layer).unwrap().unwrap();
        let range = toc.range();
        let bytes = &self.good[range.start as usize..range.end as usize];
        let mut toc = TocReader::new(&toc, bytes).unwrap();
        let mut frames = Vec::new();
        while toc.next_entry().unwrap().is_some() {
            let chunks = std::iter::from_fn(|| toc.next_chunk().unwrap());
            frames.extend(chunks.map(|chunk| chunk.frame));
        }
        frames.dedup();
        frames
    }

    fn plain(&self, frame: &Range<u64>) -> Vec<u8> {
        zstd::decode_all(&self.good[frame.start as usize..frame.end as usize]).unwrap()
    }

    /// Unpacks the image with another layer in its place; what is in the target is of the tree all the same.
    fn refuses(&self, bad: &[u8], why: &str) -> String {
        assert!(bad != self.good, "{why}: nothing is wrong");
        fs::write(self.blob(), bad).unwrap();
        let target = tempfile::tempdir().unwrap();
        let layout = Layout::open(&self.directory.path().join("layout"), Some("v1"), None).unwrap();
        let error = unpack(&layout, target.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{why}: {error}");
        holds_only_what_is_in(&self.tree(), target.path());
        fs::write(self.blob(), &self.good).unwrap();
        error.to_string()
    }

    /// The layer with another content in one of its frames, which is as long as before; `None` when that cannot be.
    fn with(&self, frame: &Range<u64>, plain: &[u8]) -> Option<Vec<u8>> {
        let (before, behind) = (&self.good[..frame.start as usize], &self.good[frame.end as usize..]);
        let bytes = compressed_to(plain, (frame.end - frame.start) as usize)?;
        Some([before, &bytes, behind].concat())
    }
}

/// A frame of just this length, where there is one: made longer by its checksum and by blocks of nothing.
fn compressed_to(plain: &[u8], length: usize) -> Option<Vec<u8>> {
    for (level, has_checksum) in [(3, false), (3, true), (19, false), (19, true)] {
        let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
        compressor.include_checksum(has_checksum).unwrap();
        let frame = compressor.compress(plain).unwrap();
        let Some(missing) = length.checked_sub(frame.len()).filter(|missing| missing % 3 == 0) else {
            continue;
        };
        let has_window = frame[4] & 0x20 == 0;
        let header =
            5 + usize::from(has_window) + [1 - usize::from(has_window), 2, 4, 8][usize::from(frame[4] >> 6)];
        let padded = [&frame[..header], &vec![0; missing], &frame[header..]].concat();
        assert!(zstd::decode_all(padded.as_slice()).unwrap() == plain);
        return Some(padded);
    }
    None
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Several frames: small files, a large one in pieces, and small ones after it.
fn several_frames(tree: &Path) {
    make_tree(tree);
    fs::write(tree.join("noise"), noise(5, 6 << 20)).unwrap();
    fs::write(tree.join("zeros"), vec![0; 5 << 20]).unwrap();
    (0..40).for_each(|n| fs::write(tree.join(format!("z{n}")), noise(n, 700)).unwrap());
}

#[test]
fn a_flipped_bit_anywhere_in_a_layer_is_noticed_before_it_reaches_the_target() {
    let image = Image::new(several_frames);
    let frames = image.frames();
    assert!(frames.len() > 4, "{frames:?}");
    let toc = Toc::of(&image.layer).unwrap().unwrap().range();
    let mut places = vec![0, toc.start - 8, toc.start - 4, toc.start, toc.end - 1, toc.end, toc.end + 9];
    places.push(image.good.len() as u64 - 1);
    for frame in frames {
        // Its magic number, its header, the header of its first block, its middle and its end.
        places.extend([0, 4, 5, 6, 9, 12, 30].map(|at| frame.start + at));
        places.extend([(frame.start + frame.end) / 2, frame.end - 1]);
    }
    for place in places {
        let mut bad = image.good.clone();
        bad[place as usize] ^= 0x10;
        image.refuses(&bad, &format!("the byte at {place}"));
    }
}

#[test]
fn a_layer_that_ends_or_goes_on_where_it_should_not_is_noticed() {
    let image = Image::new(several_frames);
    let frames = image.frames();
    let toc = Toc::of(&image.layer).unwrap().unwrap().range();
    for end in [0, 3, frames[1].start, frames[1].start + 9, frames[2].end - 1, toc.start - 8, toc.end] {
        image.refuses(&image.good[..end as usize], &format!("an end at {end}"));
    }
    let between = frames[1].end as usize;
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
    let more = zstd::bulk::compress(&[0; 512], 3).unwrap();
    for what in [&skippable[..], &more, b"\0", b"noise"] {
        let (before, behind) = image.good.split_at(between);
        image.refuses(&[before, what, behind].concat(), "something between two frames");
        image.refuses(&[&image.good, what].concat(), "something behind the layer");
    }
}

fn set_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Returns the entry of the archive at these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Header,
    Pax,
    Content,
    Padding,
}

/// Says what each block of a group of small files is, and where each class has a byte that can be changed.
fn classes(plain: &[u8]) -> Vec<(What, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 512 <= plain.len() && plain[at] != 0 {
        let field = &plain[at + 124..at + 135];
        let size = usize::from_str_radix(std::str::from_utf8(field).unwrap(), 8).unwrap();
        let content = if plain[at + 156] == b'x' { What::Pax } else { What::Content };
        found.push((What::Header, at..at + 512));
        let end = (at + 512 + size).min(plain.len());
        found.push((content, at + 512..end));
        let next = end.next_multiple_of(512).min(plain.len());
        found.push((What::Padding, end..next));
        at = next;
    }
    found
}

#[test]
fn headers_pax_records_padding_and_content_that_were_exchanged_are_noticed() {
    let image = Image::new(several_frames);
    let frame = &image.frames()[0];
    let plain = image.plain(frame);
    let mut tried = std::collections::BTreeMap::<What, usize>::new();
    for (what, range) in classes(&plain) {
        for at in range {
            let count = tried.entry(what).or_default();
            if *count == 12 {
                break;
            }
            let mut changed = plain.clone();
            changed[at] ^= 1;
            if let What::Header = what {
                // With a checksum that is right, so that nothing but the table of contents can notice.
                let header = at / 512 * 512;
                set_checksum(&mut changed[header..header + 512]);
            }
            // A frame of another length would be another frame, which is noticed sooner.
            if let Some(bad) = image.with(frame, &changed) {
                *count += 1;
                image.refuses(&bad, &format!("{what:?} at {at}"));
            }
        }
    }
    for what in [What::Header, What::Pax, What::Content, What::Padding] {
        assert!(tried.get(&what).is_some_and(|tried| *tried > 0), "{what:?} was never tried: {tried:?}");
    }
}

/// Every chunk is where it should be, and the headers of the archive lead elsewhere: to the content of another file.
#[test]
fn content_is_read_from_nowhere_but_from_where_it_was_proved() {
    let image = Image::new(|tree| {
        fs::write(tree.join("a"), b"12 comment=\n").unwrap();
        fs::write(tree.join("b"), noise(2, 512)).unwrap();
        // So much follows them that the digest of the whole blob cannot be known first.
        fs::write(tree.join("c"), noise(3, 20 << 20)).unwrap();
        // The same for all, so that the header of one can take the place of another's; of whole seconds, so that no PAX
        // record stands before it.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        for name in ["a", "b", "c"] {
            fs::File::open(tree.join(name)).unwrap().set_modified(time).unwrap();
        }
    });
    let frame = &image.frames()[0];
    let plain = image.plain(frame);
    let header = |name: &[u8]| {
        let is_it = |block: &[u8]| block.starts_with(name) && block[156] == b'0';
        plain.chunks(512).position(is_it).unwrap() * 512
    };
    let (a, b) = (header(b"a\0"), header(b"b\0"));
    // A global header, which is passed over, swallows the content of `a`, and the header of `a` stands before that of `b`.
    let evil = |name: &[u8]| {
        let mut evil = plain.clone();
        evil.copy_within(a..a + 512, b);
        evil[a + 156] = b'g';
        evil[a + 1..a + 1 + name.len()].copy_from_slice(name);
        set_checksum(&mut evil[a..a + 512]);
        evil
    };
    // A frame of another length would be another frame, which is noticed sooner.
    let bad = (1..99).find_map(|length| image.with(frame, &evil(&noise(9, length))));
    let error = image.refuses(&bad.expect("a frame of the same length"), "headers that lead elsewhere");
    assert!(error.contains("/a, with other content"), "{error}");
}
