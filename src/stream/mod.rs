//! Bytes in motion: hashed, verified and transformed while they are read, and never in memory as a whole.

mod body;
mod cancel;
mod hash;
mod parallel;
mod pipe;
mod pool;
mod read_bytes;
mod resources;
mod threads;
mod unverified;

pub use body::{Body, Written};
pub use cancel::{CancelGuard, CancelToken};
pub use hash::{HashingThread, HashingWriter};
pub use parallel::{ItemResults, map_in_order, try_for_each};
pub use pipe::{PipeReader, PipeWriter, Workers, pipe};
pub use pool::{Buffer, Pool};
pub use read_bytes::ReadBytes;
pub use resources::{file_thread_count, memory_slots, worker_count};
pub use threads::{start, start_in};
pub use unverified::Unverified;
