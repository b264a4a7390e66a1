//! `gemel ca`: a small certificate authority for the servers of a pair.
//!
//! A folder holds the authority (`ca.pem`, `ca.key`) and what it has issued (`NAME.pem`,
//! `NAME.key`). A server needs `ca.pem` and its own two files; `ca.key` stays where it is.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::DnsName;
use time::{Duration, OffsetDateTime};

/// How long the authority's own certificate is valid.
const CA_DAYS: i64 = 3650;
/// How long a server's certificate is valid unless told otherwise.
pub const DAYS_DEFAULT: u32 = 730;
/// Certificates are valid from a little before they are made, for clocks that are late.
const BACKDATED: Duration = Duration::hours(1);

/// Makes an authority in `folder`, which is made where it is missing. Gives the certificate's file.
///
/// # Errors
/// If there is one already, or files cannot be written.
pub fn init(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (certificate, key) = files(folder, "ca");
    refuse_to_overwrite(&[&certificate, &key])?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params("Gemel pair CA", CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&pair)?;
    write_new(&key, &pair.serialize_pem(), 0o600)?;
    write_new(&certificate, &ca.pem(), 0o644)?;
    Ok(certificate)
}

/// Issues a certificate for the server called `name`, good for both ends of a connection. Gives
/// the files of the certificate and its key.
///
/// # Errors
/// If there is no authority in `folder`, `name` cannot stand in a certificate, or has one already.
pub fn issue(folder: &Path, name: &str, days: u32) -> Result<(PathBuf, PathBuf)> {
    let name = name.to_ascii_lowercase();
    if DnsName::try_from(name.as_str()).is_err() || name.ends_with('.') {
        bail!("\"{name}\" cannot be the name in a certificate; a name such as one.example.net can");
    }
    ensure!(name != "ca", "\"ca\" is the authority itself; choose another name");
    ensure!(days > 0, "a certificate is valid for a day at least");
    let (ca_file, ca_key_file) = files(folder, "ca");
    let read = |file: &Path| {
        fs::read_to_string(file).with_context(|| {
            format!("cannot read {}; `gemel ca init` makes an authority", file.display())
        })
    };
    let (ca_pem, ca_key) = (read(&ca_file)?, KeyPair::from_pem(&read(&ca_key_file)?)?);
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key)
        .with_context(|| format!("{} is not a certificate", ca_file.display()))?;
    let (certificate, key) = files(folder, &name);
    refuse_to_overwrite(&[&certificate, &key])?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issued = server_params(&name, i64::from(days))?.signed_by(&pair, &issuer)?;
    write_new(&key, &pair.serialize_pem(), 0o600)?;
    write_new(&certificate, &issued.pem(), 0o644)?;
    Ok((certificate, key))
}

/// The certificate of a server, good for both ends of a connection.
pub(crate) fn server_params(name: &str, days: i64) -> Result<CertificateParams> {
    let mut params = params(name, days)?;
    params.subject_alt_names = CertificateParams::new([name.to_owned()])?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(common_name: &str, days: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now.checked_add(Duration::days(days)).context("too many days")?;
    // RFC 5280 section 4.1.2.5: the form of the date ends with the year 9999.
    ensure!(params.not_after.year() <= 9999, "too many days");
    Ok(params)
}

fn files(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")))
}

fn refuse_to_overwrite(files: &[&Path]) -> Result<()> {
    for file in files {
        ensure!(!file.exists(), "{} exists already; remove it to make a new one", file.display());
    }
    Ok(())
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn issues_and_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        assert!(issue(&folder, "one", 1).unwrap_err().to_string().contains("gemel ca init"));
        init(&folder).unwrap();
        let (certificate, key) = issue(&folder, "One.example.net", 30).unwrap();
        assert_eq!(certificate, folder.join("one.example.net.pem"));
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(&key).unwrap();
        for error in [
            init(&folder).unwrap_err(),
            issue(&folder, "one.example.net", 30).unwrap_err(),
            issue(&folder, "ca", 30).unwrap_err(),
            issue(&folder, "a b", 30).unwrap_err(),
            issue(&folder, "../one", 30).unwrap_err(),
            issue(&folder, "192.0.2.1", 30).unwrap_err(),
            issue(&folder, "two", 0).unwrap_err(),
            issue(&folder, "two", u32::MAX).unwrap_err(),
        ] {
            assert!(!error.to_string().is_empty());
        }
        assert_eq!(fs::read(&key).unwrap(), before);
        // Nothing half made is left behind.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    }
}
