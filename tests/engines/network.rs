//! Broken networks: a real registry with a proxy that cuts every connection after some bytes.

use super::fixture::Directory;
use super::program::{Finished, volio};
use super::services::repository;
use crate::registry::CuttingProxy;
use std::fs;

const MB: u64 = 1_000_000;
/// The size of the data. Each connection carries a tenth of it, which is enough for chunks of 4 MiB.
const DATA: u64 = 100 * MB;
const CUT: u64 = 10 * MB;

fn volio_with_fast_retries(arguments: &[&str]) -> Finished {
    volio(&[arguments, &["--retry-delay", "0.01"]].concat())
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_push_and_a_pull_survive_a_network_that_cuts_every_connection() {
    let (source, work) = (Directory::empty(), Directory::empty());
    for n in 0..4 {
        fs::write(source.path().join(format!("file-{n}")), crate::registry::noise((DATA / 4) as usize + n))
            .expect("write");
    }
    let layout = format!("oci:{}", work.join("layout:tag"));
    let digest = volio(&["pack", "--compression", "none", &layout, source.text()]).digest();
    let (registry, path) = {
        let name = repository("cut:1");
        let (registry, path) = name.split_once('/').expect("a host");
        (registry.to_owned(), path.to_owned())
    };

    let up = CuttingProxy::cutting(&registry, CUT);
    let there = format!("{}/{path}", up.host());
    assert_eq!(volio_with_fast_retries(&["push", &layout, &there]).digest(), digest);
    assert!(up.up() < DATA * 15 / 10, "{} bytes for {DATA}", up.up());

    let down = CuttingProxy::cutting(&registry, CUT);
    let back = format!("oci:{}", work.join("back:tag"));
    assert_eq!(
        volio_with_fast_retries(&["pull", &format!("{}/{path}", down.host()), &back]).digest(),
        digest
    );
    assert!(down.down() < DATA * 11 / 10, "{} bytes for {DATA}", down.down());
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_pack_survives_a_network_that_cuts_every_connection() {
    let (source, target) = (Directory::empty(), Directory::empty());
    fs::write(source.path().join("file"), crate::registry::noise((3 * CUT) as usize)).expect("write");
    let name = repository("cut-pack:1");
    let (registry, path) = name.split_once('/').expect("a host");
    let proxy = CuttingProxy::cutting(registry, CUT);
    volio_with_fast_retries(&["pack", &format!("{}/{path}", proxy.host()), source.text()]).digest();
    volio(&["unpack", &name, target.text()]).succeeded();
    let read = |directory: &Directory| fs::read(directory.path().join("file")).expect("read");
    assert!(read(&source) == read(&target));
}

#[test]
#[ignore = "needs docker-registry and nginx: run tests/run"]
fn blobs_are_sent_in_chunks_through_an_nginx_with_a_small_body_limit() {
    let (source, target) = (Directory::empty(), Directory::empty());
    fs::write(source.path().join("file"), crate::registry::noise((10 * MB) as usize)).expect("write");
    let name = super::services::small_body_repository("small:1");
    volio(&["pack", &name, source.text()]).digest();
    let layout = format!("oci:{}", target.join("layout:tag"));
    volio(&["pull", &name, &layout]).digest();
    volio(&["push", &layout, &super::services::small_body_repository("again:1")]).digest();
    volio(&["unpack", &name, &target.join("data")]).succeeded();
    assert!(fs::read(target.path().join("data/file")).expect("read").len() as u64 == 10 * MB);
}
