//! A registry that speaks the OCI distribution protocol.
//!
//! Nothing is asked before it is needed. The first request finds out how the registry wants to be spoken to
//! ([`auth`]); every further one goes out with what lets it in ([`server`]), and to no other server with it
//! ([`http`], [`address`]). Blobs stream through bounded channels between the caller's thread, which may
//! block, and the tasks of the network, which must not ([`upload`], [`download`]).
//!
//! tokio and reqwest are an affair of this directory: outside, all of it is blocking code.

mod auth;
mod auth_file;
mod auth_file_editor;
mod body;
mod challenge;
mod client;
mod connection_error;
mod credential_helper;
mod credential_keys;
mod credentials;
mod download;
mod http;
mod keychain;
mod login;
mod manifest;
mod mirrors;
mod pagination;
mod printable;
mod proxies;
mod rate;
mod referrers;
mod registries_conf;
mod removal;
mod response;
mod retry;
mod saved_session;
mod session;
mod tls;
mod token;
mod upload;
mod upload_policy;
mod url;

pub use self::login::{Kept, LoggedIn, host, login, logout};

use self::client::Client;
use self::download::Download;
use self::http::{Http, Request, wait};
use self::keychain::Keychain;
use self::mirrors::Mirrored;
use self::proxies::ProxyRules;
use self::registries_conf::RegistriesConf;
use self::response::Response;
use self::tls::TlsConfig;
use self::token::Scopes;
use self::upload::Upload;
use super::{Access, Destination, Origin, RetryDelay, Source, with_foreign_urls};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Reference, attachment_tags, media_type};
use crate::stream::{Body, Unverified, Written};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use reqwest::{Method, StatusCode, Url};
use std::ops::Range;
use std::sync::Arc;

/// What the registry says that the document's digest is.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Said by a registry that lists referrers itself.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// One repository of a registry, and a name in it.
pub struct Registry {
    reference: Reference,
    client: Arc<Client>,
}

impl Registry {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When a file with credentials, certificates or mirrors cannot be read, or `registries.conf` blocks the registry.
    pub fn new(reference: Reference, access: &Access) -> Result<Self> {
        let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
        let anybody = conf.trusts_anybody(&reference.name())?;
        Self::at(reference, access, anybody, &conf)
    }

    /// The same where it is known whether whoever answers there is trusted: then `anybody`. `conf` is for other hosts.
    fn at(reference: Reference, access: &Access, anybody: bool, conf: &Arc<RegistriesConf>) -> Result<Self> {
        let keychain = Keychain::read(&access.credentials, reference.registry(), reference.repository())?;
        let tls = TlsConfig::read(access, reference.registry(), anybody, conf)?;
        let base = url::base(reference.registry(), access.plain_http, tls.wanted)?;
        let http = Http::new(tls, base.clone(), ProxyRules::new(access), access.client.clone());
        Ok(Self { reference, client: Arc::new(Client::new(base, http, keychain)) })
    }

    /// The same for reading, from a mirror where `registries.conf` names one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn source(reference: &Reference, access: &Access) -> Result<Box<dyn Source>> {
        let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
        let mut places = conf.places(reference)?;
        let itself = places.pop().map(|place| Self::at(place.reference, access, place.anybody, &conf));
        // There is another place to ask: that is better than to wait for long.
        let mut hasty = access.clone();
        hasty.client.retry.retries = hasty.client.retry.retries.min(1);
        let mirrors = places.into_iter().map(|place| Self::at(place.reference, &hasty, place.anybody, &conf));
        let registries = mirrors.chain(itself).collect::<Result<_>>()?;
        Ok(Box::new(Mirrored::new(registries, Arc::clone(&access.client.progress))))
    }

    /// The address of a manifest by its tag or its digest.
    fn manifest(&self, name: &str) -> Url {
        self.client.url(&format!("{}/manifests/{name}", self.reference.repository()))
    }

    /// The address of a blob or a document: registries keep them in two places.
    fn content(&self, descriptor: &Descriptor) -> Url {
        let digest = descriptor.digest.to_string();
        match media_type::is_document(&descriptor.media_type) {
            true => self.manifest(&digest),
            false => self.client.url(&format!("{}/blobs/{digest}", self.reference.repository())),
        }
    }

    /// A request for a blob or a document.
    fn ask(&self, method: Method, descriptor: &Descriptor, verb: &str) -> Request {
        let what = format!("{verb} {} in {}", descriptor.digest, self.reference.name());
        let request = Request::new(method, self.content(descriptor), what);
        match media_type::is_document(&descriptor.media_type) {
            true => request.header(ACCEPT, &descriptor.media_type),
            false => request,
        }
    }

    /// A blob or a document on its way here.
    fn download(&self, descriptor: &Descriptor) -> Download {
        let request = self.ask(Method::GET, descriptor, "fetch");
        Download::new(&self.client, request, self.pull(), descriptor.size)
    }

    /// Stores a document under its digest or under a tag, and lists it with what it refers to where the registry
    /// does not do that itself.
    fn put(&self, name: &str, document: &Document) -> Result<()> {
        let response = self.store(name, document)?;
        match document.as_referrer() {
            Some((subject, entry)) if response.header(&SUBJECT).is_none() => {
                self.add_referrer(&subject, entry)
            }
            _ => Ok(()),
        }
    }

    fn store(&self, name: &str, document: &Document) -> Result<Response> {
        let what = format!("store the manifest {name} in {}", self.reference.name());
        let request = Request::new(Method::PUT, self.manifest(name), what)
            .header(CONTENT_TYPE, &document.descriptor().media_type)
            .body(document.bytes().to_vec());
        wait(async { self.client.send(request, &self.push()).await?.success().await })
    }

    fn pull(&self) -> Scopes {
        Scopes::pull(self.reference.repository())
    }

    fn push(&self) -> Scopes {
        Scopes::push(self.reference.repository())
    }
}

impl Source for Registry {
    fn resolve(&self) -> Result<Document> {
        let digest = self.reference.digest().map(Digest::to_string);
        // A digest says more than a tag: the tag may have moved on since.
        let name = digest.as_deref().or(self.reference.tag()).unwrap_or_default();
        let request = Request::new(Method::GET, self.manifest(name), format!("find {}", self.reference))
            .header(ACCEPT, &media_type::DOCUMENTS.join(", "));
        wait(async {
            let response = self.client.send(request, &self.pull()).await?.success().await?;
            manifest::read(response, &self.reference).await
        })
        .map_err(|error| match error.kind() {
            Kind::NotFound => {
                error.with_hint(format!("volio tags {} lists what is there", self.reference.name()))
            }
            _ => error,
        })
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.download(descriptor).open().map_err(|error| with_foreign_urls(descriptor, error))
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        if media_type::is_document(&blob.media_type) {
            return Ok(None);
        }
        let request = self.ask(Method::GET, blob, "fetch a part of");
        let download = Download::new(&self.client, request, self.pull(), blob.size);
        download.open_range(range).map_err(|error| with_foreign_urls(blob, error))
    }

    fn tags(&self) -> Result<Vec<String>> {
        pagination::tags(&self.client, self.reference.repository(), &self.reference.name())
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.list_referrers(subject)
    }

    fn attachments(&self, subject: &Digest) -> Result<Vec<(String, Document)>> {
        let mut found = Vec::new();
        for tag in attachment_tags(subject) {
            // A digest of SHA-512 is too long for a tag: nothing can be attached so.
            let Ok(reference) = self.reference.with_tag(&tag) else { continue };
            let attachment = Self { reference, client: Arc::clone(&self.client) };
            match attachment.resolve() {
                Ok(document) => found.push((tag, document)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
        })
    }
}

impl Destination for Registry {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        let look = |method| wait(self.client.send(self.ask(method, descriptor, "look for"), &self.push()));
        let mut response = look(Method::HEAD)?;
        // Some servers of files and proxies know no HEAD. What follows the head of an response is not read.
        if matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            response = look(Method::GET)?;
        }
        match response.status() {
            status if status.is_success() => {
                Ok(manifest::is_likely(response.header(&CONTENT_LENGTH), descriptor))
            }
            // Some registries refuse to look into a repository that does not exist yet. If it is a true refusal,
            // the upload gets it too, and with a reason, which an response to HEAD cannot have.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
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

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        self.put(tag, document)
    }

    fn retry_delay(&self, error: &Error, failures: u32) -> Option<RetryDelay> {
        retry::delay(self.client.options(), error, failures)
    }

    fn address(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.reference.name())
    }
}
