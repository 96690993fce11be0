//! Scopes: the parts of a transport that a policy has requirements for (containers-policy.json(5), "Supported transports
//! and their scopes").

use super::name::ImageName;
use crate::error::{Error, Result};
use crate::oci::Reference;
use crate::transport::Location;
use std::fs;
use std::path::Path;

/// The transports of containers/image. An unknown one in a policy is taken for a mistake.
const TRANSPORTS: [&str; 11] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// Returns why a transport cannot stand in a policy, if so.
pub(super) fn refuse_transport(transport: &str) -> Option<String> {
    let is_known = TRANSPORTS.contains(&transport);
    (!is_known).then(|| format!("{transport:?} is not a transport: there are {}", TRANSPORTS.join(", ")))
}

/// Returns why a scope cannot stand in a policy, if so. A scope that no image can have is refused: its requirements would
/// never hold.
pub(super) fn refuse_scope(transport: &str, scope: &str) -> Option<String> {
    match transport {
        _ if scope.is_empty() => None,
        "docker" => refuse_name(scope),
        "docker-archive" => Some(format!("{scope:?}: this transport has only the scope \"\"")),
        "oci" | "oci-archive" => refuse_path(scope),
        // Images in other transports are not read.
        _ => None,
    }
}

fn refuse_name(scope: &str) -> Option<String> {
    if let Some(domain) = scope.strip_prefix("*.") {
        let is_domain =
            !domain.contains(['/', ':', '@']) && format!("x.{domain}/x").parse::<Reference>().is_ok();
        return (!is_domain)
            .then(|| format!("{scope:?} is not a domain: write *.example.com, without a port"));
    }
    // The name of an image in a namespace, which a repository is too, and in a registry.
    let inside = format!("{scope}/x");
    let is_namespace = Reference::names_registry(&inside)
        && ImageName::parse(&inside).is_ok_and(|name| name.is_repository() && *name.repository() == *inside);
    // docker.io/x is docker.io/library/x, and not in the namespace docker.io.
    let name = ImageName::parse(scope);
    let is_image = name
        .as_ref()
        .is_ok_and(|name| name.to_string() == scope && !(name.is_tagged() && scope.contains('@')));
    if is_namespace || is_image || scope == "docker.io" {
        return None;
    }
    let complete = match &name {
        // Without a slash a host that is not valid would be the name of a repository.
        Ok(name) if name.to_string() != scope && (scope.contains('/') || !scope.contains('.')) => {
            format!(": write {name}")
        }
        _ => ": write HOST[:PORT][/NAMESPACE][/REPOSITORY[:TAG]] or HOST/REPOSITORY@DIGEST".to_owned(),
    };
    Some(format!("no image has the scope {scope:?}{complete}"))
}

fn refuse_path(scope: &str) -> Option<String> {
    if scope == "/" {
        return Some("\"/\": write \"\" for all images of the transport".to_owned());
    }
    let is_clean = |name: &str| !matches!(name, "" | "." | "..");
    let is_path = scope.strip_prefix('/').is_some_and(|path| path.split('/').all(is_clean));
    (!is_path).then(|| {
        format!("{scope:?} is not an absolute path in its simplest form, without \".\", \"..\" and \"/\" at the end")
    })
}

/// Returns the scopes of an image from the most to the least specific. The last one is that of the transport.
///
/// # Errors
/// Those of finding the real path of a layout or an archive.
pub(super) fn scopes(image: &Location) -> Result<Vec<String>> {
    let mut scopes = match image {
        Location::Registry(_) => ImageName::of(image).as_ref().map(scopes_of_name).unwrap_or_default(),
        Location::Layout { directory: path, .. } | Location::OciArchive { file: path, .. } => {
            scopes_of_path(path)?
        }
        Location::DockerArchive { .. } => Vec::new(),
    };
    scopes.push(String::new());
    Ok(scopes)
}

/// Returns the name with its tag or its digest, the repository, its namespaces, the host with its port, and the wildcards
/// of its domains.
fn scopes_of_name(name: &ImageName) -> Vec<String> {
    let mut scopes = vec![name.to_string()];
    let mut rest = name.repository();
    loop {
        scopes.push(rest.to_owned());
        match rest.rsplit_once('/') {
            Some((namespace, _)) => rest = namespace,
            None => break,
        }
    }
    let mut domain = rest.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = domain.split_once('.') {
        scopes.push(format!("*.{parent}"));
        domain = parent;
    }
    scopes
}

/// Returns the path without links, and the directories above it. Names that are not UTF-8 cannot stand in a policy.
fn scopes_of_path(path: &Path) -> Result<Vec<String>> {
    let real = fs::canonicalize(path).map_err(|error| {
        Error::io(format!("cannot find the requirements of the policy for {}", path.display()), error)
    })?;
    let above = real.ancestors().filter(|above| above.parent().is_some());
    Ok(above.filter_map(Path::to_str).map(str::to_owned).collect())
}
