//! Mounts the layers of an image by composefs: composefs-reader REPOSITORY MOUNT_POINT [MEDIA_TYPE DIFF_ID FILE]...
//! With `--version` it prints the version of the crate composefs-oci.
//!
//! `composefs_oci::pull` is not used, because it takes the attributes of the root directory from `/usr`, which images of data
//! do not have. What it does with layers is done here by the functions of the same crate.

use anyhow::{Context, Result, ensure};
use composefs::fsverity::{Algorithm, FsVerityHashValue, Sha256HashValue};
use composefs::mount::MountOptions;
use composefs::repository::{Repository, RepositoryConfig};
use composefs::tree::{FileSystem, Stat};
use composefs_oci::image::process_entry;
use composefs_oci::layer::decompress_async;
use composefs_oci::tar::get_entry;
use composefs_oci::{OciDigest, import_layer, sha256_content_digest};
use rustix::fs::CWD;
use std::sync::Arc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--version"] {
        println!("{}", version());
        return Ok(());
    }
    let [repository, mount_point, layers @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: composefs-reader REPOSITORY MOUNT_POINT [MEDIA_TYPE DIFF_ID FILE]...");
    };
    tokio::runtime::Runtime::new()?.block_on(mount(repository, mount_point, layers))
}

/// Returns the version of composefs-oci in the lock file.
fn version() -> &'static str {
    let (_, after) = include_str!("../Cargo.lock")
        .split_once("name = \"composefs-oci\"\nversion = \"")
        .unwrap_or_default();
    after.split('"').next().unwrap_or_default()
}

/// Makes a repository and an image of the layers, and mounts the image.
async fn mount(repository: &str, mount_point: &str, layers: &[String]) -> Result<()> {
    let config = RepositoryConfig::new(Algorithm::SHA256).set_insecure();
    let (repository, _) = Repository::<Sha256HashValue>::init_path(CWD, repository, config)?;
    let repository = Arc::new(repository);
    let mut tree = FileSystem::new(Stat { st_mode: 0o755, ..Stat::uninitialized() });
    for layer in layers.chunks_exact(3) {
        let [media_type, diff_id, file] = layer else { continue };
        let plain = || async {
            let file = tokio::fs::File::open(file).await.with_context(|| file.clone())?;
            decompress_async(file, &media_type.as_str().into())
        };
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut plain().await?, &mut bytes).await?;
        let digest: OciDigest = diff_id.parse()?;
        ensure!(sha256_content_digest(&bytes) == digest, "another diff_id");
        let (object, _) = import_layer(&repository, &digest, None, plain().await?).await?;
        let mut entries = repository.open_stream("", Some(&object), None)?;
        while let Some(entry) = get_entry(&mut entries)? {
            process_entry(&mut tree, entry)?;
        }
    }
    // Files that a later layer has replaced or removed.
    tree.compact();
    let image = tree.commit_image(&repository, None)?;
    repository.mount_at(&image.to_hex(), mount_point, &MountOptions::default())
}
