//! Registries with the behaviour of those that are in use, as their documents, their sources and the issues of other clients
//! describe it. docs/compatibility.md lists these tests.

mod amazon;
mod azure;
mod gitlab;
mod google;
mod harbor;
mod immutable_tags;
mod limits;
mod nexus;
mod quay;
mod specification;
mod zot;

use super::{Workspace, assert_screen};
use crate::registry::{Behaviour, Login, Registry};
use snapbox::str;
use std::fs;
use std::path::Path;

/// The authentication with tokens, for the user whose password every command has.
const TOKENS: Login = Login::Token { user: "me:hunter2", anonymous_pull: false, expires_in: 300 };

/// A registry, and a workspace with a tree, an image and keys.
struct Site {
    place: Workspace,
    registry: Registry,
}

impl Site {
    fn new(change: impl FnOnce(&mut Behaviour)) -> Self {
        let site = Self { place: Workspace::with_own_image(), registry: Registry::start() };
        for name in ["signer.pem", "signer.pub", "other.pem"] {
            let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys").join(name);
            fs::copy(key, site.place.path().join(name)).unwrap();
        }
        site.registry.behave(change);
        site
    }

    /// Runs a command line, in which HOST is the registry, and returns its screen.
    fn screen(&self, arguments: &str) -> String {
        self.screen_with(arguments, r#"{"username":"me","password":"hunter2"}"#)
    }

    /// Runs a command line with an entry of docker's config.json for the registry.
    fn screen_with(&self, arguments: &str, entry: &str) -> String {
        let host = self.registry.host();
        let mut command = self.place.volio(&arguments.replace("HOST", host));
        command.env("DOCKER_AUTH_CONFIG", format!(r#"{{"auths":{{"{host}":{entry}}}}}"#));
        self.place.screen_of(command).replace(host, "HOST")
    }

    /// Runs a command line that must succeed without a warning, and returns its screen.
    #[track_caller]
    fn succeeds(&self, arguments: &str) -> String {
        let screen = self.screen(arguments);
        let is_clean = screen.ends_with("-- exit 0\n") && !screen.contains("warning:");
        assert!(is_clean, "{arguments}\n{screen}");
        screen
    }

    /// Packs, lists, reads, unpacks, compares and copies an image.
    #[track_caller]
    fn round_trip(&self) {
        self.succeeds("pack --retry-delay 0 HOST/a:v1 tree");
        self.reads("a:v1");
        self.succeeds("copy HOST/a:v1 HOST/b:v1");
        self.reads("b:v1");
        assert!(self.succeeds("tags HOST/b").starts_with("v1\n"));
    }

    /// Lists, reads, unpacks, compares and copies an image that has the tree.
    #[track_caller]
    fn reads(&self, image: &str) {
        assert!(self.succeeds(&format!("ls -R HOST/{image}")).contains("/etc/hosts\n"));
        assert!(self.succeeds(&format!("cat HOST/{image} /hello")).starts_with("hello\n"));
        let directory = image.replace(':', "-");
        self.succeeds(&format!("unpack HOST/{image} {directory}"));
        self.succeeds(&format!("diff {directory} HOST/{image}"));
        self.succeeds(&format!("copy HOST/{image} oci:{directory}.layout:v1"));
    }

    /// Signs an image in the registry, and reads it with the signature.
    #[track_caller]
    fn sign_and_verify(&self) {
        self.succeeds("pack HOST/a:v1 tree");
        self.succeeds("sign --key signer.pem HOST/a:v1");
        self.succeeds("verify --key signer.pub HOST/a:v1");
        self.succeeds("unpack --verify-key signer.pub HOST/a:v1 verified");
    }

    /// Returns the tags that are indexes of referrers.
    fn referrers_tags(&self) -> Vec<String> {
        let tags = self.registry.stored_tags("a").into_iter();
        tags.filter(|tag| tag.starts_with("sha256-") && !tag.contains('.')).collect()
    }
}
