//! Diagnoses an image or a registry: what will not work, where, why, and what to do.
//!
//! Each check is a small function that returns [`Finding`]s. What a check claims about another program or a registry has its
//! source beside it, a URL or a section of a specification, which the findings carry. [`image`] has the checks of an image,
//! by its documents and tables of contents; [`registry`] those of a host, by requests that change nothing.
//!
//! | subject | file |
//! |---|---|
//! | documents: digests, diff_ids, artifacts, media types | `image/documents.rs` |
//! | engines and their versions | `image/engines.rs`, [`engine`] |
//! | platforms | `image/platforms.rs` |
//! | numbers and sizes of layers | `image/layers.rs` |
//! | blobs and tables of contents: damage, parent directories, whiteouts | `image/contents.rs` |
//! | signatures | `image/signatures.rs` |
//! | access without credentials | `image/public.rs` |
//! | proxy, name, connection, TLS, clock | `registry/connection.rs` |
//! | credentials: where they are, whether they are accepted | `registry/login.rs` |
//! | mirrors | `registry/mirrors.rs` |
//! | tags, ranges, referrers, rate limits | `registry/repository.rs` |
//! | uploads and deletion, on request | `registry/writing.rs` |

mod engine;
mod finding;
mod image;
mod registry;

pub use engine::Engine;
pub use finding::{Diagnosis, Finding, Severity};
pub use image::{ImageOptions, diagnose_image};
pub use registry::{RegistryOptions, diagnose_registry};
