//! A client for registries that speak the OCI distribution protocol.
//!
//! No request is sent before it is needed. The first one learns the registry's authentication scheme; every further one
//! carries credentials or a token. Blobs stream through bounded channels between the caller's thread, which may block,
//! and the tasks of the runtime, which must not. tokio and reqwest are used in this directory only.
//!
//! | subject | file |
//! |---|---|
//! | requests: authorization, remembered redirects | [`client`] |
//! | connections, redirects, retries of one request, proxies | [`http`], [`connection_error`], [`proxies`] |
//! | responses, and errors and warnings that registries report | [`response`], [`warnings`] |
//! | retries, also of uploads: transient errors, the delay | [`retry`], and [`Retry`](super::Retry) for the numbers |
//! | authentication: challenges, tokens, scopes | [`auth`], [`challenge`], [`token`] |
//! | credentials: files, helpers, login | [`discovery`], [`keychain`], [`auth_file`], [`credential_helper`], [`login`] |
//! | certificates | [`tls`] |
//! | an upload: whole or in chunks, resumed after errors and by other processes | [`upload`] (decisions), [`session`] (requests), [`body`] (the stream), [`upload_policy`] (limits of registries), [`saved_session`] |
//! | a download: ranges, parallel connections, resuming | [`download`], [`rate`] |
//! | manifests, tags, referrers, removal | [`manifest`], [`stored_manifest`], [`pagination`], [`referrers`], [`removal`], [`attachments`] |
//! | mirrors | [`registries_conf`], [`mirrors`] |
//! | single requests that examine a registry, for `doctor` | [`probe`] |

mod attachments;
mod auth;
mod auth_file;
mod auth_file_editor;
mod body;
mod bulk_removal;
mod challenge;
mod client;
mod connection_error;
mod credential_helper;
mod credential_keys;
mod credentials;
mod discovery;
mod download;
mod http;
mod keychain;
mod login;
mod manifest;
mod mirrors;
mod pagination;
mod printable;
mod probe;
mod proxies;
mod rate;
mod referrers;
mod registries_conf;
mod removal;
mod response;
mod retry;
mod saved_session;
mod session;
mod stored_manifest;
mod tls;
mod token;
mod upload;
mod upload_policy;
mod url;
mod warnings;

pub use self::discovery::{login_file, named_auth_file};
pub use self::login::{LoggedIn, StoredIn, login, logout, parse_host};
pub use self::probe::{Answer, CredentialKind, CredentialReport, Probe, Sample, UploadSession};

use self::client::Client;
use self::download::Download;
use self::http::{Http, Request, wait};
use self::keychain::Keychain;
use self::mirrors::MirroredSource;
use self::proxies::ProxyRules;
use self::registries_conf::{ImageLocation, RegistriesConf};
use self::tls::TlsConfig;
use self::token::Scopes;
use self::upload::Upload;
use super::{Access, Destination, Origin, RetryDelay, Source, moved_name, with_foreign_urls};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Reference, media_type};
use crate::stream::{Body, CancelToken, Unverified, Written};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, HeaderName, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};
use std::ops::Range;
use std::sync::Arc;

/// The digest of a manifest, in responses.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One repository of a registry, and a tag or digest in it.
pub struct Registry {
    reference: Reference,
    client: Arc<Client>,
    /// Ends the reads of this source.
    cancel: CancelToken,
}

impl Registry {
    /// Returns a client for a reference. It connects when it is used.
    ///
    /// # Errors
    /// When a file with credentials, certificates or mirrors cannot be read, or `registries.conf` blocks the registry.
    pub fn new(reference: Reference, access: &Access) -> Result<Self> {
        let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
        let is_insecure = conf.is_insecure(&reference.name())?;
        Self::at(ImageLocation { reference, is_insecure }, access, &conf)
    }

    fn at(location: ImageLocation, access: &Access, conf: &Arc<RegistriesConf>) -> Result<Self> {
        let ImageLocation { reference, is_insecure } = location;
        let keychain = Keychain::read(access, reference.registry(), reference.repository())?;
        let tls = TlsConfig::read(access, reference.registry(), is_insecure, conf)?;
        let base = url::base(reference.registry(), access.plain_http, tls.required)?;
        let http = Http::new(tls, base.clone(), ProxyRules::new(access), access.client.clone());
        let client = Arc::new(Client::new(base, http, keychain));
        Ok(Self { reference, client, cancel: CancelToken::default() })
    }

    /// Returns a source for a reference, which reads from mirrors if `registries.conf` names any.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn source(reference: &Reference, access: &Access) -> Result<Box<dyn Source>> {
        let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
        let mut locations = conf.locations(reference)?;
        let registry = locations.pop().map(|location| Self::at(location, access, &conf));
        // A mirror is retried once at most: the next location is the better retry.
        let mut impatient = access.clone();
        impatient.client.retry.retries = impatient.client.retry.retries.min(1);
        let mirrors = locations.into_iter().map(|location| Self::at(location, &impatient, &conf));
        let registries = mirrors.chain(registry).collect::<Result<_>>()?;
        Ok(Box::new(MirroredSource::new(registries, Arc::clone(&access.client.progress))))
    }

    /// Returns the same repository; its downloads end when `cancel` is cancelled.
    fn with_cancel(&self, cancel: &CancelToken) -> Self {
        Self { reference: self.reference.clone(), client: Arc::clone(&self.client), cancel: cancel.clone() }
    }

    /// Returns the URL of a manifest by its tag or its digest.
    fn manifest_url(&self, name: &str) -> Url {
        self.client.url(&format!("{}/manifests/{name}", self.reference.repository()))
    }

    /// Returns the URL of a blob or a manifest.
    fn content_url(&self, descriptor: &Descriptor) -> Url {
        let digest = descriptor.digest.to_string();
        if media_type::is_document(&descriptor.media_type) {
            self.manifest_url(&digest)
        } else {
            self.client.url(&format!("{}/blobs/{digest}", self.reference.repository()))
        }
    }

    /// Returns a request for a blob or a manifest.
    fn request(&self, method: Method, descriptor: &Descriptor, verb: &str) -> Request {
        let what = format!("{verb} {} in {}", descriptor.digest, self.reference.name());
        let request = Request::new(method, self.content_url(descriptor), what);
        if media_type::is_document(&descriptor.media_type) {
            request.header(ACCEPT, &descriptor.media_type)
        } else {
            request
        }
    }

    /// Prepares the download of a blob or a manifest.
    fn download(&self, descriptor: &Descriptor) -> Download {
        let request = self.request(Method::GET, descriptor, "fetch");
        Download::new(&self.client, request, self.pull_scopes(), descriptor.size).cancelled_by(&self.cancel)
    }

    fn pull_scopes(&self) -> Scopes {
        Scopes::pull(self.reference.repository())
    }

    fn push_scopes(&self) -> Scopes {
        Scopes::push(self.reference.repository())
    }
}

impl Registry {
    /// Returns the document with the name of this reference; `known` if the registry says that the name still means it.
    fn find(&self, known: Option<&Document>) -> Result<Document> {
        let digest = self.reference.digest().map(Digest::to_string);
        // The digest takes precedence, because the tag may have moved.
        let name = digest.as_deref().or(self.reference.tag()).unwrap_or_default();
        let mut request =
            Request::new(Method::GET, self.manifest_url(name), format!("find {}", self.reference))
                .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        if let Some(known) = known {
            // Registries that have entity tags for manifests use their digests. Others send the whole manifest.
            request = request.header(IF_NONE_MATCH, &format!("\"{}\"", known.descriptor().digest));
        }
        wait(async {
            let response = self.client.send(request, &self.pull_scopes()).await?;
            match known {
                Some(known) if response.status() == StatusCode::NOT_MODIFIED => Ok(known.clone()),
                _ => manifest::read(response.success().await?, &self.reference).await,
            }
        })
        .map_err(|error| match error.kind() {
            // A repository that does not exist has no tags to list.
            Kind::NotFound if !error.to_string().contains("NAME_UNKNOWN") => {
                let missing = self.reference.tag().filter(|_| self.reference.digest().is_none());
                let hint = format!("volio tags {} lists what is there", self.reference.name());
                match missing {
                    Some(tag) => error.with_hint(hint).with_missing_tag(tag),
                    None => error.with_hint(hint),
                }
            }
            _ => error,
        })
    }
}

impl Source for Registry {
    fn resolve(&self) -> Result<Document> {
        self.find(None)
    }

    fn resolve_again(&self, known: &Document) -> Result<Document> {
        self.find(Some(known))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.download(descriptor).open().map_err(|error| with_foreign_urls(descriptor, error))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        if media_type::is_document(&blob.media_type) {
            return Ok(None);
        }
        let request = self.request(Method::GET, blob, "fetch a part of");
        let download = Download::new(&self.client, request, self.pull_scopes(), blob.size);
        let download = download.cancelled_by(&self.cancel);
        download.open_range(range).map_err(|error| with_foreign_urls(blob, error))
    }

    fn tags(&self) -> Result<Vec<String>> {
        pagination::tags(&self.client, self.reference.repository(), &self.reference.name())
    }

    fn first_tags(&self) -> Result<Vec<String>> {
        pagination::first_tags(&self.client, self.reference.repository(), &self.reference.name())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        // What cannot be a tag is not one. The tag of an attachment to a SHA-512 digest would be too long.
        let Ok(reference) = self.reference.with_tag(tag) else { return Ok(None) };
        let tagged = Self { reference, client: Arc::clone(&self.client), cancel: self.cancel.clone() };
        moved_name::none_if_missing(tagged.resolve())
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
        })
    }

    fn cancelled_by(&self, cancel: &CancelToken) -> Option<Box<dyn Source + '_>> {
        Some(Box::new(self.with_cancel(cancel)))
    }
}

impl Destination for Registry {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        let look = |method| {
            wait(self.client.send(self.request(method, descriptor, "look for"), &self.push_scopes()))
        };
        let mut response = look(Method::HEAD)?;
        // Some file servers and proxies do not support HEAD. The body of the GET is not read.
        if matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            response = look(Method::GET)?;
        }
        match response.status() {
            status if status.is_success() => {
                Ok(manifest::is_size_plausible(response.header(&CONTENT_LENGTH), descriptor))
            }
            // Some registries deny access to a repository that does not exist yet. If access is really denied, the
            // upload fails with a reason, which a response to HEAD cannot contain.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
            // Harbor may forbid to read an image, because of its vulnerabilities, that may be written.
            StatusCode::PRECONDITION_FAILED => Ok(false),
            _ => Err(wait(async { Ok(response.refusal().await) })?),
        }
    }

    fn upload(&self, body: Body) -> Result<Written> {
        Upload::new(&self.client, &self.reference).run(body)
    }

    fn mount(&self, descriptor: &Descriptor, from: &Origin) -> Result<bool> {
        if from.registry != self.reference.registry() {
            return Ok(false);
        }
        session::mount(&self.client, self.reference.repository(), &descriptor.digest, &from.repository)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.put(&document.descriptor().digest.to_string(), document)
    }

    fn commit(&self, root: &Document) -> Result<()> {
        match self.reference.tag() {
            Some(tag) => self.put(tag, root),
            None => Err(Error::usage(format!("{} names no tag to write to", self.reference))),
        }
    }

    fn commit_unless_moved(&self, root: &Document, expected: Option<&Digest>) -> Result<()> {
        let (name, digest) = (self.reference.to_string(), &root.descriptor().digest);
        let named = || {
            let found = moved_name::none_if_missing(self.resolve())?;
            Ok::<_, Error>(found.map(|document| document.descriptor().digest.clone()))
        };
        let address = self.address(digest);
        super::ensure_unmoved(&name, expected, named()?.as_ref(), digest, &address)?;
        self.commit(root)?;
        // The name is set: that it cannot be read is not a failure. A registry that is not consistent yet may still return the
        // image from before.
        let Ok(after) = named() else { return Ok(()) };
        if after.as_ref() == expected {
            return Ok(());
        }
        super::ensure_unmoved(&name, Some(digest), after.as_ref(), digest, &address)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        Source::tagged(self, tag)
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        // The tag of an attachment to a SHA-512 digest is longer than a tag may be.
        self.reference.with_tag(tag).map_err(|error| {
            error.with_hint(format!(
                "it has {} characters, and a tag at most 128: what is attached to an image with a SHA-512 digest by a \
                 tag cannot be stored in a registry; use SHA-256",
                tag.len()
            ))
        })?;
        self.put(tag, document)
    }

    fn retry_delay(&self, error: &Error, failures: u32) -> Option<RetryDelay> {
        retry::delay(self.client.options(), error, failures)
    }

    fn address(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.reference.name())
    }
}
