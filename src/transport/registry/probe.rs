//! Single requests that examine a registry, for `doctor`. Nothing is retried more than once, every wait has a limit, and
//! statuses are results and not errors.

use super::Registry;
use super::client::Client;
use super::credentials::Credentials;
use super::http::{Http, Request, wait};
use super::keychain::Keychain;
use super::printable::printable;
use super::proxies::ProxyRules;
use super::registries_conf::RegistriesConf;
use super::response::Response;
use super::tls::TlsConfig;
use super::token::Scopes;
use super::url::{self, follow, host_of, with_parameter};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, Reference, media_type};
use crate::transport::{Access, Source, fetch};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION,
};
use reqwest::{Method, Url};
use std::sync::Arc;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// The maximum size of a list of tags that is read, in bytes.
const LIST_LIMIT: usize = 1 << 20;

/// A registry, and possibly one repository in it, that is examined.
pub struct Probe {
    reference: Option<Reference>,
    base: Url,
    http: Http,
    client: Client,
    keychain: Keychain,
    proxies: ProxyRules,
    access: Access,
}

/// A response: its status and its headers.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    headers: HeaderMap,
}

/// The kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A user name and a password.
    Password,
    /// A token that the token server exchanges.
    Identity,
    /// A token of the registry itself.
    Registry,
}

/// The credentials that were found, without any secret.
pub struct CredentialReport {
    /// The file, the variable or the helper that has them, and their kind.
    pub found: Option<(String, CredentialKind)>,
    /// The second at which a token expires, since 1970, if the token says it.
    pub expires: Option<i64>,
    /// The first error of the search.
    pub problem: Option<String>,
}

/// An image of the repository.
pub struct Sample {
    /// The tag.
    pub tag: String,
    /// The digest of the index or the manifest.
    pub digest: Digest,
    /// A small blob.
    pub blob: Descriptor,
}

/// An upload that was begun.
pub struct UploadSession(Url);

impl Answer {
    fn new(response: &Response) -> Self {
        Self { status: response.status().as_u16(), headers: response.headers().clone() }
    }

    /// Returns whether the status is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the status says that credentials are missing or do not suffice.
    pub fn is_denied(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// Returns a header, made safe for a terminal.
    pub fn header(&self, name: &'static str) -> Option<String> {
        let value = self.headers.get(HeaderName::from_static(name))?.to_str().ok()?;
        Some(printable(value))
    }

    /// Returns the time of the server in seconds since 1970.
    pub fn date(&self) -> Option<i64> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        Some(DateTimeParser::new().parse_timestamp(text).ok()?.as_second())
    }
}

impl Probe {
    /// Returns a probe of a registry, or of a repository in it. It connects when it is used.
    ///
    /// # Errors
    /// When a file with credentials, certificates or mirrors cannot be read, or `registries.conf` blocks the registry.
    pub fn new(host: &str, repository: Option<&str>, access: &Access) -> Result<Self> {
        let mut access = access.clone();
        access.client.retry.retries = access.client.retry.retries.min(1);
        let reference =
            repository.map(|repository| format!("{host}/{repository}").parse::<Reference>()).transpose()?;
        let name = reference.as_ref().map_or_else(|| host.to_owned(), Reference::name);
        let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
        let is_insecure = conf.is_insecure(&name)?;
        let repository = reference.as_ref().map(Reference::repository).unwrap_or_default();
        let tls = || TlsConfig::read(&access, host, is_insecure, &conf);
        let base = url::base(host, access.plain_http, tls()?.required)?;
        let http = || {
            Ok::<_, Error>(Http::new(tls()?, base.clone(), ProxyRules::new(&access), access.client.clone()))
        };
        let keychain = || Keychain::read(&access, host, repository);
        Ok(Self {
            client: Client::new(base.clone(), http()?, keychain()?),
            http: http()?,
            keychain: keychain()?,
            proxies: ProxyRules::new(&access),
            reference,
            base,
            access,
        })
    }

    /// Returns whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Returns whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        url::is_loopback(&self.base)
    }

    /// Returns the name of the proxy on the way; `None` without one.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn proxy(&self) -> Result<Option<String>> {
        Ok(self.proxies.route(&self.base)?.map(|route| route.name()))
    }

    /// Looks up the name of the first host on the way: the proxy, or the registry. Returns its name and its addresses.
    ///
    /// # Errors
    /// When there are none, or the lookup takes longer than a connection may.
    pub fn look_up(&self) -> Result<(String, Vec<String>)> {
        let (url, host) = self.first_hop()?;
        let target = target(&url);
        let cannot =
            |why: String| Error::failed(format!("cannot find the address of {host}")).with_source(why);
        let found = wait(async {
            let found = timeout(self.access.client.connect_timeout, lookup_host(target)).await;
            match found {
                Ok(Ok(addresses)) => {
                    Ok(addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>())
                }
                Ok(Err(error)) => Err(cannot(printable(&error.to_string()))),
                Err(_) => Err(cannot("the name server does not answer".to_owned())),
            }
        })?;
        if found.is_empty() { Err(cannot("it has none".to_owned())) } else { Ok((host, found)) }
    }

    /// Connects to the first host on the way, and closes the connection.
    ///
    /// # Errors
    /// When that fails, or takes longer than a connection may.
    pub fn connect(&self) -> Result<()> {
        let (url, host) = self.first_hop()?;
        let cannot = |why: String| Error::failed(format!("cannot connect to {host}")).with_source(why);
        wait(async {
            match timeout(self.access.client.connect_timeout, TcpStream::connect(target(&url))).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(cannot(error.to_string())),
                Err(_) => Err(cannot("nothing answers: is there a firewall between?".to_owned())),
            }
        })
    }

    fn first_hop(&self) -> Result<(Url, String)> {
        let url = self.proxies.route(&self.base)?.map_or_else(|| self.base.clone(), |route| route.url);
        let host = host_of(&url);
        Ok((url, host))
    }

    /// Requests `/v2/` without credentials.
    ///
    /// # Errors
    /// Those of the connection: of the proxy, of TLS, of the network.
    pub fn ping(&self) -> Result<Answer> {
        let what = format!("reach the registry {}", host_of(&self.base));
        let request = Request::new(Method::GET, self.base.clone(), what).once();
        wait(async { Ok(Answer::new(&self.http.send(&request).await?)) })
    }

    /// Returns whether a server answers with the other scheme: `http` in place of `https`, or the reverse. No credentials are
    /// sent, and any certificate is accepted.
    pub fn answers_otherwise(&self) -> bool {
        let mut access = Access { plain_http: self.is_encrypted(), ..self.access.clone() };
        access.credentials.clear();
        (access.tls.required, access.tls.accept_invalid_certs) = (false, !self.is_encrypted());
        let host = host_of(&self.base);
        Self::new(&host, None, &access)
            .and_then(|other| other.ping())
            .is_ok_and(|answer| answer.status != 400)
    }

    /// Looks for credentials, also in helpers.
    pub fn credentials(&self) -> CredentialReport {
        let found = self.keychain.find();
        let expires = match &found.credentials {
            Some(Credentials::Registry(token) | Credentials::Identity { token, .. }) => {
                expiry(token.reveal())
            }
            _ => None,
        };
        let kind = found.credentials.as_ref().map(|credentials| match credentials {
            Credentials::Password { .. } => CredentialKind::Password,
            Credentials::Identity { .. } => CredentialKind::Identity,
            Credentials::Registry(_) => CredentialKind::Registry,
        });
        CredentialReport { found: found.origin.zip(kind), expires, problem: found.problem }
    }

    /// Requests `/v2/` with the credentials.
    ///
    /// # Errors
    /// Those of the connection, and of a token server that rejects the credentials.
    pub fn log_in(&self) -> Result<Answer> {
        let what = format!("log in to {}", host_of(&self.base));
        self.send(Request::new(Method::GET, self.base.clone(), what), &Scopes::default())
    }

    /// Returns the names of the mirrors that the repository is read from first.
    ///
    /// # Errors
    /// When `registries.conf` cannot be read.
    pub fn mirrors(&self) -> Result<Vec<Reference>> {
        let Some(reference) = &self.reference else { return Ok(Vec::new()) };
        let mut locations = RegistriesConf::read(&self.access.registries_conf)?.locations(reference)?;
        locations.pop();
        Ok(locations.into_iter().map(|location| location.reference).collect())
    }

    fn repository(&self) -> Result<&Reference> {
        self.reference.as_ref().ok_or_else(|| Error::usage("no repository was named"))
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(self.client.url(&format!("{}/{path}", self.repository()?.repository())))
    }

    fn send(&self, request: Request, scopes: &Scopes) -> Result<Answer> {
        wait(async { Ok(Answer::new(&self.client.send(request.once(), scopes).await?)) })
    }

    /// Lists tags of the repository: the status, and those on the first page.
    ///
    /// # Errors
    /// Those of the connection and of the token server.
    pub fn tags(&self) -> Result<(Answer, Vec<String>)> {
        let name = self.repository()?.name();
        let url = with_parameter(self.url("tags/list")?, "n", "100");
        let request = Request::new(Method::GET, url, format!("list the tags of {name}")).once();
        let scopes = Scopes::pull(self.repository()?.repository());
        wait(async {
            let mut response = self.client.send(request, &scopes).await?;
            let answer = Answer::new(&response);
            let body = if answer.is_success() { response.read(LIST_LIMIT).await? } else { Vec::new() };
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let tags = json.get("tags").and_then(|tags| tags.as_array()).cloned().unwrap_or_default();
            Ok((answer, tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()))
        })
    }

    /// Finds a small blob: the config of the image with this tag.
    ///
    /// # Errors
    /// Those of reading its manifests.
    pub fn sample(&self, tag: &str) -> Result<Sample> {
        let registry = self.registry(tag)?;
        let root = registry.resolve()?;
        let digest = root.descriptor().digest.clone();
        let manifest = if media_type::is_index(&root.descriptor().media_type) {
            let index = Index::parse(&root)?;
            let first = index.manifests.first().ok_or_else(|| root.malformed("it lists nothing"))?;
            fetch(&registry, first)?
        } else {
            root
        };
        Ok(Sample { tag: tag.to_owned(), digest, blob: Manifest::parse(&manifest)?.config })
    }

    fn registry(&self, tag: &str) -> Result<Registry> {
        Registry::new(self.repository()?.with_tag(tag)?, &self.access)
    }

    /// Returns whether the registry sends a part of a blob.
    ///
    /// # Errors
    /// Those of the request.
    pub fn sends_ranges(&self, sample: &Sample) -> Result<bool> {
        Ok(self.registry(&sample.tag)?.open_range(&sample.blob, 0..1)?.is_some())
    }

    /// Requests the list of referrers. Returns the answer, and whether it is a list.
    ///
    /// # Errors
    /// Those of the connection and of the token server.
    pub fn referrers(&self, subject: &Digest) -> Result<(Answer, bool)> {
        let url = self.url(&format!("referrers/{subject}"))?;
        let request = Request::new(Method::GET, url, "list referrers").header(ACCEPT, media_type::INDEX);
        let answer = self.send(request, &Scopes::pull(self.repository()?.repository()))?;
        let kind = answer.header("content-type").unwrap_or_default();
        let is_list = answer.is_success() && kind.starts_with(media_type::INDEX);
        Ok((answer, is_list))
    }

    /// Requests the headers of the manifest with a tag.
    ///
    /// # Errors
    /// Those of the connection and of the token server.
    pub fn manifest_headers(&self, tag: &str) -> Result<Answer> {
        let request =
            Request::new(Method::HEAD, self.url(&format!("manifests/{tag}"))?, "look at a manifest")
                .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        self.send(request, &Scopes::pull(self.repository()?.repository()))
    }

    fn push_scopes(&self) -> Result<Scopes> {
        Ok(Scopes::push(self.repository()?.repository()))
    }

    /// Begins an upload, or mounts a blob of the repository into the repository itself, which changes nothing. The caller
    /// cancels the session.
    ///
    /// # Errors
    /// Those of the connection and of the token server.
    pub fn begin_upload(&self, mounted: Option<&Digest>) -> Result<(Answer, Option<UploadSession>)> {
        let mut url = self.url("blobs/uploads/")?;
        if let Some(digest) = mounted {
            url = with_parameter(url, "mount", &digest.to_string());
            url = with_parameter(url, "from", self.repository()?.repository());
        }
        let answer =
            self.send(Request::new(Method::POST, url.clone(), "begin an upload"), &self.push_scopes()?)?;
        let session = match answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()) {
            Some(location) if answer.status == 202 => Some(UploadSession(follow(&url, location)?)),
            _ => None,
        };
        Ok((answer, session))
    }

    /// Sends a chunk to an upload, which may continue at another URL then.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_chunk(&self, session: &mut UploadSession, bytes: &'static [u8]) -> Result<Answer> {
        let request = Request::new(Method::PATCH, session.0.clone(), "send a chunk")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_RANGE, &format!("0-{}", bytes.len().saturating_sub(1)))
            .header(CONTENT_LENGTH, &bytes.len().to_string())
            .body(bytes);
        let answer = self.send(request, &self.push_scopes()?)?;
        if let Some(location) = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()) {
            session.0 = follow(&session.0, location)?;
        }
        Ok(answer)
    }

    /// Sends a whole blob with the digest of another one, so that the registry reads it and must not store it.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_wrong_blob(
        &self,
        session: &UploadSession,
        bytes: &'static [u8],
        digest: &Digest,
    ) -> Result<Answer> {
        let url = with_parameter(session.0.clone(), "digest", &digest.to_string());
        let request = Request::new(Method::PUT, url, "send a blob")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, &bytes.len().to_string())
            .body(bytes);
        self.send(request, &self.push_scopes()?)
    }

    /// Cancels an upload.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn cancel_upload(&self, session: UploadSession) -> Result<Answer> {
        self.send(Request::new(Method::DELETE, session.0, "cancel an upload"), &self.push_scopes()?)
    }

    /// Asks the registry to delete a manifest that does not exist.
    ///
    /// # Errors
    /// Those of the connection and of the token server.
    pub fn delete_nothing(&self, document: &Document) -> Result<Answer> {
        let url = self.url(&format!("manifests/{}", document.descriptor().digest))?;
        let scopes = Scopes::delete(self.repository()?.repository());
        self.send(Request::new(Method::DELETE, url, "delete a manifest"), &scopes)
    }
}

/// Returns the host and the port of a URL for a name lookup.
fn target(url: &Url) -> (String, u16) {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), url.port_or_known_default().unwrap_or(443))
}

/// Returns the time at which a JSON Web Token expires (RFC 7519, section 4.1.4), in seconds since 1970.
fn expiry(token: &str) -> Option<i64> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&payload).ok()?.get("exp")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_token_is_read_if_it_is_a_json_web_token() {
        let token = |payload: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(expiry(&token(r#"{"exp":1700000000}"#)), Some(1_700_000_000));
        for other in ["opaque", "a.b.c", "", &token("[]"), &token(r#"{"exp":"soon"}"#)] {
            assert_eq!(expiry(other), None, "{other}");
        }
    }
}
