//! Keys and certificates, by openssl.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::program::find;

/// A key and a certificate that it signed itself, until it is dropped.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// For these alternative names, as `DNS:dns.test` or `IP:10.200.0.1`. It is its own root, and not
    /// one for others: clients take no root as that of a server.
    pub fn new(names: &[&str]) -> Self {
        let certificate = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let openssl = find("openssl").expect("openssl (package openssl)");
        let made = Command::new(openssl)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-noenc", "-days", "2", "-subj", "/CN=test"])
            .arg("-addext")
            .arg(format!("subjectAltName={}", names.join(",")))
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(certificate.key())
            .arg("-out")
            .arg(certificate.file())
            .stdin(Stdio::null())
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        certificate
    }

    /// The file of the key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    /// The file of the certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("certificate")
    }
}
