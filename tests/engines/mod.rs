//! Images cross between volio and the programs that people already use.
//!
//! That volio understands itself proves little. Here the registry, skopeo, umoci, podman, docker, containerd, buildah and oci-client
//! are the judges: what volio made they must accept, what they made volio must unpack, and the trees are compared by
//! [`survey`], which shares no code with volio. `tests/run` brings the services; without it these tests are ignored.

mod buildah;
mod containerd;
mod docker;
mod encrypted;
mod fixture;
mod login;
mod network;
mod oci_client;
mod own_image;
mod podman;
mod program;
mod registry;
mod registry_content;
mod services;
mod skopeo;
mod survey;
mod systemd;
mod umoci;
mod volio_image;
mod volume_plugin;
