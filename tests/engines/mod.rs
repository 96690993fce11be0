//! Interoperability with other programs.
//!
//! The registry, skopeo, umoci, podman, docker, containerd, buildah and oci-client read images that volio wrote, and volio reads images
//! that they wrote. The trees are compared by [`survey`], which shares no code with volio.
//! `tests/run` starts the services. Without it, these tests are ignored.

mod buildah;
mod containerd;
mod docker;
mod doctor;
mod encrypted;
mod fixture;
mod incremental;
mod login;
mod network;
mod oci_client;
mod own_image;
mod podman;
mod postgresql;
pub mod program;
mod registry;
mod registry_content;
mod services;
mod signatures;
mod skopeo;
mod skopeo_policies;
pub mod survey;
mod systemd;
mod umoci;
mod volio_image;
mod volume_plugin;
mod watch;
