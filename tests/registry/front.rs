//! Servers in front of a registry: one that adds TLS, and a forward proxy.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::{NamedTempFile, TempDir};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier, crypto};

/// A certificate authority for one test, with its files `ca.crt`, `client.cert` and `client.key`.
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let authority = Self { directory: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key) };
        fs::write(authority.path("ca.crt"), own.pem()).unwrap();
        let (certificate, key) = authority.vouch_for("volio");
        fs::write(authority.path("client.cert"), certificate).unwrap();
        fs::write(authority.path("client.key"), key).unwrap();
        authority
    }

    /// Returns the directory with the files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Issues a certificate for a name, and returns it with its key, in PEM.
    fn vouch_for(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name, "127.0.0.1"].map(str::to_owned)).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Starts a TLS server in front of another server, and returns its address. It has a certificate for `registry.test` and
    /// `127.0.0.1`, and may require one from its clients.
    pub fn front_of(&self, upstream: &str, wants_certificates: bool) -> String {
        self.front(
            upstream,
            if wants_certificates { ClientCertificates::Required } else { ClientCertificates::None },
        )
        .0
    }

    /// Starts a TLS server that asks its clients for an optional certificate, and counts the connections with and without one.
    pub fn curious_front_of(&self, upstream: &str) -> (String, Arc<[AtomicUsize; 2]>) {
        self.front(upstream, ClientCertificates::Optional)
    }

    /// Starts a TLS server with a certificate of this authority for `127.0.0.1`, which a test can change first.
    pub fn front_with(&self, upstream: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        self.front_and_certificate(upstream, change).0
    }

    /// Starts such a server, and returns its certificate in a file too.
    pub fn front_and_certificate(
        &self,
        upstream: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, NamedTempFile) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        serve_with(upstream, &params.signed_by(&key, &self.issuer).unwrap().pem(), &key)
    }

    fn front(&self, upstream: &str, certificates: ClientCertificates) -> (String, Arc<[AtomicUsize; 2]>) {
        let (certificate, key) = self.vouch_for("registry.test");
        let verifier = || {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
            WebPkiClientVerifier::builder_with_provider(roots.into(), crypto::ring::default_provider().into())
        };
        let builder = match certificates {
            ClientCertificates::None => without_clients(),
            ClientCertificates::Required => builder().with_client_cert_verifier(verifier().build().unwrap()),
            ClientCertificates::Optional => {
                builder().with_client_cert_verifier(verifier().allow_unauthenticated().build().unwrap())
            }
        };
        serve(upstream, server(builder, &certificate, &key))
    }
}

/// Starts a TLS server with a self-signed certificate for `127.0.0.1`, which a test can change first. Returns its address, and
/// the certificate in a file.
pub fn self_signed_front_of(
    upstream: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    // This is what openssl req -x509 makes.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    serve_with(upstream, &params.self_signed(&key).unwrap().pem(), &key)
}

fn serve_with(upstream: &str, certificate: &str, key: &KeyPair) -> (String, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), certificate).unwrap();
    (serve(upstream, server(without_clients(), certificate, &key.serialize_pem())).0, file)
}

fn builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
}

fn without_clients() -> ConfigBuilder<ServerConfig, WantsServerCert> {
    builder().with_no_client_auth()
}

fn server(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    certificate: &str,
    key: &str,
) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = crypto::ring::sign::any_supported_type(&key).unwrap();
    // `with_single_cert` would parse the certificate, and reject extensions that the client is tested with.
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
}

fn serve(upstream: &str, config: ServerConfig) -> (String, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    let (upstream, counts) = (upstream.to_owned(), Arc::<[AtomicUsize; 2]>::default());
    let seen = Arc::clone(&counts);
    thread::spawn(move || decrypt(listener, TlsAcceptor::from(Arc::new(config)), &upstream, &seen));
    (address, counts)
}

/// The certificates that a server requires of its clients.
enum ClientCertificates {
    None,
    Required,
    Optional,
}

fn decrypt(listener: TcpListener, acceptor: TlsAcceptor, upstream: &str, seen: &Arc<[AtomicUsize; 2]>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, upstream, seen) = (acceptor.clone(), upstream.to_owned(), Arc::clone(seen));
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let showed = stream.get_ref().1.peer_certificates().is_some();
                seen[usize::from(!showed)].fetch_add(1, Ordering::Relaxed);
                let mut registry = tokio::net::TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut registry).await.map(drop)
            });
        }
    });
}

/// A forward proxy that connects all clients to one server, and records their requests.
pub struct Proxy {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (server, asked) = (server.to_owned(), Arc::<Mutex<Vec<String>>>::default());
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, server, log) = (stream.unwrap(), server.clone(), Arc::clone(&log));
                // A client may close the connection at any time.
                thread::spawn(move || drop(relay(stream, &server, &log)));
            }
        });
        Self { address, asked }
    }

    /// Returns the first line of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn relay(mut client: TcpStream, server: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let Some(first) = lines.first() else { return Ok(()) };
    log.lock().unwrap().push(first.trim().to_owned());
    if !first.starts_with("CONNECT ") {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back, mut forth) = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut back, &mut forth);
        let _ = forth.shutdown(Shutdown::Write);
    });
    io::copy(&mut reader, &mut upstream)?;
    upstream.shutdown(Shutdown::Write)
}
