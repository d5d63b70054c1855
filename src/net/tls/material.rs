//! What a node shows and whom it believes: read from PEM, judged, and made into what connections
//! are made with.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certified::{Certified, NotCertified};

/// Certificates of authorities in one file: a few, where one takes another's place.
const AUTHORITIES_MAX: usize = 64;
/// Certificates from a node's to its authority's.
const CHAIN_MAX: usize = 10;
/// What the door speaks, in the order of preference.
const DOOR_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why something can't be shown or believed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It isn't PEM.
    #[error("is not PEM: {0}")]
    NotPem(rustls::pki_types::pem::Error),
    /// Another file, perhaps.
    #[error("has no certificate in it")]
    NoCertificate,
    /// More than anybody needs.
    #[error("has more than {0} certificates in it")]
    TooMany(usize),
    /// Another file, perhaps.
    #[error("has no private key in it (PKCS #8, PKCS #1 or SEC 1, not encrypted)")]
    NoKey,
    /// Two files that don't belong together.
    #[error("is not the key of the certificate")]
    OtherKey,
    /// Nobody could know whose it is.
    #[error(transparent)]
    NotCertified(#[from] NotCertified),
    /// It is somebody else's.
    #[error("is for {actual}, where {expected} is needed")]
    OtherNode {
        /// Who it has to be for.
        expected: Certified,
        /// Who it is for.
        actual: Certified,
    },
    /// The peers would not believe it.
    #[error("is not signed by an authority in `ca`")]
    NotSigned,
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Its time is to come.
    #[error("is not valid yet")]
    NotYetValid,
    /// It was made for something else.
    #[error("may not be used by who dials and who is dialled, and peers are both")]
    OtherPurpose,
    /// Anything else.
    #[error("can't be used: {0}")]
    Unusable(Error),
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        use CertificateError as Of;
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Self::OtherKey,
            Error::InvalidCertificate(Of::UnknownIssuer | Of::BadSignature) => Self::NotSigned,
            Error::InvalidCertificate(Of::Expired | Of::ExpiredContext { .. }) => Self::Expired,
            Error::InvalidCertificate(Of::NotValidYet | Of::NotValidYetContext { .. }) => {
                Self::NotYetValid
            }
            Error::InvalidCertificate(Of::InvalidPurpose | Of::InvalidPurposeContext { .. }) => {
                Self::OtherPurpose
            }
            error => Self::Unusable(error),
        }
    }
}

/// The provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Whose signatures are believed.
#[derive(Clone, Debug)]
pub struct Trusted(Arc<RootCertStore>);

impl Trusted {
    /// Those whose certificates are in `pem`.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        certificates(pem, AUTHORITIES_MAX)?
            .into_iter()
            .try_for_each(|authority| roots.add(authority))?;
        Ok(Self(Arc::new(roots)))
    }

    /// Whether peers that believe the same would believe that `own` is `expected`, now.
    pub fn judge(&self, own: &Own, expected: &Certified) -> Result<(), TlsError> {
        let (leaf, between) = own.0.cert.split_first().ok_or(TlsError::NoCertificate)?;
        let actual = Certified::of(leaf)?;
        let now = DefaultTimeProvider
            .current_time()
            .unwrap_or(UnixTime::since_unix_epoch(Default::default()));
        self.clients()?.verify_client_cert(leaf, between, now)?;
        let name = ServerName::try_from("peer").map_err(|_| TlsError::NoCertificate)?;
        self.servers().verify_server_cert(leaf, between, &name, &[], now)?;
        match actual == *expected {
            true => Ok(()),
            false => Err(TlsError::OtherNode { expected: expected.clone(), actual }),
        }
    }

    fn clients(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.0.clone(), provider());
        builder.build().map_err(|error| TlsError::Unusable(Error::General(error.to_string())))
    }

    fn servers(&self) -> SignedByTrusted {
        SignedByTrusted { trusted: self.0.clone(), provider: provider() }
    }
}

/// A certificate, before those that lead from it to its authority.
#[derive(Clone, Debug)]
pub struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// Reads it in that order.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        certificates(pem, CHAIN_MAX).map(Self)
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

/// A private key.
pub struct PrivateKey(PrivateKeyDer<'static>);

impl PrivateKey {
    /// Reads the first one in `pem`.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        use rustls::pki_types::pem::Error::NoItemsFound;
        PrivateKeyDer::from_pem_slice(pem).map(Self).map_err(|error| match error {
            NoItemsFound => TlsError::NoKey,
            error => TlsError::NotPem(error),
        })
    }
}

/// Without the key.
impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Own(Arc<CertifiedKey>);

impl Own {
    /// The two, which have to belong together.
    pub fn new(chain: Chain, key: PrivateKey) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(CertifiedKey::from_der(chain.0, key.0, &provider())?)))
    }

    /// Until when the certificate is valid.
    pub fn until(&self) -> Option<jiff::Timestamp> {
        let (_, leaf) = X509Certificate::from_der(self.0.cert.first()?).ok()?;
        jiff::Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
    }
}

/// Without the key.
impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Own({} certificates)", self.0.cert.len())
    }
}

/// What connections are made with.
pub struct Material {
    pub(super) accept: Arc<ServerConfig>,
    pub(super) dial: Arc<ClientConfig>,
    pub(super) door: Arc<ServerConfig>,
    pub(super) expiries: Expiries,
}

/// When the certificates that a node shows expire; `None` where a certificate names no time.
#[derive(Clone, Copy, Debug)]
pub struct Expiries {
    /// The certificate shown to peers.
    pub peers: Option<jiff::Timestamp>,
    /// The certificate shown to clients.
    pub clients: Option<jiff::Timestamp>,
}

impl Material {
    /// Peers are shown `own`, and have to show what `trusted` has signed; clients are shown `door`.
    pub fn new(trusted: &Trusted, own: &Own, door: &Own) -> Result<Self, TlsError> {
        let shown = |own: &Own| Arc::new(SingleCertAndKey::from(own.0.clone()));
        let mut accept = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(trusted.clients()?)
            .with_cert_resolver(shown(own));
        // A connection that is resumed is one whose certificate nobody looks at again.
        accept.session_storage = Arc::new(NoServerSessionStorage {});
        accept.send_tls13_tickets = 0;
        let mut dial = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusted.servers()))
            .with_client_cert_resolver(shown(own));
        dial.resumption = Resumption::disabled();
        dial.enable_sni = false;
        let mut to_clients = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(shown(door));
        to_clients.alpn_protocols =
            DOOR_PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        let expiries = Expiries { peers: own.until(), clients: door.until() };
        let (accept, dial, door) = (Arc::new(accept), Arc::new(dial), Arc::new(to_clients));
        Ok(Self { accept, dial, door, expiries })
    }
}

/// Without the keys.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Material")
    }
}

fn certificates(pem: &[u8], most: usize) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).take(most + 1);
    let found = found.collect::<Result<Vec<_>, _>>().map_err(TlsError::NotPem)?;
    match found.len() {
        0 => Err(TlsError::NoCertificate),
        some if some > most => Err(TlsError::TooMany(most)),
        _ => Ok(found),
    }
}

/// Believes those whose certificates an authority has signed for the use of servers, under whatever
/// name they are dialled: an address says nothing of who a peer is, and who it is gets compared
/// where it greets.
#[derive(Debug)]
struct SignedByTrusted {
    trusted: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SignedByTrusted {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.trusted, between, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Not offered, so nobody can have chosen it.
        Err(Error::General("peers speak TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
