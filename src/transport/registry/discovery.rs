//! Discovery of credentials, certificates, mirrors and proxies in the places where docker, podman and curl have them.

use crate::error::{Error, Result};
use crate::transport::{Access, CredentialSource, Environment, Proxies, Proxy, Secret, Tls};
use rustix::process::getuid;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The names of Docker's file in a directory. A mounted Kubernetes secret has the name of its key in the cluster.
const DOCKER_FILES: [&str; 3] = ["config.json", ".dockerconfigjson", ".dockercfg"];

impl Access {
    /// Finds credentials, certificates, mirrors and proxies in the places where docker, podman and curl have them.
    ///
    /// ```
    /// use volio::transport::Access;
    ///
    /// let access = Access::from_environment(&std::env::vars_os().collect())?;
    /// # Ok::<(), volio::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `REGISTRY_AUTH_FILE` names a file that does not exist.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let credentials = CredentialSource::discover(None, environment)?;
        Ok(Self { credentials, ..Self::without_credentials(environment) })
    }

    /// Finds certificates, mirrors and proxies, and no credentials.
    pub fn without_credentials(environment: &Environment) -> Self {
        Self {
            tls: Tls {
                system_authorities: system_authorities(environment),
                directories: certificate_directories(environment),
                ..Tls::default()
            },
            registries_conf: registries_conf(environment),
            proxies: proxies(environment),
            helper_environment: environment.clone(),
            ..Self::default()
        }
    }
}

impl CredentialSource {
    /// Returns the sources of credentials, in the order in which they are read.
    ///
    /// A file that the user named, by `authfile` or `REGISTRY_AUTH_FILE`, is the only source. Otherwise the sources are
    /// the text in `DOCKER_AUTH_CONFIG`, Docker's file in `DOCKER_CONFIG`, Podman's two files, and Docker's two files in
    /// the home directory. The first of these does not count if `DOCKER_CONFIG` is set.
    ///
    /// # Errors
    /// When the file that the user named does not exist. Without credentials the error would come later, as a denial.
    pub fn discover(authfile: Option<&Path>, environment: &Environment) -> Result<Vec<Self>> {
        if let Some(named) = named_auth_file(authfile, environment) {
            return if exists(&named) {
                Ok(vec![Self::Named(named)])
            } else {
                Err(Error::usage(format!("{} is not there", named.display()))
                    .with_hint("--authfile and REGISTRY_AUTH_FILE name a file like docker's config.json"))
            };
        }
        let text = environment.get("DOCKER_AUTH_CONFIG").map(|text| Self::Text {
            name: "DOCKER_AUTH_CONFIG".to_owned(),
            text: Secret::new(text.to_string_lossy()),
        });
        let home = environment.get("HOME").map(Path::new);
        let docker_config = environment.get("DOCKER_CONFIG").map(Path::new);
        let moved =
            docker_config.into_iter().flat_map(|directory| DOCKER_FILES.map(|name| directory.join(name)));
        let files = [
            moved.into_iter().find(|file| exists(file)),
            session_auth_file(environment),
            configuration_directory(environment).map(|directory| directory.join("containers/auth.json")),
            home.filter(|_| docker_config.is_none()).map(|home| home.join(".docker/config.json")),
            home.map(|home| home.join(".dockercfg")),
        ];
        let files = files.into_iter().flatten().filter(|file| exists(file)).map(Self::File);
        Ok(text.into_iter().chain(files).collect())
    }
}

/// Returns the file with credentials that the user named, by an option or by `REGISTRY_AUTH_FILE`.
pub fn named_auth_file(authfile: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    authfile.or_else(|| environment.get("REGISTRY_AUTH_FILE").map(Path::new)).map(Path::to_owned)
}

/// Returns the file that a login writes: the one that the user named, otherwise Docker's.
///
/// # Errors
/// When no file was named and there is no home directory.
pub fn login_file(authfile: Option<&Path>, environment: &Environment) -> Result<PathBuf> {
    let path = |variable, file| environment.get(variable).map(|directory| Path::new(directory).join(file));
    named_auth_file(authfile, environment)
        .or_else(|| path("DOCKER_CONFIG", "config.json"))
        .or_else(|| path("HOME", ".docker/config.json"))
        .ok_or_else(|| {
            Error::usage("there is no home directory to keep credentials in")
                .with_hint("name a file with --authfile")
        })
}

/// Returns Podman's file of the login session.
fn session_auth_file(environment: &Environment) -> Option<PathBuf> {
    if let Some(directory) = environment.get("XDG_RUNTIME_DIR") {
        return Some(Path::new(directory).join("containers/auth.json"));
    }
    // Podman's own default. The directory may be root's and unreadable, and then nothing of ours is in it.
    let default = PathBuf::from(format!("/run/containers/{}/auth.json", getuid().as_raw()));
    default.exists().then_some(default)
}

/// Returns the files and directories of `SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL reads them.
fn system_authorities(environment: &Environment) -> Vec<PathBuf> {
    let file = environment.get("SSL_CERT_FILE").into_iter();
    let directories = environment.get("SSL_CERT_DIR").into_iter();
    let directories = directories.flat_map(|list| list.as_bytes().split(|byte| *byte == b':'));
    let directories = directories.filter(|path| !path.is_empty()).map(OsStr::from_bytes);
    file.chain(directories).map(PathBuf::from).collect()
}

/// Returns the directories with certificates for each registry, in the order of containers/image.
fn certificate_directories(environment: &Environment) -> Vec<PathBuf> {
    let own = configuration_directory(environment).map(|directory| directory.join("containers/certs.d"));
    own.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

/// Returns the files of `registries.conf`, in the order of containers/image: the user's file or the machine's, and then the
/// files in the directories beside both, by name, where a user's file replaces the machine's. Files that cannot even be
/// looked at are skipped, because they belong to another user.
fn registries_conf(environment: &Environment) -> Vec<PathBuf> {
    if let Some(named) = environment.get("CONTAINERS_REGISTRIES_CONF") {
        return vec![named.into()];
    }
    let own = configuration_directory(environment).map(|directory| directory.join("containers"));
    let directories: Vec<_> = own.into_iter().chain([PathBuf::from("/etc/containers")]).collect();
    let main = directories.iter().map(|directory| directory.join("registries.conf"));
    let main = main.into_iter().find(|file| file.exists());
    let mut others = BTreeMap::new();
    for directory in directories.iter().rev() {
        let Ok(entries) = fs::read_dir(directory.join("registries.conf.d")) else { continue };
        let files = entries.flatten().map(|entry| (entry.file_name(), entry.path()));
        others.extend(files.filter(|(_, path)| path.extension().is_some_and(|end| end == "conf")));
    }
    main.into_iter().chain(others.into_values()).collect()
}

/// Returns the proxies, with the precedence of curl and Go.
fn proxies(environment: &Environment) -> Proxies {
    let first = |names: &[&str]| {
        let mut set = names.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(name)?)));
        set.next().map(|(name, value)| (name, value.to_string_lossy().into_owned()))
    };
    let proxy =
        |names: &[&str]| first(names).map(|(name, address)| Proxy { name, address: Secret::new(address) });
    // For a CGI program, HTTP_PROXY is the header "Proxy" of a client.
    let http: &[&str] = match environment.get("REQUEST_METHOD") {
        None => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        Some(_) => &["http_proxy", "ALL_PROXY", "all_proxy"],
    };
    Proxies {
        http: proxy(http),
        https: proxy(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        except: first(&["NO_PROXY", "no_proxy"]).map(|(_, hosts)| hosts).unwrap_or_default(),
    }
}

/// Returns the user's directory for configuration, as the XDG specification has it.
fn configuration_directory(environment: &Environment) -> Option<PathBuf> {
    let named = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
    named.or_else(|| Some(Path::new(environment.get("HOME")?).join(".config")))
}

/// Returns whether a file exists. One that cannot be looked at counts: reading it will report the reason.
fn exists(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(variables: &[(&str, &str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[test]
    fn mirrors_are_read_from_one_file_and_the_directory_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join("containers");
        fs::create_dir_all(own.join("registries.conf.d")).unwrap();
        for name in
            ["registries.conf", "registries.conf.d/b.conf", "registries.conf.d/a.conf", "registries.conf.d/c"]
        {
            fs::write(own.join(name), "").unwrap();
        }
        let home = home.path().to_str().unwrap();
        let mut files = registries_conf(&only(&[("XDG_CONFIG_HOME", home)]));
        // The machine that runs the test may have files too.
        files.retain(|file| !file.starts_with("/etc"));
        let names = ["registries.conf", "registries.conf.d/a.conf", "registries.conf.d/b.conf"];
        assert_eq!(files, names.map(|name| own.join(name)));
        let named = [("XDG_CONFIG_HOME", home), ("CONTAINERS_REGISTRIES_CONF", "x")];
        assert_eq!(registries_conf(&only(&named)), [PathBuf::from("x")]);
    }

    #[test]
    fn proxies_are_read_from_variables_in_either_case_and_empty_ones_count_as_unset() {
        let find = |variables: &[(&str, &str)]| {
            let found = proxies(&only(variables));
            let name = |proxy: Option<Proxy>| {
                proxy.map(|proxy| format!("{}={}", proxy.name, proxy.address.reveal()))
            };
            (name(found.http), name(found.https), found.except)
        };
        let all = [("ALL_PROXY", "a"), ("https_proxy", "b"), ("no_proxy", "x.io:1,*.y")];
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(find(&all), (text("ALL_PROXY=a"), text("https_proxy=b"), "x.io:1,*.y".to_owned()));
        assert_eq!(
            find(&[("HTTP_PROXY", "c"), ("HTTPS_PROXY", "")]),
            (text("HTTP_PROXY=c"), None, String::new())
        );
        // The client of a CGI program can set it.
        assert_eq!(find(&[("HTTP_PROXY", "c"), ("REQUEST_METHOD", "GET")]), (None, None, String::new()));
    }

    #[test]
    fn a_registries_conf_that_cannot_be_looked_at_is_skipped() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join("containers");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("registries.conf"), "").unwrap();
        let find = || registries_conf(&only(&[("XDG_CONFIG_HOME", home.path().to_str().unwrap())]));
        assert!(find().contains(&own.join("registries.conf")));
        // Root may look at everything.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_dir(&own).is_err() {
            assert!(!find().contains(&own.join("registries.conf")));
        }
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the paths of the files and the names of the texts. Those of the machine that runs the test are left out.
    fn sources(authfile: Option<&Path>, environment: &Environment) -> Result<Vec<PathBuf>> {
        let sources = CredentialSource::discover(authfile, environment)?.into_iter();
        let paths = sources.map(|source| match source {
            CredentialSource::File(path) | CredentialSource::Named(path) => path,
            CredentialSource::Text { name, .. } => name.into(),
        });
        Ok(paths.filter(|path| !path.starts_with("/run")).collect())
    }

    #[test]
    fn a_named_file_is_the_only_source_and_must_exist() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("auth.json");
        fs::write(&file, "{}").unwrap();
        let missing = home.path().join("missing");
        let named = [("REGISTRY_AUTH_FILE", missing.to_str().unwrap()), ("DOCKER_AUTH_CONFIG", "{}")];
        assert_eq!(sources(Some(&file), &only(&named)).unwrap(), [file]);
        assert!(sources(None, &only(&named)).is_err());
    }

    #[test]
    fn credentials_are_read_from_the_files_of_docker_and_podman() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let file = home.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "{}").unwrap();
            file
        };
        let docker = file(".docker/config.json");
        let old = file(".dockercfg");
        let podman = file(".config/containers/auth.json");
        let session = file("run/containers/auth.json");
        let moved = file("moved/config.json");
        let home = home.path().to_str().unwrap();
        let (elsewhere, run) = (format!("{home}/moved"), format!("{home}/run"));
        let usual = [podman.clone(), docker, old.clone()];
        assert_eq!(sources(None, &only(&[("HOME", home)])).unwrap(), usual);
        let all = [
            ("HOME", home),
            ("DOCKER_CONFIG", &elsewhere),
            ("DOCKER_AUTH_CONFIG", "{}"),
            ("XDG_RUNTIME_DIR", &run),
        ];
        let text = PathBuf::from("DOCKER_AUTH_CONFIG");
        assert_eq!(sources(None, &only(&all)).unwrap(), [text, moved, session, podman, old]);
        assert!(sources(None, &only(&[])).unwrap().is_empty());
        let written = |variables: &[(&str, &str)]| login_file(None, &only(variables)).ok();
        assert_eq!(written(&all), Some(format!("{elsewhere}/config.json").into()));
        assert_eq!(written(&all[..1]), Some(format!("{home}/.docker/config.json").into()));
        assert_eq!(written(&[("REGISTRY_AUTH_FILE", "x"), ("HOME", home)]), Some("x".into()));
        assert_eq!(written(&[]), None);
    }

    #[test]
    fn authorities_of_the_system_are_replaced_by_openssls_variables() {
        assert!(system_authorities(&only(&[("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", ":")])).is_empty());
        let found = system_authorities(&only(&[("SSL_CERT_FILE", "/f"), ("SSL_CERT_DIR", "/a::/b")]));
        assert_eq!(found, ["/f", "/a", "/b"].map(PathBuf::from));
    }

    #[test]
    fn one_call_finds_credentials_certificates_proxies_and_the_environment_of_helpers() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".docker")).unwrap();
        fs::write(home.path().join(".docker/config.json"), "{}").unwrap();
        let variables = [("HOME", home.path().to_str().unwrap()), ("PATH", "/helpers"), ("https_proxy", "p")];
        let access = Access::from_environment(&only(&variables)).unwrap();
        let docker = home.path().join(".docker/config.json");
        assert!(
            access
                .credentials
                .iter()
                .any(|source| matches!(source, CredentialSource::File(file) if *file == docker))
        );
        assert_eq!(access.tls.directories[0], home.path().join(".config/containers/certs.d"));
        assert_eq!(access.proxies.https.unwrap().address.reveal(), "p");
        assert_eq!(access.helper_environment.get("PATH"), Some(OsStr::new("/helpers")));
    }
}
