//! A certificate authority for a cluster that has no other: for development, and for clusters that
//! keep to themselves.
//!
//! It signs certificates for nodes and nothing else. Whoever has its key can be any node, so the
//! key belongs where no node is. A certificate it makes is good at both ends of a connection
//! between peers, and for HTTP under the names and addresses it is given. Validity is in whole days
//! and begins on the day before, since not all clocks agree.
//!
//! The keys are P-256, from the system's randomness: a key that a seed could make again would be
//! none.

use jiff::ToSpan;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::ServerName;
use x509_parser::pem::parse_x509_pem;

use super::certified::Certified;
use crate::check::Name;

/// Days for which an authority's certificate is valid: ten years.
pub const CA_DAYS: u32 = 3_650;
/// Days for which a node's certificate is valid: long enough to forget about it in development, and
/// no longer.
pub const NODE_DAYS: u32 = 365;

/// Signs certificates for nodes.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// For everybody to see.
    pub certificate: String,
    /// For its node alone.
    pub key: String,
}

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Not the certificate of an authority.
    #[error("the certificate is not that of an authority that may sign others")]
    NoAuthority,
    /// The key of another one.
    #[error("the key is not that of the certificate")]
    OtherKey,
    /// A date that there isn't.
    #[error("certificates can't be made for this date")]
    Date,
    /// The library doesn't take it.
    #[error(transparent)]
    Unusable(#[from] rcgen::Error),
}

impl Authority {
    /// A new one for `cluster`, as of `today`.
    pub fn begin(cluster: &Name, today: Date) -> Result<Self, AuthorityError> {
        let mut params = params(&format!("tidegate {cluster} CA"), today, CA_DAYS)?;
        // It signs nodes, and no other authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The one whose certificate and key these are.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let (_, pem) =
            parse_x509_pem(certificate.as_bytes()).map_err(|_| AuthorityError::NoAuthority)?;
        let parsed = pem.parse_x509().map_err(|_| AuthorityError::NoAuthority)?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NoAuthority);
        }
        let key = KeyPair::from_pem(key)?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(AuthorityError::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        Ok(Self { certificate: certificate.into(), issuer })
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, in PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for `node` as of `today`, which is also good for HTTP under `hosts`.
    pub fn issue(
        &self,
        node: &Certified,
        hosts: &[ServerName<'_>],
        today: Date,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(node.node.as_str(), today, NODE_DAYS)?;
        params.subject_alt_names.push(SanType::URI(node.to_string().try_into()?));
        for host in hosts {
            params.subject_alt_names.push(match host {
                ServerName::IpAddress(address) => SanType::IpAddress((*address).into()),
                host => SanType::DnsName(host.to_str().into_owned().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(subject: &str, today: Date, days: u32) -> Result<CertificateParams, AuthorityError> {
    let part = |number: i8| u8::try_from(number).map_err(|_| AuthorityError::Date);
    let from = today.checked_sub(1.day()).map_err(|_| AuthorityError::Date)?;
    let until = today.checked_add(i64::from(days).days()).map_err(|_| AuthorityError::Date)?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(from.year().into(), part(from.month())?, part(from.day())?);
    params.not_after = date_time_ymd(until.year().into(), part(until.month())?, part(until.day())?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    Ok(params)
}
