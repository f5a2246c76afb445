//! TLS to the database: the driver's own, on rustls.
//!
//! Files come in as their bytes, in PEM. A node's certificate must lead to one of the authorities and bear the address
//! that is connected to, or one name that all nodes' certificates bear.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What connections to the database are encrypted with and held to.
#[derive(Clone, Debug)]
pub struct Tls(pub(super) Arc<ClientConfig>);

/// Which of the parts is no good, and why.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsFault {
    Authorities(String),
    Certificate(String),
    Key(String),
    Name(String),
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Authorities(reason) | Self::Certificate(reason) | Self::Key(reason) | Self::Name(reason)) = self;
        f.write_str(reason)
    }
}

impl Error for TlsFault {}

impl Tls {
    /// `authorities`: certificates that may have signed those of the nodes. `client`: a certificate with those between it
    /// and its authority, and its private key, for databases that ask for one. `name`: what the nodes' certificates bear
    /// in the place of their address.
    ///
    /// # Errors
    /// [`TlsFault`].
    pub fn new(authorities: &[u8], client: Option<(&[u8], &[u8])>, name: Option<&str>) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities).map_err(TlsFault::Authorities)? {
            roots.add(certificate).map_err(|error| TlsFault::Authorities(error.to_string()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| TlsFault::Authorities(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match name {
            None => verifier,
            Some(name) => {
                let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsFault::Name("is no name of a host".into()))?;
                Arc::new(Named { verifier, name })
            }
        };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the provider has the suites of TLS 1.2 and 1.3").dangerous();
        let config = config.with_custom_certificate_verifier(verifier);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate).map_err(TlsFault::Certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsFault::Key(pem_reason(&error, "private key")))?;
                // Also whether the two belong together.
                config.with_client_auth_cert(chain, key).map_err(|error| TlsFault::Key(error.to_string()))?
            }
        };
        Ok(Self(Arc::new(config)))
    }
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(pem_reason(&pem::Error::NoItemsFound, "certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(pem_reason(&error, "certificate")),
    }
}

fn pem_reason(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {what} in PEM"),
        other => format!("is no PEM: {other}"),
    }
}

/// Holds a node to a name instead of its address: the driver knows addresses only.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let refused = |authorities: &str| match Tls::new(authorities.as_bytes(), None, None) {
            Err(TlsFault::Authorities(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(""), "holds no certificate in PEM");
        assert_eq!(refused("not a certificate\n"), "holds no certificate in PEM");
        assert!(refused("-----BEGIN CERTIFICATE-----\nAAAA\n").starts_with("is no PEM"));
        // PEM around what is no certificate.
        refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    }
}
