//! Signature policies as skopeo judges them, compared with volio.
//!
//! Debian's skopeo is built without signatures of sigstore. It has those of GnuPG, with the same scopes, identities and
//! syntax. So it is given a policy with `signedBy`, and volio the same one with `sigstoreSigned`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::fixture::Directory;
use super::program::{finish, tool, volio};
use super::services::repository;
use serde_json::{Value, json};
use volio::{Location, Requirement, SignaturePolicy};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/signer.pub");

/// A directory with a key pair of GnuPG, and with signatures.
struct GnuPg {
    work: Directory,
    fingerprint: String,
}

impl GnuPg {
    fn new() -> Self {
        let work = Directory::empty();
        let home = work.path().join("gnupg");
        fs::create_dir(&home).expect("mkdir");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("chmod");
        let mut gnupg = Self { work, fingerprint: String::new() };
        gnupg.gpg(&["--passphrase", "", "--quick-gen-key", "signer@example", "default", "default", "never"]);
        let keys = gnupg.gpg(&["--list-keys", "--with-colons"]);
        let fingerprint = keys.lines().find_map(|line| line.strip_prefix("fpr:"));
        gnupg.fingerprint = fingerprint.expect("a fingerprint").trim_matches(':').to_owned();
        gnupg.gpg(&["--output", &gnupg.work.join("key.gpg"), "--export"]);
        gnupg
    }

    fn gpg(&self, arguments: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        gpg.args(["--homedir", &self.work.join("gnupg"), "--batch", "--quiet"]).args(arguments);
        finish(&mut gpg).succeeded()
    }

    /// Signs the manifest under this name, for the repositories of these images. Returns a directory for `--registries.d`.
    fn sign(&self, manifest: &str, digest: &str, name: &str, images: &[&str]) -> String {
        let claim = self.work.path().join(name.replace(['/', ':', '@'], "_"));
        let signature = claim.join("signature-1");
        fs::create_dir(&claim).expect("mkdir");
        let mut skopeo = Command::new("skopeo");
        skopeo.env("GNUPGHOME", self.work.join("gnupg"));
        skopeo.args(["standalone-sign", manifest, name, &self.fingerprint, "-o"]).arg(&signature);
        finish(&mut skopeo).succeeded();
        for image in images {
            let (_, path) = image.split_once('/').expect("a repository");
            let store = claim.join(format!("store/{path}@{}", digest.replacen(':', "=", 1)));
            fs::create_dir_all(&store).expect("mkdir");
            fs::copy(&signature, store.join("signature-1")).expect("copy");
        }
        let store = claim.join("store");
        fs::create_dir(claim.join("registries.d")).expect("mkdir");
        // The older name, which new versions read too.
        let text = format!("default-docker:\n  sigstore: file://{}\n", store.display());
        fs::write(claim.join("registries.d/default.yaml"), text).expect("write");
        claim.join("registries.d").display().to_string()
    }
}

impl Drop for GnuPg {
    fn drop(&mut self) {
        let mut stop = Command::new("gpgconf");
        let _ = stop.args(["--homedir", &self.work.join("gnupg"), "--kill", "all"]).output();
    }
}

/// Returns whether skopeo accepts an image. `registries` is a directory for `--registries.d`.
fn skopeo_accepts(work: &Directory, policy: &Value, registries: &str, image: &str) -> bool {
    let file = work.join("policy.json");
    fs::write(&file, policy.to_string()).expect("write");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--policy", &file, "--registries.d", registries]);
    skopeo.args(["copy", "--quiet", "--src-tls-verify=false", image, &format!("dir:{}", work.join("out"))]);
    let output = skopeo.output().expect("skopeo runs");
    let message = String::from_utf8_lossy(&output.stderr);
    let is_rejected = message.contains("Source image rejected");
    assert!(output.status.success() != is_rejected, "{policy} {image}: {message}");
    output.status.success()
}

fn parse(policy: &Value) -> SignaturePolicy {
    let read = |path: &Path| volio::PublicKey::read(path);
    SignaturePolicy::from_json(policy.to_string().as_bytes(), &read).expect("a valid policy")
}

/// Returns whether volio accepts an image with a valid signature that claims this name.
fn volio_accepts(policy: &Value, image: &str, claimed: &str) -> bool {
    let image: Location = image.parse().expect("a location");
    let policy = parse(policy);
    let requirements = policy.requirements_for(&image).expect("requirements");
    requirements.iter().all(|requirement| match requirement {
        Requirement::AcceptAnything => true,
        Requirement::Reject => false,
        Requirement::Signed { identity, .. } => identity.accepts(&image, Some(claimed)),
    })
}

/// Packs a directory for one platform. Returns the digest of the image.
fn pack(image: &str, source: &Directory) -> String {
    let arguments = ["--compression", "gzip", "--platform", "linux/amd64"];
    volio(&[&["pack", image, source.text()], &arguments[..]].concat()).digest()
}

#[test]
#[ignore = "needs docker-registry, skopeo and gpg: run tests/run"]
fn skopeo_and_volio_accept_the_same_names_in_signatures() {
    let gnupg = GnuPg::new();
    let (data, other) = (repository("policy/data"), repository("policy/other"));
    let host = data.split('/').next().expect("a host");
    let source = Directory::empty();
    let digest = pack(&format!("{data}:v1"), &source);
    assert_eq!(pack(&format!("{other}:v1"), &source), digest);
    let manifest = gnupg.work.join("manifest");
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{data}:v1")]);
    fs::write(&manifest, raw).expect("write");

    let claims = [
        format!("{data}:v1"),
        format!("{data}:v2"),
        data.clone(),
        format!("{data}@{digest}"),
        format!("{other}:v1"),
        "vendor.example/data:v1".to_owned(),
        "vendor.example/policy/data:v1".to_owned(),
        "data:v1".to_owned(),
        format!("{host}/Policy/data:v1"),
    ];
    let kind = |kind: &str| json!({"type": kind});
    let remap = |prefix: &str, signed: &str| json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": signed});
    let identities = [
        Value::Null,
        kind("matchExact"),
        kind("matchRepository"),
        json!({"type": "exactReference", "dockerReference": "docker.io/data:v1"}),
        json!({"type": "exactReference", "dockerReference": format!("{data}:v2")}),
        json!({"type": "exactRepository", "dockerRepository": data}),
        remap(host, "vendor.example"),
        remap(&format!("{host}/policy"), "vendor.example"),
        remap(&format!("{host}/policy"), "docker.io/library"),
        remap(&format!("{host}/pol"), "vendor.example"),
    ];
    let images = [format!("{data}:v1"), format!("{data}@{digest}"), format!("{other}:v1")];
    let mut accepted = 0;
    for claim in &claims {
        let registries = gnupg.sign(&manifest, &digest, claim, &[&data, &other]);
        for identity in &identities {
            let policy = |mut requirement: Value| {
                if !identity.is_null() {
                    requirement["signedIdentity"] = identity.clone();
                }
                json!({"default": [requirement]})
            };
            let key = gnupg.work.join("key.gpg");
            let theirs = policy(json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}));
            let ours = policy(json!({"type": "sigstoreSigned", "keyPath": KEY}));
            for image in &images {
                let image = format!("docker://{image}");
                let expected = skopeo_accepts(&gnupg.work, &theirs, &registries, &image);
                assert_eq!(
                    volio_accepts(&ours, &image, claim),
                    expected,
                    "{identity}: {image} signed as {claim}"
                );
                accepted += u32::from(expected);
            }
        }
    }
    assert!(accepted > 20, "only {accepted} were accepted: something is wrong with the signatures");
}

/// Compares policies that accept the images of one scope, and that accept those of a scope in one that is rejected.
fn compare_scopes(work: &Directory, transport: &str, scopes: &[String], images: &[String]) {
    let registries = work.join("registries.d");
    fs::create_dir_all(&registries).expect("mkdir");
    let mut verdicts = [0, 0];
    let accept = || json!([{"type": "insecureAcceptAnything"}]);
    let reject = || json!([{"type": "reject"}]);
    let mut policies = Vec::new();
    for scope in scopes {
        policies.push(json!({"default": reject(), "transports": {transport: {scope: accept()}}}));
    }
    for pair in scopes.windows(2) {
        let scopes = json!({pair[0].clone(): accept(), pair[1].clone(): reject()});
        policies.push(json!({"default": reject(), "transports": {transport: scopes}}));
    }
    for policy in &policies {
        for image in images {
            let expected = skopeo_accepts(work, policy, &registries, image);
            assert_eq!(volio_accepts(policy, image, ""), expected, "{policy}: {image}");
            verdicts[usize::from(expected)] += 1;
        }
    }
    assert!(verdicts[0] > 0 && verdicts[1] > 0, "{verdicts:?}");
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn skopeo_and_volio_choose_the_same_scope_for_images_in_registries() {
    let work = Directory::empty();
    let data = repository("policy-scopes/team/data");
    let host = data.split('/').next().expect("a host");
    let digest = pack(&format!("{data}:v1"), &Directory::empty());
    let mut scopes: Vec<String> = ["", "/policy-scopes", "/policy-scopes/team", "/policy-scopes/team/data"]
        .map(|path| format!("{host}{path}"))
        .into_iter()
        .rev()
        .collect();
    scopes.insert(0, format!("{data}:v1"));
    scopes.extend(["*.0.0.1", "*.0.1", "*.1", ""].map(str::to_owned));
    // These do not match.
    scopes.extend([format!("{data}@{digest}"), format!("{data}:v2"), "127.0.0.1:1".to_owned()]);
    scopes.extend(
        ["/policy", "/policy-scopes/te", "/policy-scopes/team/data2"].map(|path| format!("{host}{path}")),
    );
    scopes.extend(["127.0.0.1", "*.0.0.2", "docker.io"].map(str::to_owned));
    let images = [format!("docker://{data}:v1"), format!("docker://{data}@{digest}")];
    compare_scopes(&work, "docker", &scopes, &images);
}

#[test]
#[ignore = "needs skopeo: run tests/run"]
fn skopeo_and_volio_choose_the_same_scope_for_paths() {
    let work = Directory::empty();
    let at = |path: &str| work.join(path);
    fs::create_dir_all(at("images/a")).expect("mkdir");
    pack(&format!("oci:{}:v1", at("images/a/layout")), &Directory::empty());
    pack(&format!("oci-archive:{}:v1", at("images/a/data.tar")), &Directory::empty());
    symlink(at("images/a"), at("link")).expect("symlink");
    for (transport, name) in [("oci", "layout"), ("oci-archive", "data.tar")] {
        let scopes = [
            at(&format!("images/a/{name}")),
            at("images/a"),
            at("images"),
            work.text().to_owned(),
            String::new(),
            at(&format!("link/{name}")),
            at("link"),
            at("images/b"),
            at("image"),
        ];
        let images = [at(&format!("images/a/{name}")), at(&format!("link/{name}"))]
            .map(|path| format!("{transport}:{path}:v1"));
        compare_scopes(&work, transport, &scopes, &images);
    }
}

/// Returns whether skopeo can read a policy.
fn skopeo_reads(work: &Directory, policy: &str) -> bool {
    let file = work.join("policy.json");
    fs::write(&file, policy).expect("write");
    let arguments = ["--policy", &file, "copy", "dir:/nonexistent", "dir:/nonexistent"];
    let output = finish(Command::new("skopeo").args(arguments)).failed_with(1);
    !output.contains("Error loading trust policy")
}

#[test]
#[ignore = "needs skopeo: run tests/run"]
fn volio_reads_no_policy_that_skopeo_refuses() {
    let work = Directory::empty();
    let read = |path: &Path| volio::PublicKey::read(path);
    let signed = |members: &str| format!(r#"{{"default":[{{"type":"sigstoreSigned"{members}}}]}}"#);
    let with_key = |members: &str| signed(&format!(r#","keyPath":"{KEY}"{members}"#));
    let identity = |identity: &str| with_key(&format!(r#","signedIdentity":{identity}"#));
    let scope = |transport: &str, scope: &str| {
        format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"{transport}":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        )
    };
    let valid = [
        with_key(""),
        identity(r#"{"type":"matchExact"}"#),
        identity(r#"{"type":"matchRepoDigestOrExact"}"#),
        identity(r#"{"type":"matchRepository"}"#),
        identity(r#"{"type":"exactReference","dockerReference":"alpine:1"}"#),
        identity(r#"{"type":"exactRepository","dockerRepository":"alpine"}"#),
        identity(r#"{"type":"remapIdentity","prefix":"h.io:5000/a","signedPrefix":"docker.io/library"}"#),
        scope("docker", "h.io/a"),
        scope("docker", "*.io"),
        scope("oci", "/srv/images"),
        scope("oci-archive", ""),
        scope("docker-archive", ""),
        scope("containers-storage", "[overlay@/srv]"),
    ];
    let invalid = [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        r#"{"default":null}"#.to_owned(),
        r#"{"default":[]}"#.to_owned(),
        r#"{"default":[{"type":"reject"}],"transports":null}"#.to_owned(),
        r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#.to_owned(),
        r#"{"default":[{"type":"reject"}],"x":1}"#.to_owned(),
        r#"{"default":[{"type":"reject"}]} x"#.to_owned(),
        r#"{"default":[{"type":"Reject"}]}"#.to_owned(),
        r#"{"default":[{"Type":"reject"}]}"#.to_owned(),
        r#"{"default":[{"type":"reject","x":1}]}"#.to_owned(),
        signed(""),
        with_key(r#","keyData":"eA==""#),
        with_key(r#","keyPath":"/a""#),
        with_key(r#","threshold":1"#),
        identity("null"),
        identity(r#"{"type":"matchExact","x":1}"#),
        identity(r#"{"type":"matchexact"}"#),
        identity(r#"{"type":"exactReference","dockerReference":"alpine"}"#),
        identity(r#"{"type":"exactReference","dockerReference":"ALPINE:1"}"#),
        identity(r#"{"type":"exactRepository"}"#),
        identity(r#"{"type":"remapIdentity","prefix":"","signedPrefix":"h.io"}"#),
        identity(r#"{"type":"remapIdentity","prefix":"h.io/a:1","signedPrefix":"h.io"}"#),
        scope("oci", "/"),
        scope("oci", "srv"),
        scope("oci", "/srv/"),
        scope("oci-archive", "/srv/../a"),
        scope("docker-archive", "/srv/a.tar"),
    ];
    for (policies, is_valid) in [(&valid[..], true), (&invalid[..], false)] {
        for policy in policies {
            assert_eq!(skopeo_reads(&work, policy), is_valid, "{policy}");
            assert_eq!(SignaturePolicy::from_json(policy.as_bytes(), &read).is_ok(), is_valid, "{policy}");
        }
    }
}
