//! What engines need to pull and mount the image, by their versions.

use super::super::engine::{DisplayVersion, Engine, EngineName, Version};
use super::{Documents, Finding, Severity};

/// Something that an engine can do from a version on.
struct Requirement {
    check: &'static str,
    engine: EngineName,
    /// The first version.
    from: Version,
    /// The ability, as the end of "KUBERNETES from VERSION …".
    ability: &'static str,
    /// What an older version does, as the end of "KUBERNETES VERSION …".
    without: &'static str,
    /// The severity with an older version.
    severity: Severity,
    source: &'static str,
    advice: &'static str,
    applies: fn(&Documents) -> bool,
}

const GA: &str = "https://github.com/kubernetes/kubernetes/pull/136711";
const KEP: &str = "https://github.com/kubernetes/enhancements/issues/4639";
const SUBPATH: &str = "https://github.com/kubernetes/kubernetes/issues/138640; https://github.com/kubernetes/website/pull/56606";
const DOCKER_ZSTD: &str =
    "https://github.com/moby/moby/issues/41759; https://github.com/aws/amazon-ecs-agent/issues/4179";
const DOCKER_MOUNT: &str = "https://docs.docker.com/engine/storage/image-mounts";
const CONTAINERD_ZSTD: &str = "https://github.com/containerd/nerdctl/pull/2329";
const PODMAN_MOUNT: &str = "podman-run(1), --mount type=image";
const FIRST_FRAME: &str = "https://github.com/bootc-dev/bootc/issues/2408; composefs-rs, pull request 381";

const INIT_CONTAINER: &str = "use volio unpack in an init container instead of a mount: docs/kubernetes.md";
const GZIP: &str = "upgrade it, or pack with --compression gzip";

const REQUIREMENTS: [Requirement; 12] = [
    Requirement {
        check: "mount",
        engine: EngineName::Kubernetes,
        from: (1, 31, 0),
        ability: "mounts it as an image volume behind the alpha feature gate ImageVolume",
        without: "has no image volumes",
        severity: Severity::Error,
        source: KEP,
        advice: INIT_CONTAINER,
        applies: always,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Kubernetes,
        from: (1, 33, 0),
        ability: "has image volumes in beta, with subPath; they are off by default before 1.35",
        without: "has image volumes in alpha only, and no subPath in them",
        severity: Severity::Warning,
        source: KEP,
        advice: "set the feature gate ImageVolume, or use volio unpack in an init container: docs/kubernetes.md",
        applies: always,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Kubernetes,
        from: (1, 36, 0),
        ability: "has image volumes as a stable feature",
        without: "has image volumes in beta only: the feature gate ImageVolume may be off",
        severity: Severity::Warning,
        source: GA,
        advice: "check the feature gate ImageVolume; it is on by default from 1.35",
        applies: always,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Containerd,
        from: (2, 1, 0),
        ability: "mounts images as volumes of Kubernetes",
        without: "cannot mount images as volumes of Kubernetes",
        severity: Severity::Error,
        source: KEP,
        advice: INIT_CONTAINER,
        applies: always,
    },
    Requirement {
        check: "sub-path",
        engine: EngineName::Containerd,
        from: (2, 2, 0),
        ability: "honours subPath of image volumes",
        without: "ignores subPath of image volumes silently, and mounts the whole image",
        severity: Severity::Warning,
        source: SUBPATH,
        advice: "upgrade containerd, or pack the directory as an image of its own",
        applies: always,
    },
    Requirement {
        check: "compression",
        engine: EngineName::Containerd,
        from: (1, 5, 0),
        ability: "unpacks layers of zstd",
        without: "cannot unpack layers of zstd",
        severity: Severity::Error,
        source: CONTAINERD_ZSTD,
        advice: GZIP,
        applies: has_zstd,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Crio,
        from: (1, 31, 0),
        ability: "mounts images as volumes of Kubernetes",
        without: "cannot mount images as volumes of Kubernetes",
        severity: Severity::Error,
        source: KEP,
        advice: INIT_CONTAINER,
        applies: always,
    },
    Requirement {
        check: "sub-path",
        engine: EngineName::Crio,
        from: (1, 33, 0),
        ability: "honours subPath of image volumes",
        without: "has no subPath of image volumes",
        severity: Severity::Warning,
        source: "https://github.com/kubernetes/website/pull/56606",
        advice: "upgrade CRI-O, or pack the directory as an image of its own",
        applies: always,
    },
    Requirement {
        check: "compression",
        engine: EngineName::Docker,
        from: (23, 0, 0),
        ability: "unpacks layers of zstd",
        without: "cannot unpack layers of zstd: \"archive/tar: invalid tar header\"",
        severity: Severity::Error,
        source: DOCKER_ZSTD,
        advice: GZIP,
        applies: has_zstd,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Docker,
        from: (28, 0, 0),
        ability: "mounts it with --mount type=image",
        without: "has no --mount type=image",
        severity: Severity::Warning,
        source: DOCKER_MOUNT,
        advice: "use the volume plugin, docs/volumes.md, or volio unpack into a directory",
        applies: always,
    },
    Requirement {
        check: "mount",
        engine: EngineName::Podman,
        from: (4, 3, 0),
        ability: "mounts it with --mount type=image (older versions were not tried)",
        without: "was not tried with --mount type=image",
        severity: Severity::Warning,
        source: PODMAN_MOUNT,
        advice: "try it, or use volio unpack into a directory",
        applies: always,
    },
    Requirement {
        check: "frames",
        engine: EngineName::ComposefsRs,
        from: (0, 9, 2),
        ability: "reads layers of several zstd frames; bootc has it inside",
        without: "stops after the first frame of a zstd layer: \"unexpected EOF\"",
        severity: Severity::Error,
        source: FIRST_FRAME,
        advice: "upgrade it or bootc, or pack with --compression none",
        applies: has_zstd,
    },
];

fn always(_: &Documents) -> bool {
    true
}

fn has_zstd(documents: &Documents) -> bool {
    documents
        .images
        .iter()
        .any(|image| image.manifest.layers.iter().any(|layer| layer.media_type.ends_with("zstd")))
}

/// Returns what is known of the engines that are named. Without any, the versions from which on each engine can.
pub(super) fn check(documents: &Documents, engines: &[Engine]) -> Vec<Finding> {
    let applying = || REQUIREMENTS.iter().filter(|requirement| (requirement.applies)(documents));
    if engines.is_empty() {
        return applying().map(general).collect();
    }
    engines
        .iter()
        .flat_map(|engine| {
            let own = applying().filter(|requirement| requirement.engine == engine.name);
            let missing: Vec<_> = own.filter(|requirement| engine.version < requirement.from).collect();
            let worst = missing.iter().map(|requirement| requirement.severity).max();
            let missing = missing.into_iter().map(|requirement| older(requirement, engine));
            let fine = Finding::ok(
                "engine",
                engine.to_string(),
                "it has all that the image needs, as far as volio knows",
            );
            missing.chain(worst.is_none().then_some(fine)).collect::<Vec<_>>()
        })
        .collect()
}

fn general(requirement: &Requirement) -> Finding {
    let Requirement { check, engine, from, ability, source, .. } = requirement;
    let what = format!("from {} on, {ability}", DisplayVersion(*from));
    Finding::ok(check, engine.name(), what).by(source)
}

fn older(requirement: &Requirement, engine: &Engine) -> Finding {
    let Requirement { check, from, without, severity, source, advice, .. } = requirement;
    let what = format!("it {without}; {} does", DisplayVersion(*from));
    Finding::new(*severity, check, engine.to_string(), what).by(source).advise(*advice)
}
