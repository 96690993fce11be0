//! What the environment says. An empty variable counts as one that is not set, because Compose files and CI jobs
//! pass variables on without knowing whether they are.

use rustix::process::getuid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use volio::{CredentialSource, Error, Proxies, Proxy, Result, Secret, Time};

/// The last second of the year 9999: RFC 3339 has no later one, and an image says its time in RFC 3339.
const LAST_SECOND: i64 = 253_402_300_799;

/// A variable of this process.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The moment that all newer times are set to, where `SOURCE_DATE_EPOCH` names one.
///
/// # Errors
/// When it is not a number: an image that is silently not reproducible is worse than none.
pub fn source_date_epoch(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Time>> {
    let Some(value) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = value.to_string_lossy();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(seconds) if digits && seconds <= LAST_SECOND => Ok(Some(Time { seconds, nanoseconds: 0 })),
        _ => Err(Error::usage(format!("SOURCE_DATE_EPOCH is {text:?}, which is not a time"))
            .with_hint("set it to seconds since 1970, for example $(git log -1 --format=%ct)")),
    }
}

/// Where credentials are looked for, in this order.
///
/// A file that was named, by `--authfile` or `REGISTRY_AUTH_FILE`, is the only place. Otherwise these are the text in
/// `DOCKER_AUTH_CONFIG`, Docker's file where `DOCKER_CONFIG` moved it, Podman's two, and Docker's two in the home
/// directory, of which the first counts only where it was not moved.
///
/// # Errors
/// When a file that was named is not there: going on without credentials would end in a denial far from its cause.
pub fn credentials(
    authfile: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<CredentialSource>> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    if let Some(named) = named_file(authfile, &variable) {
        return match is_there(&named) {
            true => Ok(vec![CredentialSource::Named(named)]),
            false => Err(Error::usage(format!("{} is not there", named.display()))
                .with_hint("--authfile and REGISTRY_AUTH_FILE name a file like docker's config.json")),
        };
    }
    let text = variable("DOCKER_AUTH_CONFIG").map(|text| CredentialSource::Text {
        name: "DOCKER_AUTH_CONFIG".to_owned(),
        text: Secret::new(text.to_string_lossy()),
    });
    let home = path("HOME");
    let moved = path("DOCKER_CONFIG");
    let usual = home.as_ref().filter(|_| moved.is_none()).map(|home| home.join(".docker/config.json"));
    // Where nobody has made a directory for the session, podman uses the one that it would have.
    let session = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
    let session = session.or_else(|| {
        let guess = PathBuf::from(format!("/run/containers/{}/auth.json", getuid().as_raw()));
        // Who may not even look there, because root has made the directory, has nothing there.
        guess.exists().then_some(guess)
    });
    // A mounted secret of Kubernetes has the name that it has in the cluster.
    let secrets = ["config.json", ".dockerconfigjson", ".dockercfg"];
    let moved = moved.iter().flat_map(|directory| secrets.map(|name| directory.join(name)));
    let moved = moved.into_iter().find(|file| is_there(file));
    let files = [
        moved,
        session,
        configuration(&variable).map(|directory| directory.join("containers/auth.json")),
        usual,
        home.map(|home| home.join(".dockercfg")),
    ];
    let files = files.into_iter().flatten().filter(|file| is_there(file)).map(CredentialSource::File);
    Ok(text.into_iter().chain(files).collect())
}

/// The file with credentials that was named.
pub fn named_file(authfile: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    authfile.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from))
}

/// The file that a login writes: the one that was named, else Docker's.
///
/// # Errors
/// When there is no home directory to keep it in.
pub fn login_file(authfile: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let moved = || Some(PathBuf::from(variable("DOCKER_CONFIG")?).join("config.json"));
    let usual = || Some(PathBuf::from(variable("HOME")?).join(".docker/config.json"));
    named_file(authfile, &variable).or_else(moved).or_else(usual).ok_or_else(|| {
        Error::usage("there is no home directory to keep credentials in")
            .with_hint("name a file with --authfile")
    })
}

/// Where certificates for each registry are, in the order of containers/image.
pub fn certificates(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let own = configuration(&variable).map(|directory| directory.join("containers/certs.d"));
    own.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

/// The files that say where images are really read, in the order of containers/image: the user's or the machine's, and
/// the parts in the directories beside both, by name, where a user's part replaces the machine's. What cannot even be
/// looked at is somebody else's.
pub fn registries_conf(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(named) = variable("CONTAINERS_REGISTRIES_CONF") {
        return vec![named.into()];
    }
    let own = configuration(&variable).map(|directory| directory.join("containers"));
    let places: Vec<_> = own.into_iter().chain([PathBuf::from("/etc/containers")]).collect();
    let whole = places.iter().map(|place| place.join("registries.conf")).find(|file| file.exists());
    let mut parts = BTreeMap::new();
    for place in places.iter().rev() {
        let Ok(entries) = std::fs::read_dir(place.join("registries.conf.d")) else { continue };
        let files =
            entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
        parts.extend(files.map(|entry| (entry.file_name(), entry.path())));
    }
    whole.into_iter().chain(parts.into_values()).collect()
}

/// The proxies on the way to registries, in the order of curl and Go.
pub fn proxies(variable: impl Fn(&str) -> Option<OsString>) -> Proxies {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, variable(name)?.to_string_lossy().into_owned())))
    };
    let proxy = |names: &[&'static str]| {
        first(names).map(|(name, address)| Proxy { name: name.to_owned(), address: Secret::new(address) })
    };
    // To a CGI program, a client's header "Proxy" comes as HTTP_PROXY.
    let http: &[&'static str] = match variable("REQUEST_METHOD") {
        None => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        Some(_) => &["http_proxy", "ALL_PROXY", "all_proxy"],
    };
    Proxies {
        http: proxy(http),
        https: proxy(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        except: first(&["NO_PROXY", "no_proxy"]).map(|(_, hosts)| hosts).unwrap_or_default(),
    }
}

/// Where a user's programs keep their settings.
fn configuration(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")))
}

/// The directory that remembers what has not ended, as the XDG specification places it; `None` without a home.
pub fn state(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state"));
    // Relative paths are to be ignored, says the specification.
    let named = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(named.or_else(home)?.join("volio"))
}

/// Where files are for a moment that nobody shall see.
pub fn temporary(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from)
}

/// Whether there is such a file. One that cannot be looked at counts: reading it will say why.
fn is_there(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn only<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn mirrors_stand_in_one_file_and_its_parts() {
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join("containers");
        fs::create_dir_all(own.join("registries.conf.d")).unwrap();
        for name in
            ["registries.conf", "registries.conf.d/b.conf", "registries.conf.d/a.conf", "registries.conf.d/c"]
        {
            fs::write(own.join(name), "").unwrap();
        }
        let home = home.path().to_str().unwrap();
        let mut files = registries_conf(only(&[("XDG_CONFIG_HOME", home)]));
        // The machine that runs this may have parts of its own.
        files.retain(|file| !file.starts_with("/etc"));
        let names = ["registries.conf", "registries.conf.d/a.conf", "registries.conf.d/b.conf"];
        assert_eq!(files, names.map(|name| own.join(name)));
        let named = [("XDG_CONFIG_HOME", home), ("CONTAINERS_REGISTRIES_CONF", "x")];
        assert_eq!(registries_conf(only(&named)), [PathBuf::from("x")]);
    }

    #[test]
    fn proxies_are_named_by_variables_in_either_case_and_empty_ones_count_as_none() {
        let find = |variables: &[(&str, &str)]| {
            let set: Vec<_> = variables.iter().filter(|(_, value)| !value.is_empty()).copied().collect();
            let found = proxies(only(&set));
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
        // A client of a CGI program can set it.
        assert_eq!(find(&[("HTTP_PROXY", "c"), ("REQUEST_METHOD", "GET")]), (None, None, String::new()));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_no_registries_conf_of_ours() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join("containers");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("registries.conf"), "").unwrap();
        let find = || registries_conf(only(&[("XDG_CONFIG_HOME", home.path().to_str().unwrap())]));
        assert!(find().contains(&own.join("registries.conf")));
        // Root may look everywhere.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_dir(&own).is_err() {
            assert!(!find().contains(&own.join("registries.conf")));
        }
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_time_is_digits_and_nothing_else() {
        let read = |text: &str| source_date_epoch(only(&[("SOURCE_DATE_EPOCH", text)]));
        assert_eq!(source_date_epoch(only(&[])).unwrap(), None);
        assert_eq!(read("0").unwrap(), Some(Time::default()));
        assert_eq!(read("253402300799").unwrap().map(|time| time.seconds), Some(LAST_SECOND));
        for bad in ["253402300800", "-1", "+1", "1.5", "today", " 1", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    /// The files among the places, and the names of the texts.
    fn places(authfile: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<PathBuf>> {
        let places = credentials(authfile, variable)?.into_iter().map(|source| match source {
            CredentialSource::File(path) | CredentialSource::Named(path) => path,
            CredentialSource::Text { name, .. } => name.into(),
        });
        Ok(places.filter(|path| !path.starts_with("/run")).collect())
    }

    #[test]
    fn what_has_not_ended_is_remembered_where_xdg_says() {
        let find = |variables: &[(&str, &str)]| state(only(variables));
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[("HOME", "/h")]), Some("/h/.local/state/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]), Some("/h/.local/state/volio".into()));
    }

    #[test]
    fn a_named_file_is_the_only_one_and_must_be_there() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("auth.json");
        fs::write(&file, "{}").unwrap();
        let missing = home.path().join("missing");
        let named = [("REGISTRY_AUTH_FILE", missing.to_str().unwrap()), ("DOCKER_AUTH_CONFIG", "{}")];
        assert_eq!(places(Some(&file), only(&named)).unwrap(), [file]);
        assert!(places(None, only(&named)).is_err());
    }

    #[test]
    fn credentials_are_looked_for_where_docker_and_podman_write_them() {
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
        assert_eq!(places(None, only(&[("HOME", home)])).unwrap(), usual);
        let all = [
            ("HOME", home),
            ("DOCKER_CONFIG", &elsewhere),
            ("DOCKER_AUTH_CONFIG", "{}"),
            ("XDG_RUNTIME_DIR", &run),
        ];
        let text = PathBuf::from("DOCKER_AUTH_CONFIG");
        assert_eq!(places(None, only(&all)).unwrap(), [text, moved, session, podman, old]);
        assert!(places(None, only(&[])).unwrap().is_empty());
        let written = |variables: &[(&str, &str)]| login_file(None, only(variables)).ok();
        assert_eq!(written(&all), Some(format!("{elsewhere}/config.json").into()));
        assert_eq!(written(&all[..1]), Some(format!("{home}/.docker/config.json").into()));
        assert_eq!(written(&[("REGISTRY_AUTH_FILE", "x"), ("HOME", home)]), Some("x".into()));
        assert_eq!(written(&[]), None);
    }
}
