//! The keys under which files and credential helpers store the credentials of a registry.

/// The names of Docker Hub in credential files.
const DOCKER_HUB: [&str; 4] =
    ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// The key that Docker uses for Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Returns the key that Docker uses for a registry, in files and with helpers.
pub(super) fn key_of(registry: &str) -> &str {
    if DOCKER_HUB.contains(&registry) { DOCKER_HUB_KEY } else { registry }
}

/// Returns whether a key is for the registry as a whole, in any spelling.
pub(super) fn is_key_of(key: &str, registry: &str) -> bool {
    specificity(key, registry, "") == Some(0)
}

/// Returns how many components of the repository's name a key matches; `None` if it is for something else.
///
/// Docker writes `host`, `https://host` or `https://host/v1/`. Podman also writes `host/repository` and any leading part
/// of it. A path counts only without a scheme, and the protocol versions `v1` and `v2` never count.
pub(super) fn specificity(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match bare.unwrap_or(key).trim_end_matches('/').split_once('/') {
        Some((host, path)) => (host, path),
        None => (bare.unwrap_or(key).trim_end_matches('/'), ""),
    };
    let is_hub = |name: &str| DOCKER_HUB.contains(&name);
    let is_same_host = host.eq_ignore_ascii_case(registry) || (is_hub(host) && is_hub(registry));
    if !is_same_host {
        return None;
    }
    if path.is_empty() || bare.is_some() || matches!(path, "v1" | "v2") {
        return Some(0);
    }
    let mut components = repository.split('/');
    let mut count = 0;
    for component in path.split('/') {
        if components.next() != Some(component) {
            return None;
        }
        count += 1;
    }
    Some(count)
}
