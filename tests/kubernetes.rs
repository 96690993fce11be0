//! The examples for Kubernetes, compared with its API: every manifest, also those in the documents, has only fields that
//! exist, with the right types, and needs no privilege. `engines/podman/pods.rs` runs them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodSecurityContext, PodSpec, SecurityContext,
};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

/// A Kubernetes object.
pub enum Object {
    Pod(Box<Pod>),
    Job(Box<Job>),
    CronJob(Box<CronJob>),
    Deployment(Box<Deployment>),
    Claim,
}

impl Object {
    /// Returns the pod of the object.
    pub fn pod(&self) -> Option<&PodSpec> {
        match self {
            Self::Pod(pod) => pod.spec.as_ref(),
            Self::Job(job) => job.spec.as_ref()?.template.spec.as_ref(),
            Self::CronJob(job) => job.spec.as_ref()?.job_template.spec.as_ref()?.template.spec.as_ref(),
            Self::Deployment(deployment) => deployment.spec.as_ref()?.template.spec.as_ref(),
            Self::Claim => None,
        }
    }
}

/// The documents of a manifest; what is wrong with one of them.
pub fn read(manifest: &str) -> Result<Vec<Object>, String> {
    serde_norway::Deserializer::from_str(manifest)
        .map(|document| object(Value::deserialize(document).map_err(|error| error.to_string())?))
        .collect()
}

fn object(value: Value) -> Result<Object, String> {
    match (value["apiVersion"].as_str(), value["kind"].as_str()) {
        (Some("v1"), Some("Pod")) => Ok(Object::Pod(Box::new(exactly(value)?))),
        (Some("apps/v1"), Some("Deployment")) => Ok(Object::Deployment(Box::new(exactly(value)?))),
        (Some("batch/v1"), Some("Job")) => Ok(Object::Job(Box::new(exactly(value)?))),
        (Some("batch/v1"), Some("CronJob")) => Ok(Object::CronJob(Box::new(exactly(value)?))),
        (Some("v1"), Some("PersistentVolumeClaim")) => {
            exactly::<PersistentVolumeClaim>(value).map(|_| Object::Claim)
        }
        kind => Err(format!("no test knows {kind:?}")),
    }
}

/// Parses a value completely. A field that the type does not have is lost on the way there and back, and is an error.
fn exactly<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, String> {
    let read: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    if back != value {
        return Err(format!("unknown fields:\n{value:#}\nbecame\n{back:#}"));
    }
    Ok(read)
}

/// Checks the policy `restricted` of the Pod Security Standards, and a root file system that is read-only.
fn rights(pod: &PodSpec) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut want = |what: String, holds: bool| {
        if !holds {
            wrong.push(what);
        }
    };
    let empty = PodSecurityContext::default();
    let context = pod.security_context.as_ref().unwrap_or(&empty);
    want("runAsNonRoot".to_owned(), context.run_as_non_root == Some(true) && context.run_as_user != Some(0));
    let profile = context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
    want("seccompProfile".to_owned(), profile == Some("RuntimeDefault"));
    let on_the_host = [pod.host_network, pod.host_pid, pod.host_ipc];
    want("nothing of the host".to_owned(), on_the_host.iter().all(|shared| *shared != Some(true)));
    let volumes = pod.volumes.iter().flatten();
    want("no hostPath".to_owned(), volumes.clone().all(|volume| volume.host_path.is_none()));
    for Container { name, security_context, .. } in containers(pod) {
        let empty = SecurityContext::default();
        let context = security_context.as_ref().unwrap_or(&empty);
        want(format!("{name}: allowPrivilegeEscalation"), context.allow_privilege_escalation == Some(false));
        let dropped = context.capabilities.as_ref().and_then(|capabilities| capabilities.drop.as_deref());
        want(format!("{name}: capabilities"), dropped == Some(&["ALL".to_owned()]));
        want(format!("{name}: readOnlyRootFilesystem"), context.read_only_root_filesystem == Some(true));
        want(format!("{name}: privileged"), context.privileged != Some(true));
    }
    wrong
}

pub fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

/// Returns every manifest of the examples and the documents, by its place.
fn manifests() -> BTreeMap<String, String> {
    let mut manifests = BTreeMap::new();
    for entry in fs::read_dir("examples/kubernetes").unwrap() {
        let path = entry.unwrap().path();
        manifests.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
    }
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages.chain(["README.md".into()]) {
        let text = fs::read_to_string(&page).unwrap();
        let page = page.display();
        for (number, block) in text.split("```yaml\n").skip(1).enumerate() {
            let block = block.split("```").next().unwrap();
            if block.contains("apiVersion:") {
                manifests.insert(format!("{page}, block {number}"), block.to_owned());
            }
        }
    }
    manifests
}

#[test]
fn kubernetes_manifests_have_only_fields_of_the_api_and_need_no_privilege() {
    let manifests = manifests();
    assert!(manifests.len() >= 4, "{:?}", manifests.keys());
    for (place, manifest) in manifests {
        let objects = read(&manifest).unwrap_or_else(|error| panic!("{place}: {error}"));
        for pod in objects.iter().filter_map(Object::pod) {
            assert_eq!(rights(pod), Vec::<String>::new(), "{place}");
            let mounted = containers(pod).flat_map(|container| container.volume_mounts.iter().flatten());
            for mount in mounted {
                let volumes = pod.volumes.iter().flatten();
                assert!(
                    volumes.map(|volume| &volume.name).any(|name| *name == mount.name),
                    "{place}: {mount:?}"
                );
            }
        }
    }
}

#[test]
fn kubernetes_manifests_with_an_unknown_field_or_a_privilege_are_rejected() {
    let good = fs::read_to_string("examples/kubernetes/init-container.yaml").unwrap();
    for (field, mistake) in [
        ("readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true"),
        ("emptyDir: {}", "emptydir: {}"),
        ("runAsUser: 10001", "runAsUser: nobody"),
        ("kind: Pod", "kind: Job"),
    ] {
        assert!(good.contains(field) && read(&good.replacen(field, mistake, 1)).is_err(), "{mistake}");
    }
    for (right, none) in [
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("drop: [ALL]", "drop: []"),
        ("emptyDir: {}", "hostPath: {path: /}"),
        ("type: RuntimeDefault", "type: Unconfined"),
    ] {
        let objects = read(&good.replacen(right, none, 1)).unwrap();
        assert!(!rights(objects[0].pod().unwrap()).is_empty(), "{none}");
    }
}

/// The requirements of container runtimes for an image volume and for every image that the kubelet pulls.
#[test]
fn kubernetes_image_volumes_are_ordinary_images_with_files_as_layers() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    fs::create_dir_all(at("tree/directory")).unwrap();
    fs::write(at("tree/directory/file"), "data").unwrap();
    let volio = |arguments: &[&str]| {
        let mut volio = std::process::Command::new(env!("CARGO_BIN_EXE_volio"));
        assert!(volio.args(arguments).current_dir(place.path()).output().unwrap().status.success());
    };
    volio(&["pack", "oci:layout:v1", "tree"]);
    let blob = |digest: &str| fs::read(at(&format!("layout/blobs/{}", digest.replace(':', "/")))).unwrap();
    let document = |descriptor: &Value| -> Value {
        serde_json::from_slice(&blob(descriptor["digest"].as_str().unwrap())).unwrap()
    };
    let layout: Value = serde_json::from_slice(&fs::read(at("layout/index.json")).unwrap()).unwrap();
    let index = document(&layout["manifests"][0]);
    let platforms = index["manifests"].as_array().unwrap();
    assert_eq!(platforms.len(), 2, "one for each kind of node");
    for entry in platforms {
        let manifest = document(entry);
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(manifest.get("artifactType"), None);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
        let config = document(&manifest["config"]);
        assert_eq!(
            (&config["os"], &config["architecture"]),
            (&json!("linux"), &entry["platform"]["architecture"])
        );
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers.len());
        for layer in layers {
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
            let archive = blob(layer["digest"].as_str().unwrap());
            let archive = zstd::decode_all(archive.as_slice()).unwrap();
            let mut archive = tar::Archive::new(archive.as_slice());
            for entry in archive.entries().unwrap() {
                assert!(entry.unwrap().path().unwrap().is_relative());
            }
        }
    }
}

/// The directory of a mounted secret in the kubelet's form: files are links through `..data`, which is replaced at once.
struct MountedSecret(tempfile::TempDir);

impl MountedSecret {
    fn with(key: &str, content: &Value) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(format!("..data/{key}"), secret.0.path().join(key)).unwrap();
        secret.put("..2026_01_01_00_00_00.1", key, content);
        secret
    }

    fn put(&self, version: &str, key: &str, content: &Value) {
        let place = self.0.path();
        fs::create_dir(place.join(version)).unwrap();
        fs::write(place.join(version).join(key), content.to_string()).unwrap();
        std::os::unix::fs::symlink(version, place.join("..data_tmp")).unwrap();
        fs::rename(place.join("..data_tmp"), place.join("..data")).unwrap();
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

#[test]
fn kubernetes_pull_secrets_are_read_as_they_are_mounted_and_renewed() {
    use crate::registry::{Login, Registry};
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:secret" });
    let login = |auth: &str| json!({registry.host(): {"auth": auth}});
    let (good, bad) = ("bWU6c2VjcmV0", "bWU6d3Jvbmc=");
    let tree = tempfile::tempdir().unwrap();
    let image = format!("{}/team/data:v1", registry.host());
    let pack = |variable: &str, value: &str| {
        let mut volio = std::process::Command::new(env!("CARGO_BIN_EXE_volio"));
        volio.env_clear().env(variable, value).args(["pack", "--quiet", &image]).arg(tree.path());
        volio.output().unwrap().status.code()
    };
    // The type kubernetes.io/dockerconfigjson: as a file and as its directory, in both variables.
    let secret = MountedSecret::with(".dockerconfigjson", &json!({"auths": login(good)}));
    assert_eq!(pack("REGISTRY_AUTH_FILE", &format!("{}/.dockerconfigjson", secret.path())), Some(0));
    assert_eq!(pack("REGISTRY_AUTH_FILE", &secret.path()), Some(0));
    assert_eq!(pack("DOCKER_CONFIG", &secret.path()), Some(0));
    // Its ancestor kubernetes.io/dockercfg has no `auths` around the entries.
    let old = MountedSecret::with(".dockercfg", &login(good));
    assert_eq!(pack("REGISTRY_AUTH_FILE", &old.path()), Some(0));
    assert_eq!(pack("DOCKER_CONFIG", &old.path()), Some(0));
    // With `items` it may be called config.json.
    let named = MountedSecret::with("config.json", &json!({"auths": login(good)}));
    assert_eq!(pack("DOCKER_CONFIG", &named.path()), Some(0));

    secret.put("..2026_01_02_00_00_00.1", ".dockerconfigjson", &json!({"auths": login(bad)}));
    assert_eq!(pack("DOCKER_CONFIG", &secret.path()), Some(5), "the renewed secret counts");
}
