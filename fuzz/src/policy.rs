//! Policies and the names in signatures.

use volio::transport::Location;
use volio::trust::{PublicKey, Requirement, SignaturePolicy};

const KEY: &str = include_str!("../../fixtures/keys/signer.pub");

/// Parses a policy and evaluates it for images. After a zero byte follows the name that a signature claims.
pub fn policy(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (json, claimed) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let read_key = |_: &std::path::Path| PublicKey::from_pem(KEY);
    let policy = match SignaturePolicy::from_json(json, &read_key) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let claimed = String::from_utf8_lossy(claimed);
    for name in ["registry.example:5000/team/data:v1", "alpine", "oci:/:v1", "docker-archive:a.tar:h.io/a:1"]
    {
        let image: Location = name.parse().unwrap();
        let requirements = policy.requirements_for(&image).unwrap();
        assert!(!requirements.is_empty());
        for requirement in requirements {
            let Requirement::Signed { keys, identity } = requirement else { continue };
            assert!(!keys.is_empty() && !identity.to_string().is_empty());
            assert!(!identity.accepts(&image, None));
            let is_accepted = identity.accepts(&image, Some(&claimed));
            // A name that is no reference is never accepted.
            assert!(!is_accepted || claimed.parse::<volio::Reference>().is_ok());
        }
    }
}
