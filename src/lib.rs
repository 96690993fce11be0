//! Data moves in and out of OCI registries without Docker.
//!
//! A **tree** is packed into a **layer**; layers make an **image**; images travel between **transports**.

pub mod error;
pub mod oci;
pub mod progress;
pub mod stream;
pub mod transport;
pub mod tree;

pub use error::{Error, Result};
