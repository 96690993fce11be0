//! Bytes in motion: hashed, verified and transformed as they pass, never held as a whole.

mod ahead;
mod body;
mod cancel;
mod hash;
mod machine;
mod pipe;
mod pool;
mod threads;

pub use ahead::in_order;
pub use body::{Body, Unverified, Written};
pub use cancel::{CancelGuard, CancelToken};
pub use hash::{HashingReader, HashingThread, HashingWriter};
pub use machine::{room, workers};
pub use pipe::{PipeReader, PipeWriter, Workers, pipe};
pub use pool::{Buffer, Pool};
pub use threads::{on_threads, start, start_in};
