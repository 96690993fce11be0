//! Sizes of the tar format and of the frames of a layer.

/// The size of a block of a tar archive, in bytes.
pub const BLOCK: usize = 512;
/// The largest content of a frame, in bytes. For small files, frames of 4 MiB are 1.3 % larger than a single stream, and
/// frames of 1 MiB 5 % larger (measured, docs/performance.md).
pub const FRAME: usize = 4 << 20;
/// The unit in which zeros are detected, at multiples of it, and in which holes are restored, in bytes.
pub const PIECE: usize = 64 << 10;
/// The size of a read from a file that is packed, in bytes. Larger ones are not faster.
pub const READ: usize = 4 * PIECE;
