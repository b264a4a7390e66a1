//! Certificates of a relationship: read, checked, and read again when the files change.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use tracing::{info, warn};

use crate::{config::FailoverTls, status::unix_secs};

/// From when on the end of a certificate is warned of.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// The longest file that is read as a certificate or key.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The TLS settings of one relationship.
#[derive(Debug)]
pub struct Tls {
    files: FailoverTls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    /// What the files looked like when they were read last.
    seen: Seen,
    material: Arc<Material>,
}

/// What the files have been made into.
pub struct Material {
    /// For the primary, which connects.
    pub client: Arc<ClientConfig>,
    /// For the secondary, which is connected to.
    pub server: Arc<ServerConfig>,
    /// The partner's name.
    pub partner: ServerName<'static>,
    /// When the first certificate of this server's chain ends, or the last of the authorities':
    /// seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Device, inode, length and time of change of the three files.
type Seen = [Option<(u64, u64, u64, i64, i64)>; 3];

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one is missing, is not what it should be, or does not fit the others; if the key is open
    /// to everybody.
    pub fn open(files: &FailoverTls) -> Result<Self> {
        let seen = look_at(files);
        let material = Arc::new(read(files)?);
        Ok(Self { files: files.clone(), current: Mutex::new(Current { seen, material }) })
    }

    /// What the files hold now; what they held before, if they have become unusable.
    #[must_use]
    pub fn material(&self) -> Arc<Material> {
        let mut current = self.current.lock();
        let seen = look_at(&self.files);
        if seen != current.seen {
            current.seen = seen;
            match read(&self.files) {
                Ok(material) => {
                    info!(
                        certificate = %self.files.certificate.display(),
                        expires = material.expires,
                        "certificates read again"
                    );
                    current.material = Arc::new(material);
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    warn!(reason, "changed certificates cannot be used; staying with the old ones");
                }
            }
        }
        Arc::clone(&current.material)
    }

    /// The name in the partner's certificate.
    #[must_use]
    pub fn partner_name(&self) -> &str {
        &self.files.partner_name
    }

    /// When the first certificate of this server's chain, or the authority's, ends: seconds since
    /// 1970.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.current.lock().material.expires
    }

    /// What to tell an operator about the end of the certificates, if it is near.
    #[must_use]
    pub fn expiry_warning(&self, now: SystemTime) -> Option<String> {
        let expires = self.current.lock().material.expires;
        let left = expires.saturating_sub(unix_secs(now));
        (left < EXPIRY_WARNING.as_secs()).then(|| {
            let file = self.files.certificate.display();
            match left {
                0 => format!("the certificate {file} has expired, or its authority's has"),
                left => format!(
                    "the certificate {file}, or its authority's, expires in {} days",
                    left / 86_400
                ),
            }
        })
    }
}

fn look_at(files: &FailoverTls) -> Seen {
    [&files.ca, &files.certificate, &files.key].map(|file| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    })
}

fn read(files: &FailoverTls) -> Result<Material> {
    let provider = Arc::new(ring::default_provider());
    let ca = certificates(&files.ca, "failover.tls.ca")?;
    let chain = certificates(&files.certificate, "failover.tls.certificate")?;
    let key = private_key(&files.key)?;
    let mut roots = RootCertStore::empty();
    for certificate in &ca {
        roots
            .add(certificate.clone())
            .with_context(|| format!("{} cannot be an authority", files.ca.display()))?;
    }
    let ends = |certificates: &[CertificateDer<'_>]| {
        certificates.iter().map(|certificate| not_after(certificate)).collect::<Result<Vec<_>>>()
    };
    // During a change of authorities the old one may end, as long as the new one stands.
    let authority = ends(&ca)?.into_iter().max();
    let expires = ends(&chain)?.into_iter().chain(authority).min().unwrap_or(0);
    let partner = ServerName::try_from(files.partner_name.clone())
        .with_context(|| format!("{} cannot be a name", files.partner_name))?;
    let fits = || format!("{} does not fit {}", files.key.display(), files.certificate.display());

    let roots = Arc::new(roots);
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .with_context(fits)?;
    // Each connection looks at the certificates anew.
    client.resumption = Resumption::disabled();

    let inner =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let verifier = PinnedClient { inner, name: partner.clone() };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .with_context(fits)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Material { client: Arc::new(client), server: Arc::new(server), partner, expires })
}

fn certificates(file: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read_file(file).with_context(|| format!("cannot read {} ({key})", file.display()))?;
    let found = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{} is not PEM ({key})", file.display()))?;
    ensure!(!found.is_empty(), "{} holds no certificate ({key})", file.display());
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let name = "failover.tls.key";
    let pem =
        read_file(file).with_context(|| format!("cannot read {} ({name})", file.display()))?;
    // A group may read it, as is usual for keys that several daemons share.
    let mode = std::fs::metadata(file)?.permissions().mode();
    if mode & 0o027 != 0 {
        bail!(
            "{} ({name}) is open to others (mode {:03o}): run `chmod 600` on it, and issue a new \
             key if somebody may have read it",
            file.display(),
            mode & 0o777
        );
    }
    PrivateKeyDer::from_pem_slice(&pem)
        .with_context(|| format!("{} holds no private key in PEM ({name})", file.display()))
}

fn read_file(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(file)?.take(FILE_LEN_MAX).read_to_end(&mut octets)?;
    Ok(octets)
}

/// When a certificate ends, in seconds since 1970.
///
/// # Errors
/// If it cannot be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<u64> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).context("a certificate cannot be read")?;
    Ok(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

/// Accepts a client whose certificate the authority has signed, and which is the partner.
#[derive(Debug)]
struct PinnedClient {
    inner: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for PinnedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
